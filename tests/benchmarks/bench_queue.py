"""Claims, deliveries and ``fr status`` while 1,000, 10,000 and 100,000 scans and as many reports wait.

Three databases of one embedded server, measured in turns; the rates are ratios to those at the shortest queue.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from fr_twisted.store.indexes import create_commands
from tests.benchmarks.queues import LongQueue
from tests.benchmarks.running import run
from tests.benchmarks.table import Row
from tests.benchmarks.taker import NODE
from tests.daemons import ROOT
from tests.store_servers import EmbeddedServer, client, with_database

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 3
TAKEN = 300
"""Scans and reports that one process takes from a queue, which is then refilled."""

FLOOR = 0.5

Rates = dict[str, dict[int, float]]


def measure() -> list[Row]:
    """Measure, and print the plan of each query to standard error."""
    return rows(*measured(SIZES, ROUNDS, TAKEN))


def measured(sizes: Sequence[int], rounds: int, taken: int) -> tuple[Rates, dict[int, float] | None]:
    """Return the median rates, and seconds of the first, by size of the queue; and the seconds of ``fr status``."""
    found: dict[str, dict[int, list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = EmbeddedServer(folder / "store")
        server.start()
        stack.callback(server.stop)
        queues = [LongQueue(with_database(server.uri, f"fr_{size}"), size) for size in sizes]
        for queue in queues:
            stack.callback(queue.close)
            for plan in queue.plans():
                met = f"{plan.met} met, {plan.returned} returned"
                print(f"  {queue.size}: {plan.name}: {plan.index}, {met}", file=sys.stderr)
        for _ in range(rounds):
            for queue in queues:
                told = run("taker", queue.uri, "take", taken, NODE)
                for what, seconds in told.items():
                    rate = (taken - 1) / seconds["others"]
                    found.setdefault(what, {}).setdefault(queue.size, []).append(rate)
                    print(f"  {queue.size}: {what}: {rate:.0f} a second", file=sys.stderr)
                    found.setdefault(f"first of {what}", {}).setdefault(queue.size, []).append(
                        seconds["first"]
                    )
                queue.refill()
        empty = with_database(server.uri, "fr_empty")
        with client(empty) as plain:
            for command in create_commands():
                plain.get_default_database().command(command)
        told_by = {queue.size: status_seconds(queue.uri, empty) for queue in queues}
        statuses = {size: seconds for size, seconds in told_by.items() if seconds is not None}
    rates = {what: {size: statistics.median(each) for size, each in by.items()} for what, by in found.items()}
    return rates, statuses or None


def status_seconds(uri: str, empty: str) -> float | None:
    """Return the seconds of ``fr status --json`` beyond those at an empty database; None: there is no such command."""
    _, code = status(uri, "--help")
    if code:
        return None
    seconds = []
    for each in (empty, uri):
        took, code = status(each, "--json")
        if code:
            raise RuntimeError(f"fr status --json ended with {code}")
        seconds.append(took)
    return seconds[1] - seconds[0]


def status(uri: str, option: str) -> tuple[float, int]:
    """Return the seconds and the exit status of ``fr status``."""
    since = time.perf_counter()
    command = [sys.executable, "-m", "fr_twisted.command", "status", option]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FR_MONGO_URI": uri}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    return time.perf_counter() - since, done.returncode


def rows(rates: Rates, statuses: dict[int, float] | None) -> list[Row]:
    """Return the figures."""
    table = []
    for what in ("claims", "deliveries"):
        shortest, *longer = rates[what]
        base = rates[what][shortest]
        for size in longer:
            ratio = rates[what][size] / base
            text = f"{ratio:.0%} ({rates[what][size]:.0f} of {base:.0f} a second)"
            table.append(
                Row(
                    f"rate of {what} with {size:,} waiting, of that with {shortest:,}",
                    text,
                    f"{FLOOR:.0%}",
                    ratio >= FLOOR,
                )
            )
        first = rates[f"first of {what}"]
        text = ", ".join(f"{seconds:.2f} s at {size:,}" for size, seconds in first.items())
        table.append(Row(f"the first of those {what} after a start", text))
    if statuses is None:
        return [*table, Row("fr status", "left out: this version has no such command")]
    text = ", ".join(f"{seconds:.2f} s at {size:,}" for size, seconds in statuses.items())
    return [*table, Row("fr status, beyond what it takes at an empty store", text)]
