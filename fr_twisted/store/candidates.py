"""A short list of documents that were due when last asked, so that a long queue is not searched for every claim."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from twisted.internet.defer import DeferredLock

T = TypeVar("T")
Doc = dict[str, Any]

LIMIT = 100
"""Documents in a list."""

YOUNG = 1.0
"""Seconds for which a list is believed."""

COST_FACTOR = 20
OLD = 15.0
"""A list that took t seconds to fetch is believed for 20 t, if that is longer, and for 15 s at most.

So some servers' search of a queue of 10,000 takes a twentieth of their time, and not all of it. A document that should
come first but became due after the list was fetched is passed over for that long at most, and less when a change
stream tells of it (`Candidates.forget`).
"""

CHEAP = 0.02
"""Seconds; a full list that took longer to fetch is not forgotten sooner than after `FORGET_FACTOR` times as long.

Else, while scans arrive one after the other, each of which is told of, a list would be fetched for every claim.
"""

FORGET_FACTOR = 4

MOST_MISSES = 8
"""Documents that others were faster to take, after which the list is fetched anew."""

MOST_FETCHES = 4
"""Lists fetched for one claim; then nothing is due for us."""


class Candidates:
    """Documents in the order in which they are to be taken."""

    def __init__(self, fetch: Callable[[], Awaitable[list[Doc]]], monotonic: Callable[[], float]) -> None:
        """``fetch`` lists what is due, the first first."""
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = DeferredLock()
        self._list: deque[Doc] = deque()
        self._good_until = 0.0
        self._keep_until = 0.0
        self._generation = 0

    def forget(self) -> None:
        """Fetch the list anew for the next claim, or soon if that is costly: something became due."""
        self._generation += 1
        self._good_until = min(self._good_until, self._keep_until)

    async def take(
        self, attempt: Callable[[Doc], Awaitable[T | None]], besides: Collection[str] = ()
    ) -> T | None:
        """Return what ``attempt`` made of the first document that it could take, or None when nothing is due.

        ``attempt`` returns None for a document that another was faster to take. Those with an id of ``besides`` are
        passed over, and stay in the list.
        """
        fetches = misses = 0
        while True:
            await self._lock.acquire()
            try:
                document = None
                if self._monotonic() < self._good_until:
                    document = self._pop(besides)
                # One list of none but those passed over may be but the beginning of a queue: the next goes further.
                while document is None:
                    if fetches == MOST_FETCHES:
                        return None
                    fetches += 1
                    await self._refill()
                    document = self._pop(besides)
                    if not self._list and document is None:
                        return None
            finally:
                self._lock.release()
            taken = await attempt(document)
            if taken is not None:
                return taken
            misses += 1
            if misses % MOST_MISSES == 0:
                self._good_until = 0.0

    def _pop(self, besides: Collection[str]) -> Doc | None:
        for document in self._list:
            if document.get("_id") not in besides:
                self._list.remove(document)
                return document
        return None

    async def _refill(self) -> None:
        generation, begun = self._generation, self._monotonic()
        self._list.clear()
        found = await self._fetch()
        ended = self._monotonic()
        self._list.extend(found)
        cost = ended - begun
        self._good_until = ended + min(max(YOUNG, COST_FACTOR * cost), OLD)
        self._keep_until = (
            ended + min(FORGET_FACTOR * cost, OLD) if cost > CHEAP and len(found) >= LIMIT else 0.0
        )
        if generation != self._generation:
            self._good_until = self._keep_until
