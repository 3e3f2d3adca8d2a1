"""The analysis of the fault rounds: takes milliseconds, says that it is at work, misbehaves where a scan asks it to.

It runs in worker processes, as ``tests.faults.standin:ANALYSIS``.
"""

import ctypes
import hashlib
import os
import time
from pathlib import Path

from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.model import ScanMeta
from tests.analyses_for_tests import minimal_report

FOLDER = "FR_TEST_FAULTS_DIR"
"""Environment: where it says that it is at work, and may be told to stay."""

LONGEST_HOLD = 12.0

NAME, VERSION = "fault-standin", "1"


class StandIn:
    """Hashes the payload."""

    name = NAME
    version = VERSION

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Return a report that a PACS accepts; unless the patient's id asks for something else."""
        _stay(scan_id)
        if meta.patient_id.startswith("sub-crash"):
            ctypes.string_at(0)
        if meta.patient_id.startswith("sub-hang"):
            # Native code that never lets go of the interpreter's lock.
            ctypes.PyDLL(None).sleep(300)
        if meta.patient_id.startswith("sub-hungry"):
            eaten = []
            while True:
                eaten.append(bytearray(16 * 1024 * 1024))
        data = payload.read_bytes()
        findings = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        report = minimal_report(self.name, self.version, scan_id, meta, findings)
        return AnalysisResult(findings, {"report.json": report})


def _stay(scan_id: str) -> None:
    """While there is a file that tells this BRAIN's workers to stay, say who we are and stay."""
    folder, node = os.environ.get(FOLDER), os.environ.get("FR_BRAIN_NODE", "brain")
    if folder is None:
        return
    hold = Path(folder) / f"hold.{node}"
    end = time.monotonic() + LONGEST_HOLD
    if hold.exists():
        running = Path(folder) / f"running.{node}.{os.getpid()}"
        running.write_text(scan_id)
        while hold.exists() and time.monotonic() < end:
            time.sleep(0.01)
        running.unlink(missing_ok=True)


ANALYSIS = StandIn()
