"""The MongoDB store does what every store does: the same behaviours as the memory twin's, on a live server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from fr_twisted.store.interfaces import IPayloads, IReports, IScans, IStore
from fr_twisted.store.ioperators import IOperators
from fr_twisted.store.mongo import MongoStore
from tests.store_behaviour import BEHAVIOURS, Behaviour, Bench
from tests.store_behaviour_operators import OPERATOR_BEHAVIOURS

pytestmark = pytest.mark.usefixtures("clean_reactor")


@asynccontextmanager
async def opened(uri: str) -> AsyncIterator[MongoStore]:
    """Open a store whose garbage has no grace period."""
    store = MongoStore(uri, clock=reactor, node="node", unit="test", grace_seconds=0)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


ALL = [*BEHAVIOURS, *OPERATOR_BEHAVIOURS]


@pytest.mark.parametrize("behaviour", ALL, ids=lambda behaviour: behaviour.__name__)
async def test_behaviour(behaviour: Behaviour, database_uri: str) -> None:
    """The store in MongoDB behaves so."""
    async with opened(database_uri) as store:
        await behaviour(Bench(store, lambda seconds: deferLater(reactor, seconds)))


async def test_interfaces(database_uri: str) -> None:
    """The store provides all five interfaces, method by method."""
    store = MongoStore(database_uri, clock=reactor, node="node", unit="test")
    assert verifyObject(IStore, store)
    assert verifyObject(IPayloads, store.payloads())
    assert verifyObject(IScans, store.scans())
    assert verifyObject(IReports, store.reports())
    assert verifyObject(IOperators, store.operators())
