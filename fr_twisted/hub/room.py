"""Room in the store: scans are refused, for now, before it is full; reports are delivered and analyses end as ever."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.store.interfaces import StoreError

INTERVAL = 10.0
"""Seconds between two looks;"""

COST_FACTOR = 20
"""but a look that took t seconds is followed by 20 t without one: some servers read every document to answer."""

_ALL = 2**63


@dataclass(frozen=True)
class Limits:
    """When there is too little room."""

    min_free: int = 0
    """Bytes that are to stay free; 0: any number."""
    quota: int = 0
    """Bytes that the database may have; 0: any number."""
    folder: Path | None = None
    """Where the data is, on this machine, for a store that does not tell how much is free."""


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that are free for us in the file system of ``folder``; None: it is not there."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


class RoomService(Service):
    """Looks at the room in the store now and then, and says whether a scan may come in.

    Between two looks it counts what was let in. Once there was too little room, there must be a tenth of the limit more
    before scans are taken again, so that it does not change its mind with every scan that goes.
    """

    name = "room"
    _log = Logger()

    def __init__(
        self,
        store: Any,
        limits: Limits,
        clock: IReactorTime,
        store_ready: Callable[[], Deferred[None]],
        free_of: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        self._store, self._limits, self._clock = store, limits, clock
        self._store_ready, self._free_of = store_ready, free_of
        self._free: int | None = None
        self._used: int | None = None
        self._full = False
        self._told: int | None = None
        self._blind = self._failing = False
        self._coming: dict[object, int] = {}
        self._came = 0
        self._looking: Deferred[None] | None = None
        self._next: IDelayedCall | None = None

    # -- what the intake asks

    def refusal(self, size: int) -> str | None:
        """Return why a scan of ``size`` bytes may not come in now; None: it may."""
        reason = self._shortage(0) if self._full else None
        reason = reason or self._shortage(size)
        if reason is not None:
            self._tell(reason, size)
        return reason

    def expect(self, size: int) -> Callable[[], None]:
        """Count ``size`` bytes that come in; call what is returned when they have, or will not."""
        key = object()
        self._coming[key] = size

        def over() -> None:
            # Until the next look nobody knows how much of it was written.
            self._came += self._coming.pop(key, 0)

        return over

    def _shortage(self, size: int) -> str | None:
        """Return what would be short with ``size`` bytes more."""
        limits = self._limits
        coming = size + self._came + sum(self._coming.values())
        slack = 10 if self._full else _ALL
        if self._free is not None and self._free - coming < limits.min_free + limits.min_free // slack:
            return _words(size, "FR_STORE_MIN_FREE", limits.min_free, f"{_mib(self._free)} are free")
        if limits.quota and (self._used or 0) + coming > limits.quota - limits.quota // slack:
            return _words(size, "FR_STORE_QUOTA", limits.quota, f"{_mib(self._used or 0)} are used")
        return None

    def _tell(self, reason: str, size: int) -> None:
        if self._told is None:
            self._log.warn("no new scans are taken: {reason}", event="store.full", reason=reason)
        self._told = size if self._told is None else min(self._told, size)

    # -- looks

    def startService(self) -> None:
        """Look as soon as the store is open, unless there is no limit."""
        super().startService()
        if self._limits.min_free or self._limits.quota:
            ready = self._store_ready().addCallback(lambda _: self._look())
            ready.addErrback(self._failed)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        if not self.running:
            return
        began = self._clock.seconds()

        def again(_: object) -> None:
            self._looking = None
            if self.running:
                pause = max(INTERVAL, COST_FACTOR * (self._clock.seconds() - began))
                self._next = self._clock.callLater(pause, self._look)

        self._looking = Deferred.fromCoroutine(self.look_once()).addErrback(self._failed)
        self._looking.addCallback(again)

    def _failed(self, failure: Failure) -> None:
        """What is known of the room stands."""
        if failure.check(StoreError):
            if not self._failing:
                self._log.warn(
                    "how much room the store has cannot be told: {reason}",
                    event="store.blind",
                    reason=failure.getErrorMessage(),
                )
            self._failing = True
        elif not failure.check(CancelledError):
            self._log.failure("looking at the room in the store", failure, event="hub.defect")

    async def look_once(self) -> None:
        """Look now."""
        before = self._came
        room = await self._store.room(self._limits.quota > 0)
        self._failing = False
        self._came -= before
        self._used, self._free = room.used, None
        if self._limits.min_free:
            self._free = room.free
            if room.free is None and self._limits.folder is not None:
                self._free = self._free_of(self._limits.folder)
            self._say_blind()
        # With the slack if it was full before: that is the point of it.
        self._full = self._shortage(0) is not None
        if self._full:
            self._tell(self._shortage(0) or "", 0)
        elif self._told is not None and self._shortage(self._told) is None:
            self._told = None
            self._log.info("new scans are taken again: there is room in the store", event="store.room")

    def _say_blind(self) -> None:
        if self._free is None and not self._blind:
            self._log.warn(
                "the store does not tell how much room it has: FR_STORE_MIN_FREE has no effect, FR_STORE_QUOTA would",
                event="store.blind",
            )
        self._blind = self._free is None


def _words(size: int, setting: str, limit: int, found: str) -> str:
    scan = f" for a scan of {_mib(size)}" if size else ""
    return f"the store has no room{scan}: {found}, {setting} is {_mib(limit)}; it is to be sent again later"


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"
