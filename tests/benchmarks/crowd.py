"""Honest nodes: ``python -m tests.benchmarks.crowd PORT NODES SIZE SECONDS LABEL [MOST]``.

Each sends one item after the other for SECONDS, or MOST items, once all are connected. Prints one JSON line: the time
until all were connected, and for each node how many items were acknowledged in that time and in all, and the longest
wait for an ACK. What was offered in time is sent to its end. The nodes are LABEL-0 and so on (one alone: LABEL), and
their items NODE-0 and so on.
"""

import hashlib
import json
import sys
import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from zope.interface import implementer

from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
from tests.benchmarks.senders import META

reactor: Any = global_reactor

PATIENCE = 60.0
"""Seconds in which every node is to be connected, and every item acknowledged in the end."""


@implementer(IOutbox)
class Node:
    """One node, whose items have the same bytes and ids of their own."""

    def __init__(self, label: str, content: bytes, sha256: str, most: int) -> None:
        self.label, self.content, self.sha256, self.most = label, content, sha256, most
        self.asked: Deferred[None] = Deferred()
        """Fires when it is connected: the link asks for an item."""
        self.over: Deferred[None] = Deferred()
        """Fires when it has nothing more to send."""
        self.until = 0.0
        self.acknowledged_in_time = 0
        self.longest = 0.0
        self.acknowledged_in_all = 0
        self._offered = 0
        self._offered_at = 0.0
        self._again: Item | None = None
        self._wanted: Deferred[Item | None] | None = None

    def begin(self, until: float) -> None:
        """Send until then."""
        self.until = until
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted.callback(self._item())

    def next_item(self) -> Deferred[Item | None]:
        """Return the next item, or wait for ever."""
        if not self.asked.called:
            self.asked.callback(None)
        if self._again or (time.monotonic() < self.until and self._offered < self.most):
            return succeed(self._item())
        if self.until and not self.over.called:
            self.over.callback(None)
        self._wanted = Deferred()
        return self._wanted

    def _item(self) -> Item:
        item, self._again = self._again, None
        if item is None:
            item = Item(f"{self.label}-{self._offered}", "scan", len(self.content), self.sha256, META)
            self._offered += 1
            self._offered_at = time.monotonic()
        return item

    def read(self, item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Return a part."""
        return succeed(self.content[offset : offset + size])

    def progress(self, item: Item, kept: int) -> None:
        """Nothing to tell."""

    def acknowledged(self, item: Item, duplicate: bool) -> Deferred[None]:
        """Count it."""
        now = time.monotonic()
        self.acknowledged_in_all += 1
        self.acknowledged_in_time += now < self.until
        self.longest = max(self.longest, now - self._offered_at)
        return succeed(None)

    def refused(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Nothing may be refused for good here."""
        fail(f"{code}: {reason}")
        return succeed(None)

    def deferred(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Offer it again."""
        self._again = item
        return succeed(None)

    interrupted = deferred


def fail(why: str) -> None:
    """End with an error."""
    print(json.dumps({"error": why}), flush=True)
    if reactor.running:
        reactor.stop()


async def measure(nodes: list[Node], seconds: float) -> None:
    """Wait for all, let them send, and print."""
    since = time.monotonic()
    await DeferredList([node.asked for node in nodes])
    connected = time.monotonic() - since
    for node in nodes:
        node.begin(time.monotonic() + seconds)
    await DeferredList([node.over for node in nodes])
    told = {
        "connected": connected,
        "acknowledged": [node.acknowledged_in_time for node in nodes],
        "kept": [node.acknowledged_in_all for node in nodes],
        "longest": [node.longest for node in nodes],
    }
    print(json.dumps(told), flush=True)


def main(port: int, count: int, size: int, seconds: float, label: str, most: int = sys.maxsize) -> None:
    """Run."""
    content = hashlib.shake_256(label.encode()).digest(size)
    sha256 = hashlib.sha256(content).hexdigest()
    names = [f"{label}-{number}" for number in range(count)] if count > 1 else [label]
    nodes = [Node(name, content, sha256, most) for name in names]
    services = [
        SenderService(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port),
            ReconnectingSenderFactory(node.label, node, reactor),
        )
        for node in nodes
    ]
    reactor.callLater(seconds + 2 * PATIENCE, fail, "not over in time")

    def begin() -> None:
        for service in services:
            service.startService()
        measuring = Deferred.fromCoroutine(measure(nodes, seconds))
        measuring.addErrback(lambda failure: fail(failure.getErrorMessage()))
        measuring.addBoth(lambda _: DeferredList([service.stopService() for service in services]))
        measuring.addBoth(lambda _: reactor.stop() if reactor.running else None)

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        float(sys.argv[4]),
        sys.argv[5],
        *map(int, sys.argv[6:]),
    )
