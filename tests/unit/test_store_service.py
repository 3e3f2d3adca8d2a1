"""Tests of opening the store with patience, and of `Outage`."""

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.ops.outage import Outage, patient_policy
from fr_twisted.ops.services import IReady
from fr_twisted.store.interfaces import StoreUnusableError
from fr_twisted.store.service import StoreService
from tests.fakes_store import MemoryStore


class LogCase(SynchronousTestCase):
    """Collects what is logged."""

    def setUp(self) -> None:
        """Listen."""
        self.clock = Clock()
        self.events = EventLoggingObserver.createWithCleanup(cast(Any, self), globalLogPublisher)

    def said(self, event: str) -> list[LogEvent]:
        """Return the log events of that name."""
        return [e for e in self.events if e.get("event") == event]


class StoreServiceTests(LogCase):
    """`StoreService`."""

    def setUp(self) -> None:
        """Make one."""
        super().setUp()
        self.store = MemoryStore(self.clock)
        self.service = StoreService(self.store, self.clock, lambda attempt: float(attempt))

    def test_opens(self) -> None:
        """It opens the store when it is started, not before, and is ready then."""
        self.assertTrue(verifyObject(IReady, self.service))
        ready = self.service.when_ready()
        self.assertFalse(self.store.opened)
        self.service.startService()
        self.successResultOf(ready)
        self.successResultOf(self.service.when_ready())
        self.assertTrue(self.store.opened)
        self.assertEqual(self.said("outage.begin") + self.said("outage.over"), [])

    def test_triesAgain(self) -> None:
        """A store that cannot be used is tried again; each reason is told once, and the end of it."""
        for reason in (
            "the password is wrong",
            "the password is wrong",
            "the database may not be written to",
        ):
            self.store.fail_next(StoreUnusableError(reason), op="open")
        self.service.startService()
        ready = self.service.when_ready()
        self.clock.advance(1.0)
        self.clock.advance(2.0)
        self.assertNoResult(ready)
        self.clock.advance(3.0)
        self.successResultOf(ready)
        reasons = [event["reason"] for event in self.said("outage.begin")]
        self.assertEqual(reasons, ["the password is wrong", "the database may not be written to"])
        self.assertEqual(self.said("outage.over")[0]["seconds"], 6.0)

    def test_beyondMending(self) -> None:
        """An error that is not the store's ends the unit instead of being tried for ever."""
        self.store.fail_next(ValueError("a bug"), op="open")
        self.service.startService()
        self.failureResultOf(self.service.when_ready(), ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """It closes the store."""
        self.service.startService()
        self.successResultOf(self.service.stopService())
        self.assertFalse(self.store.opened)

    def test_stopWhileWaiting(self) -> None:
        """Stopped while it waits for a store it tries no more and leaves nothing behind."""
        self.store.down = True
        self.service.startService()
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.store.calls.count("open"), 1)

    def test_stopWhileOpening(self) -> None:
        """So it does while the store is being opened."""
        self.store.hold("open")
        self.service.startService()
        ready: Deferred[None] = self.service.when_ready()
        self.successResultOf(self.service.stopService())
        self.store.release()
        self.assertFalse(self.store.opened)
        ready.cancel()
        self.failureResultOf(ready, CancelledError)


class OutageTests(LogCase):
    """`Outage`."""

    def test_oneLineEach(self) -> None:
        """A row of failures is one line at its beginning and one at its end, and the next row likewise."""
        outage = Outage("the store", self.clock)
        outage.over()
        for _ in range(2):
            for _ in range(5):
                outage.failed("no answer")
                self.clock.advance(1.0)
            self.assertTrue(outage.lasts)
            outage.over()
            outage.over()
            self.assertFalse(outage.lasts)
        self.assertEqual(len(self.said("outage.begin")), 2)
        self.assertEqual([event["seconds"] for event in self.said("outage.over")], [5.0, 5.0])

    def test_changingReasons(self) -> None:
        """Reasons that take turns are told once each, and reasons that never repeat do not fill the log."""
        outage = Outage("the store", self.clock)
        for n in range(100):
            outage.failed("no answer" if n % 2 else "refused")
        self.assertEqual(len(self.said("outage.begin")), 2)
        for n in range(100):
            outage.failed(f"no answer, try {n}")
        self.assertLess(len(self.said("outage.begin")), 10)

    def test_delays(self) -> None:
        """Delays double from half a second to half a minute, never quite the same, and begin anew after a success."""
        outage = Outage("the store", self.clock)
        delays = [outage.failed("x") for _ in range(12)]
        for delay, nominal in zip(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], strict=True):
            self.assertLessEqual(delay, nominal)
            self.assertGreaterEqual(delay, nominal * 0.9)
        self.assertGreater(len(set(delays[6:])), 1)
        outage.over()
        self.assertLessEqual(outage.failed("x"), 0.5)

    def test_largeCount(self) -> None:
        """However long it lasts, the delay stays within its limit."""
        self.assertLessEqual(patient_policy()(10_000_000), 30.0)
