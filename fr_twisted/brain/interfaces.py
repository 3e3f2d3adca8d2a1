"""What an analysis is: found by entry point ``fr_twisted.analyses``, run in a worker process. No Twisted here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fr_twisted.model import ScanMeta

ENTRY_POINTS = "fr_twisted.analyses"


class UnusableScanError(Exception):
    """The scan cannot be analysed, now or ever; the message tells a technician why and what to do.

    Such a scan becomes ``Failed`` at once, without further attempts.

    The message is logged and stored as it is: never quote patient data in it, no name, birth date or id, nor text of a
    header that may hold them. Say which field is wrong, not what stands in it, unless that is a figure.
    """


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis found.

    ``findings`` is JSON-able: finite numbers only, integers within 64 bits, no NUL in a key, well below 16 MB in all; a
    scan whose findings cannot be stored becomes ``Failed`` at once. ``files`` are the report's files by name, for
    `fr_twisted.bundle`: at least ``report.json``, ``report.html`` (one self-contained page) and ``overlay.png``.
    """

    findings: Mapping[str, Any]
    files: Mapping[str, bytes]


class Analysis(Protocol):
    """One version of one way to measure a scan. Deterministic: the same payload gives the same findings."""

    @property
    def name(self) -> str:
        """Short name, such as ``t1-volumes``."""

    @property
    def version(self) -> str:
        """Changes whenever findings may change; a report's id depends on it."""

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Measure the scan whose bytes are in the file ``payload``, of format ``meta.format``.

        Raises:
            UnusableScanError: with the reason, which is logged and must not quote patient data.
            Exception: anything else counts as broken and is tried again; the log gets its type and place alone.
        """
