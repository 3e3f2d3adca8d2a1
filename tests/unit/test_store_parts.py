"""The parts of the MongoDB store that need no server: accounts of chunks, lists of candidates, indexes, TLS names."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import CHUNK_SIZE, BrainScan, chunk_count
from fr_twisted.store.candidates import LIMIT, MOST_FETCHES, MOST_MISSES, Candidates
from fr_twisted.store.documents import Scribe, read, shorten
from fr_twisted.store.indexes import INDEXES, QUERIES, create_commands
from fr_twisted.store.interfaces import StoreError
from fr_twisted.store.payloads import Tally
from fr_twisted.store.tls import HostVerifier
from tests.fakes_store import START


class TallyTests(SynchronousTestCase):
    """`Tally`."""

    @given(st.data(), st.integers(0, 6 * CHUNK_SIZE))
    @settings(deadline=None, max_examples=200)
    def test_countsFromTheFirst(self, data: st.DataObject, size: int) -> None:
        """In whatever order chunks become durable, it counts those from the first on without a gap."""
        count = chunk_count(size)
        sizes = [min(CHUNK_SIZE, size - n * CHUNK_SIZE) for n in range(count)]
        order = data.draw(st.permutations(range(count)))
        written = order[: data.draw(st.integers(0, count))]
        tally = Tally("scan-a", 0.0)
        for n in written:
            tally.add(n, sizes[n])
        expected = next((n for n in range(count) if n not in written), count)
        self.assertEqual(tally.count(size), expected)
        self.assertEqual(tally.complete(size), len(written) == count)

    def test_wrongSizes(self) -> None:
        """A chunk of the wrong size does not count, wherever it is."""
        tally = Tally("scan-a", 0.0)
        tally.add(0, 5)
        tally.add(1, CHUNK_SIZE)
        self.assertEqual(tally.count(2 * CHUNK_SIZE), 0)
        short = Tally("scan-a", 0.0)
        short.add(0, CHUNK_SIZE)
        short.add(1, 6)
        self.assertEqual((short.count(CHUNK_SIZE + 7), short.complete(CHUNK_SIZE + 7)), (1, False))
        self.assertTrue(short.complete(CHUNK_SIZE + 6))

    def test_twice(self) -> None:
        """A chunk that is written twice counts once, and leaves nothing behind."""
        tally = Tally("scan-a", 0.0)
        for n in (0, 1, 0, 1):
            tally.add(n, CHUNK_SIZE)
        self.assertEqual((tally.kept, tally.ahead), (2, set()))


class CandidatesTests(SynchronousTestCase):
    """`Candidates`."""

    def setUp(self) -> None:
        """Make a queue whose list costs nothing to fetch."""
        self.clock = Clock()
        self.queue: list[dict[str, Any]] = []
        self.fetched = 0
        self.cost = 0.0
        self.taken_by_others: set[int] = set()
        self.candidates = Candidates(self.fetch, self.clock.seconds)

    async def fetch(self) -> list[dict[str, Any]]:
        """List the queue."""
        self.fetched += 1
        self.clock.advance(self.cost)
        return list(self.queue[:LIMIT])

    async def attempt(self, head: dict[str, Any]) -> int | None:
        """Take one that is still there."""
        if head["n"] in self.taken_by_others or head not in self.queue:
            return None
        self.queue.remove(head)
        return int(head["n"])

    def take(self, *besides: str) -> int | None:
        """Take the next."""
        return self.successResultOf(Deferred.fromCoroutine(self.candidates.take(self.attempt, besides)))

    def test_oneListForMany(self) -> None:
        """Many are taken from one list, in order; a list that is used up is fetched anew."""
        self.queue = [{"n": n} for n in range(150)]
        self.assertEqual([self.take() for _ in range(150)], list(range(150)))
        self.assertEqual(self.fetched, 2)
        self.assertIsNone(self.take())

    def test_empty(self) -> None:
        """An empty queue is looked at each time."""
        self.assertIsNone(self.take())
        self.queue = [{"n": 1}]
        self.assertEqual((self.take(), self.fetched), (1, 2))

    def test_besides(self) -> None:
        """Documents that are passed over stay where they are, and cost the others no list."""
        self.queue = [{"_id": f"d{n}", "n": n} for n in range(9)]
        self.assertEqual([self.take("d0", "d2") for _ in range(3)], [1, 3, 4])
        self.assertEqual([self.take() for _ in range(3)], [0, 2, 5])
        self.assertEqual(self.fetched, 1)

    def test_onlyThose(self) -> None:
        """A list of nothing else is fetched some times more, for the next may go further; then nothing is due."""
        self.queue = [{"_id": "d0", "n": 0}]
        self.assertEqual((self.take("d0"), self.fetched), (None, MOST_FETCHES))
        self.fetched = 0
        patched, real = [2], self.candidates._fetch

        async def further() -> list[dict[str, Any]]:
            patched[0] -= 1
            if not patched[0]:
                self.queue.append({"_id": "d1", "n": 1})
            return await real()

        self.candidates._fetch = further
        self.assertEqual((self.take("d0"), self.fetched), (1, 2))
        self.assertEqual(self.take(), 0)

    def test_old(self) -> None:
        """A list is believed for a second."""
        self.queue = [{"n": n} for n in range(9)]
        self.take()
        self.queue.insert(0, {"n": 100})
        self.clock.advance(0.9)
        self.assertEqual(self.take(), 1)
        self.clock.advance(0.2)
        self.assertEqual((self.take(), self.fetched), (100, 2))

    def test_costly(self) -> None:
        """A list that took long is believed for longer, but not for ever."""
        self.queue = [{"n": n} for n in range(9)]
        self.cost = 0.5
        self.take()
        self.clock.advance(9.9)
        self.take()
        self.assertEqual(self.fetched, 1)
        self.clock.advance(0.2)
        self.cost = 5
        self.take()
        self.assertEqual(self.fetched, 2)
        self.clock.advance(15)
        self.take()
        self.assertEqual(self.fetched, 3)

    def test_forget(self) -> None:
        """Something new makes the next one look again."""
        self.queue = [{"n": n} for n in range(9)]
        self.take()
        self.queue.insert(0, {"n": 100})
        self.candidates.forget()
        self.assertEqual(self.take(), 100)

    def test_forgetCostly(self) -> None:
        """Of a long queue whose list took long, something new does not cost another list at once, but soon."""
        self.queue = [{"n": n} for n in range(LIMIT + 50)]
        self.cost = 0.1
        self.take()
        self.queue.insert(0, {"n": 1000})
        self.candidates.forget()
        self.assertEqual((self.take(), self.fetched), (1, 1))
        self.clock.advance(0.5)
        self.candidates.forget()
        self.assertEqual((self.take(), self.fetched), (1000, 2))

    def test_othersAreFaster(self) -> None:
        """Those that others took are passed over; after some of them the list is fetched anew."""
        self.queue = [{"n": n} for n in range(50)]
        self.taken_by_others = set(range(3))
        self.assertEqual((self.take(), self.fetched), (3, 1))
        self.taken_by_others = set(range(MOST_MISSES + 4))
        del self.queue[:MOST_MISSES]
        self.assertEqual((self.take(), self.fetched), (MOST_MISSES + 4, 2))

    def test_endsAnyway(self) -> None:
        """Documents that are due but never to be had do not keep a claim for ever."""
        self.queue = [{"n": n} for n in range(5)]
        self.taken_by_others = set(range(5))
        self.assertIsNone(self.take())
        self.assertLess(self.fetched, 10)

    def test_changedWhileFetching(self) -> None:
        """A list that was overtaken while it was fetched serves one, and is fetched anew for the next."""
        waiting: Deferred[list[dict[str, Any]]] = Deferred()
        candidates = Candidates(lambda: waiting, self.clock.seconds)
        first = Deferred.fromCoroutine(candidates.take(lambda head: succeed(head["n"])))
        candidates.forget()
        waiting.callback([{"n": 1}, {"n": 2}])
        self.assertEqual(self.successResultOf(first), 1)
        waiting = Deferred()
        second = Deferred.fromCoroutine(candidates.take(lambda head: succeed(head["n"])))
        self.assertNoResult(second)
        waiting.callback([{"n": 0}])
        self.assertEqual(self.successResultOf(second), 0)


class IndexTests(SynchronousTestCase):
    """`fr_twisted.store.indexes`."""

    def test_declarations(self) -> None:
        """Each index is declared once and stands in the command of its collection."""
        self.assertEqual(len({(index.collection, index.name) for index in INDEXES}), len(INDEXES))
        commands = {command["createIndexes"]: command["indexes"] for command in create_commands()}
        for index in INDEXES:
            self.assertIn(index.document(), commands[index.collection])

    def test_queries(self) -> None:
        """Each query has a name of its own."""
        self.assertEqual(len({query.name for query in QUERIES}), len(QUERIES))

    def test_indexesOfQueries(self) -> None:
        """Each query's indexes are declared, and begin with what it compares for equality, then have its order."""
        declared = {(index.collection, index.name): index for index in INDEXES}
        for query in QUERIES:
            equal = {key for key, value in query.filter.items() if not isinstance(value, dict)}
            for name in query.indexes:
                if name == "_id_":
                    self.assertEqual(equal, {"_id"}, query.name)
                    continue
                keys = list(declared[query.collection, name].keys)
                prefix = [key for key, _ in keys[: len(equal)]]
                if query.sort:
                    self.assertEqual(set(prefix), equal, query.name)
                    order = list(query.sort)
                    backwards = [(key, -direction) for key, direction in order]
                    # An index is read from either end.
                    self.assertIn(keys[len(equal) :][: len(order)], (order, backwards), query.name)
                else:
                    self.assertIn(keys[0][0], query.filter, query.name)


class DocumentTests(SynchronousTestCase):
    """`fr_twisted.store.documents`."""

    def test_damaged(self) -> None:
        """A damaged document is told by its members, not by what is in them."""
        with self.assertRaises(StoreError) as caught:
            read(BrainScan, {"_id": "scan-a", "patient_id": {"name": "Doe"}})
        message = str(caught.exception)
        self.assertIn("scan-a is damaged", message)
        self.assertIn("patient_id", message)
        self.assertNotIn("Doe", message)
        self.assertNotIsInstance(caught.exception, ValidationError)

    def test_history(self) -> None:
        """A line of history names unit, node and event, and reasons are cut to what is kept."""
        entry = Scribe("frbrain", "brain-1").entry(START, "failed", "x" * 5000)
        self.assertEqual((entry["unit"], entry["node"], entry["event"]), ("frbrain", "brain-1", "failed"))
        self.assertEqual(len(entry["detail"]), 2000)
        self.assertIsNone(shorten(None))
        self.assertEqual(shorten("prüfen \ud800 \U0001f9e0"), "prüfen ? \U0001f9e0")


class _Peer:
    """A connected transport."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def getPeer(self) -> "_Peer":
        """Return the address of the other end."""
        return self


class _Wrapped:
    """A TLS protocol around one of txmongo's, whose factory knows its connector."""

    def __init__(self, host: str, port: int) -> None:
        self.wrappedProtocol = self.factory = self
        self.connector = _Peer(host, port)
        self.transport: _Peer | None = None
        self.wrappedFactory = None


class HostVerifierTests(SynchronousTestCase):
    """`HostVerifier`."""

    def test_bareAddresses(self) -> None:
        """A connection to a bare address is verified by the name under which that address was reached before."""
        verifier = HostVerifier(None, None)
        named = _Wrapped("db.example", 27017)
        made = [
            named,
            _Wrapped("10.0.0.7", 27017),
            _Wrapped("10.0.0.7", 27018),
            _Wrapped("other.example", 27017),
        ]
        for wrapped in made:
            verifier.clientConnectionForTLS(wrapped)  # type: ignore[arg-type]
            wrapped.transport = _Peer(
                "10.0.0.7" if wrapped is named else wrapped.connector.host, wrapped.connector.port
            )
        hosts = [verifier._hosts[wrapped] for wrapped in made]
        self.assertEqual(hosts, ["db.example", "db.example", "10.0.0.7", "other.example"])
