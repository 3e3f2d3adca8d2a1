"""The link alone against a bare socket pair: 32 MiB items on loopback, the receiver hashes and discards.

Sender and receiver are two processes in both cases; the cases take turns, and the best of each counts.
"""

import hashlib
import socket
import subprocess
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from fr_twisted.link.interfaces import Accept, IIntake, IOutbox, Item, ITransfer, Verdict
from tests.benchmarks.table import Row

SIZE = 32 * 1024**2
ITEMS = 12
ROUNDS = 4
DATA = bytes(range(256)) * (SIZE // 256)


@implementer(ITransfer)
class Discard:
    """Keeps nothing."""

    def write(self, offset: int, data: bytes) -> Deferred[None]:
        """Let it fall."""
        return succeed(None)

    def finish(self) -> Deferred[None]:
        """Be done."""
        return succeed(None)

    discard = finish

    def cut(self) -> None:
        """Nothing to release."""


@implementer(IIntake)
class DiscardingIntake:
    """Accepts everything."""

    def hello(self, node: str) -> str | None:
        """Welcome."""
        return None

    def offered(self, node: str, item: Item) -> Deferred[Verdict]:
        """Accept from the first byte."""
        return succeed(Accept(Discard(), 0, hashlib.sha256()))


@implementer(IOutbox)
class RepeatingOutbox:
    """Sends the same bytes ``ITEMS`` times, then fires ``done`` with the seconds that it took."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256(DATA).hexdigest()
        self.view = memoryview(DATA)
        self.count = 0
        self.since = 0.0
        self.done: Deferred[float] = Deferred()

    def next_item(self) -> Deferred[Item | None]:
        """Return the next."""
        if self.count == 0:
            self.since = time.perf_counter()
        if self.count == ITEMS:
            self.done.callback(time.perf_counter() - self.since)
            return Deferred()
        self.count += 1
        return succeed(Item(f"item-{self.count}", "scan", SIZE, self.sha256))

    def read(self, item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Return a part."""
        return succeed(bytes(self.view[offset : offset + size]))

    def progress(self, item: Item, kept: int) -> None:
        """Nothing to tell."""

    def acknowledged(self, item: Item, duplicate: bool) -> Deferred[None]:
        """Go on."""
        return succeed(None)

    def refused(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Fail: nothing is refused here."""
        raise AssertionError(reason)

    deferred = interrupted = refused


def receive_link() -> None:
    """Be the receiver of the link: print the port, serve until standard input ends."""
    from twisted.internet import reactor, stdio
    from twisted.internet.protocol import Protocol

    from fr_twisted.link.receiver_factory import ReceiverFactory

    clock: Any = reactor
    port = clock.listenTCP(0, ReceiverFactory("hub", DiscardingIntake(), clock), interface="127.0.0.1")
    print(port.getHost().port, flush=True)

    class UntilClosed(Protocol):
        def connectionLost(self, reason: Any = None) -> None:
            clock.stop()

    stdio.StandardIO(UntilClosed())
    clock.run()


def receive_bare() -> None:
    """Be the bare receiver: hash what comes, answer each item with its digest."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    buffer = memoryview(bytearray(65536))
    while True:
        digest, missing = hashlib.sha256(), SIZE
        while missing:
            got = connection.recv_into(buffer[: min(65536, missing)])
            if not got:
                return
            digest.update(buffer[:got])
            missing -= got
        connection.sendall(digest.digest())


def send_link(port: int) -> None:
    """Be the sender of the link; print the seconds."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint

    from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService

    clock: Any = reactor
    outbox = RepeatingOutbox()
    service = SenderService(
        TCP4ClientEndpoint(clock, "127.0.0.1", port), ReconnectingSenderFactory("pacs", outbox, clock)
    )

    def over(seconds: float) -> None:
        print(seconds, flush=True)
        service.stopService().addBoth(lambda _: clock.stop())

    outbox.done.addCallback(over)
    clock.callWhenRunning(service.startService)
    clock.run()


def send_bare(port: int) -> None:
    """Be the bare sender; print the seconds."""
    connection = socket.create_connection(("127.0.0.1", port))
    since = time.perf_counter()
    for _ in range(ITEMS):
        connection.sendall(DATA)
        assert len(connection.recv(32, socket.MSG_WAITALL)) == 32
    print(time.perf_counter() - since, flush=True)


def timed(way: str) -> float:
    """Return the MB/s of one round."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_link"]
    receiver = subprocess.Popen(
        [*command, f"receive_{way}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdin is not None
    assert receiver.stdout is not None
    try:
        port = receiver.stdout.readline().strip()
        sent = subprocess.run(
            [*command, f"send_{way}", port], capture_output=True, text=True, timeout=120, check=True
        )
    finally:
        receiver.stdin.close()
        receiver.wait(10)
    return ITEMS * SIZE / 1e6 / float(sent.stdout)


def measure() -> list[Row]:
    """Measure both ways in turn."""
    speeds: dict[str, list[float]] = {"bare": [], "link": []}
    for _ in range(ROUNDS):
        for way, found in speeds.items():
            found.append(timed(way))
    bare, link = max(speeds["bare"]), max(speeds["link"])
    return [
        Row(
            "link alone, 32 MiB items, of a bare socket pair with the same hashing",
            f"{link / bare:.0%} ({link:.0f} of {bare:.0f} MB/s)",
            "60%",
            link / bare >= 0.6,
        )
    ]


if __name__ == "__main__":
    {"receive_link": receive_link, "receive_bare": receive_bare}.get(
        sys.argv[1], lambda: {"send_link": send_link, "send_bare": send_bare}[sys.argv[1]](int(sys.argv[2]))
    )()
