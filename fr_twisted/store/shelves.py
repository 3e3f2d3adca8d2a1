"""What `fr_twisted.store.verify` looks at, in MongoDB."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from fr_twisted.store.analyses import last_seen
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import CHUNKS, GARBAGE, INDEXES, REPORTS, SCANS, UPLOADS, payloads_between
from fr_twisted.store.judge import Head
from fr_twisted.store.pages import pages
from fr_twisted.store.payloads import WINDOW, MongoPayloads
from fr_twisted.store.retry import ServerError

Doc = dict[str, Any]

BATCHES = {SCANS: 64, REPORTS: 16, UPLOADS: 256, GARBAGE: 256}
"""Documents in one answer; those of reports hold what was found."""

TIMEOUT = 120.0
"""Seconds for one answer: a person waits longer than a daemon may."""

MOST_HEADS = 10_000
"""Chunks that are listed at once: 10 GB of one payload."""

WITHOUT = {SCANS: {"pending_report.findings": 0}}

NO_SUCH_COLLECTION = 26


class MongoShelves:
    """Documents and chunks, read a few at a time."""

    def __init__(self, mongo: Mongo, payloads: MongoPayloads) -> None:
        self._mongo = mongo
        self._payloads = payloads

    async def now(self) -> datetime:
        """Return the store's clock."""
        return await self._mongo.now()

    async def count(self, collection: str) -> int:
        """Return about how many documents there are."""
        reply = await self._mongo.command("count", {"count": collection}, timeout=TIMEOUT)
        return int(reply["n"])

    def documents(self, collection: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """Give all documents."""
        batch, without = BATCHES[collection], WITHOUT.get(collection)
        return pages(self._mongo, f"read {collection}", collection, batch=batch, projection=without)

    async def document(self, collection: str, item_id: str) -> Doc | None:
        """Return one document."""
        return await self._mongo.find_one(
            f"read {collection}", collection, {"_id": item_id}, WITHOUT.get(collection)
        )

    async def reported(self, scan_ids: Sequence[str]) -> set[str]:
        """Return those of the scans that have a report."""
        query = {"scan_id": {"$in": list(scan_ids)}}
        some = await self._mongo.find(
            "look for reports", REPORTS, query, limit=2 * len(scan_ids), projection={"scan_id": 1}
        )
        found = {report["scan_id"] for report in some}
        # Those whose reports did not fit beside those of others.
        for scan_id in set(scan_ids) - found:
            if await self._mongo.find_one("look for a report", REPORTS, {"scan_id": scan_id}, {"_id": 1}):
                found.add(scan_id)
        return found

    async def seen(self, analysis: str) -> datetime | None:
        """Return when a BRAIN that runs it was last seen."""
        return (await last_seen(self._mongo, [analysis])).get(analysis)

    async def heads(self, payload_id: str) -> list[Head]:
        """Return number and size of chunks."""
        found = await self._mongo.find(
            "look for chunks",
            CHUNKS,
            {"files_id": payload_id},
            limit=MOST_HEADS,
            projection={"_id": 0, "n": 1, "size": 1},
            sort=(("n", 1),),
            timeout=TIMEOUT,
        )
        return [(_number(chunk.get("n")), _number(chunk.get("size"))) for chunk in found]

    async def read(self, payload_id: str, first: int, count: int) -> list[bytes]:
        """Return chunks."""
        return await self._payloads.read_chunks(payload_id, first, count)

    async def payloads_with_chunks(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """Give the ids of payloads that have chunks, range by range of ids."""
        for low, high in ranges(await self.count(CHUNKS)):
            async for found in self._between(low, high):
                yield len(found), list(dict.fromkeys(found))

    async def _between(self, low: str, high: str | None) -> AsyncIterator[list[str]]:
        while True:
            chunks = await self._mongo.find(
                "look for chunks",
                CHUNKS,
                payloads_between(low, high),
                limit=MOST_HEADS,
                projection={"_id": 0, "files_id": 1},
                sort=(("files_id", 1), ("n", 1)),
                timeout=TIMEOUT,
            )
            found = [chunk["files_id"] for chunk in chunks]
            yield found
            if len(found) < MOST_HEADS:
                return
            low = found[-1] + "\0"  # more than were expected: on behind the last

    async def referred_to(self, payload_ids: Sequence[str]) -> set[str]:
        """Return those that something refers to."""
        known: set[str] = set()
        for collection, member in PLACES:
            left = [payload_id for payload_id in payload_ids if payload_id not in known]
            if not left:
                break
            documents = await self._mongo.find(
                "look for a payload's use",
                collection,
                {member: {"$in": left}, "payload_removed_at": None},
                limit=len(left) * 4,
                projection={member: 1},
                timeout=TIMEOUT,
            )
            known |= {_member(document, member) for document in documents}
        return known

    async def missing_indexes(self) -> list[str]:
        """Return the names of indexes that are not there."""
        missing = []
        for collection in dict.fromkeys(index.collection for index in INDEXES):
            try:
                command = {"listIndexes": collection, "cursor": {"batchSize": 100}}
                reply = await self._mongo.command("list the indexes", command)
                there = {index["name"] for index in reply["cursor"]["firstBatch"]}
            except ServerError as error:
                if error.code != NO_SUCH_COLLECTION:
                    raise
                there = set()
            missing += [
                f"{collection}.{index.name}"
                for index in INDEXES
                if index.collection == collection and index.name not in there
            ]
        return missing


PLACES: Sequence[tuple[str, str]] = (
    # In the order in which a payload moves. What is given up is listed before it leaves its place: so again at the end.
    (GARBAGE, "_id"),
    (UPLOADS, "payload_id"),
    (SCANS, "payload_id"),
    (SCANS, "pending_report.payload_id"),
    (REPORTS, "payload_id"),
    (GARBAGE, "_id"),
)


def _member(document: Doc, path: str) -> str:
    value: Any = document
    for name in path.split("."):
        value = value.get(name, {})
    return str(value)


def ranges(chunks: int) -> Iterator[tuple[str, str | None]]:
    """Give ranges of payload ids, which are random hexadecimal digits, with about `WINDOW` of so many chunks in each.

    They hold all texts together, whatever they are made of; the last has no end.
    """
    digits = 0
    while chunks > WINDOW * 16**digits and digits < 6:
        digits += 1
    low = ""
    for n in range(1, 16**digits):
        high = f"{n:0{digits}x}"
        yield low, high
        low = high
    yield low, None


def _number(value: object) -> int:
    """Return a number of a chunk, or one that no chunk has."""
    return value if isinstance(value, int) else -1
