"""What the two ends of a link ask of the unit that uses them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import Interface


@dataclass(frozen=True)
class Item:
    """Something to be sent: ``size`` bytes with the digest ``sha256``, and facts about them."""

    id: str
    kind: str
    size: int
    sha256: str
    meta: Mapping[str, Any] = field(default_factory=dict)


class Hash(Protocol):
    """The part of a hashlib object that a receiver needs."""

    def update(self, data: bytes, /) -> None:
        """Feed bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes fed."""


class ITransfer(Interface):
    """The receiving side of one accepted item. Calls come strictly one after another, `cut` at any time."""

    def write(offset: int, data: bytes) -> Deferred[None]:
        """Keep ``data``, which begins at ``offset``; fire when it is durable.

        Called again before the first has fired (at most the link's window), always with the next offset; every
        call but the last of an item carries exactly the chunk size. Errback with `RefusedError` to refuse the item.
        """

    def finish() -> Deferred[None]:
        """Make the whole item, whose digest was verified, durable and visible, then fire: the ACK follows.

        Errback with `RefusedError` to refuse it.
        """

    def discard() -> Deferred[None]:
        """Forget the bytes kept so far: they do not have the promised digest. The next offer begins at 0."""

    def cut() -> None:
        """The connection is gone; keep what is durable for a later resume and release everything else."""


@dataclass(frozen=True)
class Accept:
    """Send it, from ``offset``; ``digest`` has been fed with the bytes before that."""

    transfer: Any  # an ITransfer; zope interfaces are not types of dataclass fields
    offset: int
    digest: Hash


@dataclass(frozen=True)
class Duplicate:
    """This item, with this digest, is durable and visible already."""


@dataclass(frozen=True)
class Refuse:
    """Not wanted: for good, or (``retry``) for now. ``code`` is a short kebab-case word, ``reason`` for people."""

    code: str
    reason: str
    retry: bool


Verdict = Accept | Duplicate | Refuse


class RefusedError(Exception):
    """Raised by an `ITransfer` to refuse its item."""

    def __init__(self, code: str, reason: str, retry: bool) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.retry = retry


class IIntake(Interface):
    """Decides about offered items; one for a receiver's factory, used by all its connections."""

    def hello(node: str) -> str | None:
        """Return None to welcome ``node``, or the reason why it may not speak to us."""

    def offered(node: str, item: Item) -> Deferred[Verdict]:
        """Decide about an item that ``node`` offers. A failure is answered as a retryable refusal."""


class IOutbox(Interface):
    """What a sender has to send. One sender connection takes one item at a time."""

    def next_item() -> Deferred[Item | None]:
        """Fire with the next item that is due, now or when there is one; None means: ask again.

        Cancelling the Deferred gives up the request; an item that was being taken then is given back.
        """

    def read(item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Read exactly ``size`` bytes at ``offset``. Calls are for rising offsets."""

    def progress(item: Item, kept: int) -> None:
        """The receiver has ``kept`` bytes durable."""

    def acknowledged(item: Item, duplicate: bool) -> Deferred[None]:
        """The receiver keeps the item; it may be forgotten. The next item is asked for when this fires."""

    def refused(item: Item, code: str, reason: str) -> Deferred[None]:
        """The receiver refuses the item for good."""

    def deferred(item: Item, code: str, reason: str) -> Deferred[None]:
        """The receiver refuses the item for now: offer it again after a pause that grows each time."""

    def interrupted(item: Item, code: str, reason: str) -> Deferred[None]:
        """The link ended, or the item could not be read, before there was an answer: offer it again.

        ``code`` is that of BYE, or ``connection-lost``, ``cut-off`` (by us) or ``unreadable``.
        """
