"""How long the house takes between two steps when it is idle: from the units' own log lines, all on one clock."""

import os
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from tests.benchmarks.table import Row
from tests.house import House, wait_for

SCANS = 12


def moments(events: list[dict[str, Any]]) -> dict[str, datetime]:
    """Return when each scan had its (last) such event."""
    return {event["scan_id"]: datetime.fromisoformat(event["t"]) for event in events}


def gap(first: dict[str, datetime], second: dict[str, datetime]) -> list[float]:
    """Return the seconds between two events of each scan."""
    return [(second[scan] - first[scan]).total_seconds() for scan in first]


def put_scan(folder: Path, number: int) -> None:
    """Write a small file of its own; the stand-in analysis looks at none of it."""
    image = nibabel.Nifti1Image(
        np.random.default_rng(number).integers(0, 99, (16, 16, 16), np.int16), np.eye(4)
    )
    nibabel.save(image, folder.parent / "new.nii")
    os.replace(folder.parent / "new.nii", folder / f"sub-{number:03}_T1w.nii")


def measure() -> list[Row]:
    """Send scans one by one, each when the house is idle again; a stand-in analysis takes no time."""
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name), FR_BRAIN_ANALYSIS="tests.benchmarks.standin:QUICK_REPORT", FR_BRAIN_SLOTS=1)
        try:
            house.start()
            for number in range(SCANS):
                put_scan(house.watched, number)
                wait_for("a report", lambda: len(house.pacs.events("report.written")) > number)  # noqa: B023
                time.sleep(0.5)
            stored = moments(house.hub.events("scan.stored"))
            claimed = moments(house.brain.events("scan.claimed"))
            done = moments(house.brain.events("scan.done"))
            written = moments(house.pacs.events("report.written"))
        finally:
            house.stop()
    to_claim, to_disk = gap(stored, claimed), gap(done, written)
    return [
        row("scan To Do to claimed by an idle BRAIN, with change streams", to_claim, 0.3),
        row("report written to report on the PACS's disk, idle", to_disk, 0.5),
    ]


def row(what: str, seconds: list[float], limit: float) -> Row:
    """Return the worst of ``seconds`` as a figure."""
    worst, median = max(seconds), statistics.median(seconds)
    text = f"{worst * 1e3:.0f} ms at worst, {median * 1e3:.0f} ms median of {len(seconds)}"
    return Row(what, text, f"under {limit} s", worst < limit)
