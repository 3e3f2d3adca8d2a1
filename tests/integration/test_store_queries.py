"""Every query that is asked often, or of a collection that grows, is answered by an index: the server explains it."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from fr_twisted.store.connection import Mongo, find_command
from fr_twisted.store.indexes import INDEXES, QUERIES, Query, create_commands
from fr_twisted.store.interfaces import StoreUnusableError
from fr_twisted.store.mongo import MongoStore
from fr_twisted.store.uri import parse
from tests.store_servers import client, database

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


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
async def test_query_uses_an_index(query: Query, mongo: Mongo) -> None:
    """The winning plan reads an index and does not scan the collection."""
    find = find_command(query.collection, query.filter, limit=10, sort=query.sort)
    explained = await mongo.command("explain", {"explain": find, "verbosity": "queryPlanner"})
    plan = explained["queryPlanner"]["winningPlan"]
    text = json.dumps(plan, default=str)
    assert "COLLSCAN" not in text
    assert "IXSCAN" in text or "IDHACK" in text or "EXPRESS" in text, text
    used = _index_names(plan)
    known = {index.name for index in INDEXES if index.collection == query.collection} | {"_id_"}
    assert used <= known


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


async def test_index_made_differently(database_uri: str) -> None:
    """An index of the same name with other keys is named, with what to do."""
    index = INDEXES[0]
    with client(database_uri) as plain:
        plain.get_default_database()[index.collection].create_index([("other", 1)], name=index.name)
    store = MongoStore(database_uri, clock=reactor, node="node", unit="test")
    with pytest.raises(StoreUnusableError, match="made differently, drop it"):
        await store.open()
