"""`IReports` over MongoDB. ``next_attempt_at`` says when a report may be taken: a lease puts it to the lease's end."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from fr_twisted.model import BrainReport
from fr_twisted.store.candidates import LIMIT, Candidates
from fr_twisted.store.chronicle import Chronicle
from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import faults, is_told, lease, put_back_detail, read, shorten
from fr_twisted.store.indexes import EPOCH, REPORT_ORDER, REPORTS, due, due_undated, unsent
from fr_twisted.store.interfaces import IReports
from fr_twisted.store.watch import Watch
from fr_twisted.store.window import SEARCH_TIMEOUT, Window

Doc = dict[str, Any]

MOST_DESTINATIONS = 1000
"""Destinations counted by `IReports.waiting`, and for which a list of candidates is kept."""

_HEAD = {"token": 1, "next_attempt_at": 1, "created_at": 1}

MOST_OF_SCAN = 1000
"""Reports of one scan: one for each version of each analysis."""


@implementer(IReports)
class MongoReports:
    """Reports in ``brain_reports``."""

    _log = Logger()

    def __init__(self, mongo: Mongo, chronicle: Chronicle, watch: Watch) -> None:
        self._mongo = mongo
        self._chronicle = chronicle
        self._watch = watch
        self._candidates: dict[str, Candidates] = {}

    def take(self, destination: str, owner: str, lease_seconds: float) -> Deferred[BrainReport | None]:
        """Lease the oldest report that is due."""
        return Deferred.fromCoroutine(
            self._candidates_for(destination).take(lambda head: self._attempt(head, owner, lease_seconds))
        )

    def _candidates_for(self, destination: str) -> Candidates:
        if destination not in self._candidates:
            if len(self._candidates) >= MOST_DESTINATIONS:
                self._candidates.clear()
            window = Window("next_attempt_at")
            self._candidates[destination] = Candidates(
                lambda: self._due(destination, window), self._mongo.monotonic
            )
        return self._candidates[destination]

    async def _due(self, destination: str, window: Window) -> list[Doc]:
        """List what is due, the oldest first; of a long queue, the oldest of those that were due first."""
        what = "look for reports"
        now = await self._mongo.now()

        async def search(before: datetime | None) -> list[Doc]:
            query, patience = due(destination, before or now), None if before else SEARCH_TIMEOUT
            return await self._mongo.find(
                what, REPORTS, query, limit=LIMIT, projection=_HEAD, sort=REPORT_ORDER, timeout=patience
            )

        found = await window.oldest(search, now, self._mongo.monotonic)
        # Reports that a person set from refused back to unsent have no date: they are due.
        undated = await self._mongo.find(
            what, REPORTS, due_undated(destination), limit=LIMIT, projection=_HEAD
        )
        return sorted([*found, *undated], key=_age)[:LIMIT] if undated else found

    async def _attempt(self, head: Doc, owner: str, lease_seconds: float) -> BrainReport | None:
        now = await self._mongo.now()
        token = (head.get("token") or 0) + 1
        unchanged = {
            "_id": head["_id"],
            "status": False,
            "refused": False,
            "token": head.get("token"),
            "next_attempt_at": None if head.get("next_attempt_at") is None else {"$lte": now},
        }
        leased = lease(owner, token, now, lease_seconds)
        change = {"$set": {"token": token, "lease": leased, "next_attempt_at": leased["expires_at"]}}
        if not await self._mongo.compare_and_set("take a report", REPORTS, unchanged, change):
            return None
        ours = {"_id": head["_id"], "token": token}
        document = await self._mongo.find_one("take a report", REPORTS, ours)
        return None if document is None else await self._made(document)

    async def _made(self, document: Doc) -> BrainReport | None:
        try:
            return BrainReport.model_validate(document)
        except ValidationError as error:
            reason = f"the report's document is damaged: {faults(error)}"
            self._log.error(
                "{report_id} is not sent: {reason}",
                event="report.damaged",
                report_id=document["_id"],
                reason=reason,
            )
            await self._refuse(document["_id"], str(document.get("scan_id")), reason, document["token"])
            return None

    def delivered(self, report: BrainReport) -> Deferred[None]:
        """Set ``status``. The destination has it, whoever holds the lease by now; but not if it was resent since."""
        return Deferred.fromCoroutine(self._delivered(report))

    async def _delivered(self, report: BrainReport) -> None:
        now, report_id, scan_id = await self._mongo.now(), report.report_id, report.scan_id
        change = {
            "status": True,
            "delivered_at": now,
            "lease": None,
            "next_attempt_at": None,
            "error": None,
            "refused": False,
        }
        query: Doc = {"_id": report_id, "status": False}
        if report.lease is not None:
            # Who took it before a person asked for it once more tells of a delivery before that.
            # Not by $or, for which the embedded server searches the whole collection.
            query["resent_after"] = {"$not": {"$gte": report.lease.token}}
        line = self._chronicle.line(now, "delivered", report_id)
        carrying = self._chronicle.carrying({"$set": change}, line)
        if await self._mongo.update("set a report delivered", REPORTS, query, carrying):
            self._chronicle.tell_soon(report_id, scan_id, line)

    def put_back(self, report: BrainReport, error: str, delay_seconds: float) -> Deferred[None]:
        """Release the lease; a lease that another took over is left as it is."""
        return Deferred.fromCoroutine(self._put_back(report, error, delay_seconds))

    async def _put_back(self, report: BrainReport, error: str, delay_seconds: float) -> None:
        if report.lease is None:
            return
        now = await self._mongo.now()
        due_at = now + timedelta(seconds=delay_seconds)
        ours = {
            "_id": report.report_id,
            "status": False,
            "refused": False,
            "token": report.lease.token,
            "lease.token": report.lease.token,
        }
        change: Doc = {
            "$set": {"lease": None, "error": shorten(error), "next_attempt_at": due_at},
            "$inc": {"attempts": 1},
        }
        attempt = report.attempts + 1
        line = self._chronicle.line(now, "put back", put_back_detail(report.report_id, attempt, error))
        if is_told(attempt):
            change = self._chronicle.carrying(change, line)
        if await self._mongo.compare_and_set("put a report back", REPORTS, ours, change) and is_told(attempt):
            self._chronicle.tell_soon(report.report_id, report.scan_id, line)

    def refused(self, report: BrainReport, error: str) -> Deferred[None]:
        """Keep it and do not offer it again."""
        token = None if report.lease is None else report.lease.token
        return Deferred.fromCoroutine(self._refuse(report.report_id, report.scan_id, error, token))

    async def _refuse(self, report_id: str, scan_id: str, error: str, token: int | None) -> None:
        change = {"refused": True, "error": shorten(error), "lease": None, "next_attempt_at": None}
        query: Doc = {"_id": report_id, "status": False}
        if token is not None:
            query["token"] = token
        line = self._chronicle.line(await self._mongo.now(), "refused", f"{report_id}: {error}")
        carrying = self._chronicle.carrying({"$set": change}, line)
        if await self._mongo.update("set a report refused", REPORTS, query, carrying):
            self._chronicle.tell_soon(report_id, scan_id, line)

    def next_due(self, destination: str) -> Deferred[float | None]:
        """Return the seconds until a report is due."""
        return Deferred.fromCoroutine(self._next_due(destination))

    async def _next_due(self, destination: str) -> float | None:
        now = await self._mongo.now()
        found = await self._mongo.find(
            "look for reports",
            REPORTS,
            unsent(destination),
            limit=1,
            projection={"next_attempt_at": 1},
            sort=(("next_attempt_at", 1),),
        )
        if not found:
            return None
        # Without a date it is due, and comes first in the order.
        due_at: datetime | None = found[0].get("next_attempt_at")
        return 0.0 if due_at is None else max(0.0, (due_at - now).total_seconds())

    def waiting(self, besides: Collection[str] = ()) -> Deferred[dict[str, int]]:
        """Count the unsent reports."""
        return Deferred.fromCoroutine(self._waiting(besides))

    async def _waiting(self, besides: Collection[str]) -> dict[str, int]:
        pipeline = [
            {"$match": {"status": False, "refused": False, "destination": {"$nin": sorted(besides)}}},
            {"$group": {"_id": "$destination", "n": {"$sum": 1}}},
            {"$limit": MOST_DESTINATIONS},
        ]
        command = {"aggregate": REPORTS, "pipeline": pipeline, "cursor": {"batchSize": MOST_DESTINATIONS}}
        reply = await self._mongo.command("count reports", command)
        return {group["_id"]: int(group["n"]) for group in reply["cursor"]["firstBatch"]}

    def get(self, report_id: str) -> Deferred[BrainReport | None]:
        """Return a report."""
        return Deferred.fromCoroutine(self._get(report_id))

    async def _get(self, report_id: str) -> BrainReport | None:
        document = await self._mongo.find_one("look for a report", REPORTS, {"_id": report_id})
        return None if document is None else read(BrainReport, document)

    def of_scan(self, scan_id: str) -> Deferred[list[BrainReport]]:
        """Return the reports of a scan, the oldest first."""
        return Deferred.fromCoroutine(self._of_scan(scan_id))

    async def _of_scan(self, scan_id: str) -> list[BrainReport]:
        found = await self._mongo.find("look for reports", REPORTS, {"scan_id": scan_id}, limit=MOST_OF_SCAN)
        reports = [read(BrainReport, document) for document in found]
        return sorted(reports, key=lambda report: report.created_at)

    def on_report(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when a report became due."""

        def look_anew() -> None:
            for candidates in self._candidates.values():
                candidates.forget()
            wake()

        return self._watch.add(look_anew)


def _age(head: Doc) -> datetime:
    created_at = head.get("created_at")
    return created_at if isinstance(created_at, datetime) else EPOCH
