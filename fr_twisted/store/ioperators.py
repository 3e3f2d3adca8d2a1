"""What a person at a terminal may ask of the store: `fr_twisted.command` asks, any `IStore` answers.

Every operation errbacks with a `StoreError` when the store cannot do it, as those of the units do. Nothing here holds
more than its caller asked for, however large the store is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from twisted.internet.defer import Deferred
from zope.interface import Interface

from fr_twisted.model import BrainScan, ScanState

RECENT = timedelta(hours=1)
"""The time that the throughput of a `StoreStatus` is counted over."""

MOST_SHOWN = 50
"""Leases, and uploads, of a `StoreStatus`."""


class NotPossibleError(Exception):
    """What was asked for cannot be done to what is there: one line that says why."""


@dataclass(frozen=True)
class StateCount:
    """How many scans are in a state, and when the oldest of them was received."""

    state: ScanState
    count: int
    oldest: datetime | None


@dataclass(frozen=True)
class NodeRow:
    """A Fr-PACS node that sent something lately, or that reports are kept for."""

    node: str
    received: int = 0
    """Scans in the last hour,"""
    last_received: datetime | None = None
    """the last of them,"""
    analysed: int = 0
    delivered: int = 0
    """and reports in the last hour."""
    waiting: int = 0
    """Reports that are to be sent,"""
    refused: int = 0
    """and those that the node refused for good."""


@dataclass(frozen=True)
class LeaseRow:
    """A scan that is In Progress."""

    scan_id: str
    owner: str | None
    attempts: int
    seconds_left: float | None
    """Negative: it ended, and the scan may be claimed by another. None: there is no lease at all."""


@dataclass(frozen=True)
class UploadRow:
    """A scan that is being received, or was when its sender went away."""

    scan_id: str
    source: str
    size: int
    kept: int
    """Bytes that are known to be durable; in a `StoreStatus` as last noted, so less than there are."""
    touched_at: datetime


@dataclass(frozen=True)
class AnalysisRow:
    """An analysis that scans which wait name, so that no BRAIN without it takes them."""

    analysis: str
    waiting: int
    oldest: datetime | None
    seen: datetime | None
    """When a BRAIN that runs it was last seen, to a minute; None: never."""


@dataclass(frozen=True)
class StoreStatus:
    """The store at a glance."""

    at: datetime
    states: tuple[StateCount, ...]
    nodes: tuple[NodeRow, ...]
    """By name. The throughput of the last hour is the sum over them."""
    leases: tuple[LeaseRow, ...]
    """The first that end, at most `MOST_SHOWN` of as many scans as are In Progress."""
    uploads: tuple[UploadRow, ...]
    """Those that were written to last, at most `MOST_SHOWN`."""
    uploads_in_all: int
    analyses: tuple[AnalysisRow, ...] = ()
    """Those that waiting scans name, by name."""


@dataclass(frozen=True)
class Wanted:
    """Which scans are to be listed: all conditions hold."""

    state: ScanState | None = None
    patient_id: str | None = None
    since: datetime | None = None
    limit: int = 20


@dataclass(frozen=True)
class ScanRow:
    """A scan in a list. What a damaged document lacks is empty."""

    scan_id: str
    patient_id: str
    source: str
    state: str
    received_at: datetime | None
    size: int
    priority: int
    attempts: int
    error: str | None
    payload_removed_at: datetime | None


@dataclass(frozen=True)
class Page:
    """Scans, the last received first, and whether there are more than were asked for."""

    rows: tuple[ScanRow, ...]
    more: bool


class ReportState(StrEnum):
    """What became of a report."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    REFUSED = "refused"


@dataclass(frozen=True)
class ReportRow:
    """A report, without what it found."""

    report_id: str
    scan_id: str
    destination: str
    state: ReportState
    analysis: str
    analysis_version: str
    size: int
    sha256: str
    created_at: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    error: str | None


@dataclass(frozen=True)
class ScanFile:
    """Everything about one scan but its bytes and its findings."""

    at: datetime
    scan: BrainScan | None
    reports: tuple[ReportRow, ...] = ()
    """The oldest first."""
    report_pending: bool = False
    """A report is stored, and a HUB or BRAIN is to put it in its place yet."""
    upload: UploadRow | None = None
    """There is no scan yet: it is being received."""
    brain_seen: datetime | None = None
    """When a BRAIN that runs the analysis which the scan names was last seen; None: never, or it names none."""


class FindingKind(StrEnum):
    """What `IOperators.verify` finds."""

    SCAN_DAMAGED = "scan-damaged"
    REPORT_DAMAGED = "report-damaged"
    CHUNK_MISSING = "chunk-missing"
    CHUNK_SIZE = "chunk-size"
    CHUNK_EXTRA = "chunk-extra"
    DIGEST = "digest"
    STUCK = "stuck"
    DONE_WITHOUT_REPORT = "done-without-report"
    REPORT_PENDING = "report-pending"
    REPORT_WITHOUT_SCAN = "report-without-scan"
    UPLOAD_STALE = "upload-stale"
    ORPHAN = "orphan"
    GARBAGE_OVERDUE = "garbage-overdue"
    INDEX_MISSING = "index-missing"
    UNSERVED = "unserved"
    GIVEN_BACK = "given-back"
    REPORT_WAITING = "report-waiting"


WARNINGS = frozenset({FindingKind.UNSERVED, FindingKind.GIVEN_BACK, FindingKind.REPORT_WAITING})
"""Findings of what is whole, but waits for somebody to do something."""


@dataclass(frozen=True)
class Finding:
    """Something that should not be so."""

    kind: FindingKind
    id: str
    """Of the scan, report or upload, the payload of an orphan, or the name of an index."""
    detail: str


@dataclass(frozen=True)
class Check:
    """How to verify."""

    grace_seconds: float = 600.0
    """What lasts no longer than this may be under way."""
    upload_ttl_seconds: float = 86400.0
    payloads: bool = True
    """Whether the bytes are read and hashed; without, their chunks are counted and measured alone."""


@dataclass
class Checked:
    """What was looked at."""

    scans: int = 0
    reports: int = 0
    uploads: int = 0
    payloads: int = 0
    """Of scans and reports, not removed by retention,"""
    bytes_hashed: int = 0
    """and what was read of them."""
    removed: int = 0
    """Scans whose payload was removed on purpose."""
    findings: dict[FindingKind, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found, or warnings alone."""
        return WARNINGS.issuperset(self.findings)


Progress = Callable[[str, int, int], None]
"""Called now and then with what is looked at, how many were, and about how many there are."""


class IOperators(Interface):
    """What operators may ask and do."""

    def status() -> Deferred[StoreStatus]:
        """Fire with counts, nodes, leases and uploads."""

    def scans(wanted: Wanted) -> Deferred[Page]:
        """Fire with the scans that were received last."""

    def find_scans(start: str, limit: int) -> Deferred[list[str]]:
        """Fire with ids of scans, and of uploads, that begin so; with one alone if that is the whole id of one."""

    def find_reports(start: str, limit: int) -> Deferred[list[str]]:
        """Fire with ids of reports that begin so; with one alone if that is the whole id of one."""

    def look(scan_id: str) -> Deferred[ScanFile | None]:
        """Fire with everything about a scan, None when there is none."""

    def report(report_id: str) -> Deferred[ReportRow | None]:
        """Fire with a report."""

    def failed(after: str, limit: int) -> Deferred[list[str]]:
        """Fire with the ids of Failed scans behind ``after``, in order."""

    def retry(scan_id: str, by: str) -> Deferred[None]:
        """Set a Failed scan To Do, as if never tried; its history says who did. Errback with `NotPossibleError`."""

    def resend(report_id: str, by: str) -> Deferred[None]:
        """Make a delivered or refused report due again, told in its scan's history; else `NotPossibleError`."""

    def verify(check: Check, found: Callable[[Finding], None], progress: Progress) -> Deferred[Checked]:
        """Look at everything, telling ``found`` of what is wrong as it comes up.

        What changes meanwhile is looked at again before it is told of. Memory is bounded.
        """


def counts_of(checked: Checked, warnings: bool = False) -> Mapping[str, int]:
    """Return the findings, or the warnings, by kind, as plain text to number."""
    found = sorted(checked.findings.items())
    return {kind.value: count for kind, count in found if (kind in WARNINGS) is warnings}
