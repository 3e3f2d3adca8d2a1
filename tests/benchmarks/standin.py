"""An analysis that takes no time, for measurements of everything else."""

import hashlib
import json
from pathlib import Path

from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.bundle import OVERLAY_PNG, REPORT_HTML, REPORT_JSON
from fr_twisted.model import ScanMeta


class QuickReport:
    """Hashes the payload."""

    name = "quick-report"
    version = "1"

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Return a report that a PACS accepts."""
        findings = {"sha256": hashlib.sha256(payload.read_bytes()).hexdigest()}
        report = {
            "scan_id": scan_id,
            "patient_id": meta.patient_id,
            "analysis": self.name,
            "analysis_version": self.version,
            "findings": findings,
        }
        files = {REPORT_JSON: json.dumps(report).encode(), REPORT_HTML: b"<p>stand-in", OVERLAY_PNG: b"-"}
        return AnalysisResult(findings, files)


QUICK_REPORT = QuickReport()
