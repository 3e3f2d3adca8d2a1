"""Something that fails for a while: when to try again, and one log line when it begins and when it is over."""

import random
from collections.abc import Callable

from twisted.application.internet import backoffPolicy
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

RetryPolicy = Callable[[int], float]
"""From the number of failures so far, from 1, to the seconds to wait."""


def patient_policy(initial: float = 0.5, limit: float = 30.0) -> RetryPolicy:
    """Return delays that double from ``initial`` up to ``limit`` seconds, the last tenth of each at random.

    The random part keeps units that lost the same store from coming back all at once.
    """
    exponential = backoffPolicy(initial / 2, limit, 2.0, jitter=lambda: 0.0)
    return lambda attempt: exponential(attempt) * random.uniform(0.9, 1.0)


# In one row of failures; reasons that never are the same twice are not to fill the log.
_MOST_REASONS = 5


class Outage:
    """The failures of one thing in a row."""

    _log = Logger()

    def __init__(self, name: str, clock: IReactorTime, policy: RetryPolicy | None = None) -> None:
        """Take the ``name`` that log lines give it, such as "the store"."""
        self._name = name
        self._clock = clock
        self._policy = policy or patient_policy()
        self._failures = 0
        self._since = 0.0
        self._told: set[str] = set()

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self, reason: str) -> float:
        """Note a failure; return the seconds to wait.

        ``reason`` says what is wrong with what; in a row of failures each is logged once.
        """
        if not self.lasts:
            self._since = self._clock.seconds()
        self._failures += 1
        if reason not in self._told and len(self._told) < _MOST_REASONS:
            self._told.add(reason)
            self._log.warn(
                "{name} cannot be used: {reason}; trying again",
                name=self._name,
                reason=reason,
                event="outage.begin",
            )
        return self._policy(self._failures)

    def over(self) -> None:
        """Note a success; logged when it ends a row of failures."""
        if self.lasts:
            seconds = round(self._clock.seconds() - self._since, 1)
            message = "{name} can be used again, after {seconds} s"
            self._log.info(message, name=self._name, seconds=seconds, event="outage.over")
        self._failures = 0
        self._told.clear()
