"""HUB with the store: speed against writing the chunks directly, memory under 32 nodes, time from last byte to ACK."""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.direct import PAUSE
from tests.benchmarks.table import Row
from tests.house import Unit, free_port

SIZE = 32 * 1024**2
ITEMS = 6
ROUNDS = 3
NODES = 32
NODE_SIZE = 64 * 1024**2


def run(module: str, *arguments: object) -> dict[str, Any]:
    """Return what a process of the load printed."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in result:
        raise RuntimeError(result["error"])
    return result


class Rss:
    """Samples the resident memory of a process; ``peak`` in bytes."""

    def __init__(self, pid: int) -> None:
        self.path = Path(f"/proc/{pid}/status")
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def now(self) -> int:
        """Return the resident bytes now."""
        fields = dict(line.split(":", 1) for line in self.path.read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, self.now())

    def __enter__(self) -> "Rss":
        self.peak = self.now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


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
