"""Put on the path of one BRAIN as ``sitecustomize.py``: its wall clock follows a file of seconds, its monotonic not.

What C code reads of the clock by itself (``datetime.now``) is not shifted; Fr-BRAIN asks only `time.time` for the time.
"""

import os
import time

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
