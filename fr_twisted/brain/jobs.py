"""What runs in the worker processes of the pool: one analysis of one file at a time. No Twisted here.

A worker ends with its parent whatever happens: the kernel kills it when the process that uses the pool is gone, even
by SIGKILL, even while native code holds the interpreter's lock.
"""

import ctypes
import faulthandler
import fcntl
import json
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fr_twisted.brain import catalog
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.bundle import MAX_BUNDLE, pack
from fr_twisted.model import ScanMeta

BUNDLE_NAME = "bundle.tar"
"""Name of the file beside the payload that the report bundle is written to."""

TAKEN = "taken"
"""What a worker answers at once to a job: from here on its death may be the job's doing."""

PRELOAD = ("fr_twisted.brain.prelude", "fr_twisted.brain.jobs", "numpy", "scipy.ndimage", "nibabel")
"""Modules that the fork server imports once for all workers; one that is not installed is passed over.

None of them starts a thread (a fork takes none along). onnxruntime does, so an analysis is loaded in the worker.
"""

STARVED = ("Failed to allocate memory", "Cannot allocate memory", "bad_alloc")
"""How want of memory is told by others than Python: onnxruntime, the C library, C++."""

_MAX_REASON = 2000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Limits:
    """What a worker process may take."""

    memory: int | None = None
    """Bytes of its own writable memory (RLIMIT_DATA); None: no limit."""
    nice: int = 5
    """How far its scheduling priority stands behind the parent's."""


@dataclass(frozen=True)
class Job:
    """One scan to analyse."""

    analysis: str
    """As `fr_twisted.brain.catalog.load` takes it."""
    payload: Path
    """The scan's bytes; the report bundle is written beside it."""
    scan_id: str
    meta: ScanMeta


@dataclass(frozen=True)
class JobResult:
    """A finished analysis. Times are in seconds, ``peak_rss`` in bytes."""

    analysis: str
    analysis_version: str
    findings: dict[str, Any]
    bundle: Path
    seconds: float
    cpu_seconds: float
    peak_rss: int


@dataclass(frozen=True)
class JobRefusal:
    """The analysis says that the scan cannot be analysed, now or ever."""

    reason: str


@dataclass(frozen=True)
class JobFailure:
    """The analysis broke. ``reason`` quotes nothing that the scan says of its patient; ``detail`` may."""

    reason: str
    detail: str
    out_of_memory: bool = False


Outcome = JobResult | JobRefusal | JobFailure


def run(job: Job) -> Outcome:
    """Analyse one scan; whatever the analysis raises comes back as a value."""
    started, cpu = time.perf_counter(), time.process_time()
    _reset_peak_rss()
    try:
        analysis = catalog.load(job.analysis)
        result = analysis(job.payload, job.scan_id, job.meta)
        # Plain JSON values alone may cross to the parent and into the store.
        findings = json.loads(json.dumps(dict(result.findings), allow_nan=False))
        bundle = pack(result.files)
        if len(bundle) > MAX_BUNDLE:
            raise ValueError(f"the report's files are {len(bundle)} bytes, more than {MAX_BUNDLE}")
        path = job.payload.with_name(BUNDLE_NAME)
        path.write_bytes(bundle)
    except UnusableScanError as error:
        return JobRefusal(_bounded(str(error)) or "the analysis refused the scan without a reason")
    except (Exception, SystemExit) as error:
        return _failure(error)
    return JobResult(
        analysis=analysis.name,
        analysis_version=analysis.version,
        findings=findings,
        bundle=path,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        peak_rss=_peak_rss(),
    )


def send(pipe: Connection, value: object) -> None:
    """Send ``value`` to the process at the other end of ``pipe``.

    Not by ``pipe.send``: when that fails, its traceback holds a buffer that the garbage collector of CPython 3.12.0
    and 3.12.1 crashes on (python/cpython issue 111049).
    """
    pipe.send_bytes(pickle.dumps(value))


def receive(pipe: Connection) -> Any:
    """Return what the other end of ``pipe`` sends next.

    Raises:
        EOFError: there is no other end any more.
    """
    return pickle.loads(pipe.recv_bytes())


def serve(jobs: Connection, errors: Connection, warm: str, limits: Limits) -> None:
    """Be a worker: load the analysis ``warm``, send "" (or why it cannot be loaded), then answer jobs.

    Args:
        jobs: gives `Job` objects, takes `TAKEN` and then an `Outcome` for each; ends the worker when it is closed.
        errors: takes whatever is written to standard output and error.
        warm: an analysis to have ready, as `fr_twisted.brain.catalog.load` takes it.
        limits: what the process may take.
    """
    _end_with_parent()
    _redirect(errors)
    _restrict(limits)
    # Here too: the fork server passes over what it cannot import.
    from fr_twisted.brain import prelude

    try:
        catalog.load(warm)
    except catalog.AnalysisUnavailableError as error:
        send(jobs, _bounded(str(error)))
        return
    send(jobs, "")
    # A parent that goes away closes the pipe.
    with suppress(EOFError, BrokenPipeError):
        while True:
            job = receive(jobs)
            send(jobs, TAKEN)
            send(jobs, run(job))
            prelude.trim_memory()


def _end_with_parent() -> None:
    """Have the kernel kill this process when the pool's user, or the fork server between, is gone.

    The user's end: multiprocessing's sentinel is a pipe that it alone holds open, and fcntl(2) can ask for a signal
    of one's choice when a pipe is closed. The fork server: prctl(2). The fork server itself ends when its last user
    and the last worker have ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None or sys.platform != "linux":
        return
    sentinel: int = parent.sentinel
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # Whoever was gone before the calls above sends no signal any more.
    if wait([sentinel], 0) or os.getppid() == 1:
        os._exit(1)


def _redirect(errors: Connection) -> None:
    """Send standard output and error, a crash's traceback included, to the parent."""
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    errors.close()
    faulthandler.enable(file=2, all_threads=False)


def _restrict(limits: Limits) -> None:
    """Bound memory, leave no core files (they hold patients' images), step behind the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory is not None:
        # RLIMIT_DATA counts what is written, RLIMIT_AS also mapped libraries and reserved address space.
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = limits.memory if hard == resource.RLIM_INFINITY else min(limits.memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    os.nice(limits.nice)


def _failure(error: BaseException) -> JobFailure:
    """Say what broke and where."""
    text = str(error)
    starved = isinstance(error, MemoryError) or any(words in text for words in STARVED)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else ""
    # The frames hold the arrays of the analysis.
    traceback.clear_frames(error.__traceback__)
    return JobFailure(f"{type(error).__name__}{place}", _bounded(text), starved)


def _bounded(text: str) -> str:
    """Return one line, bounded, that any log and store can hold: no NUL, and no surrogates, as in odd file names."""
    line = " ".join(text.split())[:_MAX_REASON].replace("\0", "?")
    return line.encode("utf-8", "replace").decode("utf-8")


def _reset_peak_rss() -> None:
    """Let the high-water mark of memory begin anew: proc(5), /proc/pid/clear_refs."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
