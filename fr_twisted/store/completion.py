"""The end of an analysis: one compare-and-set decides, carrying the whole report; a crash after it is repaired.

First the bundle's chunks are written; then the scan is set ``Done`` with the report's document inside it: that decides.
Then the report is copied to its collection, then taken out of the scan. Each step may be repeated by anyone.
"""

import hashlib
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from pymongo.errors import DuplicateKeyError
from twisted.logger import Logger

from fr_twisted.model import BrainReport, ScanState
from fr_twisted.store.claims import Claims
from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import Scribe, faults, read
from fr_twisted.store.garbage import GRACE_SECONDS, Garbage
from fr_twisted.store.indexes import REPORTS, SCANS, pending
from fr_twisted.store.interfaces import Claim, NewReport, StaleTokenError, StoreError
from fr_twisted.store.payloads import MongoPayloads
from fr_twisted.store.retry import KeptOutError

Doc = dict[str, Any]

BATCH = 100


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, KeptOutError):
        return str(error)
    return (
        faults(error) if isinstance(error, ValidationError) else f"it is damaged: {error} is wrong or missing"
    )


class Completion:
    """Turns a claim and a finished report into a scan that is ``Done`` and a report that is due."""

    _log = Logger()

    def __init__(self, mongo: Mongo, scribe: Scribe, payloads: MongoPayloads, garbage: Garbage) -> None:
        self._mongo = mongo
        self._scribe = scribe
        self._payloads = payloads
        self._garbage = garbage
        self._damaged: set[str] = set()
        """Scans that `repair` could not mend, each told once."""

    async def complete(self, claim: Claim, report: NewReport) -> BrainReport:
        """Complete, as `IScans.complete` says."""
        document = await self._document(claim, report)
        payload_id = document["payload_id"]
        await self._garbage.add(payload_id, claim)
        try:
            return await self._completed(claim, report, document)
        except (StaleTokenError, StoreError):
            # If we were stopped for long, the cleaner was here before these bytes, and looks for them no more.
            self._mongo.in_background("give up a payload", self._garbage.add(payload_id, claim))
            raise

    async def _completed(self, claim: Claim, report: NewReport, document: Doc) -> BrainReport:
        begun, payload_id = self._mongo.monotonic(), document["payload_id"]
        await self._payloads.write_all(payload_id, report.bundle)
        if self._mongo.monotonic() - begun > GRACE_SECONDS / 2:
            raise StoreError(f"{report.report_id}: the store was too slow to write the report")
        if not await self._decide(claim, document):
            document = await self._decided(claim)
        kept = await self._finish(claim.scan.scan_id, document)
        if kept["payload_id"] == payload_id:
            self._mongo.in_background("keep a payload", self._garbage.drop(payload_id))
        return read(BrainReport, kept)

    async def _document(self, claim: Claim, report: NewReport) -> Doc:
        now = await self._mongo.now()
        digest = hashlib.sha256(report.bundle).hexdigest()
        return {
            "_id": report.report_id,
            "scan_id": claim.scan.scan_id,
            "patient_id": claim.scan.patient_id,
            "destination": claim.scan.source,
            "status": False,
            "analysis": report.analysis,
            "analysis_version": report.analysis_version,
            "findings": report.findings,
            # Another for each call: the cleaner may be at the chunks of an earlier one by now.
            "payload_id": uuid4().hex,
            "size": len(report.bundle),
            "sha256": digest,
            "created_at": now,
            "attempts": 0,
            "next_attempt_at": now,
            "lease": None,
            "token": 0,
            "delivered_at": None,
            "error": None,
            "refused": False,
        }

    async def _decide(self, claim: Claim, document: Doc) -> bool:
        now = document["created_at"]
        change = {
            "$set": {
                "report_generated": ScanState.DONE.value,
                "lease": None,
                "error": None,
                "pending_report": document,
                "pending_at": now,
                "payload_since": now,
            },
            "$push": self._scribe.push(now, "done", document["_id"]),
        }
        ours = Claims.ours(claim.scan.scan_id, claim.token)
        return await self._mongo.compare_and_set("set a scan Done", SCANS, ours, change)

    async def _decided(self, claim: Claim) -> Doc:
        """Return the report with which an earlier call for the same claim set the scan Done; its payload is another."""
        query = {"_id": claim.scan.scan_id, "report_generated": ScanState.DONE.value, "token": claim.token}
        scan = await self._mongo.find_one(
            "look for a scan", SCANS, query, {"pending_report": 1, "report_id": 1}
        )
        if scan is None:
            raise StaleTokenError(f"{claim.scan.scan_id} was taken over")
        if "pending_report" in scan:
            pending_report: Doc = scan["pending_report"]
            return pending_report
        report = await self._mongo.find_one("look for a report", REPORTS, {"_id": scan.get("report_id")})
        if report is None:
            raise StoreError(f"{claim.scan.scan_id} is Done but its report is gone")
        return report

    async def _finish(self, scan_id: str, document: Doc) -> Doc:
        """Copy the report to its collection, then take it out of the scan; return the report that is kept."""
        try:
            await self._mongo.insert("keep a report", REPORTS, dict(document))
        except DuplicateKeyError:
            await self._mongo.check_there("look for a report", REPORTS, document["_id"])
            same = {"_id": document["_id"]}
            document = await self._mongo.find_one("look for a report", REPORTS, same) or document
        done = {"_id": scan_id, "pending_report._id": document["_id"]}
        change = {"$set": {"report_id": document["_id"]}, "$unset": {"pending_report": "", "pending_at": ""}}
        await self._mongo.update("take a report out of its scan", SCANS, done, change)
        return document

    async def repair(self) -> int:
        """Finish what a crash left; return how many reports were mended."""
        mended = 0
        while True:
            # Those that stay must not fill the batch.
            limit = BATCH + len(self._damaged)
            left = await self._mongo.find(
                "look for pending reports", SCANS, pending(), limit=limit, projection={"pending_report": 1}
            )
            for scan in left:
                mended += await self._mend(scan)
            if len(left) < limit:
                return mended

    async def _mend(self, scan: Doc) -> bool:
        scan_id = scan["_id"]
        try:
            BrainReport.model_validate(scan["pending_report"])
            await self._finish(scan_id, scan["pending_report"])
        except (KeyError, ValueError, KeptOutError) as error:
            if scan_id not in self._damaged:
                self._damaged.add(scan_id)
                self._log.error(
                    "{scan_id} is Done but the report in its document cannot be sent: {reason}",
                    event="scan.damaged",
                    scan_id=scan_id,
                    reason=_what_is_wrong(error),
                )
            return False
        self._damaged.discard(scan_id)
        self._log.info("the report of {scan_id} was put in its place", event="scan.repaired", scan_id=scan_id)
        return True
