"""Parts of the receiving side: where a connection stands, and what is on its way in on it."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from fr_twisted.link.interfaces import Hash, Item


class Unread(Protocol):
    """Whoever wants to be told that its peer takes its words no more."""

    def unread(self) -> None:
        """The peer takes our words no more."""


class State(Enum):
    """Where a connection stands."""

    GREETING = auto()
    """HELLO said or to be said, the sender's awaited."""
    IDLE = auto()
    """An OFFER may come."""
    DECIDING = auto()
    """The intake decides about an offer."""
    RECEIVING = auto()
    """DATA may come."""
    FINISHING = auto()
    """All bytes were received; the last are being kept, or the item is being made visible."""


@dataclass
class Incoming:
    """An accepted item on its way in."""

    item: Item
    transfer: Any
    digest: Hash
    received: int
    kept: int
    writes: deque[list[int]] = field(default_factory=deque)
    """Chunks being kept, in order: ``[end offset, 1 when durable]``."""


@implementer(IPushProducer)
class Overflow:
    """Ends a connection whose peer does not read what it is told: a receiver's words are few and short."""

    def __init__(self, protocol: Unread) -> None:
        self._protocol = protocol

    def pauseProducing(self) -> None:
        """The transport's buffer (64 KiB) and the system's are full."""
        self._protocol.unread()

    def resumeProducing(self) -> None:
        """Nothing waits to be said."""

    def stopProducing(self) -> None:
        """Nothing to stop."""
