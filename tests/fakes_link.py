"""Twins of what a link stands on: an intake, an outbox, and a wire between two protocols that a test can cut."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.link.interfaces import (
    Accept,
    Duplicate,
    IIntake,
    IOutbox,
    Item,
    ITransfer,
    Refuse,
    RefusedError,
    Verdict,
)


def make_item(data: bytes, item_id: str = "item-1", kind: str = "scan", **meta: Any) -> Item:
    """Return the item whose bytes are ``data``."""
    return Item(item_id, kind, len(data), hashlib.sha256(data).hexdigest(), meta)


@implementer(ITransfer)
class MemoryTransfer:
    """Keeps chunks in the intake's memory; with ``intake.holding`` only when the test says so."""

    def __init__(self, intake: "MemoryIntake", item: Item) -> None:
        self.intake, self.item = intake, item
        self.was_cut = False

    def write(self, offset: int, data: bytes) -> Deferred[None]:
        """Keep a chunk."""

        def keep() -> None:
            self.intake.chunks.setdefault(self.item.id, {})[offset] = data

        return self.intake.act(keep)

    def finish(self) -> Deferred[None]:
        """Make the item visible."""

        def make_visible() -> None:
            data = b"".join(d for _, d in sorted(self.intake.chunks.pop(self.item.id, {}).items()))
            assert len(data) == self.item.size
            self.intake.stored.append((self.item.id, data))

        return self.intake.act(make_visible)

    def discard(self) -> Deferred[None]:
        """Forget the chunks."""
        self.intake.chunks.pop(self.item.id, None)
        return succeed(None)

    def cut(self) -> None:
        """Note it."""
        self.was_cut = True


@implementer(IIntake)
class MemoryIntake:
    """Stores items in ``stored``. ``holding`` delays every action until `release`; ``failures`` are raised first."""

    def __init__(self, refuse: Refuse | None = None, unwelcome: str | None = None) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.chunks: dict[str, dict[int, bytes]] = {}
        self.transfers: list[MemoryTransfer] = []
        self.refuse, self.unwelcome = refuse, unwelcome
        self.holding = False
        self.held: list[tuple[Deferred[None], Callable[[], None]]] = []
        self.failures: list[Exception] = []

    def act(self, action: Callable[[], None]) -> Deferred[None]:
        """Do it now, or when released."""
        if self.failures:
            return fail(self.failures.pop(0))
        if self.holding:
            done: Deferred[None] = Deferred()
            self.held.append((done, action))
            return done
        action()
        return succeed(None)

    def release(self, count: int = 1, last: bool = False) -> None:
        """Let held actions happen, the oldest first or the ``last`` first."""
        for _ in range(count):
            done, action = self.held.pop(-1 if last else 0)
            action()
            done.callback(None)

    def hello(self, node: str) -> str | None:
        """Welcome all, or none."""
        return self.unwelcome

    def offered(self, node: str, item: Item) -> Deferred[Verdict]:
        """Accept what is not stored yet, from the first chunk that is missing."""
        if self.failures:
            return fail(self.failures.pop(0))
        if self.refuse is not None:
            return succeed(self.refuse)
        for stored_id, data in self.stored:
            if stored_id == item.id:
                if hashlib.sha256(data).hexdigest() == item.sha256:
                    return succeed(Duplicate())
                return fail(RefusedError("conflict", "other bytes are kept under this id", retry=False))
        digest, offset = hashlib.sha256(), 0
        while (chunk := self.chunks.get(item.id, {}).get(offset)) is not None:
            digest.update(chunk)
            offset += len(chunk)
        self.transfers.append(MemoryTransfer(self, item))
        return succeed(Accept(self.transfers[-1], offset, digest))


@implementer(IOutbox)
class MemoryOutbox:
    """Offers ``items`` in order, again after a deferral; notes how each ended."""

    def __init__(self, *contents: tuple[Item, bytes]) -> None:
        self.items = [item for item, _ in contents]
        self.bytes = {item.id: data for item, data in contents}
        self.events: list[tuple[Any, ...]] = []
        self.reads: list[int] = []
        self.waiting: Deferred[Item | None] | None = None
        self.unreadable = False
        self.retry = True

    def add(self, item: Item, data: bytes) -> None:
        """Have one more to send."""
        self.bytes[item.id] = data
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(item)
        else:
            self.items.append(item)

    def next_item(self) -> Deferred[Item | None]:
        """Fire with the first item, or when there is one."""
        if self.items:
            return succeed(self.items.pop(0))

        def give_up(_: object) -> None:
            self.waiting = None

        self.waiting = Deferred(give_up)
        return self.waiting

    def read(self, item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Return bytes of the item."""
        if self.unreadable:
            return fail(OSError("the file is gone"))
        self.reads.append(offset)
        return succeed(self.bytes[item.id][offset : offset + size])

    def progress(self, item: Item, kept: int) -> None:
        """Note it."""
        self.events.append(("progress", item.id, kept))

    def acknowledged(self, item: Item, duplicate: bool) -> Deferred[None]:
        """Note it."""
        self.events.append(("acknowledged", item.id, duplicate))
        return succeed(None)

    def refused(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Note it."""
        self.events.append(("refused", item.id, code))
        return succeed(None)

    def deferred(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Note it, and offer the item again."""
        self.events.append(("deferred", item.id, code))
        if self.retry:
            self.items.insert(0, item)
        return succeed(None)

    interrupted = deferred

    def outcomes(self) -> list[tuple[Any, ...]]:
        """Return how items ended, without progress."""
        return [event for event in self.events if event[0] != "progress"]


@implementer(ITransport, IConsumer)
class WireEnd:
    """The transport of one end of a `Wire`: what is written waits in ``out`` until the wire delivers it."""

    disconnecting = False

    def __init__(self, wire: "Wire", protocol: Any) -> None:
        self.wire, self.protocol = wire, protocol
        self.out = bytearray()
        self.lost = self.paused = False

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if not (self.lost or self.disconnecting):
            self.out += data

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Queue bytes."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close once flushed."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """Close now."""
        self.out.clear()
        self.wire.cut(clean=False)

    def pauseProducing(self) -> None:
        """Deliver nothing here."""
        assert not self.lost
        self.paused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        assert not self.lost
        self.paused = False

    def getPeer(self) -> IPv4Address:
        """Return an address."""
        return IPv4Address("TCP", "192.0.2.1", 7801)

    getHost = getPeer

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Not used by the link."""

    def unregisterProducer(self) -> None:
        """Not used by the link."""


class Wire:
    """Two protocols and the bytes between them; `step` delivers some, `cut` ends it."""

    def __init__(self, first: Any, second: Any) -> None:
        self.ends = (WireEnd(self, first), WireEnd(self, second))
        self.delivered = 0
        self.is_cut = False
        for end in self.ends:
            end.protocol.makeConnection(end)

    def step(self, limit: int | None = None) -> int:
        """Deliver at most ``limit`` bytes of the first end that has some; return how many."""
        for sender, receiver in (self.ends, self.ends[::-1]):
            if self.is_cut:
                return 0
            if sender.out and not receiver.paused:
                data = bytes(sender.out[:limit])
                del sender.out[: len(data)]
                self.delivered += len(data)
                receiver.protocol.dataReceived(data)
                return len(data)
        if any(end.disconnecting and not end.out for end in self.ends):
            self.cut(clean=True)
        return 0

    def flush(self) -> None:
        """Deliver until nothing moves."""
        while self.step():
            pass

    def cut(self, clean: bool = False) -> None:
        """End the connection on both sides."""
        if self.is_cut:
            return
        self.is_cut = True
        reason = Failure(ConnectionDone() if clean else ConnectionLost())
        for end in self.ends:
            end.lost = True
        for end in self.ends:
            end.protocol.connectionLost(reason)
