"""Scans, the last received first, in windows of time: some servers sort all that matches before they give the first."""

from datetime import datetime, timedelta
from typing import Any

from fr_twisted.model import ScanState
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import EPOCH, NEWEST, SCANS, received
from fr_twisted.store.ioperators import Page, Wanted
from fr_twisted.store.overview import PATIENCE
from fr_twisted.store.rows import scan_row

Doc = dict[str, Any]

WINDOWS = tuple(timedelta(minutes=minutes) for minutes in (2, 15, 120, 60 * 24, 60 * 24 * 14))
"""Ages of scans at which one query ends and the next begins."""

PRIORITIES = range(10)
"""Those that there are (`fr_twisted.model.ScanMeta`): the index of the queue has them between a state and the time."""

_ROW = {
    "patient_id": 1,
    "source": 1,
    "report_generated": 1,
    "received_at": 1,
    "size": 1,
    "priority": 1,
    "attempts": 1,
    "error": 1,
    "payload_removed_at": 1,
}


async def listed(mongo: Mongo, wanted: Wanted) -> Page:
    """Return the page that is wanted."""
    limit = wanted.limit + 1
    found: list[Doc] = []
    now = await mongo.now()
    before: datetime | None = None
    for since in (*(now - age for age in WINDOWS), EPOCH):
        since = max(since, wanted.since or EPOCH)
        found += await _window(mongo, wanted, since, before, limit - len(found))
        if len(found) >= limit or since == wanted.since:
            break
        before = since
    return Page(tuple(scan_row(document) for document in found[: wanted.limit]), len(found) >= limit)


async def _window(
    mongo: Mongo, wanted: Wanted, since: datetime, before: datetime | None, limit: int
) -> list[Doc]:
    found: list[Doc] = []
    for query in _queries(wanted.state, wanted.patient_id):
        found += await mongo.find(
            "list scans",
            SCANS,
            {**query, **received(since, before)},
            limit=limit,
            projection=_ROW,
            sort=NEWEST,
            timeout=PATIENCE,
        )
    return sorted(found, key=lambda document: document["received_at"], reverse=True)[:limit]


def _queries(state: ScanState | None, patient_id: str | None) -> list[Doc]:
    """Return queries that find the scans together, each of them by one index."""
    if patient_id is not None:
        return [{"patient_id": patient_id, **({} if state is None else {"report_generated": state.value})}]
    if state is None:
        return [{}]
    return [{"report_generated": state.value, "priority": priority} for priority in PRIORITIES]
