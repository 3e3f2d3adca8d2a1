"""A clock that nobody can set, and a reactor whose timers go by it.

Twisted's reactors take the time from ``time.time()``. When that is set back by an hour, every timer of the process
waits an hour longer: leases are not renewed, queues not looked at. When it is set forward, every deadline is over at
once.
"""

import time
from typing import Any

from twisted.internet.base import ReactorBase


def steady_seconds() -> float:
    """Return seconds that rise by one every second, whatever is done to the clock of the machine.

    They go on while the machine is suspended: what was known of the store's time before must not pass for fresh after.
    """
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


def make_steady(reactor: Any) -> None:
    """Let the timers of ``reactor`` go by `steady_seconds`, those included that are set already.

    A reactor that is none of Twisted's own, such as the Clock of a test, is left as it is.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is steady_seconds:
        return
    ahead = steady_seconds() - reactor.seconds()
    calls: list[Any] = list(reactor.getDelayedCalls())
    for call in calls:
        call.time += ahead
        call.seconds = steady_seconds
    reactor.seconds = steady_seconds
