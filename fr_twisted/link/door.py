"""Who may be connected at once: so many in all, half of them from one address, and who did nothing yet makes way."""

from collections import Counter
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

PATIENCE = 1.0
"""Seconds after which a connection without a HELLO makes way for another when all places are taken."""

LONGER_PATIENCE = 10.0
"""The same of a connection that said HELLO but sent no chunk: an idle node comes back, and finds a place so too."""

QUIET = 10.0
"""Seconds between two log lines about connections that were turned away."""


class IGuest(Protocol):
    """A connection, as the door knows it."""

    address: str
    since: float

    def greeted(self) -> bool:
        """Return whether it said who it is."""

    def proven(self) -> bool:
        """Return whether it sent a whole chunk."""

    def drop(self) -> None:
        """End it at once."""


class Door:
    """Counts connections and says which are too many."""

    _log = Logger()

    def __init__(self, most: int, clock: IReactorTime) -> None:
        """Take the number of connections that may be open."""
        self.most = most
        self._clock = clock
        self._guests: dict[IGuest, None] = {}
        self._addresses: Counter[str] = Counter()
        self._turned_away = 0
        self._said = -QUIET

    def enter(self, guest: IGuest) -> None:
        """Count a connection from its first moment."""
        self._guests[guest] = None
        self._addresses[guest.address] += 1

    def leave(self, guest: IGuest) -> None:
        """Count it no more."""
        if guest in self._guests:
            del self._guests[guest]
            self._addresses[guest.address] -= 1
            if not self._addresses[guest.address]:
                del self._addresses[guest.address]

    def refusal(self, guest: IGuest) -> str | None:
        """Return why ``guest``, which has entered, cannot stay; None: it can."""
        reason = None
        of_one = max(1, self.most // 2)
        if guest.address and self._addresses[guest.address] > of_one:
            if not self._make_way(guest, guest.address):
                reason = f"{of_one} connections of this address are open already; come again later"
        elif len(self._guests) > self.most and not self._make_way(guest):
            reason = f"{self.most} connections are open already; come again later"
        if reason is not None:
            self._note(reason)
        return reason

    def _make_way(self, guest: IGuest, address: str | None = None) -> bool:
        """End a connection that did the least for the longest; return whether there was one that may be ended."""
        now = self._clock.seconds()
        idle: IGuest | None = None
        for other in self._guests:  # the oldest first
            if other is guest or other.proven() or address not in (None, other.address):
                continue
            age = now - other.since
            if not other.greeted() and age >= PATIENCE:
                idle = other
                break
            if idle is None and age >= LONGER_PATIENCE:
                idle = other
        if idle is None:
            return False
        # Its end is told a moment later; its place is free now.
        self.leave(idle)
        idle.drop()
        return True

    def _note(self, reason: str) -> None:
        self._turned_away += 1
        if self._clock.seconds() - self._said < QUIET:
            return
        self._said = self._clock.seconds()
        self._log.warn(
            "turned {count} connections away: {reason}",
            event="link.turned-away",
            count=self._turned_away,
            reason=reason,
        )
        self._turned_away = 0
