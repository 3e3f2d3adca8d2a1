"""The memory twin does what every store does; the same behaviours are asked of MongoDB in the integration tests."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes_store import MemoryStore
from tests.store_behaviour import BEHAVIOURS, Behaviour, Bench
from tests.store_behaviour_operators import OPERATOR_BEHAVIOURS


class MemoryStoreBehaviourTests(SynchronousTestCase):
    """Each behaviour becomes a test of this class, see below."""


def _test(behaviour: Behaviour) -> Callable[[SynchronousTestCase], None]:
    def test(self: SynchronousTestCase) -> None:
        clock = Clock()

        def pass_time(seconds: float) -> Deferred[Any]:
            clock.advance(seconds)
            return succeed(None)

        bench = Bench(MemoryStore(clock, grace_seconds=0), pass_time)
        self.successResultOf(Deferred.fromCoroutine(behaviour(bench)))  # type: ignore[arg-type]

    test.__doc__ = behaviour.__doc__
    return test


for _behaviour in (*BEHAVIOURS, *OPERATOR_BEHAVIOURS):
    _first, *_rest = _behaviour.__name__.split("_")
    _name = "test_" + _first + "".join(word.capitalize() for word in _rest)
    setattr(MemoryStoreBehaviourTests, _name, _test(_behaviour))
