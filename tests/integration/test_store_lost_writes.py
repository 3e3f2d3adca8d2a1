"""A server that went down and came back without chunks that it had acknowledged; bytes that are found broken."""

from typing import Any

import pytest

from fr_twisted.model import CHUNK_SIZE, ScanState
from fr_twisted.store.indexes import CHUNKS
from fr_twisted.store.interfaces import PayloadMissingError, StoreError
from tests.integration.test_store_faults import FAULTS, bench_of, documents, faulty_uri
from tests.integration.test_store_races import all_chunks, mongo_of, settled
from tests.store_behaviour import new_report
from tests.store_servers import client, fail_point

__all__ = ["faulty_uri"]

pytestmark = pytest.mark.usefixtures("clean_reactor")

CUT = FAULTS["connection lost"]


def forget(uri: str, chunk_id: str) -> None:
    """Let the server be without a chunk."""
    with client(uri) as plain:
        assert plain.get_default_database()[CHUNKS].delete_one({"_id": chunk_id}).deleted_count == 1


async def test_broken_before_its_upload_was_closed(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A HUB is killed after its commit, and the scan's bytes are found broken: it is received anew all the same."""
    async with bench_of(database_uri, "killed") as killed, bench_of(database_uri, "other") as other:

        async def killed_before(*_: Any) -> None:
            return None

        monkeypatch.setattr(killed.store.scans()._uploads, "_settle", killed_before)  # type: ignore[attr-defined]
        new = killed.new_scan(size=3 * CHUNK_SIZE)
        first = await killed.begin(new)
        await killed.write(first, "a")
        await killed.store.scans().commit(first)
        forget(database_uri, f"{first.payload_id}:1")
        await other.store.scans().fail(await other.claim(), "chunk 1 is missing", payload_broken=True)
        again = await other.begin(new)
        assert (again.payload_id != first.payload_id, again.chunks) == (True, 0)
        await other.write(again, "a")
        await other.store.scans().commit(again)
        scan = await other.scan()
        assert (scan.report_generated, scan.payload_id) == (ScanState.TO_DO, again.payload_id)
        assert await all_chunks(other, new.size)
        await settled(database_uri)
        assert await other.store.scans().clean(86400) == 1
        assert len(documents(database_uri, CHUNKS)) == 3


async def test_chunk_forgotten_while_receiving(faulty_uri: str) -> None:
    """A chunk that the server has lost when it comes back is missed at the commit, and is asked for again."""
    async with bench_of(faulty_uri) as bench:
        upload = await bench.begin(bench.new_scan(size=3 * CHUNK_SIZE))
        await bench.write(upload, "a", 0, 1)
        forget(faulty_uri, f"{upload.payload_id}:1")
        with fail_point(faulty_uri, {"times": 1}, failCommands=["insert"], **CUT):
            await bench.write(upload, "a", 2)
        with pytest.raises(PayloadMissingError, match="chunk 1 of"):
            await bench.store.scans().commit(upload)
        assert await bench.store.scans().get("scan-a") is None
        again = await bench.begin(upload.scan)
        assert (again.payload_id, again.chunks) == (upload.payload_id, 1)
        await bench.write(again, "a", 1, 2)
        await bench.store.scans().commit(again)
        assert await all_chunks(bench, upload.scan.size)
        await settled(faulty_uri)


async def test_chunk_forgotten_at_the_commit(faulty_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan whose chunk the server loses between the last look at it and the commit is never seen by a BRAIN."""
    async with bench_of(faulty_uri) as bench:
        upload = await bench.begin(bench.new_scan())
        await bench.write(upload, "a")
        mongo = mongo_of(bench)
        insert = mongo.insert

        async def over_an_outage(what: str, *args: Any, **options: Any) -> None:
            forget(faulty_uri, f"{upload.payload_id}:0")
            with fail_point(faulty_uri, {"times": 1}, failCommands=["insert"], **CUT):
                await insert(what, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(mongo, "insert", over_an_outage)
            with pytest.raises(PayloadMissingError, match="chunk 0 of"):
                await bench.store.scans().commit(upload)
        assert await bench.store.scans().get("scan-a") is None
        again = await bench.begin(upload.scan)
        await bench.write(again, "a")
        await bench.store.scans().commit(again)
        assert (await bench.scan()).report_generated is ScanState.TO_DO
        assert await all_chunks(bench, 100)
        await settled(faulty_uri)


async def test_claimed_before_it_was_taken_back(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HUB is stopped in the moment of its commit, and the scan claimed: without its bytes it is not acknowledged."""
    async with bench_of(database_uri) as bench:
        upload = await bench.begin(bench.new_scan())
        await bench.write(upload, "a")
        mongo = mongo_of(bench)
        insert, monotonic, claims = mongo.insert, mongo.monotonic, []

        async def over_a_long_stop(what: str, *args: Any, **options: Any) -> None:
            await insert(what, *args, **options)
            if what == "keep a scan":
                claims.append(await bench.claim())
                forget(database_uri, f"{upload.payload_id}:0")
                mongo.monotonic = lambda: monotonic() + 1000

        with monkeypatch.context() as patch:
            patch.setattr(mongo, "insert", over_a_long_stop)
            with pytest.raises(PayloadMissingError, match="gone before it was committed"):
                await bench.store.scans().commit(upload)
        mongo.monotonic = monotonic
        assert await bench.store.scans().peek_upload(upload.scan) is not None
        again = await bench.begin(upload.scan)
        await bench.write(again, "a")
        with pytest.raises(StoreError, match="tried again just now"):
            await bench.store.scans().commit(again)
        await bench.store.scans().fail(claims[0], "chunk 0 is missing", payload_broken=True)
        await bench.store.scans().commit(await bench.begin(upload.scan))
        assert (await bench.scan()).report_generated is ScanState.TO_DO
        assert await all_chunks(bench, 100)
        await settled(database_uri)


async def test_report_forgotten_while_written(faulty_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report whose bytes the server has lost when it comes back is not the end of its scan; a repeat is."""
    async with bench_of(faulty_uri) as bench:
        await bench.keep()
        claim = await bench.claim()
        payloads = bench.store.payloads()
        write = payloads.write  # type: ignore[attr-defined]

        async def forgotten(payload_id: str, n: int, data: bytes) -> None:
            with fail_point(faulty_uri, {"times": 1}, failCommands=["insert"], **CUT):
                await write(payload_id, n, data)
            forget(faulty_uri, f"{payload_id}:{n}")

        with monkeypatch.context() as patch:
            patch.setattr(payloads, "write", forgotten)
            with pytest.raises(StoreError, match="was lost by the store"):
                await bench.store.scans().complete(claim, new_report())
        assert (await bench.scan()).report_generated is ScanState.IN_PROGRESS
        report = await bench.store.scans().complete(claim, new_report())
        assert await payloads.read_chunks(report.payload_id, 0, 1) == [new_report().bundle]
