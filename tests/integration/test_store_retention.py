"""Bytes that are given up, and such that must not be: of delivered scans, of a stopped worker, of a broken scan."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from fr_twisted.model import ScanState
from fr_twisted.store.completion import Completion
from fr_twisted.store.indexes import GARBAGE, SCANS
from fr_twisted.store.interfaces import PayloadMissingError, StaleTokenError, StoreError
from fr_twisted.store.retention import Retention
from tests.integration.test_store_faults import bench_of, documents, pause
from tests.integration.test_store_races import all_chunks, mongo_of
from tests.store_behaviour import LONG, SHORT, Bench, delivered, new_report
from tests.store_servers import client

pytestmark = pytest.mark.usefixtures("clean_reactor")


def ending_of(bench: Bench) -> Completion:
    """Return the part of a store that ends analyses, to be disturbed."""
    ending: Completion = bench.store.scans()._completion  # type: ignore[attr-defined]
    return ending


def retention_of(bench: Bench) -> Retention:
    """Return the part of a store that gives payloads up, to be disturbed."""
    retention: Retention = bench.store.scans()._retention  # type: ignore[attr-defined]
    return retention


def before(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, act: Callable[[], Awaitable[Any]]
) -> None:
    """Let ``act`` happen before each call of a method."""
    method = getattr(where, name)

    async def late(*args: Any, **options: Any) -> Any:
        await act()
        return await method(*args, **options)

    monkeypatch.setattr(where, name, late)


# --- a worker that is stopped and goes on


async def test_late_decision_keeps_its_bytes(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was stopped, before it decided, for longer than the grace period ends with a whole report."""
    async with bench_of(database_uri, "A") as worker, bench_of(database_uri, "B") as cleaner:
        await worker.keep()
        claim = await worker.claim(SHORT)

        async def stopped() -> None:
            await pause(2 * SHORT)
            assert await cleaner.store.scans().clean(LONG) == 0

        before(monkeypatch, ending_of(worker), "_decide", stopped)
        report = await worker.store.scans().complete(claim, new_report())
        await pause(0.05)
        assert await cleaner.store.scans().clean(LONG) == 0
        assert await worker.store.payloads().read_chunks(report.payload_id, 0, 1) == [new_report().bundle]
        assert documents(database_uri, GARBAGE) == []


async def test_late_decision_of_a_lost_claim(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another took the scan over meanwhile, its bytes go and its decision changes nothing."""
    async with bench_of(database_uri, "A") as worker, bench_of(database_uri, "B") as other:
        await worker.keep()
        claim = await worker.claim(SHORT)

        async def stopped() -> None:
            await pause(2 * SHORT)
            assert await other.store.scans().clean(LONG) == 0
            await other.claim(LONG, "brain-2")
            assert await other.store.scans().clean(LONG) == 1

        before(monkeypatch, ending_of(worker), "_decide", stopped)
        with pytest.raises(StaleTokenError):
            await worker.store.scans().complete(claim, new_report())
        assert (await other.scan()).report_generated is ScanState.IN_PROGRESS
        # Listed once more, for it cannot know whether what it wrote came before the cleaner or after it.
        await pause(0.05)
        await other.store.scans().clean(LONG)
        assert documents(database_uri, GARBAGE) == []


# --- payloads of delivered scans


async def test_crash_before_the_mark(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the listing and the mark leaves the payload in use; the next round gives it up."""
    async with bench_of(database_uri) as bench:
        await delivered(bench)
        await pause(2 * SHORT)

        async def crash(*_: Any) -> bool:
            raise StoreError("crash")

        with monkeypatch.context() as patch:
            patch.setattr(retention_of(bench), "_mark", crash)
            with pytest.raises(StoreError, match="crash"):
                await bench.store.scans().retire(SHORT)
        await pause(0.05)
        assert await bench.store.scans().clean(LONG) == 0
        assert await all_chunks(bench, 100)
        assert await bench.store.scans().retire(SHORT) == 1
        await pause(0.05)
        assert await bench.store.scans().clean(LONG) == 1
        assert not await all_chunks(bench, 100)


async def test_crash_after_the_mark(database_uri: str) -> None:
    """After the mark the cleaner of any HUB removes the bytes, and only after the grace period."""
    async with bench_of(database_uri, grace=600) as bench:
        await delivered(bench)
        await pause(2 * SHORT)
        assert await bench.store.scans().retire(SHORT) == 1
        assert await bench.store.scans().clean(LONG) == 0
        assert await all_chunks(bench, 100)
    async with bench_of(database_uri, "other") as other:
        await pause(0.05)
        assert await other.store.scans().clean(LONG) == 1
        assert not await all_chunks(other, 100)


async def test_two_at_once(database_uri: str) -> None:
    """Two HUBs that give payloads up at once do it once for each scan."""
    async with bench_of(database_uri, "A") as one, bench_of(database_uri, "B") as two:
        for name in "abcde":
            await delivered(one, name)
        await pause(2 * SHORT)
        counts = await gatherResults([bench.store.scans().retire(SHORT) for bench in (one, two)])
        assert sum(counts) == 5
        for name in "abcde":
            events = [entry.event for entry in (await one.scan(name)).history]
            assert events.count("payload removed") == 1


async def test_analysed_again_at_that_moment(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that a person sets back to To Do at that very moment keeps its payload until it is done anew."""
    async with bench_of(database_uri) as bench:
        await delivered(bench)
        await pause(2 * SHORT)

        async def again() -> None:
            with client(database_uri) as plain:
                change = {"$set": {"report_generated": "To Do", "attempts": 0}}
                plain.get_default_database()[SCANS].update_one({"_id": "scan-a"}, change)

        with monkeypatch.context() as patch:
            before(patch, retention_of(bench), "_mark", again)
            assert await bench.store.scans().retire(SHORT) == 0
        await pause(0.05)
        assert await bench.store.scans().clean(LONG) == 0
        assert await all_chunks(bench, 100)
        claim = await bench.claim()
        await bench.store.scans().complete(claim, new_report())
        assert (await bench.scan()).payload_removed_at is None
        await pause(2 * SHORT)
        assert await bench.store.scans().retire(SHORT) == 1


async def test_not_looked_at_all_the_time(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan whose report is not delivered is not looked at in every round, however many there are."""
    async with bench_of(database_uri) as bench:
        for name in "abc":
            await bench.report(name)
        await pause(1.2)
        looked: list[str] = []
        retention = retention_of(bench)
        delivered_at = retention._delivered_at

        async def looking(scan_id: str) -> Any:
            looked.append(scan_id)
            return await delivered_at(scan_id)

        monkeypatch.setattr(retention, "_delivered_at", looking)
        for _ in range(3):
            assert await bench.store.scans().retire(1.0) == 0
        assert sorted(looked) == ["scan-a", "scan-b", "scan-c"]


async def test_removed_bytes_are_missing(database_uri: str) -> None:
    """Who reads a payload that was removed is told that it is missing."""
    async with bench_of(database_uri) as bench:
        await delivered(bench)
        await pause(2 * SHORT)
        await bench.store.scans().retire(SHORT)
        await pause(0.05)
        await bench.store.scans().clean(LONG)
        scan = await bench.scan()
        with pytest.raises(PayloadMissingError):
            await bench.store.payloads().read_chunks(scan.payload_id, 0, 1)


# --- scans whose bytes were found broken


async def test_broken_scan_is_tried_again(database_uri: str) -> None:
    """New bytes of a broken scan are not taken while a worker is at the old ones, and not lost."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        scans = bench.store.scans()
        await scans.fail(await bench.claim(), "broken", payload_broken=True)
        upload = await bench.begin(bench.new_scan())
        await bench.write(upload, "a")
        with client(database_uri) as plain:
            change = {"$set": {"report_generated": "To Do", "attempts": 0}}
            plain.get_default_database()[SCANS].update_one({"_id": "scan-a"}, change)
        claim = await bench.claim()
        with pytest.raises(StoreError, match="found broken"):
            await scans.commit(upload)
        await scans.fail(claim, "broken still", payload_broken=True)
        again = await bench.begin(bench.new_scan())
        assert (again.payload_id, again.chunks) == (upload.payload_id, 1)
        await scans.commit(again)
        assert (await bench.scan()).report_generated is ScanState.TO_DO
        await pause(0.05)
        assert await scans.clean(LONG) == 1
        assert await all_chunks(bench, 100)


async def test_broken_scan_that_was_not(database_uri: str) -> None:
    """A scan that was found broken but then analysed all the same is kept, and not received anew."""
    async with bench_of(database_uri) as bench:
        await bench.keep()
        await bench.store.scans().fail(await bench.claim(), "broken", payload_broken=True)
        with client(database_uri) as plain:
            change = {"$set": {"report_generated": "To Do", "attempts": 0}}
            plain.get_default_database()[SCANS].update_one({"_id": "scan-a"}, change)
        await bench.store.scans().complete(await bench.claim(), new_report())
        assert await bench.store.scans().begin_upload(bench.new_scan()) is None


async def test_old_receiver_of_a_broken_scan(database_uri: str) -> None:
    """Who received the bytes that were found broken is not told once more that they are kept."""
    async with bench_of(database_uri) as bench:
        upload = await bench.begin(bench.new_scan())
        await bench.write(upload, "a")
        await bench.store.scans().commit(upload)
        await bench.store.scans().fail(await bench.claim(), "broken", payload_broken=True)
        with pytest.raises((StoreError, PayloadMissingError)):
            await bench.store.scans().commit(upload)


async def test_commit_after_a_long_stop(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HUB that was stopped just before its commit, until the chunks were cleaned away, acknowledges nothing."""
    async with bench_of(database_uri, "A") as stopped, bench_of(database_uri, "B") as other:
        upload = await stopped.begin(stopped.new_scan())
        await stopped.write(upload, "a")
        mongo = mongo_of(stopped)
        insert, monotonic = mongo.insert, mongo.monotonic

        async def late(what: str, *args: Any, **options: Any) -> None:
            if what == "keep a scan":
                await other.store.scans().discard_upload(await other.begin(upload.scan))
                await pause(0.05)
                assert await other.store.scans().clean(LONG) == 1
                mongo.monotonic = lambda: monotonic() + 1000
            await insert(what, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(mongo, "insert", late)
            with pytest.raises(PayloadMissingError):
                await stopped.store.scans().commit(upload)
        assert await other.store.scans().claim("brain", LONG) is None
        again = await other.begin(upload.scan)
        await other.write(again, "a")
        await other.store.scans().commit(again)
        assert (await other.scan()).report_generated is ScanState.TO_DO
        assert await all_chunks(other, 100)
