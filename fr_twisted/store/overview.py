"""The store at a glance. Every question is answered by an index, and bounded by an hour's work or by what waits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fr_twisted.model import ScanState
from fr_twisted.store.analyses import last_seen
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import (
    QUEUE_ORDER,
    REPORTS,
    SCANS,
    UPLOADS,
    created,
    delivered,
    in_progress,
    received,
    to_do_named,
    touched,
)
from fr_twisted.store.ioperators import MOST_SHOWN, RECENT, AnalysisRow, StateCount, StoreStatus
from fr_twisted.store.retry import ServerError
from fr_twisted.store.rows import lease_row, node_rows, upload_row

Doc = dict[str, Any]

PATIENCE = 60.0
"""Seconds for one answer: a person waits longer than a daemon may."""

MOST_NODES = 1000

BAD_VALUE = 2
"""Code of the error when the index of a hint is not there."""


async def overview(mongo: Mongo) -> StoreStatus:
    """Return the status of the store."""
    now = await mongo.now(max_age=0)
    states = await _states(mongo)
    nodes = node_rows(await _facts_of_nodes(mongo, now))
    leases = await mongo.find(
        "look at leases",
        SCANS,
        in_progress(),
        limit=MOST_SHOWN,
        projection={"lease": 1, "attempts": 1},
        sort=(("lease.expires_at", 1),),
    )
    uploads = await mongo.find(
        "look at uploads",
        UPLOADS,
        touched(),
        limit=MOST_SHOWN,
        projection={"source": 1, "size": 1, "kept": 1, "touched_at": 1},
        sort=(("touched_at", -1),),
    )
    counted = await mongo.command("count uploads", {"count": UPLOADS, "query": {}}, timeout=PATIENCE)
    return StoreStatus(
        at=now,
        states=states,
        nodes=nodes,
        leases=tuple(lease_row(document, now) for document in leases),
        uploads=tuple(upload_row(document) for document in uploads),
        uploads_in_all=max(int(counted["n"]), len(uploads)),
        analyses=await _analyses(mongo),
    )


async def _analyses(mongo: Mongo) -> tuple[AnalysisRow, ...]:
    count, oldest = {"$sum": 1}, {"$min": "$received_at"}
    group = {"$group": {"_id": "$meta.analysis", "n": count, "oldest": oldest}}
    groups = await _groups(mongo, SCANS, [{"$match": to_do_named()}, group])
    seen = await last_seen(mongo, [found["_id"] for found in groups])
    rows = [
        AnalysisRow(found["_id"], int(found["n"]), found["oldest"], seen.get(found["_id"]))
        for found in groups
    ]
    return tuple(sorted(rows, key=lambda row: row.analysis))


async def _states(mongo: Mongo) -> tuple[StateCount, ...]:
    # The index holds everything that is asked for: no document is read.
    pipeline = [
        {"$group": {"_id": "$report_generated", "n": {"$sum": 1}, "oldest": {"$min": "$received_at"}}}
    ]
    hint = {"report_generated": 1, **dict(QUEUE_ORDER)}
    try:
        groups = await _groups(mongo, SCANS, pipeline, hint)
    except ServerError as error:
        if error.code != BAD_VALUE:
            raise
        groups = await _groups(mongo, SCANS, pipeline)
    by_state = {group["_id"]: group for group in groups}
    return tuple(
        StateCount(state, int(group["n"]), group["oldest"])
        for state in ScanState
        for group in [by_state.get(state.value, {"n": 0, "oldest": None})]
    )


async def _facts_of_nodes(mongo: Mongo, now: datetime) -> list[tuple[str, Doc]]:
    """Return pairs of a node's name and members of its row."""
    since = now - RECENT
    count = {"$sum": 1}
    facts: list[tuple[str, Doc]] = []
    group = {"$group": {"_id": "$source", "n": count, "last": {"$max": "$received_at"}}}
    for found in await _groups(mongo, SCANS, [{"$match": received(since)}, group]):
        facts.append((found["_id"], {"received": int(found["n"]), "last_received": found["last"]}))
    by_node = {"$group": {"_id": "$destination", "n": count}}
    for member, recent in (("analysed", created(since)), ("delivered", delivered(since))):
        for found in await _groups(mongo, REPORTS, [{"$match": recent}, by_node]):
            facts.append((found["_id"], {member: int(found["n"])}))
    for member, refused in (("waiting", False), ("refused", True)):
        undelivered = {"$match": {"status": False, "refused": refused}}
        for found in await _groups(mongo, REPORTS, [undelivered, by_node]):
            facts.append((found["_id"], {member: int(found["n"])}))
    return facts


async def _groups(
    mongo: Mongo, collection: str, pipeline: Sequence[Doc], hint: Doc | None = None
) -> list[Doc]:
    command: Doc = {
        "aggregate": collection,
        "pipeline": [*pipeline, {"$limit": MOST_NODES}],
        "cursor": {"batchSize": MOST_NODES},
    }
    if hint:
        command["hint"] = hint
    reply = await mongo.command("count", command, timeout=PATIENCE)
    groups: list[Doc] = reply["cursor"]["firstBatch"]
    return groups
