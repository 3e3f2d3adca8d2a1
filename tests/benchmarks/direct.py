"""What the HUB is compared with, as a process of its own: ``python -m tests.benchmarks.direct URI ITEMS SIZE``.

Writes the same chunks through txmongo at the same write concern, with the same index, as many at once as the HUB
does. Prints one JSON line:
seconds in all, and the seconds of single small and chunk-sized inserts on an idle store.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

import bson
from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from txmongo.connection import ConnectionPool

from fr_twisted.model import CHUNK_SIZE
from fr_twisted.store.indexes import CHUNKS, INDEXES
from fr_twisted.store.payloads import IN_FLIGHT

PAUSE = 0.05
"""Seconds before an insert that is measured alone; the items whose time to ACK is compared with it wait as long."""


async def write_items(collection: Any, items: int, size: int) -> float:
    """Return the seconds that all chunks of all items take, one item after another."""
    data = os.urandom(CHUNK_SIZE)
    permits = DeferredSemaphore(IN_FLIGHT)

    def insert(item: str, n: int) -> Any:
        document = {
            "_id": f"{item}:{n}",
            "files_id": item,
            "n": n,
            "size": CHUNK_SIZE,
            "data": bson.Binary(data),
        }
        return collection.insert_one(document, timeout=60)

    since = time.perf_counter()
    for _ in range(items):
        item = os.urandom(8).hex()
        await DeferredList(
            [permits.run(insert, item, n) for n in range(size // CHUNK_SIZE)], fireOnOneErrback=True
        )
    return time.perf_counter() - since


async def round_trip(reactor: Any, collection: Any, size: int, times: int = 40) -> float:
    """Return the median seconds of one insert of ``size`` bytes, nothing else going on, a pause before each."""
    data, seconds = os.urandom(size), []
    for _ in range(times):
        await task.deferLater(reactor, PAUSE)
        since = time.perf_counter()
        await collection.insert_one({"data": bson.Binary(data)}, timeout=60)
        seconds.append(time.perf_counter() - since)
    return statistics.median(seconds)


async def main(reactor: Any, uri: str, items: str, size: str) -> None:
    """Measure, print."""
    pool = ConnectionPool(uri, pool_size=4, w="majority", j=True)
    database = pool.get_default_database()
    indexes = [index.document() for index in INDEXES if index.collection == CHUNKS]
    await database.command({"createIndexes": "direct_chunks", "indexes": indexes})
    collection = database["direct_chunks"]
    result = {"seconds": await write_items(collection, int(items), int(size))}
    result["small"] = await round_trip(reactor, collection, 1000)
    result["chunk_64k"] = await round_trip(reactor, collection, 65536)
    print(json.dumps(result), flush=True)
    await pool.disconnect()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
