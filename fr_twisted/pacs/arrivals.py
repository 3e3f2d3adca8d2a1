"""When a received series is complete. Only decides: it is told what arrives, and tells what is complete.

A series is complete when as many instances are there as its headers say; ``quiet`` seconds after the last association
that brought some of it was released; ``patience`` seconds after its last instance where the association broke off or
stays open, and after a restart; and at once when a person says so. DICOM has no word for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.interfaces import IDelayedCall, IReactorTime

Association = int

ASKED = "a person said so"
"""Why a series that somebody called complete is."""


@dataclass(frozen=True)
class Arrival:
    """An instance that was stored: of which series, new or not, how many of it are there, how many are expected."""

    series: str
    new: bool
    count: int
    expected: int | None = None
    """Number of Series Related Instances (0020,1209), else Images in Acquisition (0020,1002)."""
    acquisition: int | None = None
    """Its Acquisition Number, where ``expected`` counts that acquisition alone."""


@dataclass
class _Open:
    """A series with instances that are in no scan yet."""

    senders: set[Association] = field(default_factory=set)
    acquisitions: set[int] = field(default_factory=set)
    released: bool = False
    """Whether the last association that was closed was released properly."""
    timer: IDelayedCall | None = None


class Arrivals:
    """Watches the series that are arriving. In the reactor's thread.

    Args:
        clock: measures the waiting.
        quiet: seconds after a proper release.
        patience: seconds in any other case.
        complete: called with a series and why it counts as complete, once for each time that it does.
    """

    def __init__(
        self, clock: IReactorTime, quiet: float, patience: float, complete: Callable[[str, str], None]
    ) -> None:
        self._clock, self._quiet, self._patience, self._complete = clock, quiet, patience, complete
        self._open: dict[str, _Open] = {}

    @property
    def open(self) -> list[str]:
        """The series that are awaited."""
        return list(self._open)

    def arrived(self, association: Association, arrival: Arrival) -> None:
        """An instance was stored."""
        state = self._open.get(arrival.series)
        if state is None:
            if not arrival.new:
                return  # it is in a scan already
            state = self._open[arrival.series] = _Open()
        state.senders.add(association)
        if arrival.acquisition is not None:
            state.acquisitions.add(arrival.acquisition)
        counted = arrival.acquisition is None or len(state.acquisitions) == 1
        # More than were expected: the number is of something else, such as one of many acquisitions.
        if arrival.expected and counted and arrival.count == arrival.expected:
            self._close(arrival.series, f"all {arrival.expected} instances are there")
        else:
            self._wait(arrival.series, state)

    def found(self, series: str) -> None:
        """After a restart, a series has instances that are in no scan."""
        self._wait(series, self._open.setdefault(series, _Open()))

    def closed(self, association: Association, released: bool) -> None:
        """An association is over; ``released`` or broken off. Only the first word about it counts."""
        for series, state in list(self._open.items()):
            if association in state.senders:
                state.senders.discard(association)
                state.released = released
                self._wait(series, state)

    def ask(self, series: str) -> None:
        """A person says that it is complete."""
        self._close(series, ASKED)

    def stop(self) -> None:
        """Wait for nothing more."""
        for state in self._open.values():
            self._cancel(state)
        self._open.clear()

    def _wait(self, series: str, state: _Open) -> None:
        self._cancel(state)
        over = state.released and not state.senders
        seconds = self._quiet if over else self._patience
        why = f"nothing more came for {seconds:g} s" + (" after the release" if over else "")
        state.timer = self._clock.callLater(seconds, self._close, series, why)

    def _close(self, series: str, why: str) -> None:
        state = self._open.pop(series, None)
        if state is not None:
            self._cancel(state)
        self._complete(series, why)

    @staticmethod
    def _cancel(state: _Open) -> None:
        if state.timer is not None and state.timer.active():
            state.timer.cancel()
