"""Both sides of the link, connected by a wire that splits and cuts as Hypothesis likes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.link.interfaces import Item
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory
from tests.fakes_link import MemoryIntake, MemoryOutbox, Wire, make_item
from tests.unit.test_link_receiver import HELLO, Transport, data, frames, offer


class House:
    """A sender with items and a receiver, not yet connected."""

    def __init__(
        self, *contents: tuple[Item, bytes], window: int = 2, chunk: int = 4, memory: int = 64
    ) -> None:
        self.clock = Clock()
        self.intake = MemoryIntake()
        self.outbox = MemoryOutbox(*contents)
        self.receivers = ReceiverFactory(
            "hub", self.intake, self.clock, window=window, chunk=chunk, memory=memory
        )
        self.senders = ReconnectingSenderFactory("pacs-1", self.outbox, self.clock)

    def connect(self) -> Wire:
        """Return a new connection."""
        return Wire(self.receivers.buildProtocol(None), self.senders.buildProtocol(None))


CONTENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=3)


def named(contents: list[bytes]) -> list[tuple[Item, bytes]]:
    """Return items of these bytes."""
    return [(make_item(content, f"item-{n}"), content) for n, content in enumerate(contents)]


class PairTests(SynchronousTestCase):
    """What holds on every connection."""

    def test_severalItems(self) -> None:
        """Items go one after another over one connection, each stored once."""
        items = named([b"0123456789", b"", b"abcd"])
        house = House(*items)
        house.connect().flush()
        self.assertEqual(house.intake.stored, [(item.id, content) for item, content in items])
        self.assertEqual(house.outbox.outcomes(), [("acknowledged", item.id, False) for item, _ in items])

    @settings(deadline=None)
    @given(CONTENTS, st.integers(1, 3), st.integers(1, 9), st.lists(st.integers(1, 70), max_size=30))
    def test_anySplit(self, contents: list[bytes], window: int, chunk: int, sizes: list[int]) -> None:
        """However the bytes are split on their way, the same items are stored."""
        house = House(*named(contents), window=window, chunk=chunk)
        wire, limits = house.connect(), list(sizes)
        while wire.step(limits.pop() if limits else 7):
            pass
        self.assertEqual([content for _, content in house.intake.stored], contents)
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(deadline=None)
    @given(CONTENTS, st.lists(st.integers(0, 900), max_size=6), st.booleans())
    def test_cutAnywhere(self, contents: list[bytes], cuts: list[int], clean: bool) -> None:
        """A connection cut after any byte and made anew ends with each item stored exactly once."""
        house = House(*named(contents))
        for cut in [*cuts, None]:
            wire = house.connect()
            while cut is None or wire.delivered < cut:
                if not wire.step(None if cut is None else min(5, cut - wire.delivered)):
                    break
            if cut is not None:
                wire.cut(clean)
        self.assertEqual(
            sorted(house.intake.stored), sorted((f"item-{n}", c) for n, c in enumerate(contents))
        )
        self.assertEqual(house.outbox.items, [])
        self.assertEqual(house.receivers.room.tokens, 16)
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(deadline=None)
    @given(st.binary(min_size=1, max_size=60), st.data())
    def test_slowStore(self, content: bytes, choices: st.DataObject) -> None:
        """Whenever and in whatever order the store completes, the link never acknowledges more than it has."""
        house = House(*named([content]), window=3, memory=8)
        house.intake.holding = True
        wire = house.connect()
        wire.flush()
        while house.intake.held:
            house.intake.release(last=choices.draw(st.booleans()))
            kept = sum(len(chunk) for chunk in house.intake.chunks.get("item-0", {}).values())
            for event in house.outbox.events:
                if event[0] == "progress" and not house.intake.stored:
                    self.assertLessEqual(event[2], kept)
            self.assertEqual(bool(house.outbox.outcomes()), False)
            wire.flush()
            self.assertEqual(bool(house.outbox.outcomes()), bool(house.intake.stored))
        self.assertEqual(house.intake.stored, [("item-0", content)])

    def test_resumeSendsOnlyTheRest(self) -> None:
        """After a cut only what was not durable is sent again."""
        content = bytes(range(40))
        house = House(*named([content]))
        wire = house.connect()
        while ("progress", "item-0", 32) not in house.outbox.events:
            wire.step(16)
        wire.cut()
        house.outbox.reads.clear()
        house.connect().flush()
        self.assertEqual(house.intake.stored, [("item-0", content)])
        self.assertEqual(house.outbox.reads, [32, 36])


class GarbageTests(SynchronousTestCase):
    """What a hostile or broken peer may send."""

    def check(self, factory: ReceiverFactory, parts: list[bytes]) -> None:
        """Feed a fresh receiver; whatever comes, the end is orderly and the log clean."""
        protocol, transport = factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        frames(transport)
        for part in parts:
            protocol.dataReceived(part)
        said = frames(transport)
        self.assertLessEqual([verb for verb, _ in said].count("BYE"), 1)
        if protocol.closing and b"BYE " not in b"".join(parts):
            self.assertEqual(said[-1][0], "BYE")
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
    def test_bytes(self, parts: list[bytes], greeted: bool) -> None:
        """Any bytes end in an orderly abort, or in waiting for more, and never in an exception."""
        factory = ReceiverFactory("hub", MemoryIntake(), Clock(), window=2, chunk=4)
        self.check(factory, ([HELLO] if greeted else []) + parts)

    @settings(deadline=None)
    @given(st.data())
    def test_framesInAnyOrder(self, choices: st.DataObject) -> None:
        """Valid frames in any order, with any ids, offsets and sizes, do no harm either."""
        item, other = make_item(b"0123456789"), make_item(b"abc", "other")
        vocabulary = st.sampled_from(
            [HELLO, b"PING {}\n", b"PONG {}\n", b'BYE {"code":"done"}\n', offer(item), offer(other), b"\n"]
        ) | st.builds(
            lambda which, offset, size: data(which, offset, b"0123456789"[offset : offset + size]),
            st.sampled_from([item, other]),
            st.integers(0, 8),
            st.integers(1, 5),
        )
        parts = choices.draw(st.lists(vocabulary, max_size=12))
        intake = MemoryIntake()
        self.check(ReceiverFactory("hub", intake, Clock(), window=2, chunk=4), [HELLO, *parts])
        for stored_id, stored in intake.stored:
            self.assertEqual(stored, b"0123456789" if stored_id == item.id else b"abc")

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=60), max_size=6))
    def test_senderSide(self, parts: list[bytes]) -> None:
        """A sender that dialled a port of another protocol keeps its item."""
        house = House(*named([b"0123"]))
        protocol, transport = house.senders.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        for part in parts:
            protocol.dataReceived(part)
        protocol.connectionLost()
        self.assertEqual(len(house.outbox.items), 1)
        self.assertEqual(self.flushLoggedErrors(), [])
