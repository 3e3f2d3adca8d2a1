"""Every query that is asked often, or of a collection that grows, is answered by an index: the server explains it."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from fr_twisted.store.connection import Mongo, find_command
from fr_twisted.store.indexes import (
    EPOCH,
    INDEXES,
    QUERIES,
    QUEUE_ORDER,
    Query,
    create_commands,
    to_do,
    to_do_before,
)
from fr_twisted.store.interfaces import StoreError, StoreUnusableError
from fr_twisted.store.mongo import MongoStore
from fr_twisted.store.uri import parse
from tests.benchmarks import plans
from tests.integration.test_store_faults import bench_of
from tests.store_behaviour import new_report
from tests.store_servers import client, database

WITHOUT_INDEX = "count uploads"
"""What MongoDB takes from its books, and the embedded server counts: there are few."""

OTHERS = 5_000
"""Scans that wait for another analysis."""

pytestmark = pytest.mark.usefixtures("clean_reactor")


@pytest.fixture(scope="module")
def indexed_uri(mongo_uri: str) -> Iterator[str]:
    """Return the URI of a database with the store's indexes and some documents."""
    with database(mongo_uri) as uri:
        with client(uri) as plain:
            for command in create_commands():
                plain.get_default_database().command(command)
                documents = [{"_id": f"x{n}"} for n in range(50)]
                plain.get_default_database()[command["createIndexes"]].insert_many(documents)
        yield uri


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def mongo(indexed_uri: str) -> AsyncIterator[Mongo]:
    """Open a connection to that database."""
    connection = Mongo(parse(indexed_uri), reactor, 10.0)
    connection.start(None, 1, 5.0)
    yield connection
    await connection.close()


async def _plan(mongo: Mongo, query: Query) -> Any:
    find = find_command(query.collection, query.filter, limit=10, sort=query.sort)
    explained = await mongo.command("explain", {"explain": find, "verbosity": "queryPlanner"})
    return explained["queryPlanner"]["winningPlan"]


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def tells_order(mongo: Mongo, indexed_uri: str) -> AsyncIterator[bool]:
    """Tell whether the server takes the order out of an index of several members, where no other index will do.

    The embedded server (SecantusDB) does not: it searches by an index that begins with the members that are compared,
    whichever of those it meets first, and sorts what it found.
    """
    with client(indexed_uri) as plain:
        collection = plain.get_default_database()["order"]
        collection.create_index([("a", 1), ("b", 1)])
        collection.insert_many([{"a": n % 2, "b": n} for n in range(50)])
    plan = await _plan(mongo, Query("", "order", {"a": 1}, (), (("b", 1),)))
    yield "SORT" not in _stages(plan)


def test_plans_of_status(indexed_uri: str) -> None:
    """What ``fr status`` asks is taken from its own code, and nothing of it scans a collection that grows."""
    with client(indexed_uri) as plain:
        found = plans.plans(plain.get_default_database(), EPOCH)
    of_status = [plan for plan in found if "`fr status`" in plan.name]
    assert len(of_status) == 10
    assert [plan.name for plan in found if plan.index == "COLLSCAN" and WITHOUT_INDEX not in plan.name] == []


def test_plan_without_index(indexed_uri: str) -> None:
    """A query that no index answers is told as such."""
    with client(indexed_uri) as plain:
        find = find_command("brain_scans", {"nothing": 1}, limit=1)
        assert plans.explained(plain.get_default_database(), "x", find).index == "COLLSCAN"


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
async def test_query_uses_its_index(query: Query, mongo: Mongo, tells_order: bool) -> None:
    """The winning plan reads the query's index; it neither scans the collection nor sorts.

    A server that takes no order out of an index shows that there is an index to search by, and no more: neither that
    the one for the order is there nor that it serves. `IndexTests.test_indexesOfQueries` sees to that by what is
    declared, and a run against MongoDB itself by the plan.
    """
    plan = await _plan(mongo, query)
    stages, used = _stages(plan), _index_names(plan)
    assert "COLLSCAN" not in stages
    assert any(stage.startswith(("IXSCAN", "IDHACK", "EXPRESS")) for stage in stages), stages
    if tells_order:
        assert "SORT" not in stages
        assert used <= set(query.indexes)
        assert used or query.indexes == ("_id_",)
    else:
        prefix = {name.split("_1")[0] for name in query.indexes}
        assert {name.split("_1")[0] for name in used} <= prefix
        assert "SORT" not in stages or len(query.filter) + len(query.sort) > 1


def _stages(plan: Any) -> set[str]:
    """Return the stages of a plan, at any depth."""
    if isinstance(plan, dict):
        own = {str(plan["stage"])} if "stage" in plan else set()
        return own.union(*(_stages(value) for value in plan.values()))
    if isinstance(plan, list):
        return set().union(*(_stages(value) for value in plan))
    return set()


def _index_names(plan: Any) -> set[str]:
    """Return the names of the indexes in a plan, at any depth."""
    if isinstance(plan, dict):
        own = {str(plan["indexName"])} if "indexName" in plan else set()
        return own.union(*(_index_names(value) for value in plan.values()))
    if isinstance(plan, list):
        return set().union(*(_index_names(value) for value in plan))
    return set()


async def test_indexes_are_there(database_uri: str) -> None:
    """Opening a store makes every index that is declared, and opening it again changes nothing."""
    for _ in range(2):
        store = MongoStore(database_uri, clock=reactor, node="node", unit="test")
        await store.open()
        await store.close()
    for collection in {index.collection for index in INDEXES}:
        with client(database_uri) as plain:
            there = plain.get_default_database()[collection].index_information()
        for index in INDEXES:
            if index.collection == collection:
                assert [tuple(key) for key in there[index.name]["key"]] == list(index.keys)


async def test_missing_index(database_uri: str) -> None:
    """An index that was dropped is made again at the next start, with documents in its collection too."""
    async with bench_of(database_uri) as bench:
        await bench.report()
    with client(database_uri) as plain:
        for index in INDEXES:
            plain.get_default_database()[index.collection].drop_index(index.name)
    async with bench_of(database_uri) as bench:
        assert await bench.take()
    for index in INDEXES:
        with client(database_uri) as plain:
            assert index.name in plain.get_default_database()[index.collection].index_information()


WRONG: dict[str, tuple[list[tuple[str, int]], dict[str, Any], str]] = {
    "other keys": ([("other", 1)], {"name": INDEXES[0].name}, "was made differently"),
    "other name": (list(INDEXES[0].keys), {"name": "mine"}, "index mine of brain_scans was made differently"),
    "ours, but unique": (list(INDEXES[0].keys), {"unique": True}, "is unique"),
    "unique": ([("patient_id", 1)], {"unique": True}, "index patient_id_1 of brain_scans is unique"),
    "of some documents": (
        list(INDEXES[0].keys),
        {"partialFilterExpression": {"priority": 9}},
        "was made differently",
    ),
    "deleting": ([("received_at", 1)], {"expireAfterSeconds": 3600}, "deletes documents by their age"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_index(wrong: str, database_uri: str) -> None:
    """An index with which a scan could be lost, or is not found, is told in one line, with what to do."""
    keys, options, words = WRONG[wrong]
    with client(database_uri) as plain:
        name = plain.get_default_database()["brain_scans"].create_index(keys, **options)
    store = MongoStore(database_uri, clock=reactor, node="node", unit="test")
    with pytest.raises(StoreUnusableError) as caught:
        await store.open()
    message = str(caught.value)
    assert words in message
    assert f'db.brain_scans.dropIndex("{name}")' in message
    assert "\n" not in message
    with client(database_uri) as plain:
        plain.get_default_database()["brain_scans"].drop_index(name)
    await store.open()
    await store.close()


async def test_further_index(database_uri: str) -> None:
    """An index that somebody made for queries of his own does no harm."""
    with client(database_uri) as plain:
        plain.get_default_database()["brain_scans"].create_index([("patient_id", 1)])
    async with bench_of(database_uri) as bench:
        done = await bench.report()
        assert await bench.stored(done.report_id) == done


@pytest.mark.parametrize(("collection", "key"), [("brain_scans", "source"), ("brain_chunks", "n")])
async def test_scan_kept_out(collection: str, key: str, database_uri: str) -> None:
    """A scan or chunk that a unique index keeps out, made while we run, is refused for now and not for good."""
    async with bench_of(database_uri) as bench:
        await bench.keep()

        async def keep_another() -> None:
            upload = await bench.begin(bench.new_scan("b"))
            await bench.write(upload, "b")
            await bench.store.scans().commit(upload)

        with client(database_uri) as plain:
            name = plain.get_default_database()[collection].create_index([(key, 1)], unique=True)
        with pytest.raises(StoreError, match="unique index"):
            await keep_another()
        with client(database_uri) as plain:
            plain.get_default_database()[collection].drop_index(name)
        await keep_another()
        assert (await bench.scan("b")).size == 100


async def test_unique_index_made_later(database_uri: str) -> None:
    """A report that a unique index keeps out, made while we run, stays in its scan until it can be put in its place."""
    async with bench_of(database_uri) as bench:
        await bench.report()
        with client(database_uri) as plain:
            reports = plain.get_default_database()["brain_reports"]
            name = reports.create_index([("analysis", 1)], unique=True)
        await bench.keep("b")
        claim = await bench.claim()
        with pytest.raises(StoreError, match="unique index"):
            await bench.store.scans().complete(claim, new_report("b"))
        assert await bench.store.reports().get("report-b") is None
        assert await bench.store.scans().repair() == 0
        with client(database_uri) as plain:
            plain.get_default_database()["brain_reports"].drop_index(name)
        assert await bench.store.scans().repair() == 1
        assert (await bench.stored("report-b")).scan_id == "scan-b"


async def test_urgent_among_ended_leases(database_uri: str) -> None:
    """Of more scans than a list holds whose leases ended, the most urgent is claimed first, not the first to end."""
    async with bench_of(database_uri) as bench:
        await bench.keep("z", priority=9)
        with client(database_uri) as plain:
            scans = plain.get_default_database()["brain_scans"]
            urgent = scans.find_one({"_id": "scan-z"})
            assert urgent is not None
            ended = {"report_generated": "In Progress", "token": 1}
            many = [
                {
                    **urgent,
                    **ended,
                    "_id": f"scan-{n}",
                    "priority": 5,
                    "lease": _lease(EPOCH + timedelta(seconds=n)),
                }
                for n in range(150)
            ]
            scans.insert_many(many)
            scans.update_one(
                {"_id": "scan-z"}, {"$set": {**ended, "lease": _lease(EPOCH + timedelta(days=1))}}
            )
        assert (await bench.claim()).scan.scan_id == "scan-z"


def _lease(expires_at: datetime) -> dict[str, Any]:
    return {"owner": "brain-0", "token": 1, "expires_at": expires_at}


async def test_claims_beside_a_long_queue(database_uri: str) -> None:
    """What waits for another analysis is never met by a claim, however much that is: a list reads no document of it."""
    async with bench_of(database_uri) as bench:
        await bench.keep("ours", analysis="x")
        waiting = {"priority": 9, "meta": {"analysis": "other"}, "report_generated": "To Do", "token": 0}
        waiting["received_at"] = EPOCH
        with client(database_uri) as plain:
            database = plain.get_default_database()
            many = [{**waiting, "_id": f"other-{n}"} for n in range(OTHERS)]
            database["brain_scans"].insert_many(many)
            for query in (to_do("x"), to_do(None), to_do_before("x", 5, None), to_do_before(None, 9, None)):
                find = {"find": "brain_scans", "filter": query, "limit": 100, "sort": dict(QUEUE_ORDER)}
                stats = database.command({"explain": find, "verbosity": "executionStats"})["executionStats"]
                assert stats["totalDocsExamined"] <= 1, (query, stats)
        began = time.monotonic()
        assert (await bench.claim(analysis="x")).scan.scan_id == "scan-ours"
        assert await bench.store.scans().claim("brain", 60.0, "x") is None
        assert await bench.store.scans().claim("brain", 60.0) is None
        # To meet them all would take the embedded server 40 to 65 microseconds each, six times over.
        assert time.monotonic() - began < OTHERS * 40e-6 * 3
