"""The queue of one archive, which knows of no other."""

from collections import deque
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fr_twisted.pacs.dicom_out.jobs import Delivery, Job
from fr_twisted.pacs.dicom_out.scu import Commitment, Sent
from fr_twisted.setting_dicom import Archive

FIRST_DELAY = 2.0
MAX_DELAY = 300.0
"""Seconds until an archive is tried again: doubled with each failure, half of it by chance."""


def pause(failures: int, jitter: float) -> float:
    """Return the seconds until the next attempt after so many failures; ``jitter``: a number from 0 to 1."""
    return min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(max(0, failures - 1), 16)) * (0.5 + 0.5 * jitter)


class ISender(Protocol):
    """What a queue asks of `fr_twisted.pacs.dicom_out.scu.Sender`. Methods block."""

    def send(self, objects: dict[str, bytes], transaction: str | None = None) -> Sent:
        """Send objects."""

    def report_came(self, word: Commitment) -> None:
        """Wait no longer for the report on a commitment, from another thread; this does not block."""

    def abort(self) -> None:
        """End what goes on, from another thread."""


class IHost(Protocol):
    """What a queue asks of the service."""

    clock: IReactorTime
    running: int

    def jitter(self) -> float:
        """Return a number from 0 to 1."""

    def spawn(self, work: Any) -> None:
        """Run a coroutine."""

    async def deliver(self, job: Job, lane: "Lane") -> Delivery:
        """Send a job to the archive of a lane; return what is known of it now."""

    def say_later(self, job: Job, archive: Archive, delay: float) -> None:
        """Say that an archive is tried again."""


class Lane:
    """The queue of one archive: one report after another, the next attempt after a pause where one failed."""

    def __init__(self, archive: Archive, sender: ISender, host: IHost) -> None:
        self.archive, self.sender, self._host = archive, sender, host
        self._queue: deque[Job] = deque()
        self._busy = False
        self._call: IDelayedCall | None = None
        self._failures = 0

    def put(self, job: Job) -> None:
        """Add a report."""
        self._queue.append(job)
        self._go()

    def stop(self) -> None:
        """Begin nothing more."""
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _go(self) -> None:
        if self._busy or self._call is not None or not self._queue or not self._host.running:
            return
        self._busy = True
        self._host.spawn(self._one(self._queue.popleft()))

    async def _one(self, job: Job) -> None:
        try:
            delivered = await self._host.deliver(job, self)
        except Exception:
            self._again(job)
            raise
        else:
            if delivered.over:
                self._failures = 0
            else:
                self._again(job)
        finally:
            self._busy = False
            self._go()

    def _again(self, job: Job) -> None:
        """Put it behind the others, and wait: what ails the archive is likely to ail it for all."""
        if not self._host.running:
            return
        self._queue.append(job)
        self._failures += 1
        delay = pause(self._failures, self._host.jitter())
        self._host.say_later(job, self.archive, delay)

        def go() -> None:
            self._call = None
            self._go()

        self._call = self._host.clock.callLater(delay, go)
