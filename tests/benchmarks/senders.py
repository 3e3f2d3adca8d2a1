"""Load for a HUB, as a process of its own: ``python -m tests.benchmarks.senders PORT NODES ITEMS SIZE LABEL [PAUSE]``.

Prints one JSON line when every item is acknowledged: seconds in all, and for each item the seconds from the write of
its last bytes to its ACK.
"""

import hashlib
import json
import sys
import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater
from zope.interface import implementer

from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService

META = {"patient_id": "BENCH", "format": "nifti"}

reactor: Any = global_reactor


@implementer(IOutbox)
class Load:
    """Offers ``items`` items of the same bytes under ids of their own."""

    def __init__(self, data: bytes, sha256: str, label: str, items: int, pause: float) -> None:
        self.pause = pause
        self.data, self.sha256, self.label = memoryview(data), sha256, label
        self.left = items
        self.last_write = 0.0
        self.latencies: list[float] = []
        self.done: Deferred[None] = Deferred()

    def next_item(self) -> Deferred[Item | None]:
        """Return the next, or wait for ever."""
        if not self.left:
            if not self.done.called:
                self.done.callback(None)
            return Deferred()
        self.left -= 1
        item = Item(f"{self.label}-{self.left}", "scan", len(self.data), self.sha256, META)
        return deferLater(reactor, self.pause, lambda: item) if self.pause else succeed(item)

    def read(self, item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Return a part."""
        self.last_write = time.perf_counter()
        return succeed(bytes(self.data[offset : offset + size]))

    def progress(self, item: Item, kept: int) -> None:
        """Nothing to tell."""

    def acknowledged(self, item: Item, duplicate: bool) -> Deferred[None]:
        """Note the time."""
        self.latencies.append(time.perf_counter() - self.last_write)
        return succeed(None)

    def refused(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Nothing may be refused here."""
        print(json.dumps({"error": f"{code}: {reason}"}), flush=True)
        reactor.stop()
        return succeed(None)

    deferred = interrupted = refused


def main(port: int, nodes: int, items: int, size: int, label: str, pause: float) -> None:
    """Send, print, end."""
    data = hashlib.shake_256(label.encode()).digest(size)
    sha256 = hashlib.sha256(data).hexdigest()
    loads = [Load(data, sha256, f"{label}-{node}", items, pause) for node in range(nodes)]
    services = [
        SenderService(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port),
            ReconnectingSenderFactory(f"bench-{number}", load, reactor),
        )
        for number, load in enumerate(loads)
    ]
    since = time.perf_counter()

    def over(_: object) -> Deferred[Any]:
        latencies = [seconds for load in loads for seconds in load.latencies]
        print(json.dumps({"seconds": time.perf_counter() - since, "latencies": latencies}), flush=True)
        return DeferredList([service.stopService() for service in services])

    DeferredList([load.done for load in loads]).addCallback(over).addBoth(lambda _: reactor.stop())
    for service in services:
        reactor.callWhenRunning(service.startService)
    reactor.run()


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        sys.argv[5],
        float((sys.argv[6:] or ["0"])[0]),
    )
