"""200 nodes connected at once, sending to one HUB: rate against that of 2, fairness, all kept, CPU and memory."""

import hashlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import MongoClient

from fr_twisted.store.indexes import CHUNKS, SCANS
from tests.benchmarks.running import Rss, cpu_seconds, run
from tests.benchmarks.table import Row
from tests.benchmarks.units import HubAndStore, hub_and_store

FEW, MANY = 2, 200
SIZE = 64 * 1024
SECONDS = 20.0
ROUNDS = 3
RATE_FLOOR = 0.8
FAIR_FLOOR = 0.5
LOOKED_AT = 10
"""One of so many payloads is read back and hashed; of all others the documents are looked at."""


@dataclass
class Crowd:
    """What was measured of a number of nodes, by round."""

    rates: list[float] = field(default_factory=list)
    fairness: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Items by label of the round and node."""


def one(units: HubAndStore, nodes: int, seconds: float, label: str, into: Crowd) -> None:
    """Let the nodes send, and note what came of it."""
    cpu, since = cpu_seconds(units.pid), time.monotonic()
    with Rss(units.pid) as memory:
        told = run("crowd", units.port, nodes, SIZE, seconds, label)
    into.cpu.append((cpu_seconds(units.pid) - cpu) / (time.monotonic() - since))
    into.rss.append(memory.peak)
    counts = told["acknowledged"]
    into.rates.append(sum(counts) / seconds)
    into.fairness.append(min(counts) / max(counts))
    into.connected.append(told["connected"])
    into.longest.append(max(told["longest"]))
    into.acknowledged |= {f"{label}-{node}": kept for node, kept in enumerate(told["kept"])}


def measured(few: int, many: int, rounds: int, seconds: float) -> tuple[Crowd, Crowd, int, int]:
    """Return what was measured of few and of many nodes, how many scans were acknowledged, and how many are kept."""
    small, large = Crowd(), Crowd()
    with hub_and_store() as units:
        for number in range(rounds):
            one(units, few, seconds, f"few-{number}", small)
            one(units, many, seconds, f"many-{number}", large)
        wanted = small.acknowledged | large.acknowledged
        return small, large, sum(wanted.values()), kept(units.uri, wanted)


def kept(uri: str, wanted: dict[str, int]) -> int:
    """Return how many of the acknowledged scans are in the store as they were sent, read by a client of its own."""
    with MongoClient[dict[str, Any]](uri) as client:
        database = client.get_default_database()
        good = 0
        digests = {label: digest(label) for label in {name.rpartition("-")[0] for name in wanted}}
        there = {
            scan["_id"]: scan
            for scan in database[SCANS].find({}, {"sha256": 1, "payload_id": 1, "source": 1})
        }
        for name, count in wanted.items():
            for number in range(count):
                scan = there.get(f"{name}-{number}")
                if scan is None or (scan["sha256"], scan["source"]) != (
                    digests[name.rpartition("-")[0]],
                    name,
                ):
                    continue
                if number % LOOKED_AT == 0:
                    chunk = database[CHUNKS].find_one({"_id": f"{scan['payload_id']}:0"})
                    if chunk is None or hashlib.sha256(chunk["data"]).hexdigest() != scan["sha256"]:
                        continue
                good += 1
        return good


def digest(label: str) -> str:
    """Return the digest of what a crowd with this label sends."""
    return hashlib.sha256(hashlib.shake_256(label.encode()).digest(SIZE)).hexdigest()


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def measure() -> list[Row]:
    """Take turns between few and many."""
    small, large, acknowledged, there = measured(FEW, MANY, ROUNDS, SECONDS)
    ratio = middle(large.rates) / middle(small.rates)
    fair = min(large.fairness)
    what = f"{MANY} nodes sending 64 KiB scans at once"
    return [
        Row(
            f"{what}: rate, of that of {FEW} nodes",
            f"{ratio:.0%} ({middle(large.rates):.0f} of {middle(small.rates):.0f} a second)",
            f"{RATE_FLOOR:.0%}",
            ratio >= RATE_FLOOR,
        ),
        Row(
            "the same: acknowledged scans that are in the store as they were sent",
            f"{there:,} of {acknowledged:,}",
            "all",
            there == acknowledged,
        ),
        Row(
            "the same: scans of the slowest node, of those of the fastest (the worst round)",
            f"{fair:.0%}",
            f"{FAIR_FLOOR:.0%}",
            fair >= FAIR_FLOOR,
        ),
        Row(
            "the same: until all were connected, and the longest wait for an ACK",
            f"{max(large.connected):.1f} s, {max(large.longest):.1f} s",
        ),
        Row(
            f"the same: the HUB's CPU and memory, with {FEW} nodes in brackets",
            f"{middle(large.cpu):.0%} of a core, {max(large.rss) / 1e6:.0f} MB "
            f"({middle(small.cpu):.0%}, {max(small.rss) / 1e6:.0f} MB)",
        ),
    ]
