"""The oldest part of a long queue: some servers search the whole of it for the first few, and the embedded one does.

As long as a search of everything is quick, everything is searched. Once it is not, what is asked for is older than a
bound that the last answer taught, so that a list costs the same however long the queue is. Whatever is older than the
bound is found, also what came back to the queue with an old date.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fr_twisted.store.candidates import LIMIT

Doc = dict[str, Any]
Search = Callable[[datetime | None], Awaitable[list[Doc]]]

SLOW = 0.1
"""Seconds from which on a search of everything is too dear: some 2,000 documents of the embedded server."""

SEARCH_TIMEOUT = 60.0
"""Seconds that a search of everything may take: it comes once, when a long queue is met for the first time."""

PRIORITIES = range(9, -1, -1)
"""As `fr_twisted.model.ScanMeta` has them, the first first."""

_LEAST = timedelta(milliseconds=1)


class Window:
    """The bound of a queue that is ordered by the member ``date``."""

    def __init__(self, date: str) -> None:
        self.before: datetime | None = None
        """Look at what is older than this alone; None: at everything."""
        self._date = date
        self._width = _LEAST

    async def oldest(self, search: Search, now: datetime, monotonic: Callable[[], float]) -> list[Doc]:
        """Return the oldest documents, `LIMIT` at most; none only if there is none."""
        while True:
            everything, begun = self.before is None, monotonic()
            found = await search(self.before)
            if not everything or monotonic() - begun >= SLOW:
                self.learn(found, len(found) >= LIMIT, now)
            if found or everything:
                return found

    def learn(self, found: Sequence[Doc], more: bool, now: datetime) -> None:
        """Set the bound for the next search; ``more``: there were more than were ``found``."""
        dates = sorted(date for head in found if isinstance(date := head.get(self._date), datetime))
        if more and dates:
            # Not from the first: one that came back to the queue may be much older than the others.
            self._width = max(2 * (dates[-1] - dates[len(dates) // 2]), _LEAST)
            self.before = dates[-1] + self._width
        elif self.before is not None:
            self._width *= 2
            self.before += self._width
        if self.before is not None and self.before > now:
            self.before = None


class WaitingScans:
    """Scans that wait, by priority, then arrival; of a long queue each priority has a `Window` of its own.

    A scan with a priority that no sender can give waits until the queue is short.
    """

    def __init__(self, search: Callable[[int | None, datetime | None], Awaitable[list[Doc]]]) -> None:
        """``search`` lists, in order, `LIMIT` at most, what waits: of one priority or all, before a time or ever."""
        self._search = search
        self._windows: dict[int, Window] = {}

    @property
    def is_long(self) -> bool:
        """Whether what was listed last may be but the oldest part of the first priority."""
        return bool(self._windows)

    async def first(self, now: datetime, monotonic: Callable[[], float]) -> list[Doc]:
        """Return the scans that come first; none only if none waits."""
        if self._windows:
            return await self._by_priority(now, monotonic)
        begun = monotonic()
        found = await self._search(None, None)
        if len(found) >= LIMIT and monotonic() - begun >= SLOW:
            self._windows = {priority: Window("received_at") for priority in PRIORITIES}
            last = found[-1]["priority"]
            if last in self._windows:
                same = [head for head in found if head["priority"] == last]
                self._windows[last].learn(same, True, now)
        return found

    async def _by_priority(self, now: datetime, monotonic: Callable[[], float]) -> list[Doc]:
        found: list[Doc] = []
        for priority, window in self._windows.items():
            bounded = window.before is not None
            part = await window.oldest(partial(self._search, priority), now, monotonic)
            found += part
            # Beyond a bound there may be more of this priority, which come before those of the next.
            if len(found) >= LIMIT or (bounded and part):
                return found[:LIMIT]
        self._windows = {}
        return found
