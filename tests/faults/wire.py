"""One way between two units: a proxy that can be cut, slowed, torn and silenced, and holds a frame back when asked to.

TCP's promises are kept: bytes are never duplicated or reordered, and a connection from which bytes were lost ends.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.frames import Frame, LinkSplitter, MongoSplitter, Splitter

if TYPE_CHECKING:
    from tests.faults.proxy import Network

UP, DOWN = "up", "down"
"""From the unit that dials to the one that listens, and back."""

_READ = 256 * 1024
_TRACKED = frozenset(("HELLO", "OFFER", "GO", "KEPT", "ACK", "NACK", "BYE"))


@dataclass(frozen=True)
class Sighting:
    """A frame of the link that passed, or was read but held back."""

    at: float
    wire: str
    connection: int
    direction: str
    verb: str
    fields: dict[str, Any]


@dataclass(eq=False)
class Trap:
    """Holds a frame back when it comes: the matching frame, half of what follows it, or the answer to it."""

    direction: str
    matches: Callable[[Frame], bool]
    hold: str = "frame"
    """``frame``, ``half`` (all of it, and half of the next piece), or ``answer``."""
    sprung: threading.Event = field(default_factory=threading.Event)
    connection: "Connection | None" = None
    request: int | None = None
    halving: bool = False

    def wait(self, seconds: float) -> bool:
        """Return whether it sprung in time."""
        return self.sprung.wait(seconds)


class Connection:
    """One connection through a wire."""

    def __init__(self, wire: "Wire", number: int, reader: asyncio.StreamReader, writer: Any) -> None:
        self.wire, self.number = wire, number
        self.readers: dict[str, asyncio.StreamReader] = {UP: reader}
        self.writers: dict[str, asyncio.StreamWriter] = {DOWN: writer}
        self.free = asyncio.Event()
        self.free.set()
        self.aborted = False

    def abort(self) -> None:
        """Reset both ends."""
        self.aborted = True
        self.free.set()
        for writer in self.writers.values():
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(Exception):
        writer.transport.abort()


class Wire:
    """A way from a unit to another: a port that the first dials, and the port of the second behind it."""

    def __init__(self, network: "Network", name: str, kind: str, target: int) -> None:
        self.network, self.name, self.kind, self.target = network, name, kind, target
        self.port = 0
        self.connections: dict[int, Connection] = {}
        self.traps: list[Trap] = []
        self.troubled_at = 0.0
        """When something was last done to it or undone; it is not at ease before that."""
        self._mode = "pass"
        self._stranger = b""
        self._gates = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        for gate in self._gates.values():
            gate.set()
        self._rate: float | None = None
        self._delay: tuple[float, float] | None = None
        self._tear: tuple[str, threading.Event] | None = None
        self._server: asyncio.Server | None = None

    # -- from any thread

    @property
    def at_ease(self) -> bool:
        """Whether nothing is being done to it."""
        gates = all(gate.is_set() for gate in self._gates.values())
        return (
            self._mode == "pass" and gates and self._rate is None and self._delay is None and not self._tear
        )

    def cut(self) -> None:
        """Reset all connections, and every new one at once."""
        self.network.call(self._set_mode, "cut")

    def silence(self) -> None:
        """Reset all connections; new ones are accepted, and nothing is said or passed on."""
        self.network.call(self._set_mode, "silent")

    def impersonate(self, greeting: bytes) -> None:
        """Reset all connections; new ones get ``greeting`` and nothing else."""
        self._stranger = greeting
        self.network.call(self._set_mode, "stranger")

    def block(self, direction: str) -> None:
        """Let nothing more through in one direction."""
        self.network.call(self._block, direction)

    def slow(self, bits_per_second: float) -> None:
        """Limit both directions together."""
        self.network.call(self._set_pace, bits_per_second / 8, None)

    def delay(self, seconds: float, jitter: float) -> None:
        """Delay every piece."""
        self.network.call(self._set_pace, None, (seconds, jitter))

    def tear(self, direction: str) -> threading.Event:
        """Reset the connection in the middle of the next frame; the event tells that it was done."""
        torn = threading.Event()
        self.network.call(self._set_tear, direction, torn)
        return torn

    def heal(self, lost: bool = False) -> None:
        """Be a good wire again; ``lost``: what was held back is gone, so the connections are reset."""
        self.network.call(self._heal, lost)

    def arm(self, trap: Trap) -> Trap:
        """Set a trap."""
        self.network.call(self.traps.append, trap)
        return trap

    def disarm(self, trap: Trap, drop: bool = False) -> None:
        """Take a trap away; what it holds goes on or, with ``drop``, is lost, and its connection with it."""
        self.network.call(self._disarm, trap, drop)

    # -- in the loop

    def _set_mode(self, mode: str) -> None:
        self.troubled_at = time.time()
        self._mode = mode
        self._reset_all()

    def _reset_all(self) -> None:
        for connection in list(self.connections.values()):
            connection.abort()

    def _block(self, direction: str) -> None:
        self.troubled_at = time.time()
        self._gates[direction].clear()

    def _set_pace(self, rate: float | None, delay: tuple[float, float] | None) -> None:
        self.troubled_at = time.time()
        self._rate, self._delay = rate, delay

    def _set_tear(self, direction: str, torn: threading.Event) -> None:
        self.troubled_at = time.time()
        self._tear = (direction, torn)

    def _heal(self, lost: bool) -> None:
        self.troubled_at = time.time()
        mode, self._mode = self._mode, "pass"
        self._rate = self._delay = self._tear = None
        if lost or mode != "pass":
            self._reset_all()
        for gate in self._gates.values():
            gate.set()

    def _disarm(self, trap: Trap, drop: bool) -> None:
        if trap in self.traps:
            self.traps.remove(trap)
        if trap.connection is None or trap.connection.wire is not self:
            return
        if drop and trap.sprung.is_set():
            trap.connection.abort()
        else:
            trap.connection.free.set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=_READ)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        self._heal(True)
        self._reset_all()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, self.network.next_number(), reader, writer)
        self.connections[connection.number] = connection
        try:
            await self._carry(connection)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            connection.abort()
            self.connections.pop(connection.number, None)
            for trap in self.traps:
                if trap.connection is connection:  # it ended before the moment came
                    trap.connection, trap.request, trap.halving = None, None, False

    async def _carry(self, connection: Connection) -> None:
        if self._mode == "cut":
            return
        if self._mode in ("silent", "stranger"):
            if self._mode == "stranger":
                connection.writers[DOWN].write(self._stranger)
            while await connection.readers[UP].read(_READ):
                pass
            return
        await self._gates[UP].wait()
        onward, back = await asyncio.open_connection("127.0.0.1", self.target, limit=_READ)
        connection.readers[DOWN], connection.writers[UP] = onward, back
        if connection.aborted:  # while we dialled; the end resets this side too
            return
        both = [asyncio.ensure_future(self._pump(connection, way)) for way in (UP, DOWN)]
        try:
            await asyncio.gather(*both)
        finally:
            for pump in both:
                pump.cancel()

    async def _pump(self, connection: Connection, direction: str) -> None:
        splitter: Splitter = LinkSplitter() if self.kind == "link" else MongoSplitter()
        reader, writer = connection.readers[direction], connection.writers[direction]
        while True:
            await self._gates[direction].wait()
            data = await reader.read(_READ)
            if connection.aborted:
                return
            if not data:
                break
            for frame in splitter.feed(data):
                await self._pass(connection, direction, frame, writer)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _pass(
        self, connection: Connection, direction: str, frame: Frame, writer: asyncio.StreamWriter
    ) -> None:
        if frame.verb in _TRACKED and self.kind == "link":
            sighting = Sighting(
                time.time(), self.name, connection.number, direction, frame.verb, frame.fields
            )
            self.network.sightings.append(sighting)
        held = self._trapped(connection, direction, frame)
        if held == "half":
            writer.write(frame.data[: len(frame.data) // 2])
            frame = Frame(frame.data[len(frame.data) // 2 :])
        await connection.free.wait()
        await self._gates[direction].wait()
        if connection.aborted:
            raise ConnectionResetError("aborted while it was held")
        tear = self._tear
        if tear is not None and tear[0] == direction and len(frame.data) > 1:
            self._tear = None
            writer.write(frame.data[: len(frame.data) // 2])
            with contextlib.suppress(OSError):
                await writer.drain()
            await asyncio.sleep(0.005)
            tear[1].set()
            raise ConnectionResetError("torn")
        await self._pace(len(frame.data))
        writer.write(frame.data)

    async def _pace(self, size: int) -> None:
        if self._rate is not None:
            await asyncio.sleep(size / self._rate)
        if self._delay is not None:
            await asyncio.sleep(self._delay[0] + random.random() * self._delay[1])

    def _trapped(self, connection: Connection, direction: str, frame: Frame) -> str:
        """Return how the frame is to be held; empty: not at all."""
        for trap in list(self.traps):
            if trap.halving and trap.connection is connection and direction == trap.direction:
                return self._spring(trap, connection, "half")
            if trap.request is not None:
                if trap.connection is connection and frame.fields.get("response_to") == trap.request:
                    return self._spring(trap, connection, "frame")
                continue
            if direction != trap.direction or trap.connection is not None or not trap.matches(frame):
                continue
            trap.connection = connection
            if trap.hold == "answer":
                trap.request = frame.fields.get("request")
            elif trap.hold == "half":
                trap.halving = True
            else:
                return self._spring(trap, connection, "frame")
        return ""

    def _spring(self, trap: Trap, connection: Connection, how: str) -> str:
        self.traps.remove(trap)
        trap.connection = connection
        connection.free.clear()
        trap.sprung.set()
        return how
