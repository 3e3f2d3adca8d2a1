"""The queue: scans are claimed by finding and comparing-and-setting, under a lease and a fencing token."""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from fr_twisted.model import BrainScan, ScanState
from fr_twisted.store.analyses import Analyses
from fr_twisted.store.candidates import LIMIT, Candidates
from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import Scribe, faults, given_back_detail, is_told, lease, shorten
from fr_twisted.store.indexes import ARRIVAL, QUEUE_ORDER, SCANS, lease_ended, to_do, to_do_before
from fr_twisted.store.interfaces import Claim, StaleTokenError, StoreError
from fr_twisted.store.retry import PASSING, ServerError
from fr_twisted.store.window import SEARCH_TIMEOUT, WaitingScans

Doc = dict[str, Any]

_HEAD = {
    "priority": 1,
    "received_at": 1,
    "report_generated": 1,
    "token": 1,
    "lease.owner": 1,
    "given_back": 1,
}
_LOOK = "look for scans to analyse"

MOST_ENDED = 1000
"""Leases that ended of which the most urgent are taken first: as many as BRAINs may have had at the same time."""

FIRST_UNDO_PAUSE = 0.5
LONGEST_UNDO_PAUSE = 15.0
"""Seconds between attempts to give back a claim whose answer was lost, at first and at most."""

BODY = {"history": 0, "pending_report": 0}
"""The projection of a scan without what may be large."""


class Claims:
    """Claims of scans, and what becomes of them short of a report."""

    _log = Logger()

    def __init__(self, mongo: Mongo, scribe: Scribe) -> None:
        self._mongo = mongo
        self._scribe = scribe
        self._analyses = Analyses(mongo)
        self._waiting: dict[str | None, WaitingScans] = {}
        self._candidates: dict[str | None, Candidates] = {}

    def something_new(self) -> None:
        """Look at the whole queue for the next claim."""
        for candidates in self._candidates.values():
            candidates.forget()

    async def claim(
        self, owner: str, lease_seconds: float, analysis: str | None, besides: Collection[str]
    ) -> Claim | None:
        """Claim, as `IScans.claim` says."""
        self._analyses.note(analysis)
        if analysis not in self._candidates:
            self._candidates[analysis] = Candidates(partial(self._due, analysis), self._mongo.monotonic)
        return await self._candidates[analysis].take(
            lambda head: self._attempt(head, owner, lease_seconds), besides
        )

    async def _due(self, analysis: str | None) -> list[Doc]:
        now = await self._mongo.now()
        # A query for each rather than one for both: the index has them apart, and some servers search all for `$in`.
        queues = []
        for name in dict.fromkeys((None, analysis)):
            queues += [await self._queue(name, now), await self._ended(name, now)]
        return merged(*queues)

    async def _queue(self, analysis: str | None, now: datetime) -> tuple[list[Doc], bool]:
        """Return what waits for an analysis, or for any, and whether more may wait behind it."""
        waiting = self._waiting.setdefault(analysis, WaitingScans(partial(self._search, analysis)))
        found = await waiting.first(now, self._mongo.monotonic)
        return found, waiting.is_long or len(found) >= LIMIT

    async def _ended(self, analysis: str | None, now: datetime) -> tuple[list[Doc], bool]:
        query, order = lease_ended(analysis, now), (("lease.expires_at", 1),)
        # By expiry, as the index has them: the urgent ones may be the last, after the end of a whole farm of BRAINs.
        found = await self._mongo.find(_LOOK, SCANS, query, limit=MOST_ENDED, projection=_HEAD, sort=order)
        return found, False

    async def _search(self, analysis: str | None, priority: int | None, before: datetime | None) -> list[Doc]:
        query = to_do(analysis) if priority is None else to_do_before(analysis, priority, before)
        return await self._mongo.find(
            _LOOK,
            SCANS,
            query,
            limit=LIMIT,
            projection=_HEAD,
            sort=QUEUE_ORDER if priority is None else ARRIVAL,
            timeout=SEARCH_TIMEOUT if before is None else None,
        )

    async def _attempt(self, head: Doc, owner: str, lease_seconds: float) -> Claim | None:
        now = await self._mongo.now()
        token = (head.get("token") or 0) + 1
        unchanged = {
            "_id": head["_id"],
            "report_generated": head["report_generated"],
            "token": head.get("token"),
        }
        if head["report_generated"] != ScanState.TO_DO:
            unchanged["lease.expires_at"] = {"$lt": now}
        change = {
            "$set": {
                "report_generated": ScanState.IN_PROGRESS.value,
                "token": token,
                "lease": lease(owner, token, now, lease_seconds),
            },
            "$inc": {"attempts": 1},
            "$push": self._scribe.push(now, "claimed", _claimed_by(head, owner)),
        }
        mark = uuid4().hex
        try:
            if not await self._mongo.compare_and_set("claim a scan", SCANS, unchanged, change, mark):
                return None
            ours = {"_id": head["_id"], "token": token}
            document = await self._mongo.find_one("claim a scan", SCANS, ours, BODY)
        except (StoreError, CancelledError):
            # It may be claimed for a worker that does not know: three of these, and it would have failed unseen.
            self._mongo.in_background("undo a claim", self._undo(head, token, mark))
            raise
        return None if document is None else await self._made(document, owner, token)

    async def _undo(self, head: Doc, token: int, mark: str) -> None:
        """Give back, uncounted, what was claimed under ``mark`` if it was; keep trying until the store answers."""
        pause, scan_id = FIRST_UNDO_PAUSE, head["_id"]
        given_back = (head.get("given_back") or 0) + 1
        while True:
            try:
                # No later claim has this mark, not even one of ours with the same token.
                claimed = {**self.ours(scan_id, token), "op": mark}
                now = await self._mongo.now()
                change = {
                    "$set": {"report_generated": ScanState.TO_DO.value, "lease": None},
                    **self._uncounted(now, given_back, "the answer to the claim was lost"),
                }
                if await self._mongo.compare_and_set("undo a claim", SCANS, claimed, change):
                    self._log.info(
                        "{scan_id} was claimed but the answer was lost: it waits again, nothing is counted",
                        event="scan.unclaimed",
                        scan_id=scan_id,
                    )
                    self.something_new()
                return
            except StoreError as error:
                refused = isinstance(error, ServerError) and error.code not in PASSING
                if refused or self._mongo.runner.is_closed():
                    raise
            await self._mongo.runner.pause(pause)
            pause = min(pause * 2, LONGEST_UNDO_PAUSE)

    async def _made(self, document: Doc, owner: str, token: int) -> Claim | None:
        try:
            return Claim(BrainScan.model_validate(document), owner, token)
        except ValidationError as error:
            reason = f"the scan's document is damaged: {faults(error)}"
            self._log.error(
                "{scan_id} is given up: {reason}",
                event="scan.damaged",
                scan_id=document["_id"],
                reason=reason,
            )
            await self._end(document["_id"], token, ScanState.FAILED, "failed", reason)
            return None

    async def renew(self, claim: Claim, lease_seconds: float) -> None:
        """Lengthen the lease."""
        self._analyses.note()
        expires_at = await self._mongo.now() + timedelta(seconds=lease_seconds)
        ours = self.ours(claim.scan.scan_id, claim.token)
        if not await self._mongo.update(
            "renew a lease", SCANS, ours, {"$set": {"lease.expires_at": expires_at}}
        ):
            raise StaleTokenError(f"{claim.scan.scan_id} was taken over")

    async def release(self, claim: Claim, error: str | None, count_attempt: bool) -> None:
        """Give the scan back."""
        extra: Doc = {}
        if not count_attempt:
            extra = self._uncounted(await self._mongo.now(), claim.scan.given_back + 1, error)
        if not await self._end(claim.scan.scan_id, claim.token, ScanState.TO_DO, "released", error, extra):
            raise StaleTokenError(f"{claim.scan.scan_id} was taken over")
        self.something_new()

    def _uncounted(self, now: datetime, given_back: int, reason: str | None) -> Doc:
        """Return what a release changes that is not counted, and is the ``given_back``-th of these.

        Of most of many no line is left, not even that of the claim, which is the last one: nothing else is told of a
        scan while it is in progress.
        """
        told = given_back_detail(given_back, reason)
        history: Doc = (
            {"$push": self._scribe.push(now, "released", told)}
            if is_told(given_back)
            else {"$pop": {"history": 1}}
        )
        return {"$inc": {"attempts": -1, "given_back": 1}, **history}

    async def fail(self, claim: Claim, error: str, payload_broken: bool = False) -> None:
        """Give the scan up."""
        extra: Doc = {"$currentDate": {"payload_broken_at": True}} if payload_broken else {}
        if not await self._end(claim.scan.scan_id, claim.token, ScanState.FAILED, "failed", error, extra):
            raise StaleTokenError(f"{claim.scan.scan_id} was taken over")

    async def _end(
        self,
        scan_id: str,
        token: int,
        state: ScanState,
        event: str,
        error: str | None,
        extra: Doc | None = None,
    ) -> bool:
        now = await self._mongo.now()
        change = {
            "$set": {"report_generated": state.value, "lease": None, "error": shorten(error)},
            **(extra or {}),
        }
        if "history" not in change.get("$pop", {}):
            change.setdefault("$push", self._scribe.push(now, event, error))
        return await self._mongo.compare_and_set(
            f"set a scan {state}", SCANS, self.ours(scan_id, token), change
        )

    @staticmethod
    def ours(scan_id: str, token: int) -> Doc:
        """Return the query of a scan that is still in progress under ``token``."""
        return {"_id": scan_id, "report_generated": ScanState.IN_PROGRESS.value, "token": token}


def merged(*queues: tuple[list[Doc], bool]) -> list[Doc]:
    """Return the heads of several queues in one order: by priority, then arrival; `LIMIT` at most.

    Of a queue that may go on behind what was listed (True), nothing of the others is taken that may come after that.
    """
    ends = [_place(heads[-1]) for heads, more in queues if more and heads]
    end = min(ends, default=None)
    found = sorted((head for heads, _ in queues for head in heads), key=_place)
    return [head for head in found if end is None or _place(head) <= end][:LIMIT]


def _place(head: Doc) -> tuple[int, datetime]:
    return -head["priority"], head["received_at"]


def _claimed_by(head: Doc, owner: str) -> str:
    if head["report_generated"] == ScanState.TO_DO:
        return owner
    return f"{owner}, after the lease of {head.get('lease', {}).get('owner')} ended"
