"""The store when things go wrong: lost answers, a changed primary, a server that is killed, crashes half way."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from fr_twisted.model import CHUNK_SIZE, ScanState
from fr_twisted.store import payloads
from fr_twisted.store.indexes import CHUNKS, GARBAGE, REPORTS, SCANS, UPLOADS
from fr_twisted.store.interfaces import IStore, NewReport, PayloadMissingError, StaleTokenError, StoreError
from fr_twisted.store.mongo import MongoStore
from tests.store_behaviour import LONG, SHORT, Bench, content, new_report
from tests.store_servers import EmbeddedServer, client, database, fail_point

pytestmark = pytest.mark.usefixtures("clean_reactor")


def pause(seconds: float) -> Deferred[None]:
    """Let time pass."""
    return deferLater(reactor, seconds)


@asynccontextmanager
async def bench_of(
    uri: str, node: str = "node", timeout: float = 10.0, grace: float = 0
) -> AsyncIterator[Bench]:
    """Open a store."""
    store = MongoStore(uri, clock=reactor, node=node, unit="test", timeout=timeout, grace_seconds=grace)
    await store.open()
    try:
        yield Bench(store, pause)
    finally:
        await store.close()


def documents(uri: str, collection: str) -> list[dict[str, Any]]:
    """Return what a collection holds, but for bytes."""
    with client(uri) as plain:
        return list(plain.get_default_database()[collection].find({}, {"data": 0}))


@pytest.fixture
def faulty_uri(mongo_uri: str, database_uri: str) -> str:
    """Return the URI of a new database whose server has fail points; skip where it has none."""
    try:
        with fail_point(mongo_uri, "off"):
            return database_uri
    except OperationFailure:
        return pytest.skip("the server was not started with test commands")


# --- answers that are lost or bad


FAULTS: dict[str, dict[str, Any]] = {
    "stepped down": {"errorCode": 10107},
    "shutting down": {"errorCode": 11600},
    "connection lost": {"closeConnection": True},
    "not yet by the majority": {
        "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}
    },
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, 3])
async def test_writes_are_repeated(fault: str, times: int, faulty_uri: str) -> None:
    """A whole round of a scan, with every kind of write failing again and again, ends with one of each."""
    async with bench_of(faulty_uri) as bench:
        scans, reports = bench.store.scans(), bench.store.reports()
        for commands in (["insert"], ["update"], ["delete"]):
            name = commands[0]
            with fail_point(faulty_uri, {"times": times}, failCommands=commands, **FAULTS[fault]):
                upload = await bench.begin(bench.new_scan(name))
                await bench.write(upload, name)
                await scans.commit(upload)
            with fail_point(faulty_uri, {"times": times}, failCommands=commands, **FAULTS[fault]):
                claim = await bench.claim()
            with fail_point(faulty_uri, {"times": times}, failCommands=commands, **FAULTS[fault]):
                await scans.renew(claim, LONG)
                await scans.complete(claim, new_report(name))
            with fail_point(faulty_uri, {"times": times}, failCommands=commands, **FAULTS[fault]):
                await reports.put_back(await bench.take(), "x", 0)
            with fail_point(faulty_uri, {"times": times}, failCommands=commands, **FAULTS[fault]):
                await reports.delivered(await bench.take())
            assert (await bench.scan(name)).report_generated is ScanState.DONE
            assert (await bench.scan(name)).attempts == 1
            report = await bench.stored(f"report-{name}")
            assert (report.status, report.attempts) == (True, 1)
        # Uploads are closed in the background.
        for _ in range(100):
            if documents(faulty_uri, UPLOADS):
                await pause(0.05)
    assert len(documents(faulty_uri, SCANS)) == len(documents(faulty_uri, REPORTS)) == 3
    assert documents(faulty_uri, UPLOADS) == []


@pytest.mark.parametrize("fault", ["stepped down", "shutting down", "connection lost"])
async def test_reads_are_repeated(fault: str, faulty_uri: str) -> None:
    """Reads that fail for causes that pass are repeated."""
    async with bench_of(faulty_uri) as bench:
        scan = await bench.keep(size=3 * CHUNK_SIZE)
        with fail_point(faulty_uri, {"times": 3}, failCommands=["find"], **FAULTS[fault]):
            assert (await bench.scan()).scan_id == scan.scan_id
            chunks = await bench.store.payloads().read_chunks(scan.payload_id, 0, 3)
        assert b"".join(chunks) == content("a", scan.size)


async def test_deadline(faulty_uri: str) -> None:
    """An operation whose cause does not pass, or that gets no answer, ends at its deadline with a StoreError."""
    async with bench_of(faulty_uri, timeout=0.6) as bench:
        await bench.keep()
        for fault in (FAULTS["stepped down"], {"blockConnection": True, "blockTimeMS": 1500}):
            begun = reactor.seconds()
            with fail_point(faulty_uri, "alwaysOn", failCommands=["find"], **fault):
                with pytest.raises(StoreError):
                    await bench.store.scans().get("scan-a")
                assert reactor.seconds() - begun < 1.4
        await pause(1.5)


async def test_refusal(faulty_uri: str) -> None:
    """An error that will not pass is not repeated, and is told in the server's words, without the command."""
    async with bench_of(faulty_uri) as bench:
        begun = reactor.seconds()
        failing = fail_point(faulty_uri, "alwaysOn", failCommands=["insert"], errorCode=2)
        with failing, pytest.raises(StoreError) as caught:
            await bench.begin(bench.new_scan())
        assert reactor.seconds() - begun < 2
        assert "code 2" in str(caught.value)
        assert "patient-a" not in str(caught.value)


async def test_values_that_cannot_be_kept(database_uri: str) -> None:
    """Findings that no document can hold are the caller's error, not the store's."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        claim = await bench.claim()
        for findings in ({"n": 1 << 70}, {"a\0b": 1}, {"text": "\ud800"}, {"text": "x" * 17_000_000}):
            bad = NewReport("report-a", "t1", "1", findings, b"x")
            with pytest.raises(ValueError, match=r"the store|too large"):
                await bench.store.scans().complete(claim, bad)
        await bench.store.scans().complete(claim, new_report())


async def test_opened_while_answers_are_lost(faulty_uri: str) -> None:
    """A store whose first answers to writes are lost is opened all the same: its own trial of a write is repeated."""
    lost = {"code": 64, "errmsg": "waiting for replication timed out"}
    store = MongoStore(faulty_uri, clock=reactor, node="node", unit="test")
    with fail_point(faulty_uri, {"times": 2}, failCommands=["insert", "delete"], writeConcernError=lost):
        await store.open()
    await store.close()
    assert documents(faulty_uri, GARBAGE) == []


# --- crashes half way


async def test_done_without_report_is_repaired(database_uri: str) -> None:
    """A scan that was set Done just before a crash gets its report from `repair`, once."""
    async with bench_of(database_uri) as bench:
        done = await bench.report()
        with client(database_uri) as plain:
            collections = plain.get_default_database()
            document = collections[REPORTS].find_one_and_delete({"_id": done.report_id})
            assert document is not None
            pending = {"pending_report": document, "pending_at": document["created_at"]}
            collections[SCANS].update_one({"_id": "scan-a"}, {"$set": pending})
        assert await bench.store.reports().get(done.report_id) is None
        await bench.store.scans().clean(0)
        assert await bench.store.scans().repair() == 1
        assert await bench.store.scans().repair() == 0
        assert await bench.stored(done.report_id) == done
        assert len(await bench.store.payloads().read_chunks(done.payload_id, 0, 1)) == 1
    assert all("pending_report" not in scan for scan in documents(database_uri, SCANS))


async def test_report_not_copied(faulty_uri: str) -> None:
    """When the report cannot be copied after the decision, a repeat of the completion finishes it."""
    async with bench_of(faulty_uri, timeout=1.0) as bench:
        await bench.keep()
        claim = await bench.claim()
        # The first insert is the bundle's one chunk, the next is the report.
        failing = fail_point(faulty_uri, {"skip": 1}, failCommands=["insert"], errorCode=10107)
        with failing, pytest.raises(StoreError):
            await bench.store.scans().complete(claim, new_report())
        assert await bench.store.reports().get("report-a") is None
        assert (await bench.scan()).report_generated is ScanState.DONE
        report = await bench.store.scans().complete(claim, new_report())
        assert await bench.store.reports().of_scan("scan-a") == [report]


async def test_stale_finisher_leaves_no_bytes(database_uri: str) -> None:
    """The bundle of a worker that was taken over is removed by `clean`; the other's stays."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        stale = await bench.claim(SHORT)
        await pause(2 * SHORT)
        fresh = await bench.claim(owner="brain-2")
        with pytest.raises(StaleTokenError):
            await bench.store.scans().complete(stale, new_report(size=2000))
        report = await bench.store.scans().complete(fresh, new_report())
        await pause(0.05)
        assert await bench.store.scans().clean(LONG) == 1
        assert len(await bench.store.payloads().read_chunks(report.payload_id, 0, 1)) == 1
    assert documents(database_uri, GARBAGE) == []
    assert {chunk["files_id"] for chunk in documents(database_uri, CHUNKS)} == {
        report.payload_id,
        documents(database_uri, SCANS)[0]["payload_id"],
    }


async def test_garbage_has_a_grace_period(database_uri: str) -> None:
    """A receiver that commits what was just discarded by another wins: no chunk is deleted before the grace period."""
    async with bench_of(database_uri, grace=600) as bench, bench_of(
        database_uri, "other", grace=600
    ) as other:
        new = bench.new_scan()
        first = await bench.begin(new)
        await bench.write(first, "a")
        second = await other.begin(new)
        await other.store.scans().discard_upload(second)
        assert await other.store.scans().clean(0) == 0
        await bench.store.scans().commit(first)
        scan = await bench.scan()
        assert await bench.store.payloads().read_chunks(scan.payload_id, 0, 1) == [content("a", 100)]


async def test_commit_counts_for_itself(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that did not write the chunks itself counts them at commit, and misses what is missing."""
    monkeypatch.setattr(payloads, "WINDOW", 4)
    async with bench_of(database_uri) as bench, bench_of(database_uri, "other") as other:
        upload = await bench.begin(bench.new_scan(size=10 * CHUNK_SIZE + 1))
        await bench.write(upload, "a", *range(10))
        with pytest.raises(PayloadMissingError, match="chunk 10 of 1 bytes"):
            await other.store.scans().commit(upload)
        await bench.write(upload, "a", 10)
        with client(database_uri) as plain:
            chunks = plain.get_default_database()[CHUNKS]
            gone = chunks.find_one_and_delete({"n": 6})
            assert gone is not None
            with pytest.raises(PayloadMissingError, match="chunk 6 "):
                await other.store.scans().commit(upload)
            chunks.insert_one(gone)
        await other.store.scans().commit(upload)
        again = await bench.store.scans().begin_upload(upload.scan)
        assert again is None


async def test_resume_does_not_count_again(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload notes how far it came, so that a resume counts the chunks after that alone."""
    monkeypatch.setattr(payloads, "WINDOW", 4)
    async with bench_of(database_uri) as bench:
        new = bench.new_scan(size=10 * CHUNK_SIZE)
        upload = await bench.begin(new)
        await bench.write(upload, "a", *range(6))
        await pause(0.1)
        assert documents(database_uri, UPLOADS)[0]["kept"] == 4
    async with bench_of(database_uri) as bench:
        assert (await bench.begin(new)).chunks == 6


async def test_damaged_documents(database_uri: str) -> None:
    """A scan or report whose document was damaged by hand is set aside with the reason, and blocks no other."""
    async with bench_of(database_uri) as bench:
        await bench.report("b")
        await bench.report("c")
        await bench.keep("d", priority=9)
        await bench.keep("e")
        with client(database_uri) as plain:
            collections = plain.get_default_database()
            collections[SCANS].update_one({"_id": "scan-d"}, {"$set": {"meta": "lost"}})
            collections[REPORTS].update_one({"_id": "report-b"}, {"$unset": {"findings": ""}})
        assert (await bench.claim()).scan.scan_id == "scan-e"
        assert (await bench.take()).report_id == "report-c"
        with pytest.raises(StoreError, match="meta"):
            await bench.scan("d")
    stored = {scan["_id"]: scan for scan in documents(database_uri, SCANS)}
    assert stored["scan-d"]["report_generated"] == "Failed"
    assert "damaged" in stored["scan-d"]["error"]


# --- many at once


async def test_concurrent_claims(database_uri: str) -> None:
    """Many workers of two stores, claiming at once, claim every scan once."""
    async with bench_of(database_uri) as bench, bench_of(database_uri, "other") as other:
        for n in range(60):
            await bench.keep(f"n{n}")
        claimed: list[str] = []

        async def work(store: IStore, owner: str) -> None:
            while (claim := await store.scans().claim(owner, LONG)) is not None:
                claimed.append(claim.scan.scan_id)

        stores = [bench.store, other.store] * 4
        await gatherResults(
            [Deferred.fromCoroutine(work(store, f"brain-{n}")) for n, store in enumerate(stores)]
        )
        assert sorted(claimed) == sorted(f"scan-n{n}" for n in range(60))
        assert {(await bench.scan(f"n{n}")).attempts for n in range(60)} == {1}


async def test_concurrent_receivers(database_uri: str) -> None:
    """Several receivers of the same scan, each with all of its chunks, end with one scan."""
    async with bench_of(database_uri) as bench, bench_of(database_uri, "other") as other:
        new = bench.new_scan(size=2 * CHUNK_SIZE)

        async def receive(one: Bench) -> None:
            upload = await one.store.scans().begin_upload(new)
            if upload is not None:
                await one.write(upload, "a")
                await one.store.scans().commit(upload)

        await gatherResults([Deferred.fromCoroutine(receive(one)) for one in (bench, other) * 3])
        await pause(0.2)
        scan = await bench.scan()
        chunks = await bench.store.payloads().read_chunks(scan.payload_id, 0, 2)
        assert b"".join(chunks) == content("a", new.size)
    assert documents(database_uri, UPLOADS) == []


# --- change streams


async def wait_for(seen: list[float], count: int, seconds: float = 3.0) -> None:
    """Return when something was seen so often."""
    deadline = reactor.seconds() + seconds
    while len(seen) < count:
        assert reactor.seconds() < deadline, f"seen {len(seen)} of {count}"
        await pause(0.005)


async def test_woken_by_change_streams(database_uri: str) -> None:
    """Another store's commit, release and report wake those who wait, soon; what is of no interest does not."""
    async with bench_of(database_uri) as bench, bench_of(database_uri, "other") as other:
        if "change streams" not in await _line(database_uri) or "no change" in await _line(database_uri):
            pytest.skip("the server has no change streams")
        work: list[float] = []
        due: list[float] = []
        end = other.store.scans().on_work(lambda: work.append(reactor.seconds()))
        other.store.reports().on_report(lambda: due.append(reactor.seconds()))
        await wait_for(work, 1)
        await wait_for(due, 1)
        await bench.keep()
        await wait_for(work, 2)
        claim = await bench.claim()
        await bench.store.scans().release(claim, None, False)
        await wait_for(work, 3)
        claim = await bench.claim()
        await bench.store.scans().renew(claim, LONG)
        begun = reactor.seconds()
        await bench.store.scans().complete(claim, new_report())
        await wait_for(due, 2)
        assert due[-1] - begun < 1.0
        end()
        await bench.keep("b")
        await pause(0.2)
        assert (len(work), len(due)) == (3, 2)


async def _line(uri: str) -> str:
    store = MongoStore(uri, clock=reactor, node="node", unit="test")
    line = await store.open()
    await store.close()
    return line


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Run an embedded server that a test may kill."""
    server = EmbeddedServer(tmp_path / "data")
    server.start()
    yield server
    server.kill()


async def test_without_change_streams(tmp_path: Path) -> None:
    """On a single server nobody is woken, everything else works, and the line says so."""
    server = EmbeddedServer(tmp_path / "data", "--standalone")
    server.start()
    try:
        with database(server.uri) as uri:
            assert "no change streams" in await _line(uri)
            async with bench_of(uri) as bench:
                bench.store.scans().on_work(lambda: None)
                await bench.keep()
                await pause(0.3)
                assert (await bench.claim()).scan.scan_id == "scan-a"
    finally:
        server.kill()


# --- the server is killed


async def test_killed_server(own_server: EmbeddedServer) -> None:
    """What was acknowledged before a kill -9 is there after it; the open store goes on, and so do its streams."""
    uri = f"{own_server.uri}/fr"
    async with bench_of(uri, timeout=30) as bench:
        woken: list[float] = []
        bench.store.scans().on_work(lambda: woken.append(reactor.seconds()))
        kept: list[str] = []
        upload = await bench.begin(bench.new_scan("big", size=8 * CHUNK_SIZE))
        for n in range(5):
            await bench.write(upload, "big", n)
        for n in range(20):
            await bench.keep(f"n{n}")
            kept.append(f"n{n}")
        claim = await bench.claim()
        running = [bench.store.scans().get("scan-n0") for _ in range(3)]
        own_server.kill()
        before = len(woken)
        await pause(0.3)
        own_server.start(wait=False)
        for operation in running:
            assert (await operation) is not None
        assert [(await bench.scan(name)).scan_id for name in kept] == [f"scan-{name}" for name in kept]
        assert (await bench.scan(kept[0])).lease is not None
        await bench.store.scans().complete(claim, new_report())
        again = await bench.begin(upload.scan)
        assert again.chunks == 5
        await bench.write(again, "big", 5, 6, 7)
        await bench.store.scans().commit(again)
        assert len(await bench.store.payloads().read_chunks(upload.payload_id, 0, 8)) == 8
        await wait_for(woken, before + 1, 10)
        before = len(woken)
        await bench.keep("last")
        await wait_for(woken, before + 1, 10)


async def test_stopped_server(own_server: EmbeddedServer) -> None:
    """While the server is away operations fail with a StoreError at their deadline; `close` does not hang."""
    async with bench_of(f"{own_server.uri}/fr", timeout=0.5) as bench:
        await bench.keep()
        own_server.kill()
        begun = reactor.seconds()
        with pytest.raises(StoreError, match=r"no answer|lost"):
            await bench.scan()
        assert reactor.seconds() - begun < 1.5
        own_server.start(wait=False)
        for _ in range(20):
            try:
                await bench.scan()
                break
            except StoreError:
                continue
        else:
            raise AssertionError("the store did not come back")
