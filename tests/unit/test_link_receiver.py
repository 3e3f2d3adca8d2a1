"""The receiving side of the link, byte by byte against a transport of strings."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from fr_twisted.link.interfaces import (
    Duplicate,
    IIntake,
    Item,
    ITransfer,
    Refuse,
    RefusedError,
    Verdict,
)
from fr_twisted.link.protocol import MOST_UNHEARD, LinkTimes
from fr_twisted.link.receiver import ReceiverProtocol
from fr_twisted.link.receiver_factory import ReceiverFactory
from tests.fakes_link import MemoryIntake, make_item

HELLO = b'HELLO {"proto":"fr-link/1","node":"pacs-1"}\n'


class Transport(StringTransport):
    """A string transport that notes how it was closed."""

    aborted = False

    def abortConnection(self) -> None:
        """Note it."""
        self.aborted = True
        super().abortConnection()


class TlsTransport(Transport):
    """A transport that has a handshake to complete."""

    def __init__(self) -> None:
        super().__init__()
        self.options: list[str] = []
        directlyProvides(self, ISSLTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Note it."""
        self.options.append("nodelay")

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Note it."""
        self.options.append("keepalive")


def frames(transport: StringTransport) -> list[tuple[str, dict[str, Any]]]:
    """Return and forget what was said: verb and members of each frame."""
    lines = transport.value().split(b"\n")[:-1]
    transport.clear()
    return [(verb.decode(), json.loads(body)) for verb, body in (line.split(b" ", 1) for line in lines)]


def offer(item: Item) -> bytes:
    """Return the OFFER of an item."""
    body = {
        "id": item.id,
        "kind": item.kind,
        "size": item.size,
        "sha256": item.sha256,
        "meta": dict(item.meta),
    }
    return b"OFFER " + json.dumps(body).encode() + b"\n"


def data(item: Item, offset: int, chunk: bytes) -> bytes:
    """Return a DATA frame with its bytes."""
    return (
        b"DATA " + json.dumps({"id": item.id, "offset": offset, "size": len(chunk)}).encode() + b"\n" + chunk
    )


class ReceiverCase(SynchronousTestCase):
    """A receiver with chunks of 4 bytes and a window of 8, welcomed."""

    def setUp(self) -> None:
        """Connect."""
        self.clock = Clock()
        self.intake = MemoryIntake()
        self.factory = self.make_factory()
        self.protocol, self.transport = self.connect()
        self.content = b"0123456789"
        self.item = make_item(self.content)

    def make_factory(self, **changes: Any) -> ReceiverFactory:
        """Return a factory with small limits."""
        settings: dict[str, Any] = {"window": 2, "chunk": 4, "memory": 64, "max_item": 100} | changes
        return ReceiverFactory("hub", self.intake, self.clock, **settings)

    def connect(self, hello: bytes = HELLO) -> tuple[ReceiverProtocol, Transport]:
        """Return a new connection whose sender said ``hello``."""
        protocol, transport = self.factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        if hello:
            protocol.dataReceived(hello)
            transport.clear()
        return protocol, transport

    def feed(self, *parts: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Let the sender say something; return the answers."""
        for part in parts:
            self.protocol.dataReceived(part)
        return frames(self.transport)

    def assertCutOff(self, code: str, *parts: bytes) -> None:
        """Assert that these words of a sender get one BYE with ``code``, and nothing is heard after it."""
        said = self.feed(*parts)
        self.assertEqual([verb for verb, _ in said if verb == "BYE"], ["BYE"], said)
        self.assertEqual(said[-1][0], "BYE")
        self.assertEqual(said[-1][1]["code"], code)
        self.assertTrue(said[-1][1]["reason"])
        self.assertEqual(self.feed(b"PING {}\n", offer(make_item(b"later", "later"))), [])
        self.clock.advance(LinkTimes().linger)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.flushLoggedErrors(), [])


class GreetingTests(ReceiverCase):
    """The first words."""

    def test_receiverSpeaksFirst(self) -> None:
        """The receiver says HELLO with its limits before it heard anything."""
        _, transport = self.connect(hello=b"")
        self.assertEqual(
            frames(transport),
            [("HELLO", {"proto": "fr-link/1", "node": "hub", "window": 8, "chunk": 4, "max_item": 100})],
        )

    def test_tlsFirst(self) -> None:
        """With TLS nothing is said before the handshake is complete."""
        protocol, transport = self.factory.buildProtocol(None), TlsTransport()
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), b"")
        protocol.handshakeCompleted()
        self.assertEqual(frames(transport)[0][0], "HELLO")

    def test_otherProtocol(self) -> None:
        """A sender of another version of the protocol is told so."""
        self.protocol, self.transport = self.connect(b"")
        frames(self.transport)
        self.assertCutOff("protocol-version", b'HELLO {"proto":"fr-link/2","node":"pacs-1"}\n')

    def test_nodeRefused(self) -> None:
        """A node that the intake does not welcome is told why."""
        self.intake.unwelcome = "not in the list of nodes"
        self.protocol, self.transport = self.connect(b"")
        frames(self.transport)
        self.assertCutOff("node-refused", HELLO)

    def test_noHello(self) -> None:
        """A peer that says nothing is cut off after the time for the handshake."""
        self.protocol, self.transport = self.connect(b"")
        frames(self.transport)
        self.clock.pump([1.0] * 11)
        self.assertEqual(
            [body["code"] for verb, body in frames(self.transport) if verb == "BYE"], ["silence"]
        )

    def test_frameBeforeHello(self) -> None:
        """Anything but HELLO first is out of order."""
        self.protocol, self.transport = self.connect(b"")
        frames(self.transport)
        self.assertCutOff("out-of-order", offer(self.item))

    def test_helloTwice(self) -> None:
        """A second HELLO is out of order."""
        self.assertCutOff("out-of-order", HELLO)

    def test_tooManyConnections(self) -> None:
        """Beyond its limit of connections a receiver says so at once, and later has room again."""
        self.factory.door.most = 1
        _, transport = self.connect(b"")
        self.assertEqual(
            [(verb, body["code"]) for verb, body in frames(transport)], [("BYE", "node-refused")]
        )


class MisbehaviourTests(ReceiverCase):
    """Senders that do not keep the rules get one BYE and are cut off."""

    def test_overlongLine(self) -> None:
        """A line that does not end is cut off at the limit."""
        self.assertCutOff("line-too-long", b"OFFER " + b"x" * 20000)

    def test_overlongEndedLine(self) -> None:
        """A line over the limit that ends is refused as well."""
        self.assertCutOff("line-too-long", b"PING " + b"x" * 20000 + b"\n")

    def test_lineThatTrickles(self) -> None:
        """A line that comes byte by byte is cut off after a minute, however often a byte comes."""
        for _ in range(59):
            self.clock.pump([1.0])
            self.protocol.dataReceived(b"O")
        self.assertNotIn("BYE", [verb for verb, _ in frames(self.transport)])
        self.clock.pump([1.0] * 2)
        self.assertIn("BYE", [verb for verb, _ in frames(self.transport)])

    def test_linesInTime(self) -> None:
        """A sender whose lines come in pieces, each in time, is heard for ever."""
        for _ in range(100):
            self.protocol.dataReceived(b"G {}\nPIN" if _ else b"PIN")
            self.clock.pump([1.0])
        self.assertNotIn("BYE", [verb for verb, _ in frames(self.transport)])

    def test_doesNotRead(self) -> None:
        """A peer that reads nothing of what it is told is dropped when the transport's buffer is full."""
        assert self.transport.producer is not None
        self.transport.producer.pauseProducing()
        self.assertTrue(self.transport.aborted)

    def test_byeDoesNotWait(self) -> None:
        """A connection that ends in order is not kept open by what watches its buffer."""
        self.feed(b'BYE {"code":"done","reason":""}\n')
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)

    def test_poursOn(self) -> None:
        """A stranger that pours on after its BYE is dropped at once; a sender may have had chunks on their way."""
        self.feed(b"nonsense\n", b"x" * 100_000)
        self.assertFalse(self.transport.aborted)
        self.feed(b"x" * MOST_UNHEARD)
        self.assertTrue(self.transport.aborted)
        self.protocol, self.transport = self.connect(b"")
        self.feed(b"nonsense\n", b"x" * 100_000)
        self.assertTrue(self.transport.aborted)

    def test_notJson(self) -> None:
        """What is not a JSON object is a bad frame."""
        self.assertCutOff("bad-frame", b"OFFER not json\n")

    def test_unknownVerb(self) -> None:
        """A word that the protocol does not have."""
        self.assertCutOff("unknown-verb", b"GET / HTTP/1.1\r\n")

    def test_receiversVerb(self) -> None:
        """A word of the other side is out of order."""
        self.assertCutOff("out-of-order", b'GO {"id":"a","offset":0}\n')

    def test_dataWithoutOffer(self) -> None:
        """DATA that nobody asked for."""
        self.assertCutOff("out-of-order", data(self.item, 0, b"0123"))

    def test_offerWhileReceiving(self) -> None:
        """A second OFFER before the first was answered for good."""
        self.feed(offer(self.item))
        self.assertCutOff("out-of-order", offer(make_item(b"other", "other")))
        self.assertTrue(self.intake.transfers[0].was_cut)

    def test_wrongId(self) -> None:
        """DATA of another item than the one on its way."""
        self.feed(offer(self.item))
        self.assertCutOff("out-of-order", data(make_item(b"0123", "other"), 0, b"0123"))

    def test_wrongOffset(self) -> None:
        """DATA at another offset than the next."""
        self.feed(offer(self.item))
        self.assertCutOff("bad-offset", data(self.item, 4, b"4567"))

    def test_shortChunk(self) -> None:
        """A chunk that is not the last and not of the chunk size."""
        self.feed(offer(self.item))
        self.assertCutOff("bad-size", data(self.item, 0, b"01"))

    def test_moreThanOffered(self) -> None:
        """A last chunk that reaches beyond the offered size."""
        self.feed(offer(self.item), data(self.item, 0, b"0123"), data(self.item, 4, b"4567"))
        self.assertCutOff("bad-size", data(self.item, 8, b"89ab"))

    def test_dataAfterTheEnd(self) -> None:
        """DATA after the last offered byte, while the item is being kept."""
        self.intake.holding = True
        item = make_item(b"0123")
        self.feed(offer(item), data(item, 0, b"0123"))
        self.assertCutOff("bad-size", data(item, 4, b"x"))
        self.assertEqual(self.intake.stored, [])

    def test_windowExceeded(self) -> None:
        """More unacknowledged bytes than the window."""
        self.intake.holding = True
        self.feed(offer(self.item), data(self.item, 0, b"0123"), data(self.item, 4, b"4567"))
        self.assertCutOff("window-exceeded", data(self.item, 8, b"89"))

    def test_wrongDigest(self) -> None:
        """Bytes that do not have the offered digest are forgotten and never visible."""
        self.feed(offer(self.item), data(self.item, 0, b"0123"), data(self.item, 4, b"4567"))
        self.assertCutOff("sha256-mismatch", data(self.item, 8, b"XX"))
        self.assertEqual((self.intake.stored, self.intake.chunks), ([], {}))

    def test_silence(self) -> None:
        """A sender of which nothing is heard is pinged, then cut off."""
        self.clock.pump([1.0] * 61)
        said = frames(self.transport)
        self.assertEqual([verb for verb, _ in said], ["PING", "PING", "BYE"])
        self.assertEqual(said[-1][1]["code"], "silence")

    def test_slowChunk(self) -> None:
        """A sender that trickles a chunk is cut off, though it is heard."""
        self.feed(offer(self.item), b'DATA {"id":"item-1","offset":0,"size":4}\n')
        for _ in range(3):
            self.feed(b"x")
            self.clock.pump([1.0] * 19)
        self.clock.pump([1.0] * 4)
        self.assertEqual(
            [body["code"] for verb, body in frames(self.transport) if verb == "BYE"], ["silence"]
        )

    def test_badMeta(self) -> None:
        """Numbers that are not JSON do not enter."""
        self.assertCutOff("bad-frame", offer(self.item).replace(b'"meta": {}', b'"meta": {"a": NaN}'))

    def test_silenceAsSet(self) -> None:
        """A link of little patience asks within it, and cuts off a peer that does not answer."""
        self.assertEqual(LinkTimes.with_silence(60.0), LinkTimes())
        self.factory = self.make_factory(times=LinkTimes.with_silence(3.0))
        self.protocol, self.transport = self.connect()
        for _ in range(35):
            self.clock.advance(0.1)
        said = frames(self.transport)
        self.assertEqual([verb for verb, _ in said], ["PING", "PING", "BYE"])
        self.assertEqual(said[-1][1]["code"], "silence")


class ItemTests(ReceiverCase):
    """The way of an item."""

    def test_fakesProvideTheInterfaces(self) -> None:
        """The twins used here are what the interfaces ask for."""
        self.feed(offer(self.item))
        self.assertTrue(verifyObject(IIntake, self.intake))
        self.assertTrue(verifyObject(ITransfer, self.intake.transfers[0]))

    def test_wholeWay(self) -> None:
        """OFFER, GO, DATA, KEPT, ACK; then the bytes are stored once."""
        self.assertEqual(self.feed(offer(self.item)), [("GO", {"id": "item-1", "offset": 0})])
        said = self.feed(data(self.item, 0, b"0123"), data(self.item, 4, b"4567"), data(self.item, 8, b"89"))
        self.assertEqual(
            [(verb, body.get("offset")) for verb, body in said],
            [("KEPT", 4), ("KEPT", 8), ("KEPT", 10), ("ACK", None)],
        )
        self.assertEqual(said[-1][1], {"id": "item-1", "sha256": self.item.sha256, "duplicate": False})
        self.assertEqual(self.intake.stored, [("item-1", self.content)])

    def test_emptyItem(self) -> None:
        """An item without bytes is kept as well."""
        item = make_item(b"")
        self.assertEqual([verb for verb, _ in self.feed(offer(item))], ["GO", "ACK"])
        self.assertEqual(self.intake.stored, [("item-1", b"")])

    def test_notAckedUntilStored(self) -> None:
        """KEPT and ACK are said when the intake's Deferred fires, and not before."""
        self.intake.holding = True
        item = make_item(b"01234567")
        self.assertEqual(
            [verb for verb, _ in self.feed(offer(item), data(item, 0, b"0123"), data(item, 4, b"4567"))],
            ["GO"],
        )
        self.intake.release()
        self.assertEqual(frames(self.transport), [("KEPT", {"id": "item-1", "offset": 4})])
        self.intake.release()
        self.assertEqual([verb for verb, _ in frames(self.transport)], ["KEPT"])
        self.assertEqual(self.intake.stored, [])
        self.intake.release()
        self.assertEqual([verb for verb, _ in frames(self.transport)], ["ACK"])
        self.assertEqual(len(self.intake.stored), 1)

    def test_keptIsCumulative(self) -> None:
        """A later chunk that is durable first is not reported before the earlier one."""
        self.intake.holding = True
        self.feed(offer(self.item), data(self.item, 0, b"0123"), data(self.item, 4, b"4567"))
        self.intake.release(last=True)
        self.assertEqual(frames(self.transport), [])
        self.intake.release()
        self.assertEqual(frames(self.transport), [("KEPT", {"id": "item-1", "offset": 8})])

    def test_duplicate(self) -> None:
        """An item that is stored is acknowledged again without its bytes."""
        self.intake.stored.append(("item-1", self.content))
        self.assertEqual(
            self.feed(offer(self.item)),
            [("ACK", {"id": "item-1", "sha256": self.item.sha256, "duplicate": True})],
        )

    def test_conflict(self) -> None:
        """The same id with other bytes is refused for good."""
        self.intake.stored.append(("item-1", b"other"))
        [(verb, body)] = self.feed(offer(self.item))
        self.assertEqual((verb, body["code"], body["retry"]), ("NACK", "conflict", False))

    def test_refusedForNow(self) -> None:
        """What the intake refuses for now is told so, and the connection goes on."""
        self.intake.refuse = Refuse("full", "the disk is full", retry=True)
        [(verb, body)] = self.feed(offer(self.item))
        self.assertEqual(
            (verb, body["code"], body["retry"], body["reason"]), ("NACK", "full", True, "the disk is full")
        )
        self.intake.refuse = None
        self.assertEqual(self.feed(offer(self.item))[0][0], "GO")

    def test_tooLarge(self) -> None:
        """An item over the limit is refused for good without asking the intake."""
        [(verb, body)] = self.feed(offer(make_item(b"x" * 101)))
        self.assertEqual((verb, body["code"], body["retry"]), ("NACK", "too-large", False))
        self.assertEqual(self.intake.transfers, [])

    def test_resume(self) -> None:
        """After a cut the item goes on from the durable offset, and is verified as a whole."""
        self.feed(
            offer(self.item), data(self.item, 0, b"0123"), b'DATA {"id":"item-1","offset":4,"size":4}\n45'
        )
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.protocol, self.transport = self.connect()
        self.assertEqual(self.feed(offer(self.item)), [("GO", {"id": "item-1", "offset": 4})])
        self.assertEqual(self.feed(data(self.item, 4, b"4567"), data(self.item, 8, b"89"))[-1][0], "ACK")
        self.assertEqual(self.intake.stored, [("item-1", self.content)])
        self.assertEqual(self.factory.room.tokens, 16)

    def test_storeFails(self) -> None:
        """A store that fails is a refusal for now; the chunks under way are let fall, the connection goes on."""
        self.feed(offer(self.item))
        self.intake.failures.append(OSError("disk"))
        [(verb, body)] = self.feed(data(self.item, 0, b"0123"))
        self.assertEqual((verb, body["retry"], body["code"]), ("NACK", True, "not-kept"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.feed(data(self.item, 4, b"4567")), [])
        self.assertEqual(self.feed(offer(self.item)), [("GO", {"id": "item-1", "offset": 0})])
        self.assertEqual(
            self.feed(*(data(self.item, i, self.content[i : i + 4]) for i in (0, 4, 8)))[-1][0], "ACK"
        )
        self.assertEqual(self.factory.room.tokens, 16)

    def test_commitRefused(self) -> None:
        """What the transfer refuses at its end is refused with its code."""
        item = make_item(b"0123")
        self.feed(offer(item))
        self.intake.holding = True
        self.feed(data(item, 0, b"0123"))
        self.intake.failures.append(RefusedError("conflict", "another was faster", retry=False))
        self.intake.release()
        self.assertEqual(
            [(v, b.get("code")) for v, b in frames(self.transport)], [("KEPT", None), ("NACK", "conflict")]
        )

    def test_storeHangs(self) -> None:
        """A store that never answers is a refusal for now after its time, and no late word follows."""
        self.intake.holding = True
        self.feed(offer(self.item), data(self.item, 0, b"0123"))
        for _ in range(12):
            self.clock.pump([1.0] * 10)
            self.feed(b"PING {}\n")
        self.clock.pump([1.0])
        self.assertEqual(self.protocol.state.name, "IDLE")
        self.flushLoggedErrors()

    def test_memoryIsBounded(self) -> None:
        """Beyond the node's memory for chunks in flight a sender is paused until another's chunk is kept."""
        self.factory = self.make_factory(memory=4)
        self.intake.holding = True
        first, transport_1 = self.connect()
        second, transport_2 = self.connect()
        other = make_item(b"abcd", "item-2")
        first.dataReceived(offer(self.item) + data(self.item, 0, b"0123"))
        second.dataReceived(offer(other) + data(other, 0, b"abcd"))
        self.assertEqual((transport_1.producerState, transport_2.producerState), ("producing", "paused"))
        self.intake.release()
        self.assertEqual(transport_2.producerState, "producing")
        self.intake.release()
        self.intake.release()
        self.assertEqual(frames(transport_2)[-1][0], "ACK")

    def test_pausedIsNotSilent(self) -> None:
        """A sender that we paused is not cut off for being silent."""
        self.factory = self.make_factory(memory=4, times=LinkTimes(store=1000.0))
        self.intake.holding = True
        first, _ = self.connect()
        second, transport = self.connect()
        other = make_item(b"abcd", "item-2")
        first.dataReceived(offer(self.item) + data(self.item, 0, b"0123"))
        second.dataReceived(offer(other) + data(other, 0, b"abcd"))
        for _ in range(20):
            self.clock.pump([1.0] * 10)
            first.dataReceived(b"PONG {}\n")
        self.intake.release(2)
        self.assertNotIn("BYE", [verb for verb, _ in frames(transport)])

    def test_trickleWhileOthersWait(self) -> None:
        """A sender that trickles a chunk is cut off sooner when another waits for its room."""
        self.factory = self.make_factory(memory=4)
        first, transport_1 = self.connect()
        second, transport_2 = self.connect()
        other = make_item(b"abcd", "item-2")
        first.dataReceived(offer(self.item) + b'DATA {"id":"item-1","offset":0,"size":4}\n')
        second.dataReceived(offer(other) + data(other, 0, b"abcd"))
        self.clock.pump([1.0] * 21)
        self.assertEqual(frames(transport_1)[-1][1]["code"], "silence")
        self.assertEqual(frames(transport_2)[-1][0], "ACK")

    def test_stallWhileOthersWait(self) -> None:
        """When another waits, who sends nothing has three seconds, and who is slow but steady twenty."""
        self.factory = self.make_factory(memory=20, chunk=20, window=1, max_item=100)
        stalled, transport_1 = self.connect()
        item = make_item(b"x" * 20)
        stalled.dataReceived(offer(item) + b'DATA {"id":"item-1","offset":0,"size":20}\n')
        steady, transport_2 = self.connect()
        other, third = make_item(b"y" * 20, "item-2"), make_item(b"z", "item-3")
        steady.dataReceived(offer(other) + b'DATA {"id":"item-2","offset":0,"size":20}\n')
        self.clock.pump([1.0] * 3)
        self.assertNotIn("BYE", [verb for verb, _ in frames(transport_1)])
        self.clock.pump([1.0])
        self.assertEqual(frames(transport_1)[-1][1]["code"], "silence")
        waiting, transport_3 = self.connect()
        waiting.dataReceived(offer(third) + data(third, 0, b"z"))
        for _ in range(20):
            steady.dataReceived(b"y")
            self.clock.pump([0.9])
        self.assertEqual(frames(transport_2)[-1][0], "ACK")
        self.assertEqual(frames(transport_3)[-1][0], "ACK")

    def test_announcedIsNotSent(self) -> None:
        """A chunk takes room only once its first part has come, whole and right however it is cut."""
        content = bytes(range(256))
        item = make_item(content)
        self.factory = self.make_factory(chunk=128, window=2, memory=128, max_item=1000)
        self.intake.holding = True
        trickling, _ = self.connect()
        other = make_item(b"other" * 10, "item-2")
        trickling.dataReceived(offer(other) + b'DATA {"id":"item-2","offset":0,"size":50}\n' + b"o")
        self.assertEqual(self.factory.room.tokens, 1)
        self.protocol, self.transport = self.connect()
        sent = offer(item) + data(item, 0, content[:128]) + data(item, 128, content[128:])
        for byte in sent:
            self.protocol.dataReceived(bytes([byte]))
        self.assertEqual(self.transport.producerState, "paused")
        trickling.dataReceived(b"t")
        trickling.dataReceived(b"her" + b"other" * 9)
        while self.intake.held:
            self.intake.release()
        self.assertEqual(frames(self.transport)[-1][0], "ACK")
        self.assertEqual(sorted(self.intake.stored), [("item-1", content), ("item-2", b"other" * 10)])
        self.assertEqual(self.factory.room.tokens, 1)

    def test_lostWhileWaiting(self) -> None:
        """A connection that is lost while its chunk waits for room leaves no trace."""
        self.factory = self.make_factory(memory=4)
        first, _ = self.connect()
        second, _ = self.connect()
        other = make_item(b"abcd", "item-2")
        first.dataReceived(offer(self.item) + b'DATA {"id":"item-1","offset":0,"size":4}\n0')
        second.dataReceived(offer(other) + data(other, 0, b"abcd"))
        second.connectionLost(Failure(ConnectionLost()))
        first.dataReceived(b"123")
        self.assertEqual(self.factory.room.tokens, 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_slowDecision(self) -> None:
        """An intake that has much to read back before it answers an offer gets the time for it."""
        decision: Deferred[Verdict] = Deferred()
        self.intake.offered = lambda *_: decision  # type: ignore[method-assign]
        self.feed(offer(self.item))
        for _ in range(60):
            self.clock.pump([1.0] * 10)
            self.protocol.dataReceived(b"PONG {}\n")
        self.assertNotIn("NACK", [verb for verb, _ in frames(self.transport)])
        decision.callback(Duplicate())
        self.assertEqual(frames(self.transport)[-1][0], "ACK")

    def test_roomIsReturned(self) -> None:
        """A connection that is lost in the middle of a chunk returns its room."""
        self.feed(offer(self.item), b'DATA {"id":"item-1","offset":0,"size":4}\n01')
        self.assertEqual(self.factory.room.tokens, 15)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.factory.room.tokens, 16)


class DrainTests(ReceiverCase):
    """A node that stops."""

    def test_idle(self) -> None:
        """An idle connection gets BYE at once."""
        self.factory.drain(5)
        self.assertEqual([(v, b["code"]) for v, b in frames(self.transport)], [("BYE", "shutdown")])
        self.assertTrue(self.transport.disconnecting)

    def test_receiving(self) -> None:
        """What is being kept is kept and reported before BYE."""
        self.intake.holding = True
        self.feed(offer(self.item), data(self.item, 0, b"0123"))
        self.factory.drain(5)
        self.assertEqual(frames(self.transport), [])
        self.intake.release()
        self.assertEqual([verb for verb, _ in frames(self.transport)], ["KEPT", "BYE"])

    def test_leavesWhileTheSenderSends(self) -> None:
        """After BYE to a sender whose bytes may be on their way, these are read until it closes, or it is cut off."""
        self.intake.holding = True
        self.feed(offer(self.item), data(self.item, 0, b"0123"))
        self.factory.drain(5)
        self.intake.release()
        self.assertEqual([verb for verb, _ in frames(self.transport)], ["KEPT", "BYE"])
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.feed(data(self.item, 4, b"4567")), [])
        self.assertEqual(self.intake.held, [])
        self.assertEqual(self.transport.producerState, "producing")
        self.clock.advance(LinkTimes().linger)
        self.assertTrue(self.transport.aborted)

    def test_committing(self) -> None:
        """An item whose bytes are all there is acknowledged before BYE."""
        self.intake.holding = True
        item = make_item(b"0123")
        self.feed(offer(item), data(item, 0, b"0123"))
        self.intake.release()
        self.factory.drain(5)
        self.intake.release()
        self.assertEqual([verb for verb, _ in frames(self.transport)], ["GO", "KEPT", "ACK", "BYE"][1:])

    def test_storeHangsAtTheEnd(self) -> None:
        """A connection whose store hangs is told BYE before the deadline, and cut by force at it."""
        self.intake.holding = True
        self.feed(offer(self.item), data(self.item, 0, b"0123"))
        self.factory.drain(5)
        self.clock.advance(4.4)
        self.assertEqual(frames(self.transport), [])
        self.clock.advance(0.2)
        self.assertEqual([verb for verb, _ in frames(self.transport)], ["BYE"])
        self.assertFalse(self.transport.aborted)
        self.clock.advance(0.4)
        self.assertTrue(self.transport.aborted)
        self.intake.release()
        self.assertEqual(frames(self.transport), [])
