"""Has cases examined by a pool of processes; keeps what came of each in a file, so that a run can be taken up again."""

import hashlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.accuracy.cases import Case
from tests.accuracy.results import Known, Result

ROOT = Path(__file__).resolve().parent.parent.parent

SOURCES = (
    "fr_twisted/brain/analysis",
    "fr_twisted/pacs/generator",
    "fr_twisted/pacs/data",
    "fr_twisted/pacs/encode.py",
    "tests/accuracy/changes.py",
    "tests/accuracy/compare.py",
    "tests/accuracy/examine.py",
    "tests/accuracy/ideal.py",
    "tests/accuracy/results.py",
    "tests/accuracy/sources.py",
    "tests/accuracy/subjects.py",
)
"""Files and folders that a result depends on."""

LIBRARIES = ("numpy", "scipy", "onnxruntime")

Examine = Callable[[Case, Path], Result]


def state(root: Path = ROOT) -> str:
    """Return a digest of all that a result depends on beside its case."""
    digest = hashlib.sha256()
    for name in LIBRARIES:
        digest.update(f"{name} {version(name)}\n".encode())
    for path in _files(root):
        digest.update(f"{path.relative_to(root)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for source in SOURCES:
        place = root / source
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        yield from (path for path in found if path.is_file() and "__pycache__" not in path.parts)


class Store:
    """The results that are there already, a file each."""

    def __init__(self, folder: Path, of: str) -> None:
        """Keep them in ``folder`` under what they depend on: `state`."""
        self.folder = folder
        self._state = of

    def path(self, case: Case) -> Path:
        """Return where the result of a case is kept."""
        return self.folder / f"{case.key(self._state)}.json"

    def get(self, case: Case) -> Result | None:
        """Return the result of a case, if there is one."""
        path = self.path(case)
        return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None

    def put(self, case: Case, result: Result) -> None:
        """Keep the result of a case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(case)
        part = path.with_suffix(".part")
        part.write_text(result.model_dump_json(), encoding="utf-8")
        part.replace(path)


class Results:
    """What came of all cases."""

    def __init__(self, by_path: dict[Path, Result], store: Store) -> None:
        self._by_path = by_path
        self._store = store

    def of(self, case: Case) -> Result:
        """Return the result of a case."""
        return self._by_path[self._store.path(case)]


@contextmanager
def pool(workers: int) -> Iterator[Executor]:
    """Give fresh processes that have one thread each; those that have not begun a case at an error never do."""
    from fr_twisted.brain import prelude  # noqa: F401 - sets the environment that the processes inherit

    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def run(
    cases: Iterable[Case],
    store: Store,
    executor: Executor,
    examine: Examine,
    images: Path,
    absent: Mapping[str, str] | None = None,
) -> Results:
    """Return what came of each case; what is kept already is not done again.

    Args:
        cases: several may be of one scan.
        store: of results.
        executor: does the work.
        examine: as `tests.accuracy.examine.examine`.
        images: folder of the real images.
        absent: subjects that cannot be had, and why.
    """
    wanted = {store.path(case): case for case in reversed(list(cases))}
    found = {path: _absent(case, absent or {}) or store.get(case) for path, case in wanted.items()}
    done = {path: result for path, result in found.items() if result is not None}
    missing = [case for path, case in reversed(wanted.items()) if path not in done]
    tell(f"{len(wanted)} scans, {len(done)} of them known already")
    futures = {executor.submit(examine, case, images): case for case in missing}
    for case, result in _ended(futures):
        store.put(case, result)
        done[store.path(case)] = result
    return Results(done, store)


def _absent(case: Case, absent: Mapping[str, str]) -> Result | None:
    reason = absent.get(case.subject) if isinstance(case.subject, str) else None
    return None if reason is None else Result(known=Known(), absent=reason)


def _ended(futures: dict[Future[Result], Case]) -> Iterator[tuple[Case, Result]]:
    since = time.monotonic()
    for number, future in enumerate(as_completed(futures), 1):
        case, result = futures[future], future.result()
        seconds = time.monotonic() - since
        tell(f"{number}/{len(futures)} after {seconds:.0f} s: {case.head}, {case.label}: {result.outcome}")
        yield case, result


def tell(words: str) -> None:
    """Say how far the run is."""
    print(words, file=sys.stderr, flush=True)
