"""Stand-in analyses for the tests of the pool: some work, the others misbehave in every way that has to be survived.

They run in worker processes and are named ``tests.analyses_for_tests:QUICK`` and so on.
"""

# ruff: noqa: ARG001 - all have the arguments of an analysis.

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fr_twisted.brain.interfaces import AnalysisResult, UnusableScanError
from fr_twisted.model import ScanMeta

MODULE = "tests.analyses_for_tests"

REFUSAL = "the series has 3 slices; a T1 volume of the whole brain has at least 80"


def minimal_report(name: str, version: str, scan_id: str, meta: ScanMeta, findings: dict[str, Any]) -> bytes:
    """Return a ``report.json`` that a PACS accepts."""
    report = {
        "scan_id": scan_id,
        "patient_id": meta.patient_id,
        "analysis": name,
        "analysis_version": version,
        "findings": findings,
    }
    return json.dumps(report).encode()


@dataclass(frozen=True)
class StandIn:
    """An analysis that does what ``behave`` does."""

    name: str
    behave: Callable[[Path, str, ScanMeta], AnalysisResult]
    version: str = "1"

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Behave."""
        return self.behave(payload, scan_id, meta)


def _quick(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    data = payload.read_bytes()
    findings = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "file": payload.name,
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "twisted": "twisted.internet.reactor" in sys.modules,
        "nice": os.nice(0),
    }
    return AnalysisResult(findings, {"report.json": scan_id.encode(), "overlay.png": data[:8]})


def _refuse(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    raise UnusableScanError(REFUSAL)


def _raise(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    raise ValueError("something of the patient's")


def _exit(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    sys.exit("giving up")


def _crash(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    ctypes.string_at(0)
    raise AssertionError("unreachable")


def _crash_at_once(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    print("these are the last words", file=sys.stderr, flush=True)
    os._exit(3)


def _be_killed(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _hang(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    payload.with_name("pid").write_text(str(os.getpid()))
    print("still at it", file=sys.stderr, flush=True)
    # Native code that never lets go of the interpreter's lock: no thread and no signal handler of Python's gets to run.
    ctypes.PyDLL(None).sleep(300)
    raise AssertionError("unreachable")


def _be_deaf(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    # The handler of faulthandler is gone, as a library of its own signals may have it.
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    print("not listening", file=sys.stderr, flush=True)
    time.sleep(300)
    raise AssertionError("unreachable")


def _blab(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    print(f"patient {meta.patient_id} of {meta.facts['ward']}: Doe^Jane", file=sys.stderr)
    print("odd value 'Jane Doe'", file=sys.stderr, flush=True)
    os._exit(1)


def _abort(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
    os.abort()


def _eat_memory(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    eaten = []
    while True:
        eaten.append(bytearray(16 * 1024 * 1024))


def _shout(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    for _ in range(64):
        os.write(2, b"noise " * 8192)
    return _quick(payload, scan_id, meta)


def _find_infinity(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    return AnalysisResult({"volume": float("inf")}, {"report.json": b"{}"})


def _name_badly(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    return AnalysisResult({}, {"report.json": b"{}", "../escape.json": b"{}"})


def _sleep(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    time.sleep(float(meta.facts["seconds"] or 0))
    return _quick(payload, scan_id, meta)


QUICK = StandIn("quick", _quick)
REFUSING = StandIn("refusing", _refuse)
RAISING = StandIn("raising", _raise)
EXITING = StandIn("exiting", _exit)
CRASHING = StandIn("crashing", _crash)
DYING = StandIn("dying", _crash_at_once)
KILLED = StandIn("killed", _be_killed)
HANGING = StandIn("hanging", _hang)
HUNGRY = StandIn("hungry", _eat_memory)
DEAF = StandIn("deaf", _be_deaf)
BLABBING = StandIn("blabbing", _blab)
ABORTING = StandIn("aborting", _abort)
LOUD = StandIn("loud", _shout)
INFINITE = StandIn("infinite", _find_infinity)
MISNAMING = StandIn("misnaming", _name_badly)
SLEEPING = StandIn("sleeping", _sleep)


def _as_told(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    behaviour: StandIn = globals()[str(meta.facts["behaviour"])]
    return behaviour(payload, scan_id, meta)


TOLD = StandIn("told", _as_told)
"""Does what the scan's facts say."""

NOT_AN_ANALYSIS = "just a text"
