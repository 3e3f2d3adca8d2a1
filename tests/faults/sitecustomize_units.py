"""Put on the path of units as ``sitecustomize.py``: what no setting of Fr can do, asked for by environment variables.

``FR_TEST_FAULTS_CLOCK``: a file of seconds; the wall clock is shifted by them, the monotonic not. What C code reads of
the clock by itself (``datetime.now``) is not shifted; Fr-BRAIN asks only `time.time` for the time.

``FR_TEST_FAULTS_PERIODS``: seconds of grace, of an upload's life, between its notes and between a caretaker's rounds;
in the place of ten minutes, ten minutes at least, a minute, and a minute.
"""

import os
import sys
import time
from typing import Any

_FILE = os.environ.get("FR_TEST_FAULTS_CLOCK", "")
_real_time, _real_time_ns, _monotonic = time.time, time.time_ns, time.monotonic
_known = [0.0, -1.0]
"""The shift, and when (monotonic) it was read."""


def _shift() -> float:
    now = _monotonic()
    if now - _known[1] > 0.05:
        _known[1] = now
        try:
            with open(_FILE, encoding="ascii") as file:
                _known[0] = float(file.read() or 0)
        except (OSError, ValueError):
            pass
    return _known[0]


def _time(*_: object) -> float:
    return _real_time() + _shift()


def _time_ns() -> int:
    return _real_time_ns() + int(_shift() * 1e9)


if _FILE:
    time.time, time.time_ns = _time, _time_ns


def _shorten(grace: float, upload_ttl: float, touch: float, interval: float) -> None:
    """Set the periods, before anything has read them."""
    from fr_twisted.hub import caretaker
    from fr_twisted.store import garbage, payloads

    readers = ("fr_twisted.store.mongo", "fr_twisted.store.uploads", "fr_twisted.store.completion")
    if set(readers) & set(sys.modules) or not {garbage.GRACE_SECONDS, payloads.TOUCH_SECONDS} <= {
        600.0,
        60.0,
    }:
        raise RuntimeError("the periods were read before they could be set, or are not those that are known")
    garbage.GRACE_SECONDS, payloads.TOUCH_SECONDS = grace, touch
    make = caretaker.CaretakerService.__init__

    def made(self: Any, store: Any, nodes: Any, _: float, *rest: Any, **more: Any) -> None:
        make(self, store, nodes, upload_ttl, *rest, **{**more, "interval": interval})

    caretaker.CaretakerService.__init__ = made  # type: ignore[method-assign, assignment]


_PERIODS = os.environ.get("FR_TEST_FAULTS_PERIODS", "")
_UNITS = frozenset(("frhub", "frbrain"))

# Not the workers of a BRAIN, which have no store.
if _PERIODS and _UNITS & set(sys.orig_argv):
    try:
        _shorten(*map(float, _PERIODS.split()))
    except Exception as error:  # what a module of this name raises is printed and passed over
        print(f"periods: {error!r}", file=sys.stderr, flush=True)
        os._exit(70)
