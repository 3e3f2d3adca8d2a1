"""Lines to frames, counted raw chunks, liveness and one way to end: what both sides of a link share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.link import wire
from fr_twisted.link.wire import Bye, Frame, Goodbye, Ping, Pong, WireError

MOST_UNHEARD = 8 * 1024**2
"""Bytes that are read and let fall after BYE; a peer that was never greeted has no chunks on their way."""


@dataclass(frozen=True)
class LinkTimes:
    """How long a link waits, in seconds."""

    handshake: float = 10.0
    """From the connection (with TLS: its handshake included) to the peer's HELLO."""
    ping: float = 20.0
    """Say PING after so long without having said anything."""
    silence: float = 60.0
    """Cut off a peer of which nothing was heard for so long."""
    chunk: float = 60.0
    """Cut off a sender that does not complete a chunk in so long: 1 MiB needs 140 kbit/s."""
    crowded: float = 20.0
    """The same while others wait for the room that its chunk takes: 420 kbit/s."""
    stall: float = 3.0
    """While others wait, a chunk may be without a byte for so long; then it must come as evenly as `crowded` asks."""
    decide: float = 3600.0
    """An intake that did not decide for so long has refused for now; it may have to read back what it has."""
    store: float = 120.0
    """A keeper that did not answer for so long is taken to have refused for now."""
    linger: float = 2.0
    """After BYE, let the peer read it and close, for so long."""
    tick: float = 1.0
    """How often these are looked at."""

    @classmethod
    def with_silence(cls, seconds: float) -> "LinkTimes":
        """Return the times of a link whose peers may be silent for so long; they are asked three times within it."""
        usual = cls()
        return cls(
            handshake=min(usual.handshake, seconds),
            ping=min(usual.ping, seconds / 3),
            silence=seconds,
            tick=min(usual.tick, seconds / 6),
        )


@implementer(IHandshakeListener)
class LinkProtocol(LineReceiver):
    """One end of a link: a line is parsed to a frame and given to ``handle_<VERB>`` of the subclass.

    A subclass has one attribute ``state`` and ends a connection only by `leave`, `abort` or `drop`.
    """

    _log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = wire.MAX_LINE
    frames: ClassVar[Mapping[str, type[Frame]]]

    def __init__(self, clock: IReactorTime, times: LinkTimes) -> None:
        self.clock = clock
        self.times = times
        self.peer_node = ""
        self.closing = False
        self.goodbye: Goodbye | None = None
        """The BYE that ended the connection, ours or the peer's."""
        self._chunk: list[bytes] = []
        self._chunk_missing = 0
        self._chunk_size = 0
        self._chunk_since = 0.0
        self._line_since: float | None = None
        """Since when a line is incomplete."""
        self._unheard = 0
        self._chunk_received: Callable[[bytes], None] | None = None
        self._heard = self._said = self.since = 0.0
        self._timer: IDelayedCall | None = None

    # -- the life of a connection

    def connectionMade(self) -> None:
        """Set the socket's options; with TLS, wait for its handshake before a word is said."""
        self._heard = self._said = self.since = self.clock.seconds()
        self._timer = self.clock.callLater(self.times.tick, self._tick)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # else Nagle and delayed ACKs cost 40 ms a chunk
            self.transport.setTcpKeepAlive(True)
        if not ISSLTransport.providedBy(self.transport):
            self.authenticated()

    def handshakeCompleted(self) -> None:
        """TLS proved the peer."""
        self.authenticated()

    def authenticated(self) -> None:
        """The peer is who it says: the receiver says HELLO now."""
        raise NotImplementedError

    def greeted(self) -> bool:
        """Return whether the peer's HELLO was received."""
        raise NotImplementedError

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the timer; subclasses release what they hold."""
        self.closing = True
        self._cancel_timer()
        self._chunk = []

    def dataReceived(self, data: bytes) -> None:
        """Note that the peer lives; after the end was decided, hear nothing more."""
        self._heard = self.clock.seconds()
        if not self.closing:
            super().dataReceived(data)
            if not (self._buffer and self.line_mode) or self.paused:
                self._line_since = None
            elif self._line_since is None:
                self._line_since = self._heard
            return
        self._unheard += len(data)
        if self._unheard > (MOST_UNHEARD if self.greeted() else wire.MAX_LINE):
            self.drop()

    # -- frames

    def lineReceived(self, line: bytes) -> None:
        """Parse and dispatch; whatever the peer sends, no exception leaves here."""
        self._line_since = None
        try:
            frame = wire.parse(line, self.frames)
        except WireError as error:
            self.abort(error.code, error.reason)
            return
        if not self.greeted() and frame.verb not in ("HELLO", "BYE"):
            self.abort(Bye.OUT_OF_ORDER, f"{frame.verb} before HELLO")
            return
        try:
            getattr(self, f"handle_{frame.verb}")(frame)
        except Exception:
            self._log.failure("a defect while handling {verb}", verb=frame.verb, event="link.defect")
            self.abort(Bye.INTERNAL, "a defect here; it is in the log")

    def lineLengthExceeded(self, line: bytes) -> None:
        """Cut off a peer whose line does not end."""
        self.abort(Bye.LINE_TOO_LONG, f"a line has at most {self.MAX_LENGTH} bytes")

    def say(self, frame: Frame, raw: bytes = b"") -> None:
        """Write a frame and the bytes that belong to it.

        Raises:
            WireError: the frame cannot be written.
        """
        line = frame.line()
        if self.closing:
            return
        assert self.transport is not None
        self._said = self.clock.seconds()
        self.transport.writeSequence([line, raw] if raw else [line])

    def handle_PING(self, frame: Ping) -> None:
        """Answer."""
        self.say(Pong())

    def handle_PONG(self, frame: Pong) -> None:
        """Having been heard is enough."""

    def handle_BYE(self, frame: Goodbye) -> None:
        """The peer ends: close, and let `connectionLost` release what is held."""
        self.goodbye = frame
        self.closing = True
        self.clearLineBuffer()
        self.closes()
        assert self.transport is not None
        self.transport.loseConnection()
        self._set_linger()

    # -- raw chunks

    def receive_chunk(self, size: int, received: Callable[[bytes], None] | None, begun: bytes = b"") -> None:
        """Take the next ``size`` bytes as they are, then call ``received`` with ``begun`` and them.

        Without ``received`` they are let fall. It may call this again: what it was called with was a part.
        """
        self._chunk, self._chunk_missing, self._chunk_received = [begun], size, received
        self._chunk_size = size
        self._chunk_since = self.clock.seconds()
        self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        """Collect a chunk; what comes after it is a line again."""
        part = data[: self._chunk_missing] if len(data) > self._chunk_missing else data
        self._chunk_missing -= len(part)
        if self._chunk_received is not None:
            self._chunk.append(part)
        if self._chunk_missing:
            return
        chunk, self._chunk = b"".join(self._chunk), []
        if self._chunk_received is not None:
            self._chunk_received(chunk)
        if self.closing:
            return
        if self.in_chunk():
            self.dataReceived(data[len(part) :])
        else:
            self.setLineMode(data[len(part) :])

    def crowded(self) -> bool:
        """Return whether others wait for what the chunk on its way takes."""
        return False

    def _chunk_late(self, now: float) -> str | None:
        """Return what is wrong with the pace of the chunk on its way, or None."""
        times, elapsed = self.times, now - self._chunk_since
        if elapsed >= times.chunk:
            return f"a chunk not completed within {times.chunk:g} s"
        if not self.crowded() or elapsed <= times.stall:
            return None
        wanted = (elapsed - times.stall) / (times.crowded - times.stall)
        if self._chunk_size - self._chunk_missing >= wanted * self._chunk_size:
            return None
        return f"a chunk too slow to be completed within {times.crowded:g} s, and others wait"

    def in_chunk(self) -> bool:
        """Return whether the bytes of a chunk are awaited."""
        return self._chunk_missing > 0

    # -- ends

    def leave(self, code: Bye, reason: str = "") -> None:
        """Say BYE after what was written, and close when it is flushed; by force after ``linger``.

        While the peer may be sending, its bytes are read until it closes: closing with bytes unread would reset the
        connection, and the peer would never see the BYE.
        """
        if self.closing:
            return
        sending = self.peer_sends()
        self.goodbye = Goodbye(code=code.value, reason=wire.shorten(reason))
        self.say(self.goodbye)
        self.closing = True
        self.clearLineBuffer()
        self.closes()
        assert self.transport is not None
        if not sending:
            self.transport.loseConnection()
        elif self.paused:
            self.resumeProducing()
        self._set_linger()

    def abort(self, code: Bye, reason: str) -> None:
        """Cut off a peer that does not keep the rules: one BYE, nothing more is heard, an end within ``linger``.

        The socket is read until then, as by `leave`.
        """
        if self.closing:
            return
        self._log.warn(
            "cut off {peer}: {code}: {reason}",
            peer=self.name(),
            code=code.value,
            reason=reason,
            event="link.cut-off",
        )
        self.goodbye = Goodbye(code=code.value, reason=wire.shorten(reason))
        self.say(self.goodbye)
        self.closing = True
        self.clearLineBuffer()
        self.cut_off()
        if self.paused:
            self.resumeProducing()
        self._set_linger()

    def peer_sends(self) -> bool:
        """Return whether bytes of a chunk may be on their way to us."""
        return False

    def closes(self) -> None:
        """The transport is about to be closed: subclasses take back what they registered with it."""

    def cut_off(self) -> None:
        """The peer was cut off: subclasses release what they hold."""

    def drop(self) -> None:
        """Close at once, whatever is unsent."""
        self.closing = True
        transport = self.transport
        if transport is not None:
            cast(ITCPTransport, transport).abortConnection()

    def name(self) -> str:
        """Return the peer's node, or its address before it said who it is."""
        if self.peer_node or self.transport is None:
            return self.peer_node
        peer = self.transport.getPeer()
        return f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}"

    # -- liveness

    def resumed(self) -> None:
        """We had paused the peer: its silence meanwhile is ours."""
        self._heard = self._chunk_since = self.clock.seconds()

    def _tick(self) -> None:
        self._timer = self.clock.callLater(self.times.tick, self._tick)
        now, times = self.clock.seconds(), self.times
        late = self._chunk_late(now) if self.in_chunk() else self._line_late(now)
        if not self.greeted() and now - self.since >= times.handshake:
            self.abort(Bye.SILENCE, f"no HELLO within {times.handshake:g} s")
        elif not self.paused and now - self._heard >= times.silence:
            self.abort(Bye.SILENCE, f"nothing heard for {times.silence:g} s")
        elif not self.paused and late is not None:
            self.abort(Bye.SILENCE, late)
        elif self.greeted() and now - self._said >= times.ping:
            self.say(Ping())

    def _line_late(self, now: float) -> str | None:
        if self._line_since is None or now - self._line_since < self.times.silence:
            return None
        return f"a line not completed within {self.times.silence:g} s"

    def _set_linger(self) -> None:
        self._cancel_timer()
        self._timer = self.clock.callLater(self.times.linger, self._linger_over)

    def _linger_over(self) -> None:
        self._timer = None
        self.drop()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
