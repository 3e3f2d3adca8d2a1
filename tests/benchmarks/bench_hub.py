"""HUB with the store: speed against writing the chunks directly, memory under 32 nodes, time from last byte to ACK."""

import statistics
import tempfile
import time
from pathlib import Path

from tests.benchmarks.direct import PAUSE
from tests.benchmarks.running import Rss, run
from tests.benchmarks.table import Row
from tests.house import Unit, free_port

SIZE = 32 * 1024**2
ITEMS = 6
ROUNDS = 3
NODES = 32
NODE_SIZE = 64 * 1024**2


def measure() -> list[Row]:
    """Measure on a HUB and an embedded store of our own."""
    with tempfile.TemporaryDirectory() as name:
        store_port, hub_port = free_port(), free_port()
        uri = f"mongodb://127.0.0.1:{store_port}/fr"
        store = Unit(Path(name), "store", FR_STORE_PORT=store_port)
        hub = Unit(
            Path(name),
            "hub",
            FR_MONGO_URI=uri,
            FR_HUB_LISTEN=f"tcp:{hub_port}:interface=127.0.0.1",
            FR_HUB_NODES="a=tcp:127.0.0.1:1",
        )
        try:
            store.start()
            hub.start()
            return [*throughput(uri, hub_port), *memory(hub, hub_port)]
        finally:
            for unit in (hub, store):
                if unit.process is not None:
                    unit.stop()


def throughput(uri: str, port: int) -> list[Row]:
    """Take turns between the HUB and direct writing; the medians count."""
    hub, direct, small, chunk = [], [], [], []
    latencies: list[float] = []
    for number in range(ROUNDS):
        hub.append(run("senders", port, 1, ITEMS, SIZE, f"turn-{number}")["seconds"])
        result = run("direct", uri, ITEMS, SIZE)
        direct.append(result["seconds"])
        small.append(result["small"])
        chunk.append(result["chunk_64k"])
        latencies += run("senders", port, 1, 40, 65536, f"small-{number}", PAUSE)["latencies"]
    speed, reference = (ITEMS * SIZE / 1e6 / statistics.median(found) for found in (hub, direct))
    trip, ack = statistics.median(chunk), statistics.median(latencies)
    return [
        Row(
            "HUB with the store, 32 MiB items, of writing the chunks through txmongo directly",
            f"{speed / reference:.0%} ({speed:.0f} of {reference:.0f} MB/s)",
            "85%",
            speed / reference >= 0.85,
        ),
        Row(
            "last byte sent to ACK, 64 KiB items, in store round trips (one insert of 64 KiB)",
            f"{ack / trip:.1f} ({ack * 1e3:.1f} of {trip * 1e3:.1f} ms)",
            "under 3",
            ack / trip < 3,
        ),
    ]


def memory(hub: Unit, port: int) -> list[Row]:
    """Let 32 nodes send 64 MiB each at once, twice."""
    assert hub.process is not None
    with Rss(hub.process.pid) as first:
        run("senders", port, NODES, 1, NODE_SIZE, "crowd-1")
    with Rss(hub.process.pid) as second:
        run("senders", port, NODES, 1, NODE_SIZE, "crowd-2")
    time.sleep(0.1)
    growth = second.peak / first.peak - 1
    return [
        Row(
            f"HUB's resident memory, {NODES} nodes sending 64 MiB each at once (peak)",
            f"{max(first.peak, second.peak) / 1e6:.0f} MB",
            "under 200 MB",
            max(first.peak, second.peak) < 200e6,
        ),
        Row(
            "the same, peak of the second such crowd against the first",
            f"{growth:+.0%}",
            "flat",
            growth < 0.1,
        ),
    ]
