"""Claims and deliveries through the product's own store, as a process of its own, which knows nothing of the queue.

``python -m tests.benchmarks.taker URI seed``: keep one scan, and analyse another, so that there are documents to copy.
``python -m tests.benchmarks.taker URI take COUNT NODE``: claim COUNT scans, then take COUNT reports for NODE and set
them delivered. Prints one JSON line: for each, the seconds of the first and of all the others.
"""

import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from fr_twisted.model import ScanMeta
from fr_twisted.store.interfaces import NewReport, NewScan
from fr_twisted.store.mongo import MongoStore

PAYLOAD = b"x" * 100
NODE = "bench"
LEASE = 3600.0


async def keep(store: MongoStore, name: str) -> None:
    """Keep a scan of a few bytes."""
    meta = ScanMeta.model_validate({"patient_id": "BENCH", "format": "nifti"})
    scan = NewScan(name, NODE, len(PAYLOAD), hashlib.sha256(PAYLOAD).hexdigest(), meta)
    upload = await store.scans().begin_upload(scan)
    assert upload is not None, f"{name} is there already"
    await store.payloads().write_chunk(upload.payload_id, 0, PAYLOAD)
    await store.scans().commit(upload)


async def seed(store: MongoStore) -> dict[str, Any]:
    """Keep two scans; the first gets a report."""
    await keep(store, "seed-done")
    claim = await store.scans().claim("bench", LEASE)
    assert claim is not None
    await store.scans().complete(claim, NewReport("seed-report", "bench", "1", {"volume": 1.0}, PAYLOAD))
    await keep(store, "seed-waiting")
    return {}


async def timed(count: int, one: Callable[[], Awaitable[None]]) -> dict[str, float]:
    """Return the seconds of the first, and of all others together."""
    begun = time.perf_counter()
    await one()
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(count - 1):
        await one()
    return {"first": first, "others": time.perf_counter() - begun}


async def take(store: MongoStore, count: int, node: str) -> dict[str, Any]:
    """Claim, then deliver."""
    claimed, delivered = set(), set()

    async def claim() -> None:
        taken = await store.scans().claim("bench", LEASE)
        assert taken is not None, "the queue is empty"
        claimed.add(taken.scan.scan_id)

    async def deliver() -> None:
        report = await store.reports().take(node, "bench", LEASE)
        assert report is not None, "no report waits"
        await store.reports().delivered(report)
        delivered.add(report.report_id)

    result = {"claims": await timed(count, claim), "deliveries": await timed(count, deliver)}
    assert len(claimed) == len(delivered) == count
    return result


async def main(reactor: Any, uri: str, what: str, count: str = "0", node: str = NODE) -> None:
    """Measure, print."""
    store = MongoStore(uri, clock=reactor, node="bench", unit="bench", timeout=60.0)
    await store.open()
    try:
        result = await (seed(store) if what == "seed" else take(store, int(count), node))
    finally:
        await store.close()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
