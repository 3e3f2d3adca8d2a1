"""A HUB whose store fails: it says so to its nodes, keeps their connections, and takes their scans when it can."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IAddress

from fr_twisted.hub.intake import ScanIntake
from fr_twisted.link.receiver import ReceiverProtocol
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
from fr_twisted.model import CHUNK_SIZE
from fr_twisted.store.mongo import MongoStore
from tests.fakes_link import MemoryOutbox, make_item
from tests.integration.test_link_tcp import pause, tcp, until
from tests.integration.test_store_faults import documents, faulty_uri
from tests.store_servers import fail_point

__all__ = ["faulty_uri"]

pytestmark = pytest.mark.usefixtures("clean_reactor")

reactor: Any = global_reactor

CONTENT = hashlib.shake_256(b"scan").digest(2 * CHUNK_SIZE + 12345)
ITEM = make_item(CONTENT, "scan-1", patient_id="P1", format="nifti")
TIMEOUT = 0.6
"""Seconds of an operation of the store."""

FAULTS: dict[str, dict[str, Any]] = {
    "not primary": {"errorCode": 10107},
    "stepped down": {"errorCode": 189},
    "no primary behind mongos": {"errorCode": 133},
    "shutting down": {"errorCode": 11600},
    "busy": {"errorCode": 365},
    "connection lost": {"closeConnection": True},
    "no answer": {"blockConnection": True, "blockTimeMS": 1000},
    "disk full": {"errorCode": 14031},
    "over the quota of a cloud": {"errorCode": 8000},
    "no rights": {"errorCode": 13},
    "broken": {"errorCode": 1},
    "not by the majority": {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
    "no majority": {"writeConcernError": {"code": 100, "errmsg": "Not enough data-bearing nodes"}},
}


class CountingFactory(ReceiverFactory):
    """Counts connections."""

    made = 0

    def buildProtocol(self, addr: IAddress | None) -> ReceiverProtocol:
        """Count one."""
        self.made += 1
        return super().buildProtocol(addr)


@asynccontextmanager
async def hub(uri: str) -> AsyncIterator[tuple[CountingFactory, MemoryOutbox]]:
    """Run a HUB on the store, and a node that is connected to it."""
    store = MongoStore(uri, clock=reactor, node="hub", unit="hub", timeout=TIMEOUT)
    await store.open()
    receivers = CountingFactory("hub", ScanIntake(store, reactor), reactor)
    port = await tcp().listen(receivers)
    outbox = MemoryOutbox()
    outbox.retry = False
    senders = ReconnectingSenderFactory("pacs-1", outbox, reactor, initial_delay=0.05, max_delay=0.2)
    service = SenderService(clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}"), senders)
    service.startService()
    try:
        yield receivers, outbox
    finally:
        await service.stopService()
        await port.stopListening()
        await receivers.drain(1.0)
        await store.close()
        await pause(0.05)


@pytest.mark.parametrize("commands", [["find"], ["insert", "update"]], ids=["reads", "writes"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_says_so(fault: str, commands: list[str], faulty_uri: str) -> None:
    """An offer is refused for now, on a connection that stays; when the store works the scan is kept, once."""
    # An insert that the majority did not confirm is confirmed by an update that changes nothing: both fail here.
    if "writeConcernError" in FAULTS[fault] and commands == ["find"]:
        pytest.skip("reads have no write concern")
    async with hub(faulty_uri) as (receivers, outbox):
        await until(lambda: outbox.waiting)
        with fail_point(faulty_uri, "alwaysOn", failCommands=commands, **FAULTS[fault]):
            for count in (1, 2):
                outbox.add(ITEM, CONTENT)
                await until(lambda wanted=count: len(outbox.outcomes()) == wanted)
        assert outbox.outcomes() == [("deferred", "scan-1", "store")] * 2
        if "blockConnection" in FAULTS[fault]:
            await pause(1.0)
        outbox.add(ITEM, CONTENT)
        await until(lambda: len(outbox.outcomes()) == 3)
        assert outbox.outcomes()[-1][0] == "acknowledged"
        assert receivers.made == 1
    assert [scan["_id"] for scan in documents(faulty_uri, "brain_scans")] == ["scan-1"]
