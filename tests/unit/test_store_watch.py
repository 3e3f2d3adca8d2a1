"""Change streams that break and come back: who waits is woken, and the log says it once."""

from collections import deque
from typing import Any

from pymongo.errors import AutoReconnect, OperationFailure
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from fr_twisted.store.watch import SCAN_TO_DO, Watch


class _Pool:
    """A connection whose answers a test gives; without one the server is away."""

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.asked: list[str] = []
        self._ConnectionPool__pingers: dict[str, Any] = {}

    def start_session(self) -> object:
        """Return a session."""
        return object()

    def command(self, database: str, command: dict[str, Any], session: object) -> Deferred[Any]:
        """Answer."""
        self.asked.append(next(iter(command)))
        answer = self.answers.popleft() if self.answers else AutoReconnect("away")
        if isinstance(answer, Exception):
            return fail(answer)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def getprotocols(self) -> list[Any]:
        """Return no connections."""
        return []

    def disconnect(self) -> Deferred[None]:
        """Disconnect."""
        return succeed(None)

    def open(self) -> None:
        """Let the stream be opened."""
        self.answers.append({"cursor": {"id": 7}})

    def tell(self, *changes: Any) -> None:
        """Let the stream tell of changes, or of none."""
        self.answers.append({"cursor": {"id": 7, "nextBatch": list(changes)}})


class WatchTests(SynchronousTestCase):
    """`Watch`."""

    def setUp(self) -> None:
        """Make a watch, and keep what it logs."""
        self.clock = Clock()
        self.pool = _Pool()
        self.woken = 0
        self.logged: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if "event" in event:
                self.logged.append(event["event"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.watch = Watch(self.clock, "fr", "brain_scans", SCAN_TO_DO)
        self.watch.add(self.wake)

    def wake(self) -> None:
        """Be woken."""
        self.woken += 1

    def test_outageIsToldOnce(self) -> None:
        """While the store is away it is tried ever more rarely; that is said once, and once when it is over."""
        self.watch.start(lambda: self.pool)
        self.clock.pump([0.25] * 2400)
        self.assertEqual(self.logged, ["outage.begin"])
        self.assertTrue(15 <= len(self.pool.asked) <= 40, len(self.pool.asked))
        last: Deferred[Any] = Deferred()
        self.pool.open()
        self.pool.tell({"_id": 1})
        self.pool.answers.append(last)
        for _ in range(31):
            if not self.woken:
                self.clock.advance(1.0)
        self.assertEqual((self.woken, self.logged), (2, ["outage.begin", "outage.over"]))
        self.successResultOf(self.watch.stop())
        self.assertEqual((self.clock.getDelayedCalls(), len(self.logged)), ([], 2))

    def test_flapping(self) -> None:
        """A stream that is opened and breaks at once, over and over, is no success: it is tried ever more rarely."""
        for _ in range(100):
            self.pool.open()
            self.pool.answers.append(AutoReconnect("away"))
        self.watch.start(lambda: self.pool)
        self.clock.pump([0.25] * 1200)
        self.assertEqual(self.logged, ["outage.begin"])
        self.assertTrue(5 <= self.woken <= 25, self.woken)
        self.successResultOf(self.watch.stop())

    def test_endedByTheServer(self) -> None:
        """A stream that the server ends is opened again, after a pause."""
        self.pool.answers.append({"cursor": {"id": 0}})
        self.pool.open()
        self.pool.answers.append(Deferred())
        self.watch.start(lambda: self.pool)
        self.assertEqual((self.woken, self.logged), (1, ["outage.begin"]))
        self.clock.pump([0.1] * 10)
        self.assertEqual(self.woken, 2)
        self.successResultOf(self.watch.stop())

    def test_unsupported(self) -> None:
        """A server without change streams is not asked again."""
        self.pool.answers.append(OperationFailure("x", 40573, {"errmsg": "only on replica sets"}))
        self.watch.start(lambda: self.pool)
        self.clock.advance(1000)
        self.assertEqual((self.pool.asked, self.logged), (["aggregate"], ["store.watch"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.watch.stop())
