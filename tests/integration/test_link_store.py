"""Scans over real sockets into the real store, through two HUBs whose connections are cut anywhere."""

import hashlib
import random
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
from tests.store_servers import client

reactor: Any = global_reactor

CONTENT = hashlib.shake_256(b"scan").digest(5 * CHUNK_SIZE + 12345)
META = {"patient_id": "P1", "format": "nifti"}


class CuttingReceiver(ReceiverProtocol):
    """Ends its connection after ``budget`` bytes; half of the time only for itself, as a half-open one would."""

    budget = 0

    def dataReceived(self, data: bytes) -> None:
        """Count down."""
        self.budget -= len(data)
        if self.budget < 0 and not self.closing:
            self.drop()
            return
        super().dataReceived(data)


class CuttingFactory(ReceiverFactory):
    """Cuts its first ``cuts`` connections at places that ``chance`` chooses."""

    def __init__(self, *arguments: Any, chance: random.Random, cuts: int, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.chance, self.cuts = chance, cuts

    def buildProtocol(self, addr: IAddress | None) -> ReceiverProtocol:
        """Return a connection that will be cut, or the first whole one."""
        protocol = CuttingReceiver(self)
        protocol.factory = self
        protocol.budget = self.chance.randrange(2 * CHUNK_SIZE) if self.cuts > 0 else 2**60
        self.cuts -= 1
        return protocol


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_cut_anywhere_between_two_hubs(database_uri: str, seed: int) -> None:
    """Two senders offer the same scan to two HUBs on one store; however they are cut, it is kept exactly once."""
    chance = random.Random(seed)
    item = make_item(CONTENT, "scan-1", **META)
    stores, senders, ports, factories = [], [], [], []
    try:
        for number in range(2):
            store = MongoStore(database_uri, clock=reactor, node=f"hub-{number}", unit="hub")
            stores.append(store)
            await store.open()
            factory = CuttingFactory(
                f"hub-{number}", ScanIntake(store, reactor), reactor, window=2, chance=chance, cuts=4
            )
            factories.append(factory)
            ports.append(await tcp().listen(factory))
            outbox = MemoryOutbox((item, CONTENT))
            dialling = ReconnectingSenderFactory(
                f"pacs-{number}", outbox, reactor, initial_delay=0.05, max_delay=0.2
            )
            endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{ports[-1].getHost().port}")
            senders.append((SenderService(endpoint, dialling), outbox))
        for service, _ in senders:
            service.startService()
        await until(
            lambda: all(any(e[0] == "acknowledged" for e in outbox.outcomes()) for _, outbox in senders)
        )
    finally:
        for service, _ in senders:
            await service.stopService()
        for port in ports:
            await port.stopListening()
        for factory in factories:
            await factory.drain(1.0)
        for store in stores:
            await store.close()
        await pause(0.05)
    with client(database_uri) as looking:
        database = looking.get_default_database()
        [scan] = list(database["brain_scans"].find())
        chunks = database["brain_chunks"].find({"files_id": scan["payload_id"]}).sort("n")
        assert b"".join(bytes(chunk["data"]) for chunk in chunks) == CONTENT
        assert scan["report_generated"] == "To Do"
