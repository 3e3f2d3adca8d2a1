"""The sending side: offers the items of an `IOutbox` one after another, keeps the window, comes back after a cut."""

from collections.abc import Callable
from enum import Enum, auto
from random import random
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.link import wire
from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.link.protocol import LinkProtocol, LinkTimes
from fr_twisted.link.wire import (
    Ack,
    Bye,
    Data,
    Go,
    Kept,
    Nack,
    Offer,
    ReceiverHello,
    SenderHello,
    WireError,
)

MAX_DELAY = 30.0
"""Seconds between two attempts to connect, at most."""


class State(Enum):
    """Where a connection stands."""

    GREETING = auto()
    """The receiver's HELLO is awaited."""
    READY = auto()
    """The next item is awaited from the outbox."""
    OFFERED = auto()
    SENDING = auto()
    SENT = auto()
    """All bytes were sent; ACK or NACK is awaited."""
    SETTLING = auto()
    """The outbox notes how an item ended."""


class SenderProtocol(LinkProtocol):
    """One connection to a receiver. ``state`` is `State`; ``item`` is the one on its way."""

    _log = Logger()
    frames = wire.FROM_RECEIVER

    def __init__(self, factory: "ReconnectingSenderFactory") -> None:
        super().__init__(factory.clock, factory.times)
        self.owner = factory
        self.state = State.GREETING
        self.item: Item | None = None
        self.limits = ReceiverHello(proto=wire.PROTO, node="unknown", window=1, chunk=1, max_item=1)
        self.sent = self.kept = 0
        self.finished: Deferred[None] = Deferred()
        self._reading = False
        self._asking: Deferred[Any] | None = None

    # -- the life of a connection

    def authenticated(self) -> None:
        """The receiver speaks first."""
        self.owner.connection = self

    def greeted(self) -> bool:
        """Return whether the receiver said HELLO."""
        return self.state is not State.GREETING

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give the item back: it is offered again on the next connection."""
        super().connectionLost(reason)
        if self.owner.connection is self:
            self.owner.connection = None
        if self.goodbye is not None:
            code, why = self.goodbye.code, self.goodbye.reason
        else:
            code, why = "connection-lost", reason.getErrorMessage()
        if self.greeted():
            self._log.info(
                "the link to {peer} ended: {code}: {reason}",
                peer=self.name(),
                code=code,
                reason=why,
                event="link.lost",
            )
        self.cut_off(code, why)
        self.finished.callback(None)

    def cut_off(self, code: str = "cut-off", reason: str = "the receiver did not keep the rules") -> None:
        """Give up what is on its way."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        item, self.item = self.item, None
        if item is not None:
            self._settle(self.owner.outbox.interrupted, item, code, reason)

    # -- frames

    def handle_HELLO(self, frame: ReceiverHello) -> None:
        """Say who we are, and begin."""
        if self.greeted():
            self.abort(Bye.OUT_OF_ORDER, "a second HELLO")
            return
        if frame.proto != wire.PROTO:
            self.abort(Bye.PROTOCOL_VERSION, f"{wire.PROTO} is spoken here")
            return
        if frame.window < frame.chunk:
            self.abort(Bye.BAD_SIZE, "a window smaller than a chunk")
            return
        if self.owner.expects not in (None, frame.node):
            self.abort(Bye.NODE_REFUSED, f"{self.owner.expects} was dialled, and this is {frame.node}")
            return
        self.limits = frame
        self.peer_node = frame.node
        self.say(SenderHello(proto=wire.PROTO, node=self.owner.node))
        self._log.info("linked to {peer}", peer=frame.node, event="link.connected")
        self.owner.greeted(self)
        self._next()

    def handle_GO(self, frame: Go) -> None:
        """Send from there."""
        item = self._expect(frame.id, State.OFFERED)
        if item is None:
            return
        if frame.offset > item.size or (frame.offset % self.limits.chunk and frame.offset != item.size):
            self.abort(
                Bye.BAD_OFFSET, f"GO at {frame.offset} of {item.size} bytes in chunks of {self.limits.chunk}"
            )
            return
        self.sent = self.kept = frame.offset
        self.state = State.SENDING
        self._pump()

    def handle_KEPT(self, frame: Kept) -> None:
        """Move the window."""
        item = self._expect(frame.id, State.SENDING, State.SENT)
        if item is None:
            return
        if not self.kept <= frame.offset <= self.sent:
            self.abort(Bye.BAD_OFFSET, f"KEPT {frame.offset}, of {self.sent} bytes sent and {self.kept} kept")
            return
        self.kept = frame.offset
        self.owner.outbox.progress(item, frame.offset)
        self._pump()

    def handle_ACK(self, frame: Ack) -> None:
        """The item is kept: forget it."""
        states = (State.OFFERED,) if frame.duplicate else (State.SENT,)
        item = self._expect(frame.id, *states)
        if item is None:
            return
        if frame.sha256 != item.sha256:
            self.abort(Bye.SHA256_MISMATCH, "ACK of other bytes than were offered")
            return
        self.item = None
        self._settle(self.owner.outbox.acknowledged, item, frame.duplicate)

    def handle_NACK(self, frame: Nack) -> None:
        """The item is refused, for now or for good."""
        item = self._expect(frame.id, State.OFFERED, State.SENDING, State.SENT)
        if item is None:
            return
        self.item = None
        outbox = self.owner.outbox
        self._settle(outbox.deferred if frame.retry else outbox.refused, item, frame.code, frame.reason)

    def _expect(self, item_id: str, *states: State) -> Item | None:
        """Return the item on its way; cut the receiver off if this is not about it or not its time."""
        if self.item is None or self.item.id != item_id or self.state not in states:
            self.abort(Bye.OUT_OF_ORDER, "an answer to what was not asked")
            return None
        return self.item

    # -- an item

    def _next(self) -> None:
        if self.closing:
            return
        self.state = State.READY
        self._asking = asking = maybeDeferred(self.owner.outbox.next_item)
        asking.addCallbacks(self._offer, self._no_item)
        asking.addErrback(self._defect)

    def _offer(self, item: Item | None) -> None:
        self._asking = None
        if item is None:
            self._next()
            return
        if self.closing:
            self._settle(self.owner.outbox.interrupted, item, "connection-lost", "the link ended")
            return
        self.item, self.state, self.sent, self.kept = item, State.OFFERED, 0, 0
        try:
            self.say(
                Offer(id=item.id, kind=item.kind, size=item.size, sha256=item.sha256, meta=dict(item.meta))
            )
        except (WireError, ValueError) as error:
            self.item = None
            self._settle(self.owner.outbox.refused, item, "bad-item", f"it cannot be offered: {error}")

    def _no_item(self, failure: Failure) -> None:
        self._asking = None
        if self.closing and failure.check(CancelledError):
            return
        self._log.failure("the outbox failed", failure, event="link.outbox-failed")
        self.leave(Bye.INTERNAL, "the sender cannot read what it has to send")

    def _pump(self) -> None:
        """Send chunks while the window is open; one read at a time."""
        item = self.item
        if item is None or self._reading or self.state is not State.SENDING or self.closing:
            return
        if self.sent == item.size:
            self.state = State.SENT
            return
        size = min(self.limits.chunk, item.size - self.sent)
        if self.sent + size - self.kept > self.limits.window:
            return
        self._reading = True
        reading = maybeDeferred(self.owner.outbox.read, item, self.sent, size)
        reading.addBoth(self._read_over)
        reading.addCallbacks(
            self._send, self._unreadable, callbackArgs=(item, self.sent, size), errbackArgs=(item,)
        )
        reading.addErrback(self._defect)

    def _read_over(self, result: Any) -> Any:
        self._reading = False
        return result

    def _send(self, data: bytes, item: Item, offset: int, size: int) -> None:
        if self.item is not item or self.state is not State.SENDING or self.sent != offset:
            self._pump()  # of another item, which found a read under way
            return
        if len(data) != size:
            self._gone(item, f"{len(data)} bytes where {size} were awaited")
            return
        self.say(Data(id=item.id, offset=self.sent, size=size), data)
        self.sent += size
        self._pump()

    def _unreadable(self, failure: Failure, item: Item) -> None:
        if self.item is item and self.state is State.SENDING:
            self._gone(item, failure.getErrorMessage())
        else:
            self._pump()  # of another item, which found a read under way

    def _gone(self, item: Item, reason: str) -> None:
        """Break off: the receiver awaits bytes that we do not have."""
        self.item = None
        self._settle(self.owner.outbox.interrupted, item, "unreadable", reason)
        self.leave(Bye.ITEM_GONE, "the sender can no longer read the item")

    def _settle(self, call: Any, *args: Any) -> None:
        """Let the outbox note how the item ended, then go on."""
        self.state = State.SETTLING
        settling = maybeDeferred(call, *args)
        settling.addCallbacks(lambda _: self._next(), self._not_settled)
        settling.addErrback(self._defect)

    def _not_settled(self, failure: Failure) -> None:
        self._log.failure("the outbox could not note how an item ended", failure, event="link.outbox-failed")
        self.leave(Bye.INTERNAL, "the sender cannot note what was kept")

    def _defect(self, failure: Failure) -> None:
        self._log.failure("a defect in the sender", failure, event="link.defect")
        self.abort(Bye.INTERNAL, "a defect here; it is in the log")


class ReconnectingSenderFactory(Factory):
    """Makes the sending ends of a node's link to one receiver, and says when to dial again.

    Twisted's ReconnectingClientFactory does not reconnect over endpoints, and ClientService forgets its failures as
    soon as TCP connects. So `SenderService` drives this factory's `retry_policy`, whose count is reset by HELLO only:
    a receiver that accepts and then drops us is not dialled ever faster.

    With ``expects``, what is sent is for the node of that name alone: any other that answers gets nothing.
    """

    noisy = False

    def __init__(
        self,
        node: str,
        outbox: Any,
        clock: IReactorTime,
        *,
        expects: str | None = None,
        times: LinkTimes | None = None,
        initial_delay: float = 1.0,
        max_delay: float = MAX_DELAY,
        jitter: Callable[[], float] = random,
    ) -> None:
        IOutbox(outbox)
        self.node, self.outbox, self.clock = node, outbox, clock
        self.expects = expects
        self.times = times or LinkTimes()
        self.connection: SenderProtocol | None = None
        self._policy = backoffPolicy(initial_delay / 2, max_delay, 2.0, lambda: 0.0)
        self._jitter = jitter
        self._failures = 0
        self._waiting: list[Deferred[str]] = []

    def buildProtocol(self, addr: IAddress | None) -> SenderProtocol:
        """Return the end of a new connection."""
        protocol = SenderProtocol(self)
        protocol.factory = self
        return protocol

    def retry_policy(self, attempt: int) -> float:
        """Return the seconds to wait before dialling again; ClientService's own count is ignored.

        Doubled with each failure up to ``max_delay``; up to a quarter less by chance, so that many nodes that lost
        one receiver do not come back as one.
        """
        self._failures += 1
        return float(self._policy(self._failures)) * (1.0 - 0.25 * float(self._jitter()))

    def reset_delay(self) -> None:
        """The receiver welcomed us: the next cut is a first one."""
        self._failures = 0

    def greeted(self, protocol: SenderProtocol) -> None:
        """A connection got its HELLO."""
        self.reset_delay()
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.callback(protocol.peer_node)

    def when_ready(self) -> Deferred[str]:
        """Fire with the receiver's node when it said HELLO: now, or on the next connection."""
        ready: Deferred[str] = Deferred(lambda d: self._waiting.remove(d) if d in self._waiting else None)
        if self.connection is not None and self.connection.greeted() and not self.connection.closing:
            ready.callback(self.connection.peer_node)
        else:
            self._waiting.append(ready)
        return ready


class SenderService(Service):
    """Keeps one link to ``endpoint`` up while it runs; stops in order within ``stop_timeout`` seconds."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, factory: ReconnectingSenderFactory, stop_timeout: float = 2.0
    ) -> None:
        self.factory = factory
        self.stop_timeout = stop_timeout
        self._client = ClientService(endpoint, factory, factory.retry_policy, factory.clock)

    def startService(self) -> None:
        """Dial."""
        super().startService()
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """Say BYE and hang up; by force after ``stop_timeout``. An item under way is resumed by the next start."""
        super().stopService()
        connection = self.factory.connection
        if connection is not None:
            connection.leave(Bye.DONE if connection.item is None else Bye.SHUTDOWN, "the sender stops")
        stopping: Deferred[None] = maybeDeferred(self._client.stopService)
        force = self.factory.clock.callLater(self.stop_timeout, self._force)

        def stopped(result: Any) -> Any:
            if force.active():
                force.cancel()
            return result

        return stopping.addBoth(stopped)

    def _force(self) -> None:
        if self.factory.connection is not None:
            self.factory.connection.drop()
