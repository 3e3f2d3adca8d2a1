"""What became of the scans of one run, told from the units' log lines; and its table. No input or output."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

VOLUMES = (
    ("brain", "brain"),
    ("grey_matter", "GM"),
    ("white_matter", "WM"),
    ("csf", "CSF"),
    ("ventricles", "ventr."),
)
"""Keys of ``volumes`` in a report's findings, and their columns."""

_NONE = "-"


class Stage(IntEnum):
    """How far a scan has come. It never goes back, save from measuring to kept when it is tried again."""

    PREPARED = 0
    SENDING = 1
    KEPT = 2
    MEASURING = 3
    MEASURED = 4
    REPORTED = 5
    FAILED = 6


_LABELS = {
    Stage.PREPARED: "prepared",
    Stage.SENDING: "being sent",
    Stage.KEPT: "kept",
    Stage.MEASURING: "being measured",
    Stage.MEASURED: "measured",
    Stage.REPORTED: "reported",
    Stage.FAILED: "failed",
}

_STAGES = {
    ("pacs", "scan.prepared"): Stage.PREPARED,
    ("pacs", "scan.offered"): Stage.SENDING,
    ("pacs", "scan.progress"): Stage.SENDING,
    ("pacs", "scan.acknowledged"): Stage.KEPT,
    ("pacs", "scan.refused"): Stage.FAILED,
    ("pacs", "report.written"): Stage.REPORTED,
    ("hub", "scan.stored"): Stage.KEPT,
    ("brain", "scan.claimed"): Stage.MEASURING,
    ("brain", "scan.retry"): Stage.KEPT,
    ("brain", "scan.released"): Stage.KEPT,
    ("brain", "scan.analysed"): Stage.MEASURED,
    ("brain", "scan.done"): Stage.MEASURED,
    ("brain", "scan.failed"): Stage.FAILED,
    ("hub", "report.delivered"): Stage.REPORTED,
}
_BACK = ("scan.retry", "scan.released")


@dataclass
class Scan:
    """One scan of this run. Times are seconds of one clock."""

    scan_id: str
    stage: Stage = Stage.PREPARED
    first_seen: float = 0.0
    sent_at: float | None = None
    reported_at: float | None = None
    reason: str | None = None
    report: Path | None = None
    duplicate: bool = False
    settled: bool = False
    """The HUB knows that the PACS has the report, or that none is to come."""
    volumes: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """From the acknowledgement, or from the first word of the scan if that was missed, to the report."""
        if self.reported_at is None or self.duplicate:
            return None
        return self.reported_at - (self.first_seen if self.sent_at is None else self.sent_at)


class Tally:
    """Counts the scans that the PACS of this run sends; those of earlier runs are not its business."""

    def __init__(self, expected: int, find_report: Callable[[str], Path | None] = lambda _: None) -> None:
        """Take how many scans are to come, and what finds the folder of a report that is there already."""
        self.expected = expected
        self.scans: dict[str, Scan] = {}
        self._find_report = find_report

    def note(self, unit: str, line: Mapping[str, Any], now: float) -> None:
        """Take note of one log line of ``unit``, seen at ``now``."""
        event, scan_id = line.get("event"), line.get("scan_id")
        stage = _STAGES.get((unit, str(event)))
        if stage is None or not isinstance(scan_id, str):
            return
        if scan_id not in self.scans:
            # A report that arrives of a scan of an earlier run makes it none of this run's.
            if unit != "pacs" or event == "report.written":
                return
            self.scans[scan_id] = Scan(scan_id, first_seen=now)
        scan = self.scans[scan_id]
        if event == "scan.acknowledged":
            self._acknowledged(scan, bool(line.get("duplicate")), now)
        elif event == "report.written":
            scan.reported_at, scan.report = now, Path(str(line.get("path", "")))
        elif event == "report.delivered":
            scan.settled = True
            return
        elif stage is Stage.FAILED:
            scan.settled = True
            scan.reason = str(line.get("reason") or line.get("code") or "no reason was given")
        if stage > scan.stage or (event in _BACK and scan.stage is Stage.MEASURING):
            scan.stage = stage

    def _acknowledged(self, scan: Scan, duplicate: bool, now: float) -> None:
        if scan.sent_at is None:
            scan.sent_at = now
        report = self._find_report(scan.scan_id) if duplicate else None
        if report is not None:
            scan.stage, scan.report, scan.reported_at = Stage.REPORTED, report, now
            scan.duplicate = scan.settled = True

    @property
    def finished(self) -> bool:
        """Whether every expected scan is reported or failed."""
        ended = sum(scan.stage >= Stage.REPORTED for scan in self.scans.values())
        return ended >= self.expected

    @property
    def reported(self) -> set[str]:
        """The scans whose reports the PACS has."""
        return {scan.scan_id for scan in self.scans.values() if scan.stage is Stage.REPORTED}

    @property
    def settled(self) -> bool:
        """Whether nothing is to come of any scan any more."""
        return self.finished and all(scan.settled for scan in self.scans.values())

    def problems(self) -> list[str]:
        """Return a line for every expected scan that has no report."""
        lines = [
            f"{scan.scan_id} {_LABELS[scan.stage]}" + (f": {scan.reason}" if scan.reason else "")
            for scan in self.scans.values()
            if scan.stage is not Stage.REPORTED
        ]
        missing = self.expected - len(self.scans)
        return lines + ([f"{missing} of {self.expected} scans were never offered"] if missing > 0 else [])

    def progress(self) -> str:
        """Return one line: how many scans are where."""
        counts = Counter(scan.stage for scan in self.scans.values())
        parts = [f"{counts[stage]} {label}" for stage, label in _LABELS.items() if counts[stage]]
        return f"scans of {self.expected}: " + (", ".join(parts) or "none yet")

    def table(self) -> list[str]:
        """Return the lines of the table: scan, volumes in mL, seconds from sent to reported."""
        head = ["scan", *(f"{label} mL" for _, label in VOLUMES), "seconds"]
        rows = [self._row(scan) for scan in self.scans.values()]
        widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
        return [_aligned(row, widths) for row in [head, ["-" * width for width in widths], *rows]]

    def _row(self, scan: Scan) -> list[str]:
        volumes = [_number(scan.volumes.get(key)) for key, _ in VOLUMES]
        return [scan.scan_id, *volumes, _number(scan.seconds)]


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) and not isinstance(value, bool) else _NONE


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)])


def volumes_of(report: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the volumes in the findings of a report.json, mL by name; none where all are withheld.

    Another analysis may give its ``volumes`` as plain numbers.
    """
    findings = report.get("findings")
    volumes = findings.get("volumes") if isinstance(findings, Mapping) else None
    if not isinstance(volumes, Mapping):
        return {}
    plain: dict[str, float] = {}
    for name, reading in volumes.items():
        value = reading.get("value") if isinstance(reading, Mapping) else reading
        if isinstance(value, int | float):
            plain[name] = value
    return plain
