"""The store when things happen at the wrong moment: a cleaner beside receivers and workers, answers that are lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from fr_twisted.model import CHUNK_SIZE, ScanState
from fr_twisted.store import completion, payloads, uploads
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import CHUNKS, GARBAGE, REPORTS, SCANS, UPLOADS
from fr_twisted.store.interfaces import NewScan, PayloadMissingError, StaleTokenError, StoreError
from fr_twisted.store.mongo import MongoStore
from tests.integration.test_store_faults import bench_of, documents, pause
from tests.store_behaviour import LONG, NODE, Bench, content, new_report
from tests.store_servers import client

pytestmark = pytest.mark.usefixtures("clean_reactor")


def mongo_of(bench: Bench) -> Mongo:
    """Return the connection of a bench's store, to be disturbed."""
    assert isinstance(bench.store, MongoStore)
    return bench.store._mongo


async def settled(uri: str) -> None:
    """Return when the uploads that were committed are closed."""
    for _ in range(200):
        if not documents(uri, UPLOADS):
            return
        await pause(0.02)
    raise AssertionError("an upload was not closed")


async def all_chunks(bench: Bench, size: int) -> bool:
    """Tell whether the bytes of the scan are all there."""
    scan = await bench.scan()
    try:
        chunks = await bench.store.payloads().read_chunks(scan.payload_id, 0, -(-size // CHUNK_SIZE))
    except PayloadMissingError:
        return False
    return b"".join(chunks) == content("a", size)


def chunks_of(uri: str, payload_id: str) -> int:
    """Count the chunks of a payload that are there."""
    return sum(chunk["files_id"] == payload_id for chunk in documents(uri, CHUNKS))


async def cleaned(bench: Bench, ttl: float = 86400) -> int:
    """Clean until something was removed, or for a second; return how many payloads."""
    for _ in range(20):
        if removed := await bench.store.scans().clean(ttl):
            return removed
        await pause(0.05)
    return 0


# --- the cleaner beside a receiver


@pytest.fixture
def quick_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the times of touching and of the grace period by 200."""
    monkeypatch.setattr(payloads, "TOUCH_SECONDS", 0.3)
    monkeypatch.setattr(uploads, "GRACE_SECONDS", 3.0)


@pytest.mark.usefixtures("quick_times")
@pytest.mark.parametrize("how", ["discarded", "superseded"])
async def test_given_up_while_received(how: str, database_uri: str) -> None:
    """A slow receiver whose upload another gave up is not acknowledged, though it wrote every chunk itself."""
    async with bench_of(database_uri, "A", grace=3.0) as slow, bench_of(
        database_uri, "B", grace=3.0
    ) as other:
        new = slow.new_scan(size=10 * CHUNK_SIZE)
        upload = await slow.begin(new)
        await slow.write(upload, "a", 0, 1, 2)
        if how == "discarded":
            await other.store.scans().discard_upload(await other.begin(new))
        else:
            await other.begin(NewScan(new.scan_id, new.source, 77, "0" * 64, new.meta))
        removed, refused = 0, 0
        for n in range(3, 10):
            await pause(0.6)
            try:
                await slow.write(upload, "a", n)
            except PayloadMissingError:
                refused += 1
            removed += await other.store.scans().clean(86400)
        assert (removed, refused > 0) == (1, True)
        with pytest.raises(PayloadMissingError, match="given up"):
            await slow.store.scans().commit(upload)
        assert await slow.store.scans().get(new.scan_id) is None
        # The sender offers it again.
        again = await slow.begin(new)
        await slow.write(again, "a")
        await slow.store.scans().commit(again)
        assert await all_chunks(slow, new.size)
        await settled(database_uri)


async def test_written_after_all_was_removed(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a receiver writes that was stopped until its upload was given up and removed is removed too."""
    monkeypatch.setattr(payloads, "TOUCH_SECONDS", 0.0)
    async with bench_of(database_uri, "A") as stopped, bench_of(database_uri, "B") as cleaner:
        upload = await stopped.begin(stopped.new_scan(size=4 * CHUNK_SIZE))
        await stopped.write(upload, "a", 0)
        assert await cleaned(cleaner, 0) == 1
        await stopped.write(upload, "a", 1)
        assert chunks_of(database_uri, upload.payload_id) == 1
        await pause(0.1)
        with pytest.raises(PayloadMissingError, match="given up"):
            await stopped.write(upload, "a", 2)
        assert await cleaned(cleaner) == 1
        assert chunks_of(database_uri, upload.payload_id) == 0


async def test_discarded_after_all_was_removed(database_uri: str) -> None:
    """The same of a receiver that ends before it learns of it."""
    async with bench_of(database_uri, "A") as stopped, bench_of(database_uri, "B") as cleaner:
        upload = await stopped.begin(stopped.new_scan(size=4 * CHUNK_SIZE))
        assert await cleaned(cleaner, 0) == 1
        await stopped.write(upload, "a", 1)
        await stopped.store.scans().discard_upload(upload)
        assert await cleaned(cleaner) == 1
        assert chunks_of(database_uri, upload.payload_id) == 0


@pytest.mark.usefixtures("quick_times")
async def test_slow_receiver_touches(database_uri: str) -> None:
    """A receiver that goes on, slowly, for longer than the grace period keeps its upload and is acknowledged."""
    async with bench_of(database_uri, "A", grace=3.0) as bench:
        new = bench.new_scan(size=8 * CHUNK_SIZE)
        upload = await bench.begin(new)
        for n in range(8):
            await bench.write(upload, "a", n)
            await pause(0.5)
            assert await bench.store.scans().clean(1.5) == 0
        await bench.store.scans().commit(upload)
        assert await all_chunks(bench, new.size)
        await settled(database_uri)


async def test_failed_touch_proves_nothing(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that could not ask for its upload asks again the next time, and does not trust the first attempt."""
    async with bench_of(database_uri) as bench, bench_of(database_uri, "other") as other:
        upload = await other.begin(bench.new_scan())
        await other.write(upload, "a")
        with client(database_uri) as plain:
            plain.get_default_database()[UPLOADS].delete_many({})
        mongo = mongo_of(bench)
        update = mongo.update

        async def away(*_: Any, **__: Any) -> bool:
            raise StoreError("away")

        monkeypatch.setattr(mongo, "update", away)
        with pytest.raises(StoreError, match="away"):
            await bench.store.scans().commit(upload)
        monkeypatch.setattr(mongo, "update", update)
        with pytest.raises(PayloadMissingError, match="given up"):
            await bench.store.scans().commit(upload)


def interleave(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, collection: str, act: Callable[[], Awaitable[Any]]
) -> None:
    """Let ``act`` happen once, after the cleaner's first look into ``collection``."""
    mongo, looked = mongo_of(bench), list[str]()
    find_one = mongo.find_one

    async def looking(what: str, where: str, *args: Any, **options: Any) -> Any:
        found = await find_one(what, where, *args, **options)
        if what == "look for a payload's use":
            looked.append(where)
            if where == collection and looked.count(collection) == 1:
                await act()
        return found

    monkeypatch.setattr(mongo, "find_one", looking)


@pytest.mark.parametrize("between", [SCANS, UPLOADS])
async def test_commit_while_cleaning(
    between: str, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listed payload that is committed between two looks of the cleaner stays, whichever look came first."""
    async with bench_of(database_uri, "A") as cleaner, bench_of(database_uri, "B") as receiver:
        upload = await receiver.begin(cleaner.new_scan(size=2 * CHUNK_SIZE))
        await receiver.write(upload, "a")
        # As a crash left it, between the listing and the end of the upload.
        await cleaner.store.scans()._garbage.add(upload.payload_id)  # type: ignore[attr-defined]
        await pause(0.05)

        async def commit() -> None:
            await receiver.store.scans().commit(upload)
            await settled(database_uri)

        interleave(monkeypatch, cleaner, between, commit)
        assert await cleaner.store.scans().clean(86400) == 0
        if not await receiver.store.scans().get("scan-a"):
            await commit()
        assert await all_chunks(receiver, upload.scan.size)


async def test_discard_while_cleaning(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given up while the cleaner looks has its whole grace period, though it was listed before by mistake."""
    async with bench_of(database_uri, "A") as cleaner, bench_of(database_uri, "B") as receiver:
        new = receiver.new_scan(size=2 * CHUNK_SIZE)
        upload = await receiver.begin(new)
        await receiver.write(upload, "a")
        garbage = cleaner.store.scans()._garbage  # type: ignore[attr-defined]
        await garbage.add(upload.payload_id)
        await pause(0.05)
        is_used = garbage._is_used

        async def discarded_before(payload_id: str) -> bool:
            other = await cleaner.begin(new)
            await cleaner.store.scans().discard_upload(other)
            return bool(await is_used(payload_id))

        monkeypatch.setattr(garbage, "_is_used", discarded_before)
        monkeypatch.setattr(garbage, "_grace", 0.04)
        assert await cleaner.store.scans().clean(86400) == 0
        # A receiver that saw its upload alive a moment ago may commit without asking again.
        await receiver.store.scans().commit(upload)
        assert await all_chunks(receiver, new.size)
        monkeypatch.setattr(garbage, "_is_used", is_used)
        await pause(0.1)
        assert await cleaner.store.scans().clean(86400) == 0
    assert documents(database_uri, GARBAGE) == []


@pytest.mark.parametrize("between", [UPLOADS, SCANS, REPORTS])
async def test_report_while_cleaning(
    between: str, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that moves from its scan to its place between two looks of the cleaner keeps its bytes."""
    async with bench_of(database_uri, "A") as cleaner, bench_of(database_uri, "B") as worker:
        done = await worker.report()
        with client(database_uri) as plain:
            collections = plain.get_default_database()
            document = collections[REPORTS].find_one_and_delete({"_id": done.report_id})
            assert document is not None
            pending = {"pending_report": document, "pending_at": document["created_at"]}
            collections[SCANS].update_one({"_id": "scan-a"}, {"$set": pending})
        await cleaner.store.scans()._garbage.add(done.payload_id)  # type: ignore[attr-defined]
        await pause(0.05)
        interleave(monkeypatch, cleaner, between, worker.store.scans().repair)
        assert await cleaner.store.scans().clean(86400) == 0
        assert len(await worker.store.payloads().read_chunks(done.payload_id, 0, 1)) == 1


async def test_probe_that_is_left(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a unit wrote to see whether it may, and did not live to delete, is removed by the cleaner."""
    async with bench_of(database_uri, "A") as cleaner:

        async def killed(*_: Any, **__: Any) -> int:
            raise StoreError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(mongo_of(cleaner), "delete", killed)
            with pytest.raises(StoreError, match="killed"):
                await cleaner.store._check_writes()  # type: ignore[attr-defined]
        assert len(documents(database_uri, GARBAGE)) == 1
        assert await cleaned(cleaner) == 1
        assert documents(database_uri, GARBAGE) == []


async def test_pending_report_is_used(database_uri: str) -> None:
    """The bytes of a report that stands in its scan still are not deleted."""
    async with bench_of(database_uri) as bench:
        done = await bench.report()
        with client(database_uri) as plain:
            collections = plain.get_default_database()
            document = collections[REPORTS].find_one_and_delete({"_id": done.report_id})
            assert document is not None
            pending = {"pending_report": document, "pending_at": document["created_at"]}
            collections[SCANS].update_one({"_id": "scan-a"}, {"$set": pending})
        await bench.store.scans()._garbage.add(done.payload_id)  # type: ignore[attr-defined]
        await pause(0.05)
        assert await bench.store.scans().clean(86400) == 0
        assert len(await bench.store.payloads().read_chunks(done.payload_id, 0, 1)) == 1


async def test_stale_discard_lists_nothing(database_uri: str) -> None:
    """A receiver that was taken over lists nothing as garbage."""
    async with bench_of(database_uri, "A") as first, bench_of(database_uri, "B") as second:
        new = first.new_scan()
        stale = await first.begin(new)
        await second.begin(new)
        await first.store.scans().discard_upload(stale)
        assert documents(database_uri, GARBAGE) == []
        assert len(documents(database_uri, UPLOADS)) == 1


# --- the cleaner beside a worker


async def test_completion_repeated_while_cleaning(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repeat of a completion, long after the first, has bytes of its own; those of the first go when it is over."""
    async with bench_of(database_uri, "A") as worker, bench_of(database_uri, "B") as cleaner:
        await worker.keep()
        claim = await worker.claim()
        ending: completion.Completion = worker.store.scans()._completion  # type: ignore[attr-defined]

        async def away(*_: Any) -> bool:
            raise StoreError("away")

        with monkeypatch.context() as patch:
            patch.setattr(ending, "_decide", away)
            with pytest.raises(StoreError, match="away"):
                await worker.store.scans().complete(claim, new_report())
        await pause(0.05)
        # What was written is needed if the decision of the first comes late: as long as the claim stands, it stays.
        assert await cleaner.store.scans().clean(86400) == 0
        await worker.store.scans().complete(claim, new_report())
        await pause(0.05)
        assert await cleaner.store.scans().clean(86400) == 1
        report = await worker.stored("report-a")
        chunks = await worker.store.payloads().read_chunks(report.payload_id, 0, 1)
        assert chunks == [new_report().bundle]


async def test_report_written_after_all_was_removed(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker writes that was stopped until another had done its scan, and all was cleaned, is removed too."""
    async with bench_of(database_uri, "A") as stopped, bench_of(database_uri, "B") as other:
        await stopped.keep()
        claim = await stopped.claim(0.05)
        kept = stopped.store.payloads()
        write_all, written = kept.write_all, []  # type: ignore[attr-defined]

        async def late(payload_id: str, data: bytes) -> None:
            await pause(0.1)
            await other.store.scans().complete(await other.claim(), new_report())
            assert await cleaned(other) == 1
            assert documents(database_uri, GARBAGE) == []
            await write_all(payload_id, data)
            written.append(payload_id)

        monkeypatch.setattr(kept, "write_all", late)
        with pytest.raises(StaleTokenError):
            await stopped.store.scans().complete(claim, new_report())
        assert await cleaned(other) == 1
        assert chunks_of(database_uri, written[0]) == 0


async def test_completion_repeated_after_success(database_uri: str) -> None:
    """The repeat of a completion that had worked returns the report there is; the bytes written anew are removed."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        claim = await bench.claim()
        first = await bench.store.scans().complete(claim, new_report())
        assert await bench.store.scans().complete(claim, new_report()) == first
        await pause(0.05)
        assert await bench.store.scans().clean(86400) == 1
        assert len(await bench.store.payloads().read_chunks(first.payload_id, 0, 1)) == 1


# --- our own queue


def _kind_of(result: Deferred[None]) -> Deferred[type[BaseException] | None]:
    """Fire with the kind of error that ends ``result``, or None."""

    def kind(failure: Failure) -> type[BaseException] | None:
        return failure.type

    return result.addCallbacks(lambda _: None, kind)


async def test_queue_for_permits(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that wait for those before them, longer than an operation may take, are kept all the same."""
    async with bench_of(database_uri, timeout=0.5) as bench:
        store = bench.store.payloads()
        insert = store._insert  # type: ignore[attr-defined]

        async def slow(*args: Any) -> None:
            await pause(0.05)
            await insert(*args)

        monkeypatch.setattr(store, "_insert", slow)
        written = await DeferredList([store.write_chunk("p", n, b"x") for n in range(80)], consumeErrors=True)
        assert [str(result) for success, result in written if not success] == []


async def test_queue_ends(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a permit may cancel without harm to the others, and closing the store ends all waiting."""
    async with bench_of(database_uri) as bench:
        store = bench.store.payloads()
        monkeypatch.setattr(store, "_insert", lambda *args: waiting[int(args[1])])
        waiting: list[Deferred[None]] = [Deferred() for _ in range(6)]
        written = [store.write_chunk("p", n, b"x") for n in range(6)]
        ended = [_kind_of(one) for one in written]
        written[4].cancel()
        assert await ended[4] == CancelledError
        assert not ended[5].called
        waiting[0].callback(None)
        waiting[5].callback(None)
        assert await ended[5] is None
        for one in waiting[1:4]:
            one.callback(None)
        blocked: Deferred[None] = Deferred()
        monkeypatch.setattr(store, "_insert", lambda *_: blocked)
        last = [store.write_chunk("q", n, b"x") for n in range(5)]
        refused = [_kind_of(one) for one in last]
        await bench.store.close()
        assert await refused[4] is StoreError
        blocked.callback(None)


# --- claims whose answer is lost


@pytest.mark.parametrize("lost", ["find_one", "compare_and_set"])
async def test_claim_whose_answer_is_lost(
    lost: str, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims that are made but whose answer is lost cost no attempt, and the scan is soon to be had again."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        mongo = mongo_of(bench)
        for _ in range(3):
            with monkeypatch.context() as patch:
                _lose(patch, mongo, lost)
                with pytest.raises(StoreError, match="no answer"):
                    await bench.store.scans().claim("brain", LONG)
            for _ in range(100):
                if (await bench.scan()).report_generated is ScanState.TO_DO:
                    break
                await pause(0.02)
        claim = await bench.claim()
        assert claim.attempt == 1
        assert [entry.event for entry in (await bench.scan()).history] == [
            "received",
            *["claimed", "released"] * 3,
            "claimed",
        ]


async def test_undo_spares_a_later_claim(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that failed before it was made, and then worked, is not undone, though owner and token are the same."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        mongo = mongo_of(bench)
        compare_and_set = mongo.compare_and_set
        gate: Deferred[None] = Deferred()

        async def fail_first(what: str, *args: Any, **options: Any) -> bool:
            if what == "undo a claim":
                await gate
                return await compare_and_set(what, *args, **options)
            raise StoreError("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(mongo, "compare_and_set", fail_first)
            with pytest.raises(StoreError, match="no answer"):
                await bench.store.scans().claim("brain", LONG)
        claim = await bench.claim(owner="brain")
        assert claim.token == 1
        gate.callback(None)
        await pause(0.2)
        await bench.store.scans().renew(claim, LONG)
        assert (await bench.scan()).attempts == 1


async def test_undo_waits_for_the_store(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim is given back when the store answers again, however often it did not."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        mongo = mongo_of(bench)
        compare_and_set = mongo.compare_and_set
        failures = 2

        async def failing(what: str, *args: Any, **options: Any) -> bool:
            nonlocal failures
            applied = what == "claim a scan" and await compare_and_set(what, *args, **options)
            if applied or failures:
                failures -= not applied
                raise StoreError("no answer")
            return await compare_and_set(what, *args, **options)

        monkeypatch.setattr(mongo, "compare_and_set", failing)
        with pytest.raises(StoreError, match="no answer"):
            await bench.store.scans().claim("brain", LONG)
        for _ in range(100):
            scan = await bench.scan()
            if scan.report_generated is ScanState.TO_DO:
                break
            await pause(0.05)
        assert (scan.report_generated, scan.attempts, failures) == (ScanState.TO_DO, 0, 0)


def _lose(patch: pytest.MonkeyPatch, mongo: Mongo, lost: str) -> None:
    """Let what asks for a claim lose its answer: it takes effect, and fails."""
    original = getattr(mongo, lost)

    async def losing(what: str, *args: Any, **options: Any) -> Any:
        found = await original(what, *args, **options)
        if what == "claim a scan":
            raise StoreError("no answer")
        return found

    patch.setattr(mongo, lost, losing)


# --- documents that people changed


async def test_repair_passes_over_damage(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans with a pending report that is damaged are told once each, and hinder no other, however many they are."""
    monkeypatch.setattr(completion, "BATCH", 2)
    damage: list[dict[str, Any]] = [
        {},
        {"pending_report": {}},
        {"pending_report": "x"},
        {"pending_report": {"_id": "r"}},
    ]
    told: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.error:
            told.append(event["scan_id"])

    async with bench_of(database_uri) as bench:
        done = await bench.report("z")
        with client(database_uri) as plain:
            collections = plain.get_default_database()
            document = collections[REPORTS].find_one_and_delete({"_id": done.report_id})
            assert document is not None
            since = {"pending_at": document["created_at"]}
            for n, bad in enumerate(damage):
                collections[SCANS].insert_one({"_id": f"bad-{n}", "report_generated": "Done", **since, **bad})
            later = {"pending_report": document, "pending_at": document["created_at"]}
            collections[SCANS].update_one({"_id": "scan-z"}, {"$set": later})
        globalLogPublisher.addObserver(observe)
        try:
            assert [await bench.store.scans().repair() for _ in range(3)] == [1, 0, 0]
        finally:
            globalLogPublisher.removeObserver(observe)
        assert await bench.stored(done.report_id) == done
    assert sorted(told) == [f"bad-{n}" for n in range(len(damage))]
    assert [report["_id"] for report in documents(database_uri, REPORTS)] == [done.report_id]


async def test_refusal_taken_back(database_uri: str) -> None:
    """A report that a person set back from refused is due now, in the order of age, and is taken like any other."""
    async with bench_of(database_uri) as bench:
        reports = bench.store.reports()
        for name in ("a", "b"):
            await bench.report(name)
        await reports.refused(await bench.take(), "unknown patient")
        await reports.put_back(await bench.take(), "no one there", LONG)
        with client(database_uri) as plain:
            collection = plain.get_default_database()[REPORTS]
            collection.update_one({"_id": "report-a"}, {"$set": {"refused": False}})
            assert await reports.next_due(NODE) == 0
            collection.update_one({"_id": "report-a"}, {"$unset": {"next_attempt_at": ""}})
            assert await reports.next_due(NODE) == 0
            await bench.report("c")
        assert (await bench.take()).report_id == "report-a"
        assert (await bench.take()).report_id == "report-c"
        assert await reports.take(NODE, "hub-2", LONG) is None
        due = await reports.next_due(NODE)
        assert due is not None
        assert due > LONG / 2
