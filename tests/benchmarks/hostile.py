"""Peers that mean no good: ``python -m tests.benchmarks.hostile PORT COUNT ADDRESS [KIND ...]``.

COUNT connections from ADDRESS (one of 127.0.0.0/8), as many of each kind; each comes back five seconds after it was
cut. Prints "ready" when all have tried once, and at its end, when its input is closed, one JSON line: how many
connections were made and lost, by kind.
"""

import json
import resource
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from twisted.internet import reactor as global_reactor
from twisted.internet import stdio
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from fr_twisted.model import CHUNK_SIZE
from tests.benchmarks.senders import META

reactor: Any = global_reactor

PAUSE = 5.0
"""Seconds before one that was cut off comes back."""

EVERY = 3.0
"""Seconds between two bytes of those who are slow."""


class Hostile(Protocol):
    """One connection. What it does follows from its kind, in `Kinds`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.loops: list[LoopingCall] = []

    def connectionMade(self) -> None:
        """Begin."""
        COUNTS[f"{self.kind} made"] += 1
        KINDS[self.kind](self)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        """Come back."""
        COUNTS[f"{self.kind} lost"] += 1
        for loop in self.loops:
            loop.stop()
        reactor.callLater(PAUSE, connect, self.kind)

    # -- what it may do

    def say(self, verb: str, **members: Any) -> None:
        """Write a frame."""
        self.transport.write(f"{verb} {json.dumps(members)}\n".encode())  # type: ignore[union-attr]

    def hello(self) -> None:
        """Say who we are."""
        self.say("HELLO", proto="fr-link/1", node=f"hostile-{uuid4().hex[:12]}")

    def again_and_again(self, data: bytes, every: float) -> None:
        """Write ``data`` now and then."""
        loop = LoopingCall(self.transport.write, data)  # type: ignore[union-attr]
        loop.start(every)
        self.loops.append(loop)


def idle(peer: Hostile) -> None:
    """Say HELLO, and nothing more."""
    peer.hello()


def mute(peer: Hostile) -> None:
    """Connect, and say nothing."""


def deaf(peer: Hostile) -> None:
    """Ask for words now and then, and read none."""
    peer.transport.pauseProducing()  # type: ignore[union-attr]
    peer.hello()
    peer.again_and_again(b"PING {}\n", 1.0)


def slow_line(peer: Hostile) -> None:
    """Say HELLO a byte at a time."""
    peer.again_and_again(b"H", EVERY)


def slow_offer(peer: Hostile) -> None:
    """After HELLO, say an offer a byte at a time."""
    peer.hello()
    peer.again_and_again(b"O", EVERY)


def slow_chunk(peer: Hostile) -> None:
    """Offer a scan, announce its first chunk, and send that a byte at a time."""
    peer.hello()
    name = f"hostile-{uuid4().hex}"
    peer.say("OFFER", id=name, kind="scan", size=4 * CHUNK_SIZE, sha256="0" * 64, meta=META)
    reactor.callLater(1.0, trickle, peer, name)


def trickle(peer: Hostile, name: str) -> None:
    """Begin the chunk."""
    if peer.connected:
        peer.say("DATA", id=name, offset=0, size=CHUNK_SIZE)
        peer.again_and_again(b"x", EVERY)


def endless(peer: Hostile) -> None:
    """Say a line that does not end."""
    peer.again_and_again(b"x" * 65536, 0.01)


KINDS: dict[str, Callable[[Hostile], None]] = {
    kind.__name__: kind for kind in (idle, mute, deaf, slow_line, slow_offer, slow_chunk, endless)
}
COUNTS: Counter[str] = Counter()


def connect(kind: str) -> None:
    """Make a connection, now or a little later."""
    factory = Factory.forProtocol(lambda: Hostile(kind))
    factory.noisy = False
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", int(sys.argv[1]), bindAddress=(sys.argv[3], 0))

    def failed(_: object) -> None:
        COUNTS[f"{kind} not connected"] += 1
        reactor.callLater(PAUSE, connect, kind)

    endpoint.connect(factory).addErrback(failed)


class UntilClosed(Protocol):
    """Ends the process when its input ends."""

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        """Print and end."""
        print(json.dumps(COUNTS), flush=True)
        reactor.stop()


def main(count: int, kinds: list[str]) -> None:
    """Connect them over a second."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for number in range(count):
        reactor.callLater(number / count, connect, kinds[number % len(kinds)])
    reactor.callLater(2.0, print, "ready", flush=True)
    stdio.StandardIO(UntilClosed())
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[2]), sys.argv[4:] or list(KINDS))
