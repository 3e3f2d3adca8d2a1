"""`verify` on a live server: damage of every kind is found, and what others do meanwhile is not."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fr_twisted.model import CHUNK_SIZE
from fr_twisted.store import pages as pages_module
from fr_twisted.store import shelves
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import CHUNKS, GARBAGE, REPORTS, SCANS, UPLOADS
from fr_twisted.store.interfaces import StoreError
from fr_twisted.store.ioperators import Check, Finding, NotPossibleError
from fr_twisted.store.pages import pages
from fr_twisted.store.retry import ServerError
from fr_twisted.store.shelves import MongoShelves, ranges
from tests.integration.test_store_faults import bench_of, documents
from tests.integration.test_store_races import mongo_of
from tests.store_behaviour import Bench, new_report
from tests.store_behaviour_operators import verified
from tests.store_servers import client

pytestmark = pytest.mark.usefixtures("clean_reactor")

Damage = Callable[[Any], Any]


def kinds(found: list[Finding]) -> list[tuple[str, str]]:
    """Return kind and id of each finding."""
    return [(finding.kind.value, finding.id) for finding in found]


async def fill(bench: Bench) -> None:
    """Put a scan that is To Do, one that is Done with its report, and one that is In Progress into the store."""
    await bench.report("done")
    await bench.keep("prog")
    await bench.claim()
    await bench.keep("todo", size=2 * CHUNK_SIZE + 5)


def payload_of(db: Any, item_id: str) -> str:
    """Return the payload of a scan or report."""
    collection = SCANS if item_id.startswith("scan") else REPORTS
    return str(db[collection].find_one({"_id": item_id})["payload_id"])


DAMAGE: dict[str, tuple[Damage, list[tuple[str, str]]]] = {
    "nothing": (lambda _: None, []),
    "a chunk is gone": (
        lambda db: db[CHUNKS].delete_one({"_id": f"{payload_of(db, 'scan-todo')}:1"}),
        [("chunk-missing", "scan-todo")],
    ),
    "all chunks are gone": (
        lambda db: db[CHUNKS].delete_many({"files_id": payload_of(db, "report-done")}),
        [("chunk-missing", "report-done")],
    ),
    "a chunk is shorter": (
        lambda db: db[CHUNKS].update_one(
            {"_id": f"{payload_of(db, 'scan-todo')}:2"}, {"$set": {"data": b"abc", "size": 3}}
        ),
        [("chunk-size", "scan-todo")],
    ),
    "a bit is flipped in a scan": (
        lambda db: db[CHUNKS].update_one(
            {"_id": f"{payload_of(db, 'scan-todo')}:2"}, {"$set": {"data": b"abcde"}}
        ),
        [("digest", "scan-todo")],
    ),
    "a bit is flipped in a report": (
        lambda db: db[CHUNKS].update_one(
            {"_id": f"{payload_of(db, 'report-done')}:0"}, {"$set": {"data": bytes(1000)}}
        ),
        [("digest", "report-done")],
    ),
    "a chunk does not tell its size": (
        lambda db: db[CHUNKS].update_one(
            {"_id": f"{payload_of(db, 'scan-todo')}:1"}, {"$unset": {"size": ""}}
        ),
        [("chunk-size", "scan-todo")],
    ),
    "a chunk holds nothing": (
        lambda db: db[CHUNKS].update_one(
            {"_id": f"{payload_of(db, 'scan-todo')}:1"}, {"$unset": {"data": ""}}
        ),
        [("chunk-missing", "scan-todo")],
    ),
    "a chunk holds words": (
        lambda db: db[CHUNKS].update_one(
            {"_id": f"{payload_of(db, 'report-done')}:0"}, {"$set": {"data": "words"}}
        ),
        [("chunk-missing", "report-done")],
    ),
    "the size is less than nothing": (
        lambda db: db[SCANS].update_one({"_id": "scan-todo"}, {"$set": {"size": -5}}),
        [("scan-damaged", "scan-todo")],
    ),
    "the size is beyond all measure": (
        lambda db: db[SCANS].update_one({"_id": "scan-todo"}, {"$set": {"size": 10**15}}),
        [("chunk-missing", "scan-todo"), ("chunk-size", "scan-todo")],
    ),
    "the report is gone": (
        lambda db: db[REPORTS].delete_one({"_id": "report-done"}),
        [("done-without-report", "scan-done"), ("orphan", "")],
    ),
    "the scan is gone": (
        lambda db: db[SCANS].delete_one({"_id": "scan-done"}),
        [("report-without-scan", "report-done"), ("orphan", "")],
    ),
    "the state is none": (
        lambda db: db[SCANS].update_one({"_id": "scan-todo"}, {"$set": {"report_generated": "Later"}}),
        [("scan-damaged", "scan-todo")],
    ),
    "a member is gone": (
        lambda db: db[SCANS].update_one({"_id": "scan-done"}, {"$unset": {"patient_id": ""}}),
        [("scan-damaged", "scan-done")],
    ),
    "a line of history is damaged": (
        lambda db: db[SCANS].update_one({"_id": "scan-done"}, {"$set": {"history.0.at": "noon"}}),
        [("scan-damaged", "scan-done")],
    ),
    "the report is damaged": (
        lambda db: db[REPORTS].update_one({"_id": "report-done"}, {"$set": {"findings": 7}}),
        [("report-damaged", "report-done")],
    ),
    "there is no lease": (
        lambda db: db[SCANS].update_one({"_id": "scan-prog"}, {"$set": {"lease": None}}),
        [("stuck", "scan-prog")],
    ),
    "an index is gone": (
        lambda db: db[CHUNKS].drop_index("files_id_1_n_1_size_1"),
        [("index-missing", "brain_chunks.files_id_1_n_1_size_1")],
    ),
    "the payload was removed on purpose, but for some of it that nobody will remove": (
        lambda db: db[SCANS].update_one({"_id": "scan-done"}, {"$currentDate": {"payload_removed_at": True}}),
        [("orphan", "")],
    ),
    "the payload was removed on purpose": (
        lambda db: (
            db[CHUNKS].delete_many({"files_id": payload_of(db, "scan-done")}),
            db[SCANS].update_one(
                {"_id": "scan-done"}, {"$currentDate": {"payload_removed_at": True}}
            ),
        ),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
async def test_damage(what: str, database_uri: str) -> None:
    """What is damaged is found, and nothing else."""
    damage, expected = DAMAGE[what]
    async with bench_of(database_uri) as bench:
        await fill(bench)
        with client(database_uri) as plain:
            damage(plain.get_default_database())
        _, found = await verified(bench, Check())
        # The id of an orphan is a random one.
        assert [(kind, "" if kind == "orphan" else item) for kind, item in kinds(found)] == expected


async def test_pending_report(database_uri: str) -> None:
    """A report in its scan's own document is fine for a while; one that nobody puts in its place is found."""
    async with bench_of(database_uri) as bench:
        done = await bench.report()
        with client(database_uri) as plain:
            db = plain.get_default_database()
            document = db[REPORTS].find_one_and_delete({"_id": done.report_id})
            assert document is not None
            pending = {"pending_report": document, "pending_at": document["created_at"]}
            db[SCANS].update_one({"_id": "scan-a"}, {"$set": pending})
        assert (await verified(bench, Check()))[1] == []
        _, found = await verified(bench)
        assert kinds(found) == [("report-pending", "scan-a")]
        seen = await bench.store.operators().look("scan-a")
        assert seen is not None
        assert (seen.report_pending, seen.reports) == (True, ())
        with client(database_uri) as plain:
            db = plain.get_default_database()
            chunk = {"_id": f"{done.payload_id}:0"}
            db[CHUNKS].update_one(chunk, {"$set": {"data": bytes(1000)}})
            assert kinds((await verified(bench, Check()))[1]) == [("digest", done.report_id)]
            db[CHUNKS].delete_one(chunk)
            assert kinds((await verified(bench, Check()))[1]) == [("chunk-missing", done.report_id)]
            db[SCANS].update_one({"_id": "scan-a"}, {"$unset": {"pending_report.payload_id": ""}})
            assert kinds((await verified(bench, Check()))[1]) == [("report-damaged", "scan-a")]


async def test_upload_in_progress(database_uri: str) -> None:
    """Of an upload in progress what is said to be kept must be there, and what is there be of the right size."""
    async with bench_of(database_uri) as bench:
        upload = await bench.begin(bench.new_scan(size=4 * CHUNK_SIZE + 5))
        await bench.write(upload, "a", 0, 1, 3)
        assert (await verified(bench, Check()))[1] == []
        with client(database_uri) as plain:
            db = plain.get_default_database()
            db[UPLOADS].update_one({"_id": "scan-a"}, {"$set": {"kept": 2}})
            assert (await verified(bench, Check()))[1] == []
            db[CHUNKS].delete_one({"_id": f"{upload.payload_id}:1"})
            db[CHUNKS].update_one({"_id": f"{upload.payload_id}:3"}, {"$set": {"size": 7}})
        found = (await verified(bench, Check()))[1]
        assert kinds(found) == [("chunk-size", "scan-a"), ("chunk-missing", "scan-a")]
        assert found[1].detail == "chunk 1: missing, of 2 of an upload that a HUB had said to be kept"


async def test_nobody_cleans(database_uri: str) -> None:
    """Uploads and given up payloads that should have been removed long ago are found, the payloads all in one."""
    async with bench_of(database_uri) as bench:
        for name in ("a", "b", "c"):
            upload = await bench.begin(bench.new_scan(name))
            await bench.write(upload, name)
            if name != "c":
                await bench.store.scans().discard_upload(upload)
        ago = await bench.store.now() - timedelta(days=2)
        with client(database_uri) as plain:
            db = plain.get_default_database()
            db[UPLOADS].update_many({}, {"$set": {"touched_at": ago}})
            db[GARBAGE].update_many({}, {"$set": {"since": ago}})
        _, found = await verified(bench, Check())
        assert kinds(found) == [("upload-stale", "scan-c"), ("garbage-overdue", "brain_garbage")]
        assert found[1].detail.startswith("2 payloads wait to be removed, since 20")


async def test_retry_without_payload(database_uri: str) -> None:
    """A scan whose payload was removed is not tried again."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        await bench.store.scans().fail(await bench.claim(), "x")
        with client(database_uri) as plain:
            removed = {"$currentDate": {"payload_removed_at": True}}
            plain.get_default_database()[SCANS].update_one({"_id": "scan-a"}, removed)
        with pytest.raises(NotPossibleError, match="scan-a is Failed, but its payload was removed on 20"):
            await bench.store.operators().retry("scan-a", "x")
        [scan] = documents(database_uri, SCANS)
        assert (scan["report_generated"], scan["history"][-1]["event"]) == ("Failed", "failed")


# --- while others work


async def _between(
    monkeypatch: pytest.MonkeyPatch, name: str, bench: Bench, act: Callable[[], Any]
) -> list[Finding]:
    """Return what is found when ``act`` comes right before the first call of a method of the shelves."""
    method = getattr(MongoShelves, name)
    acted = False

    async def first_act(self: MongoShelves, *arguments: Any) -> Any:
        nonlocal acted
        if not acted:
            acted = True
            await act()
        return await method(self, *arguments)

    monkeypatch.setattr(MongoShelves, name, first_act)
    _, found = await verified(bench, Check())
    assert acted
    return found


async def test_payload_given_up_meanwhile(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of an upload that is discarded, and cleaned, while they are looked at are no orphans."""
    async with bench_of(database_uri) as bench, bench_of(database_uri) as hub:
        upload = await hub.begin(hub.new_scan())
        await hub.write(upload, "a")

        async def discard() -> None:
            await hub.store.scans().discard_upload(upload)

        async def clean() -> None:
            await discard()
            await hub.pass_time(0.05)
            assert await hub.store.scans().clean(86400.0) == 2

        with monkeypatch.context() as patched:
            assert await _between(patched, "referred_to", bench, discard) == []
        upload = await hub.begin(hub.new_scan())
        await hub.write(upload, "a")
        assert await _between(monkeypatch, "referred_to", bench, clean) == []


async def test_payload_removed_meanwhile(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that is removed on purpose while it is looked at is no finding."""
    async with bench_of(database_uri) as bench:
        await bench.keep()

        async def remove() -> None:
            with client(database_uri) as plain:
                db = plain.get_default_database()
                db[SCANS].update_one({}, {"$currentDate": {"payload_removed_at": True}})
                db[CHUNKS].delete_many({})

        assert await _between(monkeypatch, "heads", bench, remove) == []


async def test_scan_finished_meanwhile(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that was stuck when it was read, and is Done when it is read again, is no finding."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        claim = await bench.claim()
        with client(database_uri) as plain:
            late = {"$set": {"lease.expires_at": await bench.store.now() - timedelta(hours=1)}}
            plain.get_default_database()[SCANS].update_one({}, late)
        assert kinds((await verified(bench, Check()))[1]) == [("stuck", "scan-a")]

        async def complete() -> None:
            await bench.store.scans().complete(claim, new_report())

        assert await _between(monkeypatch, "document", bench, complete) == []


# --- whole collections


async def test_pages(database_uri: str) -> None:
    """All documents are given, in the order of their ids, a page at a time."""
    async with bench_of(database_uri) as bench:
        put(database_uri, 25)
        read = [
            [document["_id"] for document in page]
            async for page in pages(mongo_of(bench), "read", GARBAGE, batch=10)
        ]
        assert [len(page) for page in read] == [10, 10, 5]
        assert [name for page in read for name in page] == [f"{n:03}" for n in range(25)]


async def test_lost_cursor(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a cursor is lost the next one goes on behind the last document; one that is always lost is given up."""
    async with bench_of(database_uri) as bench:
        mongo = mongo_of(bench)
        put(database_uri, 25)
        command, calls = Mongo.command, 0
        lose = {2, 4}

        async def losing(self: Mongo, what: str, asked: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls in lose:
                raise StoreError("the connection was lost") if calls == 2 else ServerError("gone", 43)
            return await command(self, what, asked, **more)

        monkeypatch.setattr(Mongo, "command", losing)
        read = [
            document["_id"] async for page in pages(mongo, "read", GARBAGE, batch=10) for document in page
        ]
        assert read == [f"{n:03}" for n in range(25)]
        assert calls == 5
        lose.update(range(1000))
        monkeypatch.setattr(pages_module, "MOST_RESUMED", 2)
        with pytest.raises(ServerError):
            await anext(aiter(pages(mongo, "read", GARBAGE, batch=10)))


def put(uri: str, count: int) -> None:
    """Put documents into a collection."""
    with client(uri) as plain:
        plain.get_default_database()[GARBAGE].insert_many([{"_id": f"{n:03}"} for n in range(count)])


async def test_payloads_by_ranges(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every payload that has chunks is given once, however few are listed at a time, whatever its id is made of."""
    ids = [f"{n:02x}" * 16 for n in range(0, 256, 5)] + ["", " odd", "zebra", "Ω"]
    async with bench_of(database_uri) as bench:
        mongo = mongo_of(bench)
        with client(database_uri) as plain:
            plain.get_default_database()[CHUNKS].insert_many(
                [
                    {"_id": f"{name}:{n}", "files_id": name, "n": n, "size": 1}
                    for name in ids
                    for n in range(3)
                ]
            )
        for window, most in ((64, 10_000), (4, 10_000), (64, 7), (4, 3)):
            monkeypatch.setattr(shelves, "WINDOW", window)
            monkeypatch.setattr(shelves, "MOST_HEADS", most)
            found = [some async for some in MongoShelves(mongo, bench.store.payloads()).payloads_with_chunks()]  # type: ignore[arg-type]
            assert sorted(name for _, names in found for name in names) == sorted(ids), (window, most)
            if most == 10_000:
                assert sum(count for count, _ in found) == 3 * len(ids)


def test_ranges() -> None:
    """Ranges follow each other without a gap, from the beginning to the end."""
    for chunks in (0, 64, 65, 5000, 10**6):
        found = list(ranges(chunks))
        assert found[0][0] == ""
        assert found[-1][1] is None
        assert all(found[n][1] == found[n + 1][0] for n in range(len(found) - 1))
        assert found == sorted(found, key=lambda pair: pair[0])
        assert len(found) * 64 >= chunks
