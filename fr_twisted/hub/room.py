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


class Coming:
    """Bytes that are about to be written; called when they were, or will not be."""

    def __init__(self, size: int, over: Callable[["Coming"], None]) -> None:
        self.size = size
        self._over = over

    def only(self, size: int) -> None:
        """So many are wanted: the rest was there before."""
        self.size = size

    def __call__(self) -> None:
        """They are no longer to come."""
        self._over(self)


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
        self._coming: set[Coming] = set()
        self._came = 0
        self._looking: Deferred[None] | None = None
        self._next: IDelayedCall | None = None

    # -- what the intake asks

    def fits(self, size: int) -> bool:
        """Tell whether a scan of ``size`` bytes, all of which are to come, may come in now."""
        return self._shortage(size) is None and not (self._full and self._shortage(0))

    def refusal(self, size: int, begun: int = 0) -> str | None:
        """Return why a scan of ``size`` bytes, ``begun`` of them in the store, may not come in now; None: it may."""
        if begun:
            # What it has may be the very bytes that fill the store: it is finished wherever the rest has room.
            reason = self._shortage(size - begun, finishing=True)
        else:
            reason = (self._shortage(0) if self._full else None) or self._shortage(size)
        if reason is not None:
            self._tell(reason, size - begun)
        return reason

    def expect(self, size: int) -> "Coming":
        """Count ``size`` bytes that come in; call what is returned when they have, or will not."""
        coming = Coming(size, self._arrived)
        self._coming.add(coming)
        return coming

    def _arrived(self, coming: "Coming") -> None:
        # Until the next look nobody knows how much of it was written.
        if coming in self._coming:
            self._coming.remove(coming)
            self._came += coming.size

    def _shortage(self, size: int, finishing: bool = False) -> str | None:
        """Return what would be short with ``size`` bytes more, which are the rest of a scan if it is ``finishing``."""
        limits = self._limits
        coming = size + self._came + sum(coming.size for coming in self._coming)
        slack = 10 if self._full and not finishing else _ALL
        wanted = f" for {_mib(size)} more of a scan" if finishing else f" for a scan of {_mib(size)}"
        if not size:
            wanted = ""
        if self._free is not None and self._free - coming < limits.min_free + limits.min_free // slack:
            return _words(wanted, "FR_STORE_MIN_FREE", limits.min_free, f"{_mib(self._free)} are free")
        if limits.quota and (self._used or 0) + coming > limits.quota - limits.quota // slack:
            return _words(wanted, "FR_STORE_QUOTA", limits.quota, f"{_mib(self._used or 0)} are used")
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


def _words(wanted: str, setting: str, limit: int, found: str) -> str:
    return f"the store has no room{wanted}: {found}, {setting} is {_mib(limit)}; it is to be sent again later"


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"
