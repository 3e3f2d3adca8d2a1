"""The scans of the store in memory."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from zope.interface import implementer

from fr_twisted.model import (
    CHUNK_SIZE,
    BrainReport,
    BrainScan,
    Lease,
    ScanState,
    chunk_count,
    utc_text,
)
from fr_twisted.store.documents import given_back_detail, is_told, shorten
from fr_twisted.store.interfaces import (
    Claim,
    ConflictError,
    IScans,
    NewReport,
    NewScan,
    PayloadMissingError,
    StaleTokenError,
    StoreError,
    Upload,
)
from tests.fakes_store_state import MemoryState, UploadDoc


def _missing(sizes: dict[int, int], size: int) -> int | None:
    """Return the number of the first chunk that is missing or of the wrong size."""
    count = chunk_count(size)
    for n in range(count):
        if sizes.get(n) != (CHUNK_SIZE if n < count - 1 else size - n * CHUNK_SIZE):
            return n
    return None


@implementer(IScans)
class MemoryScans:
    """Uploads and the queue."""

    def __init__(self, store: MemoryState) -> None:
        self._store = store

    def begin_upload(self, scan: NewScan) -> Deferred[Upload | None]:
        """Open or take over an upload."""
        return self._store.do("begin_upload", lambda: self._begin(scan))

    def _is_kept(self, scan: NewScan) -> bool:
        kept = self._store.scan_docs.get(scan.scan_id)
        if kept is None:
            return False
        self._check_same(scan)
        return not _is_broken(kept)

    def _begin(self, scan: NewScan) -> Upload | None:
        store = self._store
        if self._is_kept(scan):
            return None
        doc = store.upload_docs.get(scan.scan_id)
        if doc is None:
            doc = UploadDoc(scan, uuid4().hex, 0, store.time())
            store.upload_docs[scan.scan_id] = doc
        elif (doc.scan.sha256, doc.scan.size) != (scan.sha256, scan.size):
            store.garbage[doc.payload_id] = store.time()
            doc.payload_id = uuid4().hex
        doc.scan, doc.token, doc.touched_at = scan, doc.token + 1, store.time()
        first_missing = _missing(store.chunk_numbers(doc.payload_id), scan.size)
        chunks = chunk_count(scan.size) if first_missing is None else first_missing
        return Upload(scan, doc.payload_id, doc.token, chunks)

    def peek_upload(self, scan: NewScan) -> Deferred[int | None]:
        """Look for what is there of a scan."""
        return self._store.do("peek_upload", lambda: self._peek(scan))

    def _peek(self, scan: NewScan) -> int | None:
        if self._is_kept(scan):
            return None
        doc = self._store.upload_docs.get(scan.scan_id)
        if doc is None or (doc.scan.sha256, doc.scan.size) != (scan.sha256, scan.size):
            return 0
        missing = _missing(self._store.chunk_numbers(doc.payload_id), scan.size)
        return scan.size if missing is None else missing * CHUNK_SIZE

    def _check_same(self, scan: NewScan) -> None:
        kept = self._store.scan_docs[scan.scan_id]
        if (kept.sha256, kept.size) != (scan.sha256, scan.size):
            raise ConflictError(f"{scan.scan_id} is kept with other content")

    def commit(self, upload: Upload) -> Deferred[None]:
        """Make the scan visible."""
        return self._store.do("commit", lambda: self._commit(upload))

    def _commit(self, upload: Upload) -> None:
        store, scan = self._store, upload.scan
        missing = _missing(store.chunk_numbers(upload.payload_id), scan.size)
        if missing is not None and not self._is_kept(scan):
            raise PayloadMissingError(f"chunk {missing} of {scan.scan_id} is missing or has the wrong size")
        doc = store.upload_docs.get(scan.scan_id)
        if doc is not None and doc.payload_id == upload.payload_id:
            del store.upload_docs[scan.scan_id]
        kept = store.scan_docs.get(scan.scan_id)
        if kept is not None and _is_broken(kept):
            self._mend(kept, upload)
            return
        if kept is not None:
            if store.scan_docs[scan.scan_id].payload_id != upload.payload_id:
                store.garbage[upload.payload_id] = store.time()
            self._check_same(scan)
            return
        store.scan_docs[scan.scan_id] = BrainScan.model_validate(
            {
                "_id": scan.scan_id,
                "patient_id": scan.meta.patient_id,
                "source": scan.source,
                "report_generated": ScanState.TO_DO,
                "meta": scan.meta,
                "payload_id": upload.payload_id,
                "size": scan.size,
                "sha256": scan.sha256,
                "priority": scan.meta.priority,
                "received_at": store.time(),
                "history": [store.entry("received")],
            }
        )
        store.notify(store.work)

    def _mend(self, kept: BrainScan, upload: Upload) -> None:
        self._check_same(upload.scan)
        if kept.report_generated is ScanState.IN_PROGRESS or kept.payload_id == upload.payload_id:
            raise StoreError(f"{kept.scan_id}: its bytes were found broken, and it is being tried again")
        self._store.garbage[kept.payload_id] = self._store.time()
        self._set(
            kept,
            "received anew",
            None,
            report_generated=ScanState.TO_DO,
            payload_id=upload.payload_id,
            payload_broken_at=None,
            attempts=0,
            given_back=0,
            error=None,
            lease=None,
        )
        self._store.notify(self._store.work)

    def discard_upload(self, upload: Upload) -> Deferred[None]:
        """Forget an upload that is still ours."""

        def discard() -> None:
            doc = self._store.upload_docs.get(upload.scan.scan_id)
            if doc is not None and (doc.payload_id, doc.token) == (upload.payload_id, upload.token):
                del self._store.upload_docs[upload.scan.scan_id]
                self._store.garbage[upload.payload_id] = self._store.time()

        return self._store.do("discard_upload", discard)

    def claim(
        self, owner: str, lease_seconds: float, analysis: str | None = None, besides: Collection[str] = ()
    ) -> Deferred[Claim | None]:
        """Claim the scan that is due."""
        return self._store.do("claim", lambda: self._claim(owner, lease_seconds, analysis, besides))

    def _claim(
        self, owner: str, lease_seconds: float, analysis: str | None, besides: Collection[str]
    ) -> Claim | None:
        now = self._store.time()
        if analysis is not None:
            self._store.analyses_seen[analysis] = now
        scans = [scan for scan in self._store.scan_docs.values() if scan.scan_id not in besides]
        due = [scan for scan in scans if scan.meta.analysis in (None, analysis) and _is_due(scan, now)]
        if not due:
            return None
        scan = min(due, key=lambda scan: (-scan.priority, scan.received_at))
        token = self._store.tokens.get(scan.scan_id, 0) + 1
        self._store.tokens[scan.scan_id] = token
        claimed = self._set(
            scan,
            "claimed",
            owner,
            report_generated=ScanState.IN_PROGRESS,
            attempts=scan.attempts + 1,
            lease=Lease(owner=owner, token=token, expires_at=now + timedelta(seconds=lease_seconds)),
        )
        return Claim(claimed.model_copy(update={"history": []}), owner, token)

    def last_seen(self, analyses: Collection[str]) -> Deferred[dict[str, datetime]]:
        """Tell when BRAINs were last seen."""
        seen = self._store.analyses_seen
        return self._store.do("last_seen", lambda: {name: seen[name] for name in analyses if name in seen})

    def _set(self, scan: BrainScan, event: str, detail: str | None, **changes: Any) -> BrainScan:
        history = [*scan.history, self._store.entry(event, detail)][-200:]
        changed = scan.model_copy(update={"history": history, **changes})
        self._store.scan_docs[scan.scan_id] = changed
        return changed

    def _ours(self, claim: Claim) -> BrainScan:
        scan = self._store.scan_docs[claim.scan.scan_id]
        lease = scan.lease
        if scan.report_generated is not ScanState.IN_PROGRESS or lease is None or lease.token != claim.token:
            raise StaleTokenError(f"{scan.scan_id} was taken over")
        return scan

    def renew(self, claim: Claim, lease_seconds: float) -> Deferred[None]:
        """Lengthen the lease."""

        def renew() -> None:
            scan = self._ours(claim)
            expires_at = self._store.time() + timedelta(seconds=lease_seconds)
            lease = Lease(owner=claim.owner, token=claim.token, expires_at=expires_at)
            self._store.scan_docs[scan.scan_id] = scan.model_copy(update={"lease": lease})

        return self._store.do("renew", renew)

    def release(self, claim: Claim, error: str | None, count_attempt: bool) -> Deferred[None]:
        """Give the scan back."""

        def release() -> None:
            scan = self._ours(claim)
            uncounted = 0 if count_attempt else 1
            given_back = scan.given_back + uncounted
            changed = self._set(
                scan,
                "released",
                given_back_detail(given_back, error) if uncounted else error,
                report_generated=ScanState.TO_DO,
                lease=None,
                error=shorten(error),
                attempts=scan.attempts - uncounted,
                given_back=given_back,
            )
            if uncounted and not is_told(given_back):
                untold = changed.model_copy(update={"history": scan.history[:-1]})
                self._store.scan_docs[scan.scan_id] = untold
            self._store.notify(self._store.work)

        return self._store.do("release", release)

    def fail(self, claim: Claim, error: str, payload_broken: bool = False) -> Deferred[None]:
        """Give the scan up."""

        def give_up() -> None:
            scan = self._ours(claim)
            state = ScanState.FAILED
            broken_at = self._store.time() if payload_broken else scan.payload_broken_at
            self._set(
                scan,
                "failed",
                error,
                report_generated=state,
                lease=None,
                error=shorten(error),
                payload_broken_at=broken_at,
            )

        return self._store.do("fail", give_up)

    def complete(self, claim: Claim, report: NewReport) -> Deferred[BrainReport]:
        """Store the report and end the scan."""
        return self._store.do("complete", lambda: self._complete(claim, report))

    def _complete(self, claim: Claim, report: NewReport) -> BrainReport:
        store = self._store
        scan = store.scan_docs[claim.scan.scan_id]
        done = scan.report_generated is ScanState.DONE and store.tokens.get(scan.scan_id) == claim.token
        if not done:
            scan = self._ours(claim)
            self._set(scan, "done", report.report_id, report_generated=ScanState.DONE, lease=None, error=None)
        if report.report_id not in store.report_docs:
            store.report_docs[report.report_id] = make_report(store, scan, claim, report)
            store.notify(store.due)
        return store.report_docs[report.report_id]

    def repair(self) -> Deferred[int]:
        """Mend nothing: in memory nothing stands between ``Done`` and the report."""
        return self._store.do("repair", lambda: 0)

    def clean(self, upload_ttl_seconds: float) -> Deferred[int]:
        """Remove what belongs to nothing."""
        return self._store.do("clean", lambda: self._clean(upload_ttl_seconds))

    def _clean(self, upload_ttl_seconds: float) -> int:
        store, now = self._store, self._store.time()
        for scan_id, doc in list(store.upload_docs.items()):
            if doc.touched_at < now - timedelta(seconds=upload_ttl_seconds):
                del store.upload_docs[scan_id]
                store.garbage.setdefault(doc.payload_id, now)
        kept: set[str] = {upload.payload_id for upload in store.upload_docs.values()}
        kept |= {s.payload_id for s in store.scan_docs.values() if s.payload_removed_at is None}
        kept |= {report.payload_id for report in store.report_docs.values()}
        removed = 0
        for payload_id, since in list(store.garbage.items()):
            if since > now - timedelta(seconds=store.grace_seconds):
                continue
            del store.garbage[payload_id]
            if payload_id not in kept:
                removed += 1
                for n in store.chunk_numbers(payload_id):
                    del store.chunk_docs[payload_id, n]
        return removed

    def retire(self, keep_seconds: float) -> Deferred[int]:
        """Give up what nobody will need."""
        return self._store.do("retire", lambda: self._retire(timedelta(seconds=keep_seconds)))

    def _retire(self, keep: timedelta) -> int:
        now, retired = self._store.time(), 0
        for scan in list(self._store.scan_docs.values()):
            reports = [r for r in self._store.report_docs.values() if r.scan_id == scan.scan_id]
            times = [report.delivered_at for report in reports if report.status and report.delivered_at]
            ended = scan.report_generated is ScanState.DONE and scan.payload_removed_at is None
            if ended and times and len(times) == len(reports) and max(times) <= now - keep:
                retired += 1
                self._store.garbage[scan.payload_id] = now
                detail = f"delivered {utc_text(max(times))}"
                self._set(scan, "payload removed", detail, payload_removed_at=now)
        return retired

    def get(self, scan_id: str) -> Deferred[BrainScan | None]:
        """Return a scan."""
        return self._store.do("get", lambda: self._store.scan_docs.get(scan_id))

    def count_by_state(self) -> Deferred[dict[str, int]]:
        """Count the scans."""

        def count() -> dict[str, int]:
            counts = Counter(scan.report_generated.value for scan in self._store.scan_docs.values())
            return {state.value: counts[state.value] for state in ScanState}

        return self._store.do("count_by_state", count)

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when a scan became To Do."""
        return self._store.work.add(wake)


def _is_broken(scan: BrainScan) -> bool:
    return scan.payload_broken_at is not None and scan.report_generated is not ScanState.DONE


def _is_due(scan: BrainScan, now: datetime) -> bool:
    if scan.report_generated is ScanState.IN_PROGRESS:
        return scan.lease is not None and scan.lease.expires_at < now
    return scan.report_generated is ScanState.TO_DO


def make_report(store: MemoryState, scan: BrainScan, claim: Claim, new: NewReport) -> BrainReport:
    """Store the bundle and return the report's document."""
    payload_id = f"{new.report_id}.{claim.token}"
    for n in range(chunk_count(len(new.bundle))):
        store.chunk_docs[payload_id, n] = new.bundle[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
    return BrainReport.model_validate(
        {
            "_id": new.report_id,
            "scan_id": scan.scan_id,
            "patient_id": scan.patient_id,
            "destination": scan.source,
            "analysis": new.analysis,
            "analysis_version": new.analysis_version,
            "findings": new.findings,
            "payload_id": payload_id,
            "size": len(new.bundle),
            "sha256": hashlib.sha256(new.bundle).hexdigest(),
            "created_at": store.time(),
            "next_attempt_at": store.time(),
        }
    )
