"""The resident memory of HUB and BRAIN over a run of 10,000 scans: how much it grows with each thousand.

Small payloads and a stand-in analysis of milliseconds; one node sends, a real Fr-PACS takes the reports.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.running import rss_of, start
from tests.benchmarks.table import Row
from tests.house import House

SCANS = 10_000
SIZE = 2000
EVERY = 1.0
"""Seconds between two samples."""

WARM = 0.25
"""The part of the run that does not count: imports, pools and caches fill."""

MOST_GROWTH = 0.3e6
"""Bytes per 1,000 scans."""

PATIENCE = 900.0

Sample = tuple[int, float]


def measured(scans: int) -> dict[str, list[Sample]]:
    """Return samples of each unit: reports that have arrived, resident bytes."""
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name), FR_BRAIN_ANALYSIS="tests.benchmarks.standin:QUICK_REPORT", FR_BRAIN_SLOTS=2)
        port = house.hub.settings["FR_HUB_LISTEN"].split(":")[1]
        try:
            house.start()
            load = start("crowd", port, 1, SIZE, PATIENCE, "pacs", scans)
            try:
                samples = sampled(house, scans)
            finally:
                load.kill()
                load.communicate()
            return samples
        finally:
            house.stop()


def sampled(house: House, scans: int) -> dict[str, list[Sample]]:
    """Look at the units until all reports are there."""
    units = {"HUB": house.hub, "BRAIN": house.brain}
    samples: dict[str, list[Sample]] = {name: [] for name in units}
    end, done = time.monotonic() + PATIENCE, 0
    while done < scans:
        if time.monotonic() > end:
            raise RuntimeError(f"only {done} of {scans} reports within {PATIENCE:g} s")
        time.sleep(EVERY)
        done = sum(1 for each in os.scandir(house.reports) if not each.name.startswith("."))
        for name, unit in units.items():
            assert unit.process is not None
            assert unit.process.poll() is None, f"{name} ended"
            samples[name].append((done, rss_of(unit.process.pid)))
    return samples


def growth(samples: Sequence[Sample], warm: float = WARM) -> float:
    """Return the bytes per 1,000 scans by which memory grows after the warm-up: the slope of the line of best fit."""
    last = samples[-1][0]
    counted = [(n, size) for n, size in samples if n >= warm * last]
    mean_n = sum(n for n, _ in counted) / len(counted)
    mean_size = sum(size for _, size in counted) / len(counted)
    spread = sum((n - mean_n) ** 2 for n, _ in counted)
    return 1000 * sum((n - mean_n) * (size - mean_size) for n, size in counted) / spread


def measure() -> list[Row]:
    """Measure; the samples go to standard error."""
    rows = []
    for name, samples in measured(SCANS).items():
        told = ", ".join(f"{n}: {size / 1e6:.1f}" for n, size in samples[:: max(1, len(samples) // 20)])
        print(f"  {name}, reports: MB: {told}", file=sys.stderr)
        slope = growth(samples)
        first = next(size for n, size in samples if n >= WARM * SCANS)
        rows.append(
            Row(
                f"{name}'s resident memory over {SCANS:,} scans: growth per 1,000 after the first {WARM:.0%}",
                f"{slope / 1e6:+.2f} MB, from {first / 1e6:.1f} to {samples[-1][1] / 1e6:.1f} MB",
                f"under {MOST_GROWTH / 1e6} MB",
                slope < MOST_GROWTH,
            )
        )
    return rows
