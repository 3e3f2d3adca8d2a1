"""Long queues: documents copied from those that the store itself wrote, with ids and times of their own."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo import InsertOne, MongoClient, ReplaceOne
from pymongo.write_concern import WriteConcern

from fr_twisted.store.indexes import CHUNKS, REPORTS, SCANS
from tests.benchmarks.plans import Plan, plans
from tests.benchmarks.running import run

Doc = dict[str, Any]

APART = timedelta(seconds=0.1)
"""Between two arrivals: ten a second, 100,000 came within three hours."""

BATCH = 1000


class LongQueue:
    """A database with ``size`` scans that wait and as many reports, each with its bytes."""

    def __init__(self, uri: str, size: int) -> None:
        """Let the store write one of each, and copy them."""
        self.uri, self.size = uri, size
        run("taker", uri, "seed")
        self._client: MongoClient[Doc] = MongoClient(uri, tz_aware=True)
        self.db = self._client.get_default_database()
        self._first = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
        self._scan = self._one(SCANS, "seed-waiting")
        self._report = self._one(REPORTS, "seed-report")
        self._chunks = [self._one(CHUNKS, f"{doc['payload_id']}:0") for doc in (self._scan, self._report)]
        self.db[SCANS].delete_many({"_id": "seed-waiting"})
        self.db[REPORTS].delete_many({"_id": "seed-report"})
        for start in range(0, size, BATCH):
            self._insert(range(start, min(start + BATCH, size)))

    def _one(self, collection: str, name: str) -> Doc:
        found = self.db[collection].find_one({"_id": name})
        assert found is not None, name
        return found

    def _insert(self, numbers: Iterable[int]) -> None:
        scans, reports = [self.scan(n) for n in numbers], [self.report(n) for n in numbers]
        chunks = [
            {**chunk, "_id": f"{doc['payload_id']}:0", "files_id": doc["payload_id"]}
            for docs, chunk in zip((scans, reports), self._chunks, strict=True)
            for doc in docs
        ]
        for name, docs in ((SCANS, scans), (REPORTS, reports), (CHUNKS, chunks)):
            # Bulk is for the bench alone: what is lost in a crash is measured nowhere here.
            bulk = self.db.get_collection(name, write_concern=WriteConcern(w=1, j=False))
            bulk.bulk_write([InsertOne(doc) for doc in docs], ordered=False)

    def scan(self, n: int) -> Doc:
        """Return the scan that came n-th."""
        at = self._first + n * APART
        history = [{**self._scan["history"][0], "at": at}]
        return {
            **self._scan,
            "_id": f"scan-{n:07}",
            "payload_id": uuid4().hex,
            "received_at": at,
            "history": history,
        }

    def report(self, n: int) -> Doc:
        """Return the report that was made n-th."""
        at = self._first + n * APART
        return {
            **self._report,
            "_id": f"report-{n:07}",
            "scan_id": f"done-{n:07}",
            "payload_id": uuid4().hex,
            "created_at": at,
            "next_attempt_at": at,
        }

    def refill(self) -> None:
        """Let what was claimed and delivered wait again, as it first was."""
        for name, query, make in (
            (SCANS, {"report_generated": "In Progress"}, self.scan),
            (REPORTS, {"status": True}, self.report),
        ):
            taken = [doc["_id"] for doc in self.db[name].find(query, {"_id": 1})]
            changes = [ReplaceOne({"_id": each}, make(int(each.rpartition("-")[2]))) for each in taken]
            if changes:
                self.db[name].bulk_write(changes, ordered=False)

    def plans(self) -> list[Plan]:
        """Return the plan of each query of a claim, of a delivery and of ``fr status``."""
        return plans(self.db, self._first + 200 * APART)

    def close(self) -> None:
        """Close the connection; the server goes as a whole: to drop 100,000 documents takes it minutes."""
        self._client.close()
