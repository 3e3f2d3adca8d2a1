"""What becomes of a report, told in the history of its scan, which is another document.

The write that changes the report decides alone; it leaves the line to be told in the report itself (``untold``). Then
the line is appended to the scan, if it is not there yet, and taken out of the report. A crash between them is repaired.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import Scribe, history_push
from fr_twisted.store.indexes import REPORTS, SCANS, untold

Doc = dict[str, Any]

BATCH = 100


class Chronicle:
    """Tells scans of their reports."""

    def __init__(self, mongo: Mongo, scribe: Scribe) -> None:
        self._mongo = mongo
        self._scribe = scribe

    def line(self, at: datetime, event: str, detail: str | None = None) -> Doc:
        """Return a line to be told."""
        return self._scribe.entry(at, event, detail)

    @staticmethod
    def carrying(change: Mapping[str, Any], line: Doc) -> Doc:
        """Return the ``change`` of a report that leaves the line in it, once, however often it is applied."""
        members = {**change.get("$set", {}), "untold_at": line["at"]}
        return {**change, "$set": members, "$addToSet": {"untold": line}}

    def tell_soon(self, report_id: str, scan_id: str, line: Doc) -> None:
        """Tell the scan, without keeping anyone waiting: what fails here is left to `repair`."""
        self._mongo.in_background("tell a scan of its report", self._tell(report_id, scan_id, [line]))

    async def _tell(self, report_id: str, scan_id: str, lines: list[Doc]) -> bool:
        """Append the lines, and take them out of the report if it has no others by now; tell whether it had none."""
        for line in lines:
            # Not twice, when an earlier attempt got as far as this.
            without = {"_id": scan_id, "history": {"$ne": line}}
            await self._mongo.update("tell a scan of its report", SCANS, without, history_push(line))
        told = {"_id": report_id, "untold": lines}
        change = {"$unset": {"untold": "", "untold_at": ""}}
        return await self._mongo.update("note what was told", REPORTS, told, change)

    async def repair(self) -> None:
        """Tell what a crash left untold."""
        projection = {"untold": 1, "scan_id": 1}
        while True:
            left = await self._mongo.find(
                "look for what is untold", REPORTS, untold(), limit=BATCH, projection=projection
            )
            told = [
                await self._tell(doc["_id"], doc.get("scan_id", ""), doc.get("untold", [])) for doc in left
            ]
            if len(left) < BATCH or not any(told):
                return
