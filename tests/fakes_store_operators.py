"""What people may ask of the store in memory."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from twisted.internet.defer import Deferred
from zope.interface import implementer

from fr_twisted.model import CHUNK_SIZE, BrainScan, ScanState
from fr_twisted.store.indexes import CHUNKS, GARBAGE, REPORTS, SCANS
from fr_twisted.store.interfaces import PayloadMissingError
from fr_twisted.store.ioperators import (
    MOST_SHOWN,
    RECENT,
    AnalysisRow,
    Check,
    Checked,
    Finding,
    IOperators,
    Page,
    Progress,
    ReportRow,
    ScanFile,
    StateCount,
    StoreStatus,
    Wanted,
)
from fr_twisted.store.rows import (
    check_resend,
    check_retry,
    lease_row,
    node_rows,
    report_row,
    scan_row,
    upload_row,
)
from fr_twisted.store.verify import Verifier
from tests.fakes_store_state import MemoryState, UploadDoc

Doc = dict[str, Any]


def _document(model: BaseModel | None) -> Doc | None:
    """Return a scan or report as its document is."""
    return None if model is None else model.model_dump(by_alias=True)


class MemoryShelves:
    """What `Verifier` looks at."""

    def __init__(self, store: MemoryState) -> None:
        self._store = store

    async def now(self) -> datetime:
        """Return the time of the Clock."""
        return self._store.time()

    async def seen(self, analysis: str) -> datetime | None:
        """Return when a BRAIN that runs it was last seen."""
        return self._store.analyses_seen.get(analysis)

    async def count(self, collection: str) -> int:
        """Count documents."""
        if collection == CHUNKS:
            return len(self._store.chunk_docs)
        return len(self._all(collection))

    def _all(self, collection: str) -> dict[str, Doc]:
        store = self._store
        if collection == SCANS:
            found = {key: scan.model_dump(by_alias=True) for key, scan in store.scan_docs.items()}
        elif collection == REPORTS:
            found = {key: report.model_dump(by_alias=True) for key, report in store.report_docs.items()}
        elif collection == GARBAGE:
            found = {key: {"_id": key, "since": since} for key, since in store.garbage.items()}
        else:
            found = {key: self.upload(key, upload) for key, upload in store.upload_docs.items()}
        return found

    def upload(self, scan_id: str, upload: UploadDoc) -> Doc:
        """Return an upload as its document is."""
        full = [size for size in self._store.chunk_numbers(upload.payload_id).values() if size == CHUNK_SIZE]
        return {
            "_id": scan_id,
            "payload_id": upload.payload_id,
            "source": upload.scan.source,
            "size": upload.scan.size,
            "kept": len(full),
            "touched_at": upload.touched_at,
        }

    async def documents(self, collection: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """Give all documents, three at a time."""
        found = sorted(self._all(collection).values(), key=lambda document: str(document["_id"]))
        for first in range(0, len(found), 3):
            yield found[first : first + 3]

    async def document(self, collection: str, item_id: str) -> Doc | None:
        """Return one."""
        return self._all(collection).get(item_id)

    async def reported(self, scan_ids: Sequence[str]) -> set[str]:
        """Return scans that have a report."""
        return {report.scan_id for report in self._store.report_docs.values()} & set(scan_ids)

    async def heads(self, payload_id: str) -> list[tuple[int, int]]:
        """Return number and size of chunks."""
        return sorted(self._store.chunk_numbers(payload_id).items())

    async def read(self, payload_id: str, first: int, count: int) -> list[bytes]:
        """Return chunks."""
        try:
            return [self._store.chunk_docs[payload_id, n] for n in range(first, first + count)]
        except KeyError:
            raise PayloadMissingError(f"a chunk of {payload_id} is missing") from None

    async def payloads_with_chunks(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """Give payloads that have chunks."""
        for payload_id, count in sorted(Counter(owner for owner, _ in self._store.chunk_docs).items()):
            yield count, [payload_id]

    async def referred_to(self, payload_ids: Sequence[str]) -> set[str]:
        """Return those that something refers to."""
        store = self._store
        known = set(store.garbage)
        known |= {upload.payload_id for upload in store.upload_docs.values()}
        known |= {scan.payload_id for scan in store.scan_docs.values() if scan.payload_removed_at is None}
        known |= {report.payload_id for report in store.report_docs.values()}
        return known & set(payload_ids)

    async def missing_indexes(self) -> list[str]:
        """Return none: memory has no indexes."""
        return []


@implementer(IOperators)
class MemoryOperators:
    """Looks at, and mends, what is in memory."""

    def __init__(self, store: MemoryState) -> None:
        self._store = store
        self._shelves = MemoryShelves(store)

    def status(self) -> Deferred[StoreStatus]:
        """Return the store at a glance."""
        return self._store.do("status", self._status)

    def _status(self) -> StoreStatus:
        store, now = self._store, self._store.time()
        scans = list(store.scan_docs.values())
        states = []
        for state in ScanState:
            arrivals = [scan.received_at for scan in scans if scan.report_generated is state]
            states.append(StateCount(state, len(arrivals), min(arrivals, default=None)))
        leased = [scan for scan in scans if scan.report_generated is ScanState.IN_PROGRESS]
        leases = [lease_row(scan.model_dump(by_alias=True), now) for scan in leased]
        uploads = [upload_row(self._shelves.upload(key, doc)) for key, doc in store.upload_docs.items()]
        return StoreStatus(
            at=now,
            states=tuple(states),
            nodes=node_rows(self._facts_of_nodes(now)),
            leases=tuple(sorted(leases, key=lambda row: row.seconds_left or 0.0)[:MOST_SHOWN]),
            uploads=tuple(sorted(uploads, key=lambda row: row.touched_at, reverse=True)[:MOST_SHOWN]),
            uploads_in_all=len(uploads),
            analyses=self._analyses(scans),
        )

    def _analyses(self, scans: Sequence[BrainScan]) -> tuple[AnalysisRow, ...]:
        arrivals: dict[str, list[datetime]] = {}
        for scan in scans:
            if scan.report_generated is ScanState.TO_DO and scan.meta.analysis is not None:
                arrivals.setdefault(scan.meta.analysis, []).append(scan.received_at)
        seen = self._store.analyses_seen
        return tuple(
            AnalysisRow(name, len(at), min(at), seen.get(name)) for name, at in sorted(arrivals.items())
        )

    def _facts_of_nodes(self, now: datetime) -> list[tuple[str, Doc]]:
        since = now - RECENT
        reports = list(self._store.report_docs.values())
        facts: list[tuple[str, Doc]] = []
        received: dict[str, list[datetime]] = {}
        for scan in self._store.scan_docs.values():
            if scan.received_at >= since:
                received.setdefault(scan.source, []).append(scan.received_at)
        facts += [(node, {"received": len(at), "last_received": max(at)}) for node, at in received.items()]
        counts = {
            "analysed": [r for r in reports if r.created_at >= since],
            "delivered": [r for r in reports if r.delivered_at is not None and r.delivered_at >= since],
            "waiting": [r for r in reports if not r.status and not r.refused],
            "refused": [r for r in reports if not r.status and r.refused],
        }
        for member, some in counts.items():
            facts += [
                (node, {member: number}) for node, number in Counter(r.destination for r in some).items()
            ]
        return facts

    def scans(self, wanted: Wanted) -> Deferred[Page]:
        """Return the scans that were received last."""

        def scans() -> Page:
            found = [
                scan
                for scan in self._store.scan_docs.values()
                if wanted.state in (None, scan.report_generated)
                and wanted.patient_id in (None, scan.patient_id)
                and (wanted.since is None or scan.received_at >= wanted.since)
            ]
            found.sort(key=lambda scan: scan.received_at, reverse=True)
            rows = [scan_row(scan.model_dump(by_alias=True)) for scan in found[: wanted.limit]]
            return Page(tuple(rows), len(found) > wanted.limit)

        return self._store.do("scans", scans)

    def _find(self, ids: set[str], start: str, limit: int) -> list[str]:
        return [start] if start in ids else sorted(name for name in ids if name.startswith(start))[:limit]

    def find_scans(self, start: str, limit: int) -> Deferred[list[str]]:
        """Return ids of scans and uploads that begin so."""
        store = self._store
        return store.do(
            "find_scans", lambda: self._find({*store.scan_docs, *store.upload_docs}, start, limit)
        )

    def find_reports(self, start: str, limit: int) -> Deferred[list[str]]:
        """Return ids of reports that begin so."""
        return self._store.do("find_reports", lambda: self._find({*self._store.report_docs}, start, limit))

    def look(self, scan_id: str) -> Deferred[ScanFile | None]:
        """Return everything about a scan."""
        return self._store.do("look", lambda: self._look(scan_id))

    def _look(self, scan_id: str) -> ScanFile | None:
        store, now = self._store, self._store.time()
        scan, upload = store.scan_docs.get(scan_id), store.upload_docs.get(scan_id)
        if scan is None:
            row = None if upload is None else upload_row(self._shelves.upload(scan_id, upload))
            return None if row is None else ScanFile(now, None, upload=row)
        reports = [report for report in store.report_docs.values() if report.scan_id == scan_id]
        reports.sort(key=lambda report: report.created_at)
        rows = tuple(report_row(report.model_dump(by_alias=True)) for report in reports)
        return ScanFile(now, scan, rows, brain_seen=store.analyses_seen.get(scan.meta.analysis or ""))

    def report(self, report_id: str) -> Deferred[ReportRow | None]:
        """Return a report."""

        def report() -> ReportRow | None:
            document = _document(self._store.report_docs.get(report_id))
            return None if document is None else report_row(document)

        return self._store.do("report", report)

    def failed(self, after: str, limit: int) -> Deferred[list[str]]:
        """Return ids of Failed scans."""

        def failed() -> list[str]:
            scans = self._store.scan_docs.values()
            ids = (scan.scan_id for scan in scans if scan.report_generated is ScanState.FAILED)
            return sorted(scan_id for scan_id in ids if scan_id > after)[:limit]

        return self._store.do("failed", failed)

    def retry(self, scan_id: str, by: str) -> Deferred[None]:
        """Set a Failed scan To Do."""

        def retry() -> None:
            scan = self._store.scan_docs.get(scan_id)
            check_retry(scan_id, _document(scan))
            assert scan is not None
            fresh = {
                "report_generated": ScanState.TO_DO,
                "attempts": 0,
                "given_back": 0,
                "error": None,
                "lease": None,
            }
            self._store.scan_docs[scan_id] = scan.model_copy(update=fresh)
            self._store.tell(scan_id, "retried", by)
            self._store.notify(self._store.work)

        return self._store.do("retry", retry)

    def resend(self, report_id: str, by: str) -> Deferred[None]:
        """Make a report due again."""

        def resend() -> None:
            report = self._store.report_docs.get(report_id)
            check_resend(report_id, _document(report))
            assert report is not None
            fresh = {
                "status": False,
                "refused": False,
                "delivered_at": None,
                "lease": None,
                "error": None,
                "attempts": 0,
                "next_attempt_at": self._store.time(),
                "resent_after": self._store.tokens.get(report_id, 0),
            }
            self._store.report_docs[report_id] = report.model_copy(update=fresh)
            self._store.tell(report.scan_id, "resent", f"{report_id}, {by}")
            self._store.notify(self._store.due)

        return self._store.do("resend", resend)

    def verify(self, check: Check, found: Callable[[Finding], None], progress: Progress) -> Deferred[Checked]:
        """Look at everything."""
        verifier = Verifier(self._shelves, check, found, progress)
        begun: Deferred[None] = self._store.do("verify", lambda: None)
        return begun.addCallback(lambda _: Deferred.fromCoroutine(verifier.run()))
