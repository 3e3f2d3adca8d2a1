"""What becomes of a report is told to its scan, though two documents are written: whatever comes between them."""

from collections.abc import Awaitable, Callable

import pytest

from fr_twisted.store.chronicle import Chronicle
from fr_twisted.store.indexes import REPORTS, SCANS
from tests.integration.test_store_faults import bench_of, documents
from tests.store_behaviour import Bench
from tests.store_servers import client

pytestmark = pytest.mark.usefixtures("clean_reactor")

Change = Callable[[Bench], Awaitable[None]]


async def deliver(bench: Bench) -> None:
    """Deliver the report that is due."""
    await bench.store.reports().delivered(await bench.take())


async def refuse(bench: Bench) -> None:
    """Refuse it."""
    await bench.store.reports().refused(await bench.take(), "no")


async def put_back(bench: Bench) -> None:
    """Put it back."""
    await bench.store.reports().put_back(await bench.take(), "busy", 0)


def events(uri: str) -> list[str]:
    """Return the events in the history of the one scan."""
    [scan] = documents(uri, SCANS)
    return [line["event"] for line in scan["history"]]


@pytest.mark.parametrize(
    ("change", "event"), [(deliver, "delivered"), (refuse, "refused"), (put_back, "put back")]
)
async def test_crash_before_the_scan_is_told(
    change: Change, event: str, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A HUB that dies right after the report's own write leaves the line in it, and any other tells it, once."""
    async with bench_of(database_uri) as dying, bench_of(database_uri) as other:
        await dying.report()
        with monkeypatch.context() as crash:
            crash.setattr(Chronicle, "tell_soon", lambda *_: None)
            await change(dying)
        assert event not in events(database_uri)
        [report] = documents(database_uri, REPORTS)
        assert (report["status"], report["refused"]) == (event == "delivered", event == "refused")
        for _ in range(2):
            await other.store.scans().repair()
            assert events(database_uri) == ["received", "claimed", "done", event]
        [report] = documents(database_uri, REPORTS)
        assert not {"untold", "untold_at"} & set(report)


async def test_crash_before_it_is_noted(database_uri: str) -> None:
    """A line that the scan has already is not told again, beside one that it has not."""
    async with bench_of(database_uri) as bench:
        await bench.report()
        await deliver(bench)
        await bench.told()
        [scan] = documents(database_uri, SCANS)
        told = scan["history"][-1]
        lines = [told, {**told, "event": "resent"}]
        with client(database_uri) as plain:
            left = {"$set": {"untold": lines, "untold_at": told["at"]}}
            plain.get_default_database()[REPORTS].update_one({}, left)
        await bench.store.scans().repair()
        assert events(database_uri) == ["received", "claimed", "done", "delivered", "resent"]


async def test_scan_is_gone(database_uri: str) -> None:
    """The line of a report whose scan is gone is dropped."""
    async with bench_of(database_uri) as bench:
        await bench.report()
        with client(database_uri) as plain:
            plain.get_default_database()[SCANS].delete_many({})
        await deliver(bench)
        await bench.pass_time(0.05)
        await bench.store.scans().repair()
        [report] = documents(database_uri, REPORTS)
        assert (report["status"], "untold" in report) == (True, False)
