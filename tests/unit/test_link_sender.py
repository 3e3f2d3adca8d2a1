"""The sending side of the link against a transport of strings."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.link.interfaces import IOutbox
from fr_twisted.link.protocol import LinkTimes
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderProtocol, SenderService
from tests.fakes_link import MemoryOutbox, make_item
from tests.unit.test_link_receiver import Transport, frames

LIMITS = {"proto": "fr-link/1", "node": "hub", "window": 8, "chunk": 4, "max_item": 100}


def say(verb: str, **members: Any) -> bytes:
    """Return a frame of the receiver."""
    return f"{verb} {json.dumps(members)}\n".encode()


class SenderCase(SynchronousTestCase):
    """A sender that has one item of ten bytes."""

    def setUp(self) -> None:
        """Connect."""
        self.clock = Clock()
        self.item = make_item(b"0123456789")
        self.outbox = MemoryOutbox((self.item, b"0123456789"))
        self.factory = ReconnectingSenderFactory("pacs-1", self.outbox, self.clock, jitter=lambda: 0.0)
        self.protocol, self.transport = self.connect()

    def connect(self) -> tuple[SenderProtocol, Transport]:
        """Return a new connection."""
        protocol, transport = self.factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def hear(self, *parts: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Let the receiver say something; return what is said, raw bytes left out."""
        for part in parts:
            self.protocol.dataReceived(part)
        raw = self.transport.value()
        self.transport.clear()
        said = []
        while raw:
            line, raw = raw.split(b"\n", 1)
            verb, body = line.split(b" ", 1)
            said.append((verb.decode(), json.loads(body)))
            if verb == b"DATA":
                raw = raw[said[-1][1]["size"] :]
        return said

    def assertCutOff(self, code: str, *parts: bytes) -> None:
        """Assert that these words of a receiver get one BYE with ``code``, and the item is kept for later."""
        said = self.hear(*parts)
        self.assertEqual([body["code"] for verb, body in said if verb == "BYE"], [code])
        self.assertEqual(self.hear(b"PING {}\n"), [])
        self.clock.advance(LinkTimes().linger)
        self.assertTrue(self.transport.aborted)
        self.assertNotIn("acknowledged", [event[0] for event in self.outbox.events])
        self.assertEqual(self.flushLoggedErrors(), [])

    def to_sending(self) -> None:
        """Bring the connection to where two chunks are sent."""
        self.assertEqual([v for v, _ in self.hear(say("HELLO", **LIMITS))], ["HELLO", "OFFER"])
        self.assertEqual([v for v, _ in self.hear(say("GO", id="item-1", offset=0))], ["DATA", "DATA"])


class SendingTests(SenderCase):
    """The way of an item."""

    def test_fakeProvidesTheInterface(self) -> None:
        """The twin used here is what the interface asks for."""
        self.assertTrue(verifyObject(IOutbox, self.outbox))

    def test_waitsForHello(self) -> None:
        """Nothing is said before the receiver's HELLO: it may not be who we think."""
        self.assertEqual(self.transport.value(), b"")

    def test_window(self) -> None:
        """No more than the window is sent before KEPT moves it."""
        self.to_sending()
        self.assertEqual(
            self.hear(say("KEPT", id="item-1", offset=4)),
            [("DATA", {"id": "item-1", "offset": 8, "size": 2})],
        )

    def test_acknowledged(self) -> None:
        """ACK lets the outbox forget the item."""
        self.to_sending()
        self.hear(say("KEPT", id="item-1", offset=8), say("ACK", id="item-1", sha256=self.item.sha256))
        self.assertEqual(self.outbox.outcomes(), [("acknowledged", "item-1", False)])

    def test_duplicate(self) -> None:
        """A duplicate is settled without its bytes."""
        self.hear(say("HELLO", **LIMITS), say("ACK", id="item-1", sha256=self.item.sha256, duplicate=True))
        self.assertEqual(self.outbox.outcomes(), [("acknowledged", "item-1", True)])

    def test_resume(self) -> None:
        """GO with an offset begins there."""
        self.hear(say("HELLO", **LIMITS))
        self.assertEqual(
            self.hear(say("GO", id="item-1", offset=8)), [("DATA", {"id": "item-1", "offset": 8, "size": 2})]
        )

    def test_allDurable(self) -> None:
        """GO at the end means that only the commit was missing."""
        self.hear(say("HELLO", **LIMITS))
        self.assertEqual(
            self.hear(say("GO", id="item-1", offset=10), say("ACK", id="item-1", sha256=self.item.sha256)), []
        )
        self.assertEqual(self.outbox.outcomes(), [("acknowledged", "item-1", False)])

    def test_refusedForGood(self) -> None:
        """NACK for good is told to the outbox, and the next item is offered."""
        self.outbox.add(make_item(b"x", "item-2"), b"x")
        self.hear(say("HELLO", **LIMITS))
        said = self.hear(say("NACK", id="item-1", code="conflict", retry=False, reason="other bytes"))
        self.assertEqual(self.outbox.outcomes(), [("refused", "item-1", "conflict")])
        self.assertEqual([(v, b["id"]) for v, b in said], [("OFFER", "item-2")])

    def test_refusedForNow(self) -> None:
        """NACK for now in the middle stops the item, which the outbox offers again."""
        self.to_sending()
        said = self.hear(say("NACK", id="item-1", code="not-kept", retry=True, reason="store"))
        self.assertEqual(self.outbox.outcomes(), [("deferred", "item-1", "not-kept")])
        self.assertEqual([v for v, _ in said], ["OFFER"])

    def test_laterItem(self) -> None:
        """An item that comes while the link is idle is offered at once."""
        self.outbox.items.clear()
        self.hear(say("HELLO", **LIMITS))
        self.outbox.add(make_item(b"x", "item-2"), b"x")
        self.assertEqual([(v, b["id"]) for v, b in self.hear()], [("OFFER", "item-2")])

    def test_connectionLost(self) -> None:
        """A cut gives the item back."""
        self.to_sending()
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.outbox.outcomes(), [("deferred", "item-1", "connection-lost")])
        self.assertEqual(self.outbox.items, [self.item])

    def test_bye(self) -> None:
        """BYE gives the item back with its code, and closes."""
        self.to_sending()
        self.hear(say("BYE", code="shutdown", reason="stopping"))
        self.assertTrue(self.transport.disconnecting)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.outbox.outcomes(), [("deferred", "item-1", "shutdown")])

    def test_unreadable(self) -> None:
        """An item that can no longer be read is given back, and the link begun anew."""
        self.hear(say("HELLO", **LIMITS))
        self.outbox.unreadable = True
        self.outbox.retry = False
        said = self.hear(say("GO", id="item-1", offset=0))
        self.assertEqual([(v, b["code"]) for v, b in said], [("BYE", "item-gone")])
        self.assertEqual(self.outbox.outcomes(), [("deferred", "item-1", "unreadable")])

    def test_cannotBeOffered(self) -> None:
        """An item whose facts do not fit into a frame is refused here, and the next one goes on."""
        big = make_item(b"x", "big", text="y" * 20000)
        self.outbox.items = [big, self.item]
        said = self.hear(say("HELLO", **LIMITS))
        self.assertEqual([b.get("id") for v, b in said if v == "OFFER"], ["item-1"])
        self.assertEqual(self.outbox.outcomes(), [("refused", "big", "bad-item")])

    def test_lateUnreadable(self) -> None:
        """A read that fails after its item was refused does not hold up the next item."""
        late: Deferred[bytes] = Deferred()
        read, self.outbox.read = self.outbox.read, lambda *_: late  # type: ignore[method-assign]
        self.outbox.retry = False
        self.hear(say("HELLO", **LIMITS), say("GO", id="item-1", offset=0))
        self.outbox.add(make_item(b"abcd", "item-2"), b"abcd")
        self.outbox.read = read  # type: ignore[method-assign]
        self.hear(say("NACK", id="item-1", code="full", retry=True), say("GO", id="item-2", offset=0))
        late.errback(OSError("closed"))
        self.assertEqual([(v, b["id"]) for v, b in self.hear()], [("DATA", "item-2")])

    def test_staleRead(self) -> None:
        """Bytes read for an offer that was refused are not sent for the next offer of the same item."""
        late: Deferred[bytes] = Deferred()
        read, self.outbox.read = self.outbox.read, lambda *_: late  # type: ignore[method-assign]
        self.hear(say("HELLO", **LIMITS), say("GO", id="item-1", offset=0))
        self.outbox.read = read  # type: ignore[method-assign]
        self.hear(say("NACK", id="item-1", code="full", retry=True))
        late.callback(b"0123")
        self.assertEqual(self.hear(), [])
        self.assertEqual([v for v, _ in self.hear(say("GO", id="item-1", offset=8))], ["DATA"])

    def test_otherNode(self) -> None:
        """A sender whose items are for one node gives nothing to another that answers at its address."""
        self.factory.expects = "pacs-7"
        said = self.hear(say("HELLO", **LIMITS))
        self.assertEqual([(v, b["code"]) for v, b in said], [("BYE", "node-refused")])
        self.assertEqual(len(self.outbox.items), 1)

    def test_idleWhenLost(self) -> None:
        """A cut while idle gives up the request for the next item."""
        self.outbox.items.clear()
        self.hear(say("HELLO", **LIMITS))
        self.assertIsNotNone(self.outbox.waiting)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIsNone(self.outbox.waiting)


class MisbehaviourTests(SenderCase):
    """Receivers that do not keep the rules get one BYE and are cut off."""

    def test_notOurProtocol(self) -> None:
        """A port that speaks something else."""
        self.assertCutOff("unknown-verb", b"SSH-2.0-OpenSSH_9.2\r\n")

    def test_otherVersion(self) -> None:
        """A receiver of another version."""
        self.assertCutOff("protocol-version", say("HELLO", **(LIMITS | {"proto": "fr-link/9"})))

    def test_goBeforeHello(self) -> None:
        """GO before HELLO."""
        self.assertCutOff("out-of-order", say("GO", id="item-1", offset=0))

    def test_noVersion(self) -> None:
        """A HELLO that does not say its protocol."""
        self.assertCutOff("bad-frame", say("HELLO", node="hub", window=8, chunk=4, max_item=100))

    def test_helloTwice(self) -> None:
        """A second HELLO."""
        self.assertCutOff("out-of-order", say("HELLO", **LIMITS) * 2)

    def test_windowBelowChunk(self) -> None:
        """A window in which no chunk fits."""
        self.assertCutOff("bad-size", say("HELLO", **(LIMITS | {"window": 3})))

    def test_goForAnother(self) -> None:
        """GO for an item that was not offered."""
        self.assertCutOff("out-of-order", say("HELLO", **LIMITS), say("GO", id="other", offset=0))

    def test_goBeyondTheEnd(self) -> None:
        """GO at an offset that the item does not have."""
        self.assertCutOff("bad-offset", say("HELLO", **LIMITS), say("GO", id="item-1", offset=12))

    def test_goInAChunk(self) -> None:
        """GO at an offset between chunks."""
        self.assertCutOff("bad-offset", say("HELLO", **LIMITS), say("GO", id="item-1", offset=3))

    def test_keptWhatWasNotSent(self) -> None:
        """KEPT of bytes that were not sent."""
        self.to_sending()
        self.assertCutOff("bad-offset", say("KEPT", id="item-1", offset=10))

    def test_keptBackwards(self) -> None:
        """KEPT of less than before."""
        self.to_sending()
        self.hear(say("KEPT", id="item-1", offset=8))
        self.assertCutOff("bad-offset", say("KEPT", id="item-1", offset=4))

    def test_ackTooEarly(self) -> None:
        """ACK before all bytes were sent does not count as kept."""
        self.to_sending()
        self.assertCutOff("out-of-order", say("ACK", id="item-1", sha256=self.item.sha256))

    def test_ackOfOtherBytes(self) -> None:
        """ACK with another digest does not count as kept."""
        self.assertCutOff(
            "sha256-mismatch",
            say("HELLO", **LIMITS),
            say("ACK", id="item-1", sha256="0" * 64, duplicate=True),
        )

    def test_overlongLine(self) -> None:
        """A line that does not end."""
        self.assertCutOff("line-too-long", b"x" * 20000)

    def test_sendersVerb(self) -> None:
        """A word of our side."""
        self.assertCutOff("out-of-order", say("HELLO", **LIMITS), b'OFFER {"id":"a"}\n')

    def test_silence(self) -> None:
        """A receiver of which nothing is heard is pinged, then cut off."""
        self.to_sending()
        self.clock.pump([1.0] * 61)
        said = [(v, b.get("code")) for v, b in self.hear()]
        self.assertEqual(said, [("PING", None), ("PING", None), ("BYE", "silence")])

    def test_neverHello(self) -> None:
        """A receiver that accepts and says nothing is left after the time for the handshake."""
        self.clock.pump([1.0] * 11)
        self.assertEqual([(v, b["code"]) for v, b in frames(self.transport)], [("BYE", "silence")])


class FakeEndpoint:
    """An endpoint whose connections the test makes."""

    def __init__(self) -> None:
        self.attempts: list[tuple[Deferred[Any], Factory]] = []

    def connect(self, factory: Factory) -> Deferred[Any]:
        """Note the attempt."""
        waiting: Deferred[Any] = Deferred()
        self.attempts.append((waiting, factory))
        return waiting


class ReconnectTests(SynchronousTestCase):
    """`SenderService` and the backoff of its factory."""

    def setUp(self) -> None:
        """Make a service that dials."""
        self.clock = Clock()
        self.endpoint = FakeEndpoint()
        self.outbox = MemoryOutbox()
        self.factory = ReconnectingSenderFactory("pacs-1", self.outbox, self.clock, jitter=lambda: 0.0)
        self.service = SenderService(self.endpoint, self.factory)  # type: ignore[arg-type]
        self.service.startService()

    def establish(self, hello: bool) -> tuple[Any, Transport]:
        """Let the newest attempt succeed."""
        waiting, factory = self.endpoint.attempts[-1]
        protocol: Any = factory.buildProtocol(None)
        transport = Transport()
        protocol.makeConnection(transport)
        waiting.callback(protocol)
        if hello:
            protocol.dataReceived(say("HELLO", **LIMITS))
        return protocol, transport

    def delay(self) -> float:
        """Return the seconds until the next attempt."""
        before, seconds = len(self.endpoint.attempts), 0.0
        while len(self.endpoint.attempts) == before:
            self.clock.advance(0.5)
            seconds += 0.5
            self.assertLess(seconds, 100)
        return seconds

    def test_backsOffWithoutHello(self) -> None:
        """Connections that drop before HELLO are dialled ever more slowly, up to 30 s."""
        delays = []
        for _ in range(7):
            protocol, _ = self.establish(hello=False)
            protocol.connectionLost(Failure(ConnectionLost()))
            delays.append(self.delay())
        self.assertEqual(delays, [1, 2, 4, 8, 16, 30, 30])

    def test_helloResets(self) -> None:
        """A connection that was welcomed is dialled again soon."""
        for _ in range(4):
            protocol, _ = self.establish(hello=False)
            protocol.connectionLost(Failure(ConnectionLost()))
            self.delay()
        protocol, _ = self.establish(hello=True)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.delay(), 1)

    def test_jitterShortens(self) -> None:
        """Chance takes up to a quarter of a delay, so that many nodes do not come back as one."""
        factory = ReconnectingSenderFactory("a", self.outbox, self.clock, jitter=lambda: 1.0)
        self.assertEqual([factory.retry_policy(0) for _ in range(6)], [0.75, 1.5, 3, 6, 12, 22.5])

    def test_whenReady(self) -> None:
        """`when_ready` fires on HELLO, not on the connection; at once when it was said."""
        ready = self.factory.when_ready()
        self.establish(hello=False)[0].dataReceived(b"")
        self.assertNoResult(ready)
        self.factory.connection.dataReceived(say("HELLO", **LIMITS))  # type: ignore[union-attr]
        self.assertEqual(self.successResultOf(ready), "hub")
        self.assertEqual(self.successResultOf(self.factory.when_ready()), "hub")

    def test_whenReadyGivenUp(self) -> None:
        """A cancelled `when_ready` is forgotten."""
        ready = self.factory.when_ready()
        ready.cancel()
        self.failureResultOf(ready)
        self.establish(hello=True)

    def test_stopSaysBye(self) -> None:
        """Stopping says BYE and waits for the connection to end."""
        protocol, transport = self.establish(hello=True)
        frames(transport)
        stopping = self.service.stopService()
        self.assertEqual([(v, b["code"]) for v, b in frames(transport)], [("BYE", "done")])
        self.assertNoResult(stopping)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(stopping)

    def test_stopIsBounded(self) -> None:
        """A peer that does not take our last bytes is dropped at the deadline."""
        _, transport = self.establish(hello=True)
        self.service.stopService()
        self.clock.advance(2.0)
        self.assertTrue(transport.aborted)
