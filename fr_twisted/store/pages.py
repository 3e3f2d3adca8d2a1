"""Whole collections, some documents at a time, through one cursor: no document is read twice, and few are held."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from bson import Int64

from fr_twisted.store.connection import Mongo
from fr_twisted.store.interfaces import StoreError
from fr_twisted.store.retry import ServerError

Doc = dict[str, Any]

TIMEOUT = 120.0
"""Seconds for one answer: some servers search the whole collection for the first."""

MOST_RESUMED = 5
"""Cursors lost one after the other, without a document between them; then the store is given up."""


async def pages(
    mongo: Mongo, what: str, collection: str, *, batch: int, projection: Mapping[str, int] | None = None
) -> AsyncIterator[list[Doc]]:
    """Give the documents of ``collection`` in the order of their ids, ``batch`` at a time.

    A cursor that is lost, with its connection or because its time was up, is opened anew behind the last document.
    """
    last: Any = None
    lost = 0
    while True:
        try:
            async for documents in _one_cursor(mongo, what, collection, batch, projection, last):
                lost, last = 0, documents[-1]["_id"]
                yield documents
            return
        except StoreError as error:
            lost += 1
            if lost > MOST_RESUMED or (isinstance(error, ServerError) and error.code not in LOST):
                raise
            await mongo.runner.pause(min(0.1 * 2**lost, 2.0))


LOST = frozenset({43, 89, 91, 134, 189, 237, 10107, 11600, 11602, 13435, 13436})
"""CursorNotFound, CursorKilled, and those of a server that is going or no primary any more."""


async def _one_cursor(
    mongo: Mongo,
    what: str,
    collection: str,
    batch: int,
    projection: Mapping[str, int] | None,
    last: Any,
) -> AsyncIterator[list[Doc]]:
    # Both commands must be of one session. Neither is repeated: the second answer would be another page.
    session = mongo.session()
    command: Doc = {
        "find": collection,
        "filter": {} if last is None else {"_id": {"$gt": last}},
        "sort": {"_id": 1},
        "batchSize": batch,
    }
    if projection:
        command["projection"] = dict(projection)
    if mongo.majority_reads:
        command["readConcern"] = {"level": "majority"}
    cursor = (await mongo.command(what, command, timeout=TIMEOUT, session=session))["cursor"]
    page = cursor["firstBatch"]
    while page:
        yield page
        if not cursor["id"]:
            return
        get_more = {"getMore": Int64(cursor["id"]), "collection": collection, "batchSize": batch}
        cursor = (await mongo.command(what, get_more, timeout=TIMEOUT, session=session))["cursor"]
        page = cursor["nextBatch"]
