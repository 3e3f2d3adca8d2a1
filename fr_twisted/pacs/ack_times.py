"""When scans were acknowledged."""

from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime


class AckTimes:
    """When scans were acknowledged, for as many as matter; so that a report can tell how long it took."""

    def __init__(self, clock: IReactorTime, limit: int = 4096) -> None:
        self._clock, self._limit = clock, limit
        self._times: OrderedDict[str, float] = OrderedDict()

    def note(self, scan_id: str) -> None:
        """A scan was acknowledged now; the first time counts."""
        self._times.setdefault(scan_id, self._clock.seconds())
        while len(self._times) > self._limit:
            self._times.popitem(last=False)

    def seconds_since(self, scan_id: str) -> float | None:
        """Return the seconds since then; None: not of this run."""
        noted = self._times.get(scan_id)
        return None if noted is None else self._clock.seconds() - noted
