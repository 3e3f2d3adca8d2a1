"""Payloads of scans that are long done with: given up, while the scans and their reports stay.

``payload_since`` of a Done scan says from when on its payload is kept for nothing, as far as was known; it is looked at
again when that is long ago. The payload is listed as garbage, then the scan is marked, by compare-and-set: a crash in
between leaves a listed payload that is in use, which the cleaner takes off its list; a crash after it leaves the rest
to the cleaner. A scan that someone had analysed again meanwhile is another scan to the compare-and-set.
"""

from datetime import datetime, timedelta
from typing import Any

from fr_twisted.model import ScanState, utc_text
from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import Scribe
from fr_twisted.store.garbage import Garbage, in_order
from fr_twisted.store.indexes import REPORTS, SCANS, payload_kept

Doc = dict[str, Any]

MOST_REPORTS = 1000
"""Of one scan; one with more keeps its payload."""

LOOK_AGAIN = timedelta(hours=1)
"""After which a scan is looked at again whose reports are not all delivered, or which is not Done."""

_HEAD = {"payload_id": 1, "payload_since": 1, "token": 1}


class Retention:
    """Gives up what nobody will need."""

    def __init__(self, mongo: Mongo, scribe: Scribe, garbage: Garbage) -> None:
        self._mongo = mongo
        self._scribe = scribe
        self._garbage = garbage

    async def retire(self, keep_seconds: float) -> int:
        """Retire, as `IScans.retire` says."""
        keep = timedelta(seconds=keep_seconds)
        retired = 0
        # What is put off is not found again in this round: only what was long ago when it began is.
        before = await self._mongo.now() - keep
        what, kept = "look for old payloads", payload_kept(before)
        async for head in in_order(self._mongo, what, SCANS, kept, "payload_since", _HEAD):
            retired += await self._retire_one(head, before, keep)
        return retired

    async def _retire_one(self, head: Doc, before: datetime, keep: timedelta) -> bool:
        delivered_at = await self._delivered_at(head["_id"])
        again = before + min(keep, LOOK_AGAIN)
        payload_id = head.get("payload_id")
        if not isinstance(payload_id, str):
            again = before + keep  # a damaged document, of which `fr verify` tells, holds up no other
        elif delivered_at is not None and delivered_at <= before:
            await self._garbage.add(payload_id)
            if await self._mark(head, delivered_at):
                return True
        elif delivered_at is not None:
            again = delivered_at
        as_seen = {"_id": head["_id"], "payload_since": head["payload_since"]}
        await self._mongo.update(
            "look at a payload later", SCANS, as_seen, {"$set": {"payload_since": again}}
        )
        return False

    async def _delivered_at(self, scan_id: str) -> datetime | None:
        """Return when the last of its reports was delivered; None: not all are, or there is none."""
        state = {"status": 1, "delivered_at": 1}
        reports = await self._mongo.find(
            "look for reports", REPORTS, {"scan_id": scan_id}, limit=MOST_REPORTS, projection=state
        )
        times = [report.get("delivered_at") for report in reports if report.get("status") is True]
        whole = [moment for moment in times if isinstance(moment, datetime)]
        return max(whole) if whole and len(whole) == len(reports) < MOST_REPORTS else None

    async def _mark(self, head: Doc, delivered_at: datetime) -> bool:
        now = await self._mongo.now()
        unchanged = {
            "_id": head["_id"],
            "report_generated": ScanState.DONE.value,
            "token": head.get("token"),
            "payload_since": head["payload_since"],
            "pending_at": None,
        }
        change = {
            "$set": {"payload_removed_at": now},
            "$unset": {"payload_since": ""},
            "$push": self._scribe.push(now, "payload removed", f"delivered {utc_text(delivered_at)}"),
        }
        return await self._mongo.compare_and_set("give up a payload", SCANS, unchanged, change)
