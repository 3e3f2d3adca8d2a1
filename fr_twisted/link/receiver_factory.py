"""The receiving ends of one node, and their end."""

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from fr_twisted.link.door import Door
from fr_twisted.link.interfaces import IIntake
from fr_twisted.link.protocol import LinkTimes
from fr_twisted.link.receiver import ReceiverProtocol
from fr_twisted.link.room import Room
from fr_twisted.link.wire import Bye
from fr_twisted.model import CHUNK_SIZE

FLUSH = 0.5
"""Seconds before the end of a drain in which who is still there is told BYE."""


class ReceiverFactory(Factory):
    """Makes the receiving ends of one node. ``memory`` bounds the bytes of chunks in flight over all of them.

    Args:
        node: our name.
        intake: an `IIntake`.
        clock: time.
        window: chunks that one sender may have sent and not seen kept.
        memory: bytes of chunks read and not yet kept, over all senders; senders beyond it are paused.
        max_item: bytes of the largest item taken.
        max_connections: connections that may be open, half of them from one address.
    """

    noisy = False

    def __init__(
        self,
        node: str,
        intake: Any,
        clock: IReactorTime,
        *,
        window: int = 4,
        chunk: int = CHUNK_SIZE,
        memory: int = 64 * 1024 * 1024,
        max_item: int = 2 * 1024**3,
        max_connections: int = 1024,
        times: LinkTimes | None = None,
    ) -> None:
        IIntake(intake)
        self.node, self.intake, self.clock = node, intake, clock
        self.chunk, self.window, self.max_item = chunk, window * chunk, max_item
        self.room = Room(max(1, memory // chunk))
        self.door = Door(max_connections, clock)
        self.times = times or LinkTimes()
        self.connections: set[ReceiverProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> ReceiverProtocol:
        """Return the end of a new connection."""
        protocol = ReceiverProtocol(self)
        protocol.factory = self
        return protocol

    def drain(self, seconds: float) -> Deferred[None]:
        """End every connection in order, by force after ``seconds``; fire when all are gone."""
        open_ones = list(self.connections)
        ended = DeferredList([protocol.finished for protocol in open_ones])
        for protocol in open_ones:
            protocol.drain()

        def leave_all() -> None:
            # Whose store hangs is told all the same: a peer that was told does not wonder.
            for protocol in list(self.connections):
                protocol.leave(Bye.SHUTDOWN, "this node is stopping; what is under way is to be sent again")

        def drop_all() -> None:
            for protocol in list(self.connections):
                protocol.drop()

        flush = min(FLUSH, seconds / 4)
        deadlines = [
            self.clock.callLater(seconds - flush, leave_all),
            self.clock.callLater(seconds, drop_all),
        ]

        def all_ended(_: object) -> None:
            for deadline in deadlines:
                if deadline.active():
                    deadline.cancel()

        return ended.addCallback(all_ended)


class DrainService(Service):
    """Ends a receiver's connections in order when its unit stops; the port must be closed before."""

    def __init__(self, factory: ReceiverFactory, seconds: float) -> None:
        self.factory = factory
        self.seconds = seconds

    def stopService(self) -> Deferred[None]:
        """Fire when every connection is gone, by force after ``seconds``."""
        super().stopService()
        return self.factory.drain(self.seconds)
