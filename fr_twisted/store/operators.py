"""`IOperators` over MongoDB: what people look at and mend. No query scans a collection, `verify` alone excepted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from fr_twisted.model import BrainScan, ScanState
from fr_twisted.store.analyses import last_seen
from fr_twisted.store.chronicle import Chronicle
from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import Scribe, read
from fr_twisted.store.indexes import REPORTS, SCANS, UPLOADS, in_state
from fr_twisted.store.ioperators import (
    Check,
    Checked,
    Finding,
    IOperators,
    NotPossibleError,
    Page,
    Progress,
    ReportRow,
    ScanFile,
    StoreStatus,
    UploadRow,
    Wanted,
)
from fr_twisted.store.listing import listed
from fr_twisted.store.overview import PATIENCE, overview
from fr_twisted.store.payloads import MongoPayloads
from fr_twisted.store.rows import check_resend, check_retry, report_row, upload_row
from fr_twisted.store.shelves import MongoShelves
from fr_twisted.store.verify import Verifier

Doc = dict[str, Any]

MOST_OF_SCAN = 1000
"""Reports that are shown of one scan."""

BEHIND_ALL = "\U0010ffff"
"""Behind every text that goes on from a beginning of an id."""


@implementer(IOperators)
class MongoOperators:
    """Looks at, and mends, the documents of scans and reports."""

    def __init__(self, mongo: Mongo, scribe: Scribe, payloads: MongoPayloads, chronicle: Chronicle) -> None:
        self._mongo = mongo
        self._scribe = scribe
        self._payloads = payloads
        self._chronicle = chronicle

    def status(self) -> Deferred[StoreStatus]:
        """Return the store at a glance."""
        return Deferred.fromCoroutine(overview(self._mongo))

    def scans(self, wanted: Wanted) -> Deferred[Page]:
        """Return the scans that were received last."""
        return Deferred.fromCoroutine(listed(self._mongo, wanted))

    # --- looking for one

    def find_scans(self, start: str, limit: int) -> Deferred[list[str]]:
        """Return ids of scans and uploads that begin so."""
        return Deferred.fromCoroutine(self._find(start, limit, SCANS, UPLOADS))

    def find_reports(self, start: str, limit: int) -> Deferred[list[str]]:
        """Return ids of reports that begin so."""
        return Deferred.fromCoroutine(self._find(start, limit, REPORTS))

    async def _find(self, start: str, limit: int, *collections: str) -> list[str]:
        what = "look for an id"
        for collection in collections:
            if await self._mongo.find_one(what, collection, {"_id": start}, {"_id": 1}):
                return [start]
        found: set[str] = set()
        query = {"_id": {"$gte": start, "$lt": start + BEHIND_ALL}}
        for collection in collections:
            documents = await self._mongo.find(
                what,
                collection,
                query,
                limit=limit,
                projection={"_id": 1},
                sort=(("_id", 1),),
                timeout=PATIENCE,
            )
            found.update(document["_id"] for document in documents)
        return sorted(found)[:limit]

    def look(self, scan_id: str) -> Deferred[ScanFile | None]:
        """Return everything about a scan."""
        return Deferred.fromCoroutine(self._look(scan_id))

    async def _look(self, scan_id: str) -> ScanFile | None:
        now = await self._mongo.now()
        # In the order in which a scan and its report move: what leaves one place is in the next by then.
        upload = await self._mongo.find_one("look for an upload", UPLOADS, {"_id": scan_id})
        document = await self._mongo.find_one(
            "look for a scan", SCANS, {"_id": scan_id}, {"pending_report.findings": 0}
        )
        if document is None:
            return None if upload is None else ScanFile(now, None, upload=await self._upload(upload))
        reports = await self._mongo.find(
            "look for reports", REPORTS, {"scan_id": scan_id}, limit=MOST_OF_SCAN, projection={"findings": 0}
        )
        rows = sorted((report_row(report) for report in reports), key=lambda row: str(row.created_at))
        scan = read(BrainScan, document)
        name = scan.meta.analysis
        seen = None if name is None else (await last_seen(self._mongo, [name])).get(name)
        return ScanFile(now, scan, tuple(rows), "pending_report" in document, brain_seen=seen)

    async def _upload(self, document: Doc) -> UploadRow:
        """Return an upload with what is kept of it, counted: its document notes that now and then alone."""
        heads = await MongoShelves(self._mongo, self._payloads).heads(document["payload_id"])
        row = upload_row(document)
        return replace(row, kept=min(row.size, sum(size for _, size in heads)))

    def report(self, report_id: str) -> Deferred[ReportRow | None]:
        """Return a report."""
        return Deferred.fromCoroutine(self._report(report_id))

    async def _report(self, report_id: str) -> ReportRow | None:
        document = await self._report_document(report_id)
        return None if document is None else report_row(document)

    async def _report_document(self, report_id: str) -> Doc | None:
        return await self._mongo.find_one("look for a report", REPORTS, {"_id": report_id}, {"findings": 0})

    def failed(self, after: str, limit: int) -> Deferred[list[str]]:
        """Return ids of Failed scans."""
        return Deferred.fromCoroutine(self._failed(after, limit))

    async def _failed(self, after: str, limit: int) -> list[str]:
        query = {**in_state(ScanState.FAILED.value), "_id": {"$gt": after}}
        found = await self._mongo.find(
            "look for Failed scans",
            SCANS,
            query,
            limit=limit,
            projection={"_id": 1},
            sort=(("_id", 1),),
            timeout=PATIENCE,
        )
        return [document["_id"] for document in found]

    # --- mending one

    def retry(self, scan_id: str, by: str) -> Deferred[None]:
        """Set a Failed scan To Do."""
        return Deferred.fromCoroutine(self._retry(scan_id, by))

    async def _retry(self, scan_id: str, by: str) -> None:
        now = await self._mongo.now()
        # Nothing of what it was given up for is left, but in its history. Its token stays: older claims stay stale.
        change = {
            "$set": {
                "report_generated": ScanState.TO_DO.value,
                "attempts": 0,
                "given_back": 0,
                "error": None,
                "lease": None,
            },
            "$push": self._scribe.push(now, "retried", by),
        }
        failed = {"_id": scan_id, **in_state(ScanState.FAILED.value), "payload_removed_at": None}
        if not await self._mongo.compare_and_set("retry a scan", SCANS, failed, change):
            facts = {"report_generated": 1, "payload_removed_at": 1}
            document = await self._mongo.find_one("look for a scan", SCANS, {"_id": scan_id}, facts)
            check_retry(scan_id, document)
            raise NotPossibleError(f"{scan_id} was changed by another at the same time: look, and try again")

    def resend(self, report_id: str, by: str) -> Deferred[None]:
        """Make a report due again."""
        return Deferred.fromCoroutine(self._resend(report_id, by))

    async def _resend(self, report_id: str, by: str) -> None:
        document = await self._report_document(report_id)
        check_resend(report_id, document)
        assert document is not None
        now = await self._mongo.now()
        line = self._chronicle.line(now, "resent", f"{report_id}, {by}")
        taken = document.get("token") or 0
        change = self._chronicle.carrying({"$set": {**_due(now), "resent_after": taken}}, line)
        unchanged = _as_it_was(document)
        if not await self._mongo.compare_and_set("resend a report", REPORTS, unchanged, change):
            raise NotPossibleError(
                f"{report_id} was changed by another at the same time: look, and try again"
            )
        self._chronicle.tell_soon(report_id, str(document.get("scan_id")), line)

    # --- everything

    def verify(self, check: Check, found: Callable[[Finding], None], progress: Progress) -> Deferred[Checked]:
        """Look at everything."""
        verifier = Verifier(MongoShelves(self._mongo, self._payloads), check, found, progress)
        return Deferred.fromCoroutine(verifier.run())


def _due(now: datetime) -> Doc:
    """Return the members of a report that is to be sent now, as if never tried."""
    return {
        "status": False,
        "refused": False,
        "delivered_at": None,
        "lease": None,
        "error": None,
        "attempts": 0,
        "next_attempt_at": now,
    }


def _as_it_was(document: Mapping[str, Any]) -> Doc:
    """Return the query of a report that nobody delivered, refused or sent again since."""
    return {member: document.get(member) for member in ("_id", "status", "refused", "delivered_at")}
