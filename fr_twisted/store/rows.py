"""What is shown of documents, and what may be done to them: read with care, for a damaged one must be seen too."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from fr_twisted.model import CHUNK_SIZE, ScanState, utc_text
from fr_twisted.store.ioperators import (
    LeaseRow,
    NodeRow,
    NotPossibleError,
    ReportRow,
    ReportState,
    ScanRow,
    UploadRow,
)

Doc = Mapping[str, Any]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None


def scan_row(document: Doc) -> ScanRow:
    """Return a scan as it is listed."""
    return ScanRow(
        scan_id=document["_id"],
        patient_id=_text(document.get("patient_id")),
        source=_text(document.get("source")),
        state=_text(document.get("report_generated")),
        received_at=_moment(document.get("received_at")),
        size=_number(document.get("size")),
        priority=_number(document.get("priority")),
        attempts=_number(document.get("attempts")),
        error=_text(document.get("error")) or None,
        payload_removed_at=_moment(document.get("payload_removed_at")),
    )


def lease_row(document: Doc, now: datetime) -> LeaseRow:
    """Return a scan In Progress as it is listed."""
    lease = document.get("lease")
    lease = lease if isinstance(lease, Mapping) else {}
    ends = _moment(lease.get("expires_at"))
    return LeaseRow(
        scan_id=document["_id"],
        owner=_text(lease.get("owner")) or None,
        attempts=_number(document.get("attempts")),
        seconds_left=None if ends is None else round((ends - now).total_seconds(), 3),
    )


def upload_row(document: Doc) -> UploadRow:
    """Return an upload as it is listed."""
    size = _number(document.get("size"))
    return UploadRow(
        scan_id=document["_id"],
        source=_text(document.get("source")),
        size=size,
        kept=min(size, _number(document.get("kept")) * CHUNK_SIZE),
        touched_at=document["touched_at"],
    )


def report_state(document: Doc) -> ReportState:
    """Return what became of a report."""
    if document.get("status"):
        return ReportState.DELIVERED
    return ReportState.REFUSED if document.get("refused") else ReportState.WAITING


def report_row(document: Doc) -> ReportRow:
    """Return a report as it is listed."""
    return ReportRow(
        report_id=document["_id"],
        scan_id=_text(document.get("scan_id")),
        destination=_text(document.get("destination")),
        state=report_state(document),
        analysis=_text(document.get("analysis")),
        analysis_version=_text(document.get("analysis_version")),
        size=_number(document.get("size")),
        sha256=_text(document.get("sha256")),
        created_at=_moment(document.get("created_at")),
        attempts=_number(document.get("attempts")),
        next_attempt_at=_moment(document.get("next_attempt_at")),
        delivered_at=_moment(document.get("delivered_at")),
        error=_text(document.get("error")) or None,
    )


def node_rows(facts: Iterable[tuple[str, Doc]]) -> tuple[NodeRow, ...]:
    """Return nodes by name, put together from what is known of each: pairs of its name and members of its row."""
    rows: dict[str, NodeRow] = {}
    known: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for node, members in facts:
        known[_text(node)].update(members)
    for node, members in known.items():
        rows[node] = replace(NodeRow(node), **members)
    return tuple(rows[node] for node in sorted(rows))


def check_retry(scan_id: str, document: Doc | None) -> None:
    """Return if the scan may be tried again.

    Raises:
        NotPossibleError: it may not, and why.
    """
    if document is None:
        raise NotPossibleError(f"there is no scan {scan_id}")
    state = _text(document.get("report_generated"))
    removed = _moment(document.get("payload_removed_at"))
    gone = (
        ""
        if removed is None
        else f"its payload was removed on {utc_text(removed)}, so nothing is left to analyse"
    )
    if state != ScanState.FAILED:
        also = f"; and {gone}" if gone else ""
        raise NotPossibleError(f"{scan_id} is {state}, not Failed: there is nothing to retry{also}")
    if gone:
        raise NotPossibleError(f"{scan_id} is Failed, but {gone}")


def check_resend(report_id: str, document: Doc | None) -> None:
    """Return if the report may be sent again.

    Raises:
        NotPossibleError: it may not, and why.
    """
    if document is None:
        raise NotPossibleError(f"there is no report {report_id}")
    if report_state(document) is ReportState.WAITING:
        row = report_row(document)
        raise NotPossibleError(
            f"{report_id} was neither delivered nor refused: it waits for {row.destination} already"
            + (f", attempts so far: {row.attempts}" if row.attempts else "")
        )
