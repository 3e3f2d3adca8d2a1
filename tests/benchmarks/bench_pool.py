"""Fr-BRAIN's pool of two workers against one bare loop in one process, over the same scans with the real analysis.

Beside it two bare loops at once, which have no pool: what they lose, caches and memory take from each other.

The scans are of one head with different noise, so that they cost the same and no worker waits for the other at the end.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Row

SCANS = 16
ROUNDS = 1
WORKERS = 2
SEED = 77
ANALYSIS = "t1-volumes"
TIME_LIMIT = 300.0
FLOOR = 0.95


def prepare(folder: Path) -> None:
    """Write the scans, 1 mm, each into a folder of its own, where its report will be written too."""
    from fr_twisted.pacs.encode import to_nifti
    from fr_twisted.pacs.generator import draw_recipe, generate

    recipe = draw_recipe(SEED)
    for number in range(SCANS):
        place = folder / str(number)
        place.mkdir(parents=True)
        scan = generate(replace(recipe, seed=SEED + number, base_seed=SEED))
        (place / "payload.nii.gz").write_bytes(to_nifti(scan))


def jobs(folder: Path) -> list[Any]:
    """Return a job for each scan."""
    from fr_twisted.brain.jobs import Job
    from fr_twisted.model import PayloadFormat, ScanMeta

    meta = ScanMeta(patient_id="bench", format=PayloadFormat.NIFTI_GZ)
    return [Job(ANALYSIS, folder / str(n) / "payload.nii.gz", f"scan-{n}", meta) for n in range(SCANS)]


def bare(folder: Path) -> None:
    """Do all jobs in this process, after one that does not count; print the seconds."""
    from fr_twisted.brain import prelude  # noqa: F401 - its import sets the environment of numeric libraries
    from fr_twisted.brain.jobs import JobResult, run

    todo = jobs(folder)
    run(todo[0])
    since = time.perf_counter()
    done = [run(job) for job in todo]
    _tell(time.perf_counter() - since, all(isinstance(each, JobResult) for each in done))


def pooled(folder: Path) -> None:
    """Do all jobs by the pool, after one for each worker that does not count; print the seconds."""
    from twisted.internet import task
    from twisted.internet.defer import Deferred, gatherResults

    from fr_twisted.brain.jobs import Limits
    from fr_twisted.brain.pool import AnalysisPool

    async def measured(reactor: Any) -> None:
        pool = AnalysisPool(
            reactor, ANALYSIS, slots=WORKERS, time_limit=TIME_LIMIT, limits=Limits(nice=0), max_jobs=2 * SCANS
        )
        await pool.start()
        try:
            todo = jobs(folder)
            await gatherResults([pool.run(job) for job in todo[:WORKERS]])
            since = time.perf_counter()
            await gatherResults([pool.run(job) for job in todo])
            _tell(time.perf_counter() - since, True)
        finally:
            await pool.stop()

    task.react(lambda reactor: Deferred.fromCoroutine(measured(reactor)))


def _tell(seconds: float, good: bool) -> None:
    print(json.dumps({"seconds": seconds, "good": good}), flush=True)


def seconds_of(way: str, *folders: Path) -> float:
    """Return the seconds that ``bare`` or ``pooled`` took, in a process of its own for each folder, all at once.

    Raises:
        RuntimeError: a scan gave no report.
    """
    command = [sys.executable, "-m", "tests.benchmarks.bench_pool", way]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([*command, str(folder)], stdout=pipe, stderr=pipe, text=True) for folder in folders
    ]
    seconds = []
    for process in running:
        out, complaint = process.communicate(timeout=1800)
        told = json.loads(out.splitlines()[-1]) if process.returncode == 0 and out else {}
        if not told.get("good"):
            raise RuntimeError(f"{way}: not every scan gave a report: {complaint[-1000:]}")
        seconds.append(float(told["seconds"]))
    return max(seconds)


def measure() -> list[Row]:
    """Take turns between the bare loop and the pool; the medians count."""
    what = f"pool with {WORKERS} workers, {SCANS} scans of 1 mm, of {WORKERS} times one bare loop"
    if (os.cpu_count() or 1) < WORKERS:
        return [Row(what, f"left out: there are fewer than {WORKERS} cores")]
    alone, together, beside = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(WORKERS)]
        prepare(folders[0])
        for folder in folders[1:]:
            shutil.copytree(folders[0], folder)
        for _ in range(ROUNDS):
            alone.append(seconds_of("bare", folders[0]))
            together.append(seconds_of("pooled", folders[0]))
            beside.append(seconds_of("bare", *folders))
    median = statistics.median
    share = median(alone) / median(beside)
    loops = Row(f"{WORKERS} bare loops at once, of {WORKERS} times one", f"{share:.0%}")
    return [row(what, median(alone), median(together)), loops]


def row(what: str, alone: float, together: float) -> Row:
    """Return the figure: seconds of the bare loop over those of the workers together."""
    efficiency = alone / (WORKERS * together)
    text = f"{efficiency:.0%} ({alone:.1f} s alone, {together:.1f} s with {WORKERS} workers)"
    return Row(what, text, f"{FLOOR:.0%}", efficiency >= FLOOR)


def main(arguments: Sequence[str]) -> None:
    """Be one of the two ways."""
    {"bare": bare, "pooled": pooled}[arguments[0]](Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
