"""Honest nodes while 1,000 idle, slow and hostile connections stand: their throughput against that without them.

Taken in turns. The hostile ones come from another address of loopback, or, in a second figure, from the same one.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.running import rss_of, run, start
from tests.benchmarks.table import Row
from tests.benchmarks.units import hub_and_store

NODES = 8
SIZE = 256 * 1024
SECONDS = 12.0
ROUNDS = 3
HOSTILE = 1000
FLOOR = 0.8


@contextmanager
def hostile(port: int, count: int, address: str, *kinds: str) -> Iterator[None]:
    """Let hostile peers be there; what became of their connections is told on standard error."""
    process = start("hostile", port, count, address, *kinds, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield
        assert process.poll() is None, "the hostile peers gave up"
        process.stdin.close()
        process.stdin = None
        print(f"  {process.communicate(timeout=30)[0].strip()}", file=sys.stderr)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def measured(rounds: int, seconds: float, count: int, address: str, *kinds: str) -> dict[str, Any]:
    """Return items a second without and with hostile peers, by round, and the HUB's memory at its highest."""
    rates: dict[str, Any] = {"alone": [], "beset": [], "longest": 0.0, "rss": 0}
    with hub_and_store() as units:

        def honest(label: str) -> float:
            told = run("crowd", units.port, NODES, SIZE, seconds, label)
            rates["longest"] = max(rates["longest"], *told["longest"])
            return float(sum(told["acknowledged"]) / seconds)

        honest("warm")
        for number in range(rounds):
            rates["longest"] = 0.0
            rates["alone"].append(honest(f"alone-{number}"))
            with hostile(units.port, count, address, *kinds):
                rates["beset"].append(honest(f"beset-{number}"))
                rates["rss"] = max(rates["rss"], rss_of(units.pid))
    return rates


def measure() -> list[Row]:
    """Measure from another address, and from the same."""
    rows = []
    for address, words in (("127.0.0.9", "another address"), ("127.0.0.1", "the same address")):
        found = measured(ROUNDS, SECONDS, HOSTILE, address)
        alone, beset = (statistics.median(found[name]) for name in ("alone", "beset"))
        rows.append(
            Row(
                f"throughput of {NODES} nodes beside {HOSTILE:,} hostile connections from {words}, of that without",
                f"{beset / alone:.0%} ({beset:.0f} of {alone:.0f} scans of 256 KiB a second)",
                f"{FLOOR:.0%}",
                beset / alone >= FLOOR,
            )
        )
        rows.append(
            Row(
                "the same: longest time from OFFER to ACK, and HUB's memory",
                f"{found['longest']:.1f} s, {found['rss'] / 1e6:.0f} MB",
            )
        )
    return rows
