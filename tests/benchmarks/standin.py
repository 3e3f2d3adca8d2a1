"""An analysis that takes no time, for measurements of everything else."""

import hashlib
from pathlib import Path

from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.bundle import OVERLAY_PNG, REPORT_HTML, REPORT_JSON
from fr_twisted.model import ScanMeta
from tests.analyses_for_tests import minimal_report


class QuickReport:
    """Hashes the payload."""

    name = "quick-report"
    version = "1"

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Return a report that a PACS accepts."""
        findings = {"sha256": hashlib.sha256(payload.read_bytes()).hexdigest()}
        report = minimal_report(self.name, self.version, scan_id, meta, findings)
        files = {REPORT_JSON: report, REPORT_HTML: b"<p>stand-in", OVERLAY_PNG: b"-"}
        return AnalysisResult(findings, files)


QUICK_REPORT = QuickReport()
