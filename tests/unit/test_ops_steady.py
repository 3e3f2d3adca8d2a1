"""Timers do not follow a clock that is set."""

import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.config import HubSettings
from fr_twisted.ops.options import settings_options
from fr_twisted.ops.services import make_unit
from fr_twisted.ops.steady import make_steady, steady_seconds


class StillReactor(ReactorBase):
    """A reactor that does nothing but keep timers, by a clock that a test may set."""

    def __init__(self) -> None:
        self.wall = time.time()
        self.seconds = lambda: self.wall
        super().__init__()

    def installWaker(self) -> None:
        """Nothing wakes it."""


class SteadyTests(SynchronousTestCase):
    """`make_steady`."""

    def setUp(self) -> None:
        """Make a reactor with a timer of 100 s, and let it be steady."""
        self.reactor = StillReactor()
        self.made: list[str] = []
        self.before = self.reactor.callLater(100.0, self.made.append, "before")
        make_steady(self.reactor)

    def left(self) -> float:
        """Return the seconds until the reactor has something to do."""
        seconds = self.reactor.timeout()
        assert seconds is not None
        return float(seconds)

    def due(self) -> float:
        """Return the seconds until the timer that was set before."""
        return self.before.getTime() - steady_seconds()

    def test_clockIsSet(self) -> None:
        """However the machine's clock is set, a timer is due after its own time, and not before."""
        after = self.reactor.callLater(50.0, self.made.append, "after")
        for jump in (3600.0, -7200.0):
            self.reactor.wall += jump
            self.reactor.runUntilCurrent()
            self.assertEqual(self.made, [])
            self.assertTrue(45.0 < self.left() <= 50.0, self.left())
        after.cancel()
        self.assertTrue(95.0 < self.due() <= 100.0, self.due())

    def test_timersAreMoved(self) -> None:
        """A timer that was set before can be reset, delayed and made as any other."""
        self.before.reset(10.0)
        self.assertTrue(5.0 < self.left() <= 10.0)
        self.before.delay(5.0)
        self.assertTrue(10.0 < self.due() <= 15.0)
        self.before.reset(0.0)
        self.reactor.runUntilCurrent()
        self.assertEqual(self.made, ["before"])

    def test_looping(self) -> None:
        """A loop that ran before goes on with its interval."""
        reactor = StillReactor()
        loop = LoopingCall(self.made.append, "turn")
        loop.clock = reactor
        loop.start(20.0)
        make_steady(reactor)
        reactor.wall -= 3600.0
        seconds = reactor.timeout()
        assert seconds is not None
        self.assertTrue(0 <= seconds <= 20.0)

    def test_twice(self) -> None:
        """Doing it again moves nothing."""
        due = self.before.getTime()
        make_steady(self.reactor)
        self.assertEqual(self.before.getTime(), due)

    def test_clockOfATest(self) -> None:
        """A Clock is left as it is."""
        clock = Clock()
        make_steady(clock)
        self.assertEqual(clock.seconds(), 0.0)

    def test_everyUnit(self) -> None:
        """The root service of a unit makes the reactor that it is given steady."""
        reactor = StillReactor()
        options = settings_options(HubSettings, "A unit.")({})
        options.parseOptions([])
        make_unit("hub", options, reactor)
        self.assertIs(reactor.seconds, steady_seconds)

    def test_rises(self) -> None:
        """It rises by one every second."""
        begun, began = time.monotonic(), steady_seconds()
        time.sleep(0.01)
        self.assertTrue(abs(steady_seconds() - began - (time.monotonic() - begun)) < 0.05)
