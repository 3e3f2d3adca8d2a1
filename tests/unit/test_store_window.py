"""`fr_twisted.store.window`: a long queue is searched by its oldest part, and nothing is passed over for good."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.store.candidates import LIMIT, Candidates
from fr_twisted.store.claims import merged
from fr_twisted.store.window import WaitingScans, Window
from tests.fakes_store import START

Doc = dict[str, Any]

PER_DOCUMENT = 50e-6
"""Seconds that the embedded server takes for each document that it meets."""


class Server:
    """A queue on a server that meets every document which a query may return, whatever the limit."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue: list[Doc] = []
        self.searches: list[int] = []
        """Documents that each search met."""

    def add(self, number: int, priority: int, seconds: float) -> Doc:
        """Let a scan wait that came ``seconds`` after the beginning."""
        head = {"_id": number, "priority": priority, "received_at": START + timedelta(seconds=seconds)}
        self.queue.append(head)
        return head

    async def search(self, priority: int | None, before: datetime | None) -> list[Doc]:
        """List what waits."""
        met = [
            head
            for head in self.queue
            if (priority is None or head["priority"] == priority)
            and (before is None or head["received_at"] < before)
        ]
        self.searches.append(len(met))
        self.clock.advance(PER_DOCUMENT * len(met))
        return sorted(met, key=order)[:LIMIT]


def order(head: Doc) -> tuple[int, datetime]:
    """Return what scans are ordered by."""
    return -head["priority"], head["received_at"]


class WaitingScansTests(SynchronousTestCase):
    """`WaitingScans`."""

    def setUp(self) -> None:
        """Make an empty queue."""
        self.server = Server()
        self.waiting = WaitingScans(self.server.search)
        self.now = START + timedelta(days=1)

    def first(self) -> list[Doc]:
        """List what comes first."""
        listing = Deferred.fromCoroutine(self.waiting.first(self.now, self.server.clock.seconds))
        return self.successResultOf(listing)

    def drain(self) -> list[Doc]:
        """Take everything in the order of the lists."""
        taken: list[Doc] = []
        while found := self.first():
            taken += found
            gone = {head["_id"] for head in found}
            self.server.queue = [head for head in self.server.queue if head["_id"] not in gone]
        return taken

    def test_short(self) -> None:
        """A short queue is searched whole, by one query."""
        expected = [self.server.add(n, 5, n) for n in range(300)]
        self.assertEqual(self.first(), expected[:LIMIT])
        self.assertEqual(self.first(), expected[:LIMIT])
        self.assertEqual(self.server.searches, [300, 300])

    def test_long(self) -> None:
        """A long queue is searched whole once; after that a list costs a few documents, to its end, in order."""
        expected = [self.server.add(n, 5, n * 0.1) for n in range(20_000)]
        self.assertEqual(self.drain(), expected)
        self.assertEqual(self.server.searches[0], 20_000)
        self.assertLess(max(self.server.searches[1:]), 5 * LIMIT)
        self.assertLess(sum(self.server.searches[1:]), 4 * 20_000)

    def test_cameBack(self) -> None:
        """A scan that came back to the queue is the first of its priority again, and does not widen the search."""
        for n in range(5_000):
            self.server.add(n, 5, 1000 + n)
        self.first()
        back = self.server.add(9_999, 5, 0)
        self.assertEqual(self.first()[0], back)
        self.first()
        self.assertLess(max(self.server.searches[1:]), 5 * LIMIT)

    def test_higherPriority(self) -> None:
        """A scan of a higher priority comes before a long queue."""
        for n in range(5_000):
            self.server.add(n, 5, n)
        self.first()
        urgent = self.server.add(9_999, 9, 5_001)
        self.assertEqual(self.first()[0], urgent)

    def test_shortAgain(self) -> None:
        """When the queue has become short, one query is enough again."""
        for n in range(5_000):
            self.server.add(n, 5, n)
        self.drain()
        self.server.searches.clear()
        self.assertEqual(self.first(), [])
        self.assertEqual(len(self.server.searches), 1)

    def test_besides(self) -> None:
        """Scans of a long queue that are passed over hold up none behind them, and do not make lists dear."""
        besides = [self.server.add(n, 5, n)["_id"] for n in range(3)]
        expected = [self.server.add(n, 5, 40_000 + n * 0.1)["_id"] for n in range(10, 6_010)]
        there = {head["_id"]: head for head in self.server.queue}

        async def fetch() -> list[Doc]:
            return await self.waiting.first(self.now, self.server.clock.seconds)

        async def attempt(head: Doc) -> int:
            self.server.queue.remove(there[head["_id"]])
            return int(head["_id"])

        candidates, empty = Candidates(fetch, self.server.clock.seconds), 0
        taken: list[int] = []
        while len(taken) < len(expected) and empty < 100:
            found = self.successResultOf(Deferred.fromCoroutine(candidates.take(attempt, besides)))
            if found is None:
                empty += 1
            else:
                taken.append(found)
            self.server.clock.advance(0.01)
        self.assertEqual(taken, expected)
        self.assertLess(empty, 10)
        self.assertLess(sum(self.server.searches[1:]), 8 * len(expected))

    @given(st.lists(st.tuples(st.sampled_from([0, 5, 9]), st.integers(0, 86_000)), max_size=40), st.data())
    @settings(deadline=None, max_examples=30)
    def test_nothingIsPassedOver(self, extra: list[tuple[int, int]], data: st.DataObject) -> None:
        """However the arrivals are spread, every scan comes, by priority and then arrival."""
        self.setUp()
        self.server.queue = [
            {"_id": -n, "priority": p, "received_at": START + timedelta(seconds=s)}
            for n, (p, s) in enumerate(extra)
        ]
        step = data.draw(st.sampled_from([0.0, 0.001, 0.5, 15.0]))
        start, priority = data.draw(st.integers(0, 40_000)), data.draw(st.sampled_from([0, 5, 9]))
        for n in range(1, 3_000):
            self.server.add(n, priority, start + n * step)
        expected = sorted(map(order, self.server.queue))
        self.assertEqual(list(map(order, self.drain())), expected)


class MergedTests(SynchronousTestCase):
    """`merged`."""

    @staticmethod
    def heads(*places: tuple[int, int]) -> list[Doc]:
        """Return heads of these priorities and seconds of arrival."""
        return [{"priority": p, "received_at": START + timedelta(seconds=s)} for p, s in places]

    def test_whole(self) -> None:
        """Queues that were listed whole are taken by priority, then arrival."""
        one, two = self.heads((9, 5), (5, 1)), self.heads((5, 0), (5, 2), (0, 0))
        expected = self.heads((9, 5), (5, 0), (5, 1), (5, 2), (0, 0))
        self.assertEqual(merged((one, False), (two, False), ([], True)), expected)

    def test_more(self) -> None:
        """Nothing is taken that may come after what a queue has behind its list."""
        one, two = self.heads((5, 0), (5, 2)), self.heads((5, 1), (5, 3), (0, 0))
        self.assertEqual(merged((one, True), (two, False)), self.heads((5, 0), (5, 1), (5, 2)))

    def test_limit(self) -> None:
        """A list has no more heads than `LIMIT`."""
        self.assertEqual(len(merged((self.heads(*((5, n) for n in range(2 * LIMIT))), False))), LIMIT)


class WindowTests(SynchronousTestCase):
    """`Window`."""

    def test_emptyPart(self) -> None:
        """A part in which nothing is left is widened until something is found or everything was searched."""
        server, window = Server(), Window("received_at")
        window.before = START + timedelta(seconds=1)
        late = server.add(1, 5, 50_000)
        search = Deferred.fromCoroutine(
            window.oldest(
                lambda before: server.search(5, before), START + timedelta(days=1), server.clock.seconds
            )
        )
        self.assertEqual(self.successResultOf(search), [late])
        self.assertLess(len(server.searches), 40)

    def test_withoutDate(self) -> None:
        """Documents without the date teach nothing, and break nothing."""
        window = Window("received_at")
        window.learn([{"_id": 1}] * LIMIT, True, START)
        self.assertIsNone(window.before)
