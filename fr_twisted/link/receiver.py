"""The receiving side: welcomes senders, takes their items in chunks, acknowledges what its `IIntake` has kept."""

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.link import wire
from fr_twisted.link.incoming import Incoming, Overflow, State
from fr_twisted.link.interfaces import Accept, Duplicate, Item, RefusedError, Verdict
from fr_twisted.link.protocol import LinkProtocol
from fr_twisted.link.room import Permit
from fr_twisted.link.wire import Ack, Bye, Data, Go, Kept, Nack, Offer, ReceiverHello, SenderHello

if TYPE_CHECKING:
    from fr_twisted.link.receiver_factory import ReceiverFactory

EARNEST = 64
"""The first such part of a chunk is read before it gets room: who announces chunks, or trickles them, takes none."""


class ReceiverProtocol(LinkProtocol):
    """One connection of a sender. ``state`` is `State`; at most one item is on its way."""

    _log = Logger()
    frames = wire.FROM_SENDER

    def __init__(self, factory: "ReceiverFactory") -> None:
        super().__init__(factory.clock, factory.times)
        self.owner = factory
        self.state = State.GREETING
        self.incoming: Incoming | None = None
        self.finished: Deferred[None] = Deferred()
        self._draining = False
        self._permit: Permit | None = None
        self._awaited: Deferred[Any] | None = None
        self._proven = False
        self._minded = False
        """Whether the transport tells us when its buffer is full."""
        self.address = ""
        self._refused_id = ""
        self._asking: Deferred[Any] | None = None

    # -- the life of a connection

    def connectionMade(self) -> None:
        """Join the factory's connections, within its limit."""
        assert self.transport is not None
        self.address = str(getattr(self.transport.getPeer(), "host", ""))
        self.owner.connections.add(self)
        self.owner.door.enter(self)
        super().connectionMade()

    def authenticated(self) -> None:
        """Say HELLO, with our limits."""
        assert self.transport is not None
        # Not sooner: with TLS, words before the end of the handshake wait for the peer, and that is no fault of its.
        cast(IConsumer, self.transport).registerProducer(Overflow(self), True)
        self._minded = True
        owner = self.owner
        if (reason := owner.door.refusal(self)) is not None:
            self.leave(Bye.NODE_REFUSED, reason)
            return
        self.say(
            ReceiverHello(
                proto=wire.PROTO,
                node=owner.node,
                window=owner.window,
                chunk=owner.chunk,
                max_item=owner.max_item,
            )
        )

    def greeted(self) -> bool:
        """Return whether the sender said who it is."""
        return self.state is not State.GREETING

    def proven(self) -> bool:
        """Return whether the sender completed a chunk on this connection."""
        return self._proven

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep what is durable, release the rest."""
        super().connectionLost(reason)
        self.owner.connections.discard(self)
        self.owner.door.leave(self)
        self.cut_off()
        if self.peer_node:
            self._log.info("{peer} is gone", peer=self.peer_node, event="link.lost")
        self.finished.callback(None)

    def cut_off(self) -> None:
        """Give the transfer up; a later offer resumes it."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            incoming.transfer.cut()
        self._return_room()
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    # -- frames

    def handle_HELLO(self, frame: SenderHello) -> None:
        """Welcome the sender, or tell it why not."""
        if self.greeted():
            self.abort(Bye.OUT_OF_ORDER, "a second HELLO")
        elif frame.proto != wire.PROTO:
            self.abort(Bye.PROTOCOL_VERSION, f"{wire.PROTO} is spoken here")
        elif (reason := self.owner.intake.hello(frame.node)) is not None:
            self.abort(Bye.NODE_REFUSED, reason)
        else:
            self.peer_node = frame.node
            self.state = State.IDLE
            self._log.info("{peer} is connected", peer=frame.node, event="link.connected")

    def handle_OFFER(self, frame: Offer) -> None:
        """Ask the intake."""
        if self.state is not State.IDLE:
            self.abort(Bye.OUT_OF_ORDER, "OFFER while an item is on its way")
            return
        self._refused_id = ""
        if self._draining:
            self.say(Nack(id=frame.id, code="shutdown", retry=True, reason="this node is stopping"))
            return
        if frame.size > self.owner.max_item:
            reason = f"{frame.size} bytes; at most {self.owner.max_item} are taken here"
            self.say(Nack(id=frame.id, code="too-large", retry=False, reason=reason))
            return
        item = Item(frame.id, frame.kind, frame.size, frame.sha256, frame.meta)
        self.state = State.DECIDING
        asking = maybeDeferred(self.owner.intake.offered, self.peer_node, item)
        asking = self._asked(asking.addTimeout(self.times.decide, self.clock))
        asking.addCallbacks(self._decided, self._not_kept, callbackArgs=(item,), errbackArgs=(item.id,))
        asking.addErrback(self._defect)

    def handle_DATA(self, frame: Data) -> None:
        """Take a chunk, once there is room for it."""
        incoming = self.incoming
        if incoming is None and frame.id == self._refused_id and frame.size <= self.owner.chunk:
            self.receive_chunk(frame.size, None)  # sent before our NACK arrived
        elif incoming is None or frame.id != incoming.item.id:
            self.abort(Bye.OUT_OF_ORDER, "DATA of an item that was not asked for")
        elif frame.offset != incoming.received:
            self.abort(Bye.BAD_OFFSET, f"DATA at {frame.offset}, awaited at {incoming.received}")
        elif frame.size > incoming.item.size - incoming.received:
            self.abort(Bye.BAD_SIZE, f"{frame.size} bytes at {frame.offset} are more than were offered")
        elif frame.size != min(self.owner.chunk, incoming.item.size - incoming.received):
            self.abort(
                Bye.BAD_SIZE, f"a chunk of {frame.size} bytes; all but the last have {self.owner.chunk}"
            )
        elif frame.offset + frame.size - incoming.kept > self.owner.window:
            self.abort(Bye.WINDOW_EXCEEDED, f"more than {self.owner.window} bytes not yet kept")
        elif first := min(frame.size, self.owner.chunk // EARNEST):
            self.receive_chunk(first, lambda begun: self._await_room(incoming, frame.size, begun))
        else:
            self._await_room(incoming, frame.size, b"")

    def _await_room(self, incoming: Incoming, size: int, begun: bytes) -> None:
        """Read the rest when the node's memory for chunks in flight allows, and pause the peer until then."""

        def granted(permit: Permit) -> None:
            self._awaited = None
            self._permit = permit
            if self.closing or self.incoming is not incoming:
                self._return_room()
            if self.closing:
                return
            missing, received = size - len(begun), self._chunk_complete if self._permit else None
            if missing:
                self.receive_chunk(missing, received, begun)
            elif received is not None:
                received(begun)
            if self.paused:
                self.resumed()
                self.resumeProducing()

        room = self._awaited = self.owner.room.acquire(self.address, self._proven)
        room.addCallback(granted)
        room.addErrback(lambda failure: None if failure.check(CancelledError) else self._defect(failure))
        if self._awaited is not None:
            self.pauseProducing()

    def crowded(self) -> bool:
        """Return whether others wait for the room that our chunk takes."""
        return self._permit is not None and self.owner.room.wanted(self._permit)

    # -- an item

    def _decided(self, verdict: Verdict, item: Item) -> None:
        if self.closing:
            if isinstance(verdict, Accept):
                verdict.transfer.cut()
        elif isinstance(verdict, Accept):
            self.incoming = Incoming(item, verdict.transfer, verdict.digest, verdict.offset, verdict.offset)
            self.state = State.RECEIVING
            if verdict.offset:
                self._log.info(
                    "{peer} resumes {item_id} at byte {offset}",
                    event="link.resumed",
                    peer=self.peer_node,
                    item_id=item.id,
                    offset=verdict.offset,
                )
            self.say(Go(id=item.id, offset=verdict.offset))
            self._go_on(self.incoming)
        elif isinstance(verdict, Duplicate):
            self._answer(Ack(id=item.id, sha256=item.sha256, duplicate=True))
        else:
            self._refuse(item.id, verdict.code, verdict.reason, verdict.retry)

    def _chunk_complete(self, data: bytes) -> None:
        incoming, permit = self.incoming, self._permit
        self._proven = True
        if incoming is None or permit is None:  # refused while the chunk was on its way
            self._return_room()
            return
        offset = incoming.received
        incoming.received += len(data)
        incoming.digest.update(data)
        if incoming.received == incoming.item.size:
            self.state = State.FINISHING
            if incoming.digest.hexdigest() != incoming.item.sha256:
                self._mismatch(incoming)
                return
        write = [incoming.received, 0]
        incoming.writes.append(write)
        self._permit = None  # the write returns it
        self.owner.room.prove(permit)
        kept = self._guarded(incoming.transfer.write, offset, data)
        kept.addBoth(self._write_over, permit)
        kept.addCallbacks(
            self._chunk_kept, self._transfer_failed, callbackArgs=(incoming, write), errbackArgs=(incoming,)
        )
        kept.addErrback(self._defect)

    def _chunk_kept(self, _: object, incoming: Incoming, write: list[int]) -> None:
        write[1] = 1
        kept = incoming.kept
        while incoming.writes and incoming.writes[0][1]:
            incoming.kept = incoming.writes.popleft()[0]
        if self.incoming is incoming and incoming.kept > kept:
            self.say(Kept(id=incoming.item.id, offset=incoming.kept))
            self._go_on(incoming)

    def _go_on(self, incoming: Incoming) -> None:
        """Finish the item if every byte is kept; else end here if we are stopping."""
        if incoming.kept < incoming.item.size:
            if self._draining and not incoming.writes:
                self.leave(Bye.SHUTDOWN, "this node is stopping; what was kept need not be sent again")
            return
        self.state = State.FINISHING
        if incoming.digest.hexdigest() != incoming.item.sha256:
            self._mismatch(incoming)
            return
        finishing = self._guarded(incoming.transfer.finish)
        finishing.addCallbacks(
            self._item_kept, self._transfer_failed, callbackArgs=(incoming,), errbackArgs=(incoming,)
        )
        finishing.addErrback(self._defect)

    def _item_kept(self, _: object, incoming: Incoming) -> None:
        """The whole item is durable and visible: this, and nothing else, is what ACK means."""
        if self.incoming is not incoming:
            return
        self._answer(Ack(id=incoming.item.id, sha256=incoming.item.sha256))

    def _mismatch(self, incoming: Incoming) -> None:
        """The bytes are not the promised ones: forget them, and cut the sender off.

        Its next connection offers the item again, from its first byte.
        """
        self.incoming = None
        forgetting = self._guarded(incoming.transfer.discard)
        forgetting.addErrback(
            lambda failure: self._log.failure(
                "forgetting {item_id}", failure, item_id=incoming.item.id, event="link.keep-failed"
            )
        )
        self.abort(
            Bye.SHA256_MISMATCH, f"the bytes of {incoming.item.id} do not have the sha256 that was offered"
        )

    def _transfer_failed(self, failure: Failure, incoming: Incoming) -> None:
        if self.incoming is incoming:
            self.incoming = None
            incoming.transfer.cut()
            self._not_kept(failure, incoming.item.id)

    def _not_kept(self, failure: Failure, item_id: str) -> None:
        """Refuse: as the intake says, or for now when it failed."""
        if self.closing:
            return
        if isinstance(failure.value, RefusedError):
            self._refuse(item_id, failure.value.code, failure.value.reason, failure.value.retry)
            return
        self._log.failure("keeping {item_id} failed", failure, item_id=item_id, event="link.keep-failed")
        self._refuse(item_id, "not-kept", "it could not be kept; try again later", True)

    def _refuse(self, item_id: str, code: str, reason: str, retry: bool) -> None:
        self._refused_id = item_id
        self._log.warn(
            "refused {item_id}: {code}: {reason}",
            item_id=item_id,
            code=code,
            reason=reason,
            event="link.refused",
        )
        self._answer(Nack(id=item_id, code=code, retry=retry, reason=wire.shorten(reason)))

    def _answer(self, frame: Ack | Nack) -> None:
        """Say the last word about an item."""
        self.incoming = None
        self.state = State.IDLE
        self.say(frame)
        if self._draining:
            self.leave(Bye.SHUTDOWN, "this node is stopping")

    # -- ends

    def peer_sends(self) -> bool:
        """While an item comes."""
        return self.state is State.RECEIVING

    def closes(self) -> None:
        """Let the transport close without waiting for us."""
        if self._minded and self.transport is not None:
            self._minded = False
            cast(IConsumer, self.transport).unregisterProducer()

    def unread(self) -> None:
        """The peer takes our words no more."""
        if not self.closing:
            self._log.warn(
                "cut off {peer}: it does not read what it is told", peer=self.name(), event="link.cut-off"
            )
            self.drop()

    def drain(self) -> None:
        """Stop soon: at once when idle, after the chunks (or the commit) under way otherwise."""
        self._draining = True
        if self.state in (State.GREETING, State.IDLE):
            self.leave(Bye.SHUTDOWN, "this node is stopping")
        elif self.state is State.RECEIVING and self.incoming is not None:
            self._go_on(self.incoming)

    # -- helpers

    def _asked(self, asking: Deferred[Any]) -> Deferred[Any]:
        """Remember the question about an offer, to be cancelled when the sender goes away meanwhile."""
        self._asking = asking

        def answered(result: Any) -> Any:
            if self._asking is asking:
                self._asking = None
            return result

        return asking.addBoth(answered)

    def _guarded(self, call: Any, *args: Any) -> Deferred[Any]:
        """Call the keeper, with a deadline of ours beside its own."""
        return maybeDeferred(call, *args).addTimeout(self.times.store, self.clock)

    def _write_over(self, result: Any, permit: Permit) -> Any:
        self.owner.room.release(permit)
        return result

    def _return_room(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self.owner.room.release(permit)

    def _defect(self, failure: Failure) -> None:
        self._log.failure("a defect in the receiver", failure, event="link.defect")
        self.abort(Bye.INTERNAL, "a defect here; it is in the log")
