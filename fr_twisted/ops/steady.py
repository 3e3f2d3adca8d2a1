"""A reactor that is not moved by the clock on the wall.

Twisted's reactors measure time by `time.time`. When that is set back an hour, every timer waits an hour longer: leases
are not renewed, deadlines do not come, nothing that failed is tried again. When it is set ahead, all deadlines come at
once.
"""

import time
from typing import Any

from twisted.internet.base import ReactorBase


def make_steady(reactor: Any) -> None:
    """Let ``reactor`` measure time by the monotonic clock; calls that it has planned keep their distance from now.

    Anything but a reactor of Twisted's, such as a test's `Clock`, is let be.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is time.monotonic:
        return
    ahead = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        planned: Any = call
        planned.time += ahead
        planned.seconds = time.monotonic
    setattr(reactor, "seconds", time.monotonic)  # noqa: B010 - mypy takes a method for a constant
