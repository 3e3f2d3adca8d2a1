"""The link over real sockets: plain TCP, and TLS in which both sides prove themselves."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString, wrapServerTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from fr_twisted.link.interfaces import Item
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
from tests.certificates import Authority
from tests.fakes_link import MemoryIntake, MemoryOutbox, make_item

reactor: Any = global_reactor
TIMEOUT = 30


async def pause(seconds: float) -> None:
    """Let the reactor run."""
    await deferLater(reactor, seconds)


async def until(condition: Any) -> None:
    """Wait until it holds."""
    for _ in range(TIMEOUT * 100):
        if condition():
            return
        await pause(0.01)
    raise AssertionError("it did not come to that in time")


class Pair:
    """A listening receiver and a dialling sender."""

    def __init__(self, outbox: MemoryOutbox, **limits: Any) -> None:
        self.intake = MemoryIntake()
        self.outbox = outbox
        self.receivers = ReceiverFactory("hub", self.intake, reactor, **limits)
        self.senders = ReconnectingSenderFactory("pacs-1", outbox, reactor, initial_delay=0.05, max_delay=0.2)
        self.port: Any = None
        self.service: SenderService | None = None

    async def start(self, server: Any, client: str) -> None:
        """Listen and dial; ``{port}`` in ``client`` is where we listen."""
        self.port = await server.listen(self.receivers)
        endpoint = clientFromString(reactor, client.format(port=self.port.getHost().port))
        self.service = SenderService(endpoint, self.senders)
        self.service.startService()

    async def stop(self) -> None:
        """End both, and wait until no socket is left."""
        if self.service is not None:
            await self.service.stopService()
        if self.port is not None:
            await self.port.stopListening()
        await self.receivers.drain(1.0)
        await pause(0.05)


def tcp() -> Any:
    """Return an endpoint on a free port."""
    return serverFromString(reactor, "tcp:0:interface=127.0.0.1")


async def test_large_item_over_tcp() -> None:
    """An item far larger than every buffer arrives whole over a real socket."""
    content = hashlib.shake_256(b"scan").digest(40 * 1024 * 1024 + 17)
    pair = Pair(MemoryOutbox((make_item(content), content)))
    try:
        await pair.start(tcp(), "tcp:127.0.0.1:{port}")
        await until(pair.outbox.outcomes)
        assert pair.outbox.outcomes() == [("acknowledged", "item-1", False)]
        assert pair.intake.stored == [("item-1", content)]
    finally:
        await pair.stop()


async def test_slow_store_holds_the_sender_back() -> None:
    """While nothing is kept, no more than the window is read from a real socket."""
    content = bytes(20 * 1024 * 1024)
    pair = Pair(MemoryOutbox((make_item(content), content)), window=2)
    pair.intake.holding = True
    try:
        await pair.start(tcp(), "tcp:127.0.0.1:{port}")
        await until(lambda: len(pair.intake.held) == 2)
        await pause(0.2)
        assert len(pair.intake.held) == 2
        assert pair.outbox.reads == [0, 1024 * 1024]
        pair.intake.holding = False
        pair.intake.release(2)
        await until(pair.outbox.outcomes)
        assert len(pair.intake.stored) == 1
    finally:
        await pair.stop()


async def test_bye_reaches_who_is_sending() -> None:
    """A sender whose bytes nobody reads any more hears that the node stops, and not that the connection was reset."""
    content = bytes(4 * 1024 * 1024)
    item = make_item(content)
    pair = Pair(MemoryOutbox(), memory=1024 * 1024)
    pair.intake.holding = True
    port = await tcp().listen(pair.receivers)
    heard: list[bytes] = []
    ended: Deferred[Any] = Deferred()

    class Raw(Protocol):
        def connectionMade(self) -> None:
            offer = {"id": item.id, "kind": "scan", "size": len(content), "sha256": item.sha256, "meta": {}}
            said = [b'HELLO {"proto": "fr-link/1", "node": "pacs-1"}', b"OFFER " + json.dumps(offer).encode()]
            for number in range(4):
                place = {"id": item.id, "offset": number * 2**20, "size": 2**20}
                said.append(b"DATA " + json.dumps(place).encode())
                said.append(content[: 2**20])
            assert self.transport is not None
            for words, raw in zip(said[:2], (b"", b""), strict=True):
                self.transport.write(words + b"\n" + raw)
            for words, raw in zip(said[2::2], said[3::2], strict=True):
                self.transport.write(words + b"\n" + raw)

        def dataReceived(self, data: bytes) -> None:
            heard.append(data)
            if b"BYE" in data:
                assert self.transport is not None
                self.transport.loseConnection()

        def connectionLost(self, reason: Any = None) -> None:
            ended.callback(reason.type)

    try:
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
        await connectProtocol(endpoint, Raw())
        await until(lambda: len(pair.intake.held) == 1)
        await pause(0.2)
        await pair.receivers.drain(1.0)
        assert await ended is ConnectionDone
        assert b'"shutdown"' in b"".join(heard)
    finally:
        pair.intake.release()
        await port.stopListening()


async def test_comes_back_after_a_cut() -> None:
    """A receiver that drops every connection a few times still gets the item once."""
    content = hashlib.shake_256(b"scan").digest(8 * 1024 * 1024)
    pair = Pair(MemoryOutbox((make_item(content), content)))
    cuts = 0
    offered = pair.intake.offered

    def cutting(node: str, item: Item) -> Deferred[Any]:
        nonlocal cuts
        verdict: Deferred[Any] = offered(node, item)
        if cuts < 3:
            cuts += 1
            for connection in list(pair.receivers.connections):
                reactor.callLater(0.005, connection.drop)
        return verdict

    pair.intake.offered = cutting  # type: ignore[method-assign]
    try:
        await pair.start(tcp(), "tcp:127.0.0.1:{port}")
        await until(lambda: pair.intake.stored)
        assert pair.intake.stored == [("item-1", content)]
    finally:
        await pair.stop()


@pytest.mark.parametrize("proven", [True, False])
async def test_tls_both_ways(tmp_path: Path, proven: bool) -> None:
    """Over TLS items go between proven peers; one of another authority is never greeted, and keeps its item."""
    authority = Authority(tmp_path / "ca")
    server = authority.sign("localhost")
    ours = (
        Authority(tmp_path / "clients", "clients").sign("pacs-1") if not proven else authority.sign("pacs-1")
    )
    options = ssl.PrivateCertificate.loadPEM(server.both.read_bytes()).options(
        ssl.Certificate.loadPEM(authority.file.read_bytes())
    )
    trust = tmp_path / "trust"
    trust.mkdir()
    shutil.copy(authority.file, trust)
    client = f"tls:localhost:{{port}}:trustRoots={trust}:certificate={ours.certificate}:privateKey={ours.key}"
    content = bytes(3 * 1024 * 1024)
    pair = Pair(MemoryOutbox((make_item(content), content)))
    try:
        await pair.start(wrapServerTLS(options, tcp()), client)
        if proven:
            await until(pair.outbox.outcomes)
            assert pair.outbox.outcomes() == [("acknowledged", "item-1", False)]
        else:
            await pause(1.0)
            assert (pair.intake.stored, pair.outbox.events, len(pair.outbox.items)) == ([], [], 1)
    finally:
        await pair.stop()
