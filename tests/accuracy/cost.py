"""What an analysis costs, by stage, and whether workers and order change a report."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue

from pydantic import BaseModel, ConfigDict

from fr_twisted.brain.jobs import Job, JobResult, Limits
from fr_twisted.brain.worker import WorkerProcess
from fr_twisted.bundle import REPORT_JSON, unpack
from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.encode import to_nifti
from fr_twisted.pacs.generator import generate
from fr_twisted.pacs.generator.recipe import Recipe, Triple, draw_recipe
from tests.accuracy.cases import Plan, Table
from tests.accuracy.runner import ROOT, tell

GRIDS: dict[str, Triple] = {"1 mm": (1.0, 1.0, 1.0), "2 mm": (2.0, 2.0, 2.0), "1x1x5 mm": (1.0, 1.0, 5.0)}
SCANS = 3
REPEATED = 2
"""So many scans of each grid are analysed again in each pass."""

PASSES = {"1 worker": (1, False), "2 workers": (2, False), "2 workers, last scan first": (2, True)}
"""Name to workers, and whether the order is reversed."""

ANALYSIS = "t1-volumes"
SECONDS = 300
META = ScanMeta(patient_id="accuracy", format=PayloadFormat.NIFTI_GZ)


class ScanCost(BaseModel):
    """Of one scan in a process of its own: CPU seconds, bytes."""

    model_config = ConfigDict(frozen=True)

    import_cpu: float
    import_rss: int
    cpu: float
    peak: int
    stage_cpu: dict[str, float]
    stage_peak: dict[str, int]


class Cost(BaseModel):
    """All that was measured.

    ``scans``: each in a fresh process. ``trimmed``: of each grid one scan whose free memory was given back before each
    stage. ``reports``: SHA-256 of the report of some of them in each pass. ``worker_peak``: bytes.
    """

    model_config = ConfigDict(frozen=True)

    scans: dict[str, list[ScanCost]]
    trimmed: dict[str, ScanCost]
    reports: dict[str, list[str]]
    worker_peak: int


def kept(plan: Plan, executor: Executor, folder: Path, state: str) -> Cost:
    """Return what `measure` does, or did when nothing that it depends on (``state``) had changed since."""
    told = json.dumps([state, dataclasses.asdict(plan)]).encode()
    path = folder / f"cost-{hashlib.sha256(told).hexdigest()[:32]}.json"
    if path.exists():
        return Cost.model_validate_json(path.read_text(encoding="utf-8"))
    cost = measure(plan, executor)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(cost.model_dump_json(), encoding="utf-8")
    return cost


def measure(plan: Plan, executor: Executor) -> Cost:
    """Return what scans of each grid cost; nothing else should run beside it. ``executor`` makes the scans."""
    seeds = plan.seeds(Table.COST, SCANS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipes = {grid: [draw_recipe(seed, spacing) for seed in seeds] for grid, spacing in GRIDS.items()}
        wanted = [
            (recipe, _path(folder, grid, number))
            for grid, some in recipes.items()
            for number, recipe in enumerate(some)
        ]
        list(executor.map(write, *zip(*wanted, strict=True)))
        tell(f"cost: {len(wanted)} scans, one by one")
        scans = {grid: [alone(_path(folder, grid, number)) for number in range(SCANS)] for grid in GRIDS}
        trimmed = {grid: alone(_path(folder, grid, 0), "trimmed") for grid in GRIDS}
        again = [_path(folder, grid, number) for grid in GRIDS for number in range(REPEATED)]
        reports, peaks = {}, []
        for label, (workers, backwards) in PASSES.items():
            tell(f"cost: the same with {label}")
            made = together(again, workers, backwards)
            reports[label] = [digest(result) for result in made]
            peaks += [result.peak_rss for result in made]
    return Cost(scans=scans, trimmed=trimmed, reports=reports, worker_peak=max(peaks))


def _path(folder: Path, grid: str, number: int) -> Path:
    return folder / f"{grid} {number}.nii.gz"


def write(recipe: Recipe, path: Path) -> None:
    """Write the scan of a recipe."""
    path.write_bytes(to_nifti(generate(recipe)))


def alone(path: Path, *more: str) -> ScanCost:
    """Return what one analysis costs in a fresh process; ``more`` arguments as `tests.accuracy.cost_process` has them.

    Raises:
        subprocess.SubprocessError: it was refused, or ran out of time.
    """
    command = [sys.executable, "-m", "tests.accuracy.cost_process", str(path), META.format.value, *more]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS)
    return ScanCost.model_validate_json(done.stdout.splitlines()[-1])


def together(paths: Sequence[Path], workers: int, backwards: bool) -> list[JobResult]:
    """Return the results of scans, in the order of ``paths``, from Fr-BRAIN's own worker processes.

    Raises:
        RuntimeError: a scan gave no result.
    """
    queue: SimpleQueue[int] = SimpleQueue()
    for number in sorted(range(len(paths)), reverse=backwards):
        queue.put(number)
    found: dict[int, JobResult] = {}

    def serve() -> None:
        with closing(WorkerProcess(ANALYSIS, Limits(nice=0))) as worker:
            worker.start()
            while True:
                try:
                    number = queue.get_nowait()
                except Empty:
                    return
                place = paths[number].parent / f"{workers}{backwards}{number}"
                place.mkdir()
                payload = place / "payload"
                payload.symlink_to(paths[number])
                outcome = worker.call(Job(ANALYSIS, payload, f"scan-{number}", META))
                if isinstance(outcome, JobResult):
                    found[number] = outcome

    threads = [threading.Thread(target=serve) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < len(paths):
        raise RuntimeError(f"{len(paths) - len(found)} of {len(paths)} scans gave no report")
    return [found[number] for number in range(len(paths))]


def digest(result: JobResult) -> str:
    """Return the SHA-256 of the report of a result."""
    return hashlib.sha256(unpack(result.bundle.read_bytes())[REPORT_JSON]).hexdigest()
