"""Scans that this BRAIN could not do for reasons of its own, as a disk without room for them: others come first."""

from collections.abc import Iterator
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from fr_twisted.ops.outage import RetryPolicy

PATIENCE = 10
"""How many times longer a scan is put off while others wait."""

MOST = 50
"""Scans that are put off at a time: fewer than a list of candidates holds, so that there are always others in it."""


@dataclass
class _Entry:
    failures: int
    since: float


class PutOff:
    """Scans that are passed over for a while, each longer from time to time.

    A scan that came back to the queue has its old place there, the first. One that only does not fit now would be
    claimed again each time, and those behind it never.
    """

    def __init__(self, clock: IReactorTime, policy: RetryPolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._entries: dict[str, _Entry] = {}
        self._round: set[str] = set()

    def failed(self, scan_id: str) -> None:
        """Put a scan off, for longer than the last time."""
        before = self._entries.pop(scan_id, None)
        self._entries[scan_id] = _Entry(1 if before is None else before.failures + 1, self._clock.seconds())
        self._round.add(scan_id)
        while len(self._entries) > MOST:
            self.over(next(iter(self._entries)))

    def over(self, scan_id: str) -> None:
        """Put a scan off no more: it was not this BRAIN that could not."""
        self._entries.pop(scan_id, None)
        self._round.discard(scan_id)

    def choices(self, in_trouble: bool) -> Iterator[frozenset[str]]:
        """Yield what to pass over in a claim; then, as long as nothing was to be claimed so, the next.

        After a failure any other scan comes first: it tells whether this BRAIN can do anything. Where there is no
        other, those that are put off are tried in turn.
        """
        yield frozenset(self._entries) if in_trouble else self._early(PATIENCE)
        if self._entries:
            early = self._early(1)
            yield early | self._round
            self._round.clear()
            yield early

    def _early(self, patience: float) -> frozenset[str]:
        now = self._clock.seconds()
        return frozenset(
            scan_id
            for scan_id, entry in self._entries.items()
            if now < entry.since + patience * self._policy(entry.failures)
        )
