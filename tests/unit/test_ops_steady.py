"""A reactor that is not moved by the clock on the wall."""

import time
from collections.abc import Callable

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.ops.steady import make_steady


class MakeSteadyTests(SynchronousTestCase):
    """`make_steady`, with a reactor of the test's own."""

    def setUp(self) -> None:
        """Make a reactor, not installed and never run."""
        self.reactor = SelectReactor()
        self.addCleanup(self._remove)
        self.fired: list[str] = []

    def _remove(self) -> None:
        for reader in self.reactor.removeAll():
            reader.connectionLost(None)

    def _note(self, name: str) -> Callable[[], None]:
        return lambda: self.fired.append(name)

    def run_for(self, seconds: float) -> None:
        """Let the reactor work."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.reactor.iterate(0.01)

    def test_clockSetBack(self) -> None:
        """What is planned comes in its time, though the clock is set back by an hour meanwhile."""
        make_steady(self.reactor)
        self.reactor.callLater(0.05, self._note("new"))
        real = time.time
        self.patch(time, "time", lambda: real() - 3600)
        self.run_for(0.2)
        self.assertEqual(self.fired, ["new"])

    def test_clockSetAhead(self) -> None:
        """Nothing comes before its time when the clock is set ahead by an hour."""
        make_steady(self.reactor)
        self.reactor.callLater(600, self._note("late"))
        real = time.time
        self.patch(time, "time", lambda: real() + 3600)
        self.run_for(0.05)
        self.assertEqual(self.fired, [])

    def test_plannedBefore(self) -> None:
        """What was planned before it was made steady still comes when it should, and can be put off."""
        self.reactor.callLater(0.05, self._note("soon"))
        put_off = self.reactor.callLater(0.01, self._note("put off"))
        make_steady(self.reactor)
        put_off.reset(600)
        self.run_for(0.2)
        self.assertEqual(self.fired, ["soon"])

    def test_twice(self) -> None:
        """Doing it again changes nothing."""
        call = self.reactor.callLater(5, self._note("call"))
        make_steady(self.reactor)
        planned = call.getTime()
        make_steady(self.reactor)
        self.assertEqual(call.getTime(), planned)

    def test_notAReactor(self) -> None:
        """A test's clock stays as it is."""
        clock = Clock()
        clock.advance(5)
        make_steady(clock)
        self.assertEqual(clock.seconds(), 5)
