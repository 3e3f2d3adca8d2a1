"""The pool with real worker processes, and everything that can go wrong in them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.brain.ipool import (
    AnalysisBrokeError,
    IPool,
    JobError,
    OutOfMemoryError,
    OverTimeError,
    PoolError,
    WorkerCrashedError,
)
from fr_twisted.brain.jobs import Job, JobResult, Limits
from fr_twisted.brain.pool import AnalysisPool
from fr_twisted.bundle import unpack
from fr_twisted.model import PayloadFormat, ScanMeta
from tests.analyses_for_tests import MODULE, REFUSAL
from tests.fakes_brain import InlinePool

reactor: Any = global_reactor

SLOTS = 2
TIME_LIMIT = 1.5
MEMORY = 512 * 1024 * 1024
PATIENCE = 30.0

Submit = Callable[..., Deferred[JobResult]]


def make_pool(**settings: Any) -> AnalysisPool:
    """Return a pool that is not yet started."""
    usual: dict[str, Any] = {"slots": SLOTS, "time_limit": TIME_LIMIT, "limits": Limits(memory=MEMORY)}
    return AnalysisPool(reactor, f"{MODULE}:QUICK", **(usual | settings))


@pytest_twisted.async_yield_fixture(scope="module")  # type: ignore[untyped-decorator]
async def processes() -> AsyncIterator[AnalysisPool]:
    """A pool of processes."""
    pool = make_pool()
    await pool.start()
    yield pool
    await pool.stop()


@pytest_twisted.async_yield_fixture(scope="module")  # type: ignore[untyped-decorator]
async def inline() -> AsyncIterator[InlinePool]:
    """The stand-in that unit tests use."""
    pool = InlinePool(SLOTS)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture(params=["processes", "inline"])
def pool(request: pytest.FixtureRequest) -> IPool:
    """Either of them: they are to behave alike."""
    found: IPool = request.getfixturevalue(request.param)
    return found


def job(folder: Path, name: str, **facts: Any) -> Job:
    """Return a job for a stand-in analysis."""
    payload = folder / "payload.nii"
    payload.write_bytes(b"voxels")
    meta = ScanMeta(patient_id="PX-1", format=PayloadFormat.NIFTI, facts=facts)
    return Job(f"{MODULE}:{name}", payload, "scan-1", meta)


def submit(pool: IPool, folder: Path, name: str, **facts: Any) -> Deferred[JobResult]:
    """Have a job done, within bounded time."""
    folder.mkdir(exist_ok=True)
    return pool.run(job(folder, name, **facts)).addTimeout(PATIENCE, reactor)


async def error_of(work: Deferred[JobResult], kind: type[Exception]) -> Any:
    """Return the error that ``work`` ends with."""
    with pytest.raises(kind) as caught:
        await work
    return caught.value


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return the first true value of ``condition``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        await deferLater(reactor, 0.01)
    raise AssertionError("it did not come to that in time")


def lives(pid: int) -> bool:
    """Return whether a process is there; one that has ended and only waits to be asked how is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


# --- what both do alike


async def test_result(pool: IPool, tmp_path: Path) -> None:
    """A result comes with its findings, its bundle and what it took."""
    result = await submit(pool, tmp_path, "QUICK")
    assert (result.analysis, result.analysis_version) == ("quick", "1")
    assert result.findings["bytes"] == 6
    assert unpack(result.bundle.read_bytes())["report.json"] == b"scan-1"
    assert 0 <= result.cpu_seconds < 5
    assert result.peak_rss > 1_000_000


async def test_refusal(pool: IPool, tmp_path: Path) -> None:
    """A refusal is the analysis' own error with its own words."""
    assert str(await error_of(submit(pool, tmp_path, "REFUSING"), UnusableScanError)) == REFUSAL


@pytest.mark.parametrize(
    "name", ["RAISING", "EXITING", "INFINITE", "MISNAMING", "NOT_AN_ANALYSIS", "NO_SUCH"]
)
async def test_broken(pool: IPool, tmp_path: Path, name: str) -> None:
    """An analysis that breaks in whatever way is an error of its job, and the slot works on."""
    error = await error_of(submit(pool, tmp_path, name), AnalysisBrokeError)
    assert error.detail
    assert (await submit(pool, tmp_path, "QUICK")).findings["bytes"] == 6


async def test_waits_for_a_slot(pool: IPool, tmp_path: Path) -> None:
    """More jobs than slots are done one after the other."""
    jobs = [submit(pool, tmp_path / str(n), "SLEEPING", seconds=0.02) for n in range(3 * SLOTS)]
    results = await DeferredList(jobs, fireOnOneErrback=True)
    assert len({result.bundle for _, result in results}) == 3 * SLOTS


# --- processes


async def test_worker_is_restricted(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker is another process, behind us in priority, with one thread a library and without a reactor."""
    findings = (await submit(processes, tmp_path, "QUICK")).findings
    assert findings["pid"] != os.getpid()
    assert findings["nice"] == os.nice(0) + 5
    assert findings["threads"] == os.environ.get("OMP_NUM_THREADS", "1")
    assert not findings["twisted"]


async def test_worker_is_kept(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker is used again and again."""
    pids = {(await submit(processes, tmp_path, "QUICK")).findings["pid"] for _ in range(4 * SLOTS)}
    assert len(pids) <= SLOTS


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("CRASHING", "killed by SIGSEGV", "in _crash"),
        ("DYING", "exit status 3", "these are the last words"),
        ("KILLED", "killed by SIGKILL, as the kernel does when memory runs out", ""),
    ],
)
async def test_crash(processes: AnalysisPool, tmp_path: Path, name: str, how: str, words: str) -> None:
    """A worker that dies takes neither its neighbours nor its slot along, and it is told how it died."""
    neighbour = submit(processes, tmp_path / "neighbour", "SLEEPING", seconds=0.3)
    error = await error_of(submit(processes, tmp_path, name), WorkerCrashedError)
    assert how in str(error)
    assert words in error.detail
    assert (await neighbour).findings["bytes"] == 6
    both = [submit(processes, tmp_path / str(n), "SLEEPING", seconds=0.1) for n in range(SLOTS)]
    assert all(success for success, _ in await DeferredList(both))


async def test_hang(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker that runs past its time is killed then, even inside native code that holds the interpreter's lock."""
    began = time.monotonic()
    error = await error_of(submit(processes, tmp_path, "HANGING"), OverTimeError)
    assert TIME_LIMIT <= time.monotonic() - began < TIME_LIMIT + 1.0
    assert str(error) == f"the analysis ran past its time of {TIME_LIMIT:g} s"
    assert error.detail.startswith("still at it | it was at analyses_for_tests.py:")
    assert "in _hang |" in error.detail
    assert not lives(int((tmp_path / "pid").read_text()))


async def test_deaf_hang(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker that will not even say where it is when it runs past its time is killed a moment later."""
    began = time.monotonic()
    error = await error_of(submit(processes, tmp_path, "DEAF"), OverTimeError)
    assert TIME_LIMIT + 0.4 <= time.monotonic() - began < TIME_LIMIT + 2.0
    assert error.detail == "not listening"
    assert (await submit(processes, tmp_path, "QUICK")).findings["bytes"] == 6


async def test_words_without_the_patient(processes: AnalysisPool, tmp_path: Path) -> None:
    """The last words of a worker hold nothing of what the scan says of its patient."""
    error = await error_of(submit(processes, tmp_path, "BLABBING", ward="ward seven"), WorkerCrashedError)
    assert error.detail == "patient … of …: … | odd value …"


async def test_memory_of_native_code(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker that native code ended for want of memory is told as that."""
    error = await error_of(submit(processes, tmp_path, "ABORTING"), OutOfMemoryError)
    assert "std::bad_alloc" in error.detail
    assert "in _abort" in error.detail


async def test_memory(processes: AnalysisPool, tmp_path: Path) -> None:
    """A job that wants too much memory is told so; its worker is replaced."""
    error = await error_of(submit(processes, tmp_path, "HUNGRY"), OutOfMemoryError)
    assert "FR_BRAIN_MEMORY_LIMIT" in str(error)
    assert (await submit(processes, tmp_path, "QUICK")).peak_rss < MEMORY


async def test_cancel(processes: AnalysisPool, tmp_path: Path) -> None:
    """Cancelling kills the worker, and the Deferred fires when it is gone."""
    work = submit(processes, tmp_path, "HANGING")
    pid = int(await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    began = time.monotonic()
    work.cancel()
    await error_of(work, CancelledError)
    assert time.monotonic() - began < 1.0
    assert not lives(pid)
    assert (await submit(processes, tmp_path, "QUICK")).findings["bytes"] == 6


async def test_death_in_sleep(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker that was killed while it had nothing to do is replaced, and the next job does not suffer for it."""
    for _ in range(2 * SLOTS):
        pid = (await submit(processes, tmp_path, "QUICK")).findings["pid"]
        os.kill(pid, signal.SIGKILL)
        assert (await submit(processes, tmp_path, "QUICK")).findings["bytes"] == 6


async def test_noise(processes: AnalysisPool, tmp_path: Path) -> None:
    """A worker that writes megabytes to standard error is not held up."""
    assert (await submit(processes, tmp_path, "LOUD")).findings["bytes"] == 6


async def test_worn_out(tmp_path: Path) -> None:
    """After a number of jobs a worker is replaced."""
    pool = make_pool(slots=1, max_jobs=2)
    await pool.start()
    try:
        pids = [(await submit(pool, tmp_path, "QUICK")).findings["pid"] for _ in range(5)]
    finally:
        await pool.stop()
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


async def test_cannot_start() -> None:
    """A pool whose analysis cannot be loaded says why, leaves nothing running, and may be started again."""
    pool = AnalysisPool(reactor, "no_such_module:X", slots=2, time_limit=1.0, limits=Limits())
    for _ in range(2):
        with pytest.raises(PoolError, match="'no_such_module:X' cannot be loaded: ModuleNotFoundError"):
            await pool.start()


async def test_stop_while_starting() -> None:
    """A pool may be stopped before it is up."""
    pool = make_pool()
    starting = pool.start()
    starting.addErrback(lambda failure: failure.trap(PoolError))
    began = time.monotonic()
    await pool.stop()
    await starting
    assert time.monotonic() - began < 5.0


async def test_stop(tmp_path: Path) -> None:
    """A stop is immediate whatever the workers do; none is left."""
    pool = make_pool(time_limit=60.0)
    await pool.start()
    work = [submit(pool, tmp_path / str(n), "HANGING") for n in range(SLOTS)]
    files = [tmp_path / str(n) / "pid" for n in range(SLOTS)]
    await until(lambda: all(file.exists() and file.read_text() for file in files))
    began = time.monotonic()
    await pool.stop()
    assert time.monotonic() - began < 1.0
    assert not any(lives(int(file.read_text())) for file in files)
    for one in work:
        await error_of(one, JobError)


_USER = """
import sys
from pathlib import Path
from twisted.internet import reactor
from fr_twisted.brain.jobs import Job, Limits
from fr_twisted.brain.pool import AnalysisPool
from fr_twisted.model import ScanMeta

folders = [Path(name) for name in sys.argv[1:]]
pool = AnalysisPool(reactor, "tests.analyses_for_tests:QUICK", slots=2, time_limit=60.0, limits=Limits())

def use(_):
    for folder in folders:
        meta = ScanMeta(patient_id="P1", format="nifti")
        pool.run(Job("tests.analyses_for_tests:HANGING", folder / "payload.nii", "scan-1", meta)).addErrback(print)

pool.start().addCallback(use)
reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
reactor.run()
"""


def descendants(pid: int) -> set[int]:
    """Return the processes that ``pid`` and its children have started."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_its_user(tmp_path: Path, how: signal.Signals) -> None:
    """When the pool's user is killed, in whatever way, no process of the pool is left, however stuck it is."""
    folders = [tmp_path / str(n) for n in range(SLOTS)]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", _USER, *map(str, folders)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as user:
        try:
            files = [folder / "pid" for folder in folders]
            await until(lambda: all(file.exists() and file.read_text() for file in files))
            family = descendants(user.pid)
            assert {int(file.read_text()) for file in files} < family
            # The workers, the fork server and multiprocessing's resource tracker.
            assert len(family) == SLOTS + 2
            user.send_signal(how)
            began = time.monotonic()
            await until(lambda: not any(lives(pid) for pid in family), 10.0)
            took = time.monotonic() - began
        finally:
            user.kill()
    assert took < 2.0
