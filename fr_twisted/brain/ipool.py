"""What a pool of analyses is to those who use it: interface, errors, and how an outcome becomes one of them."""

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.brain.jobs import Job, JobFailure, JobRefusal, JobResult, Outcome


class PoolError(Exception):
    """No worker can be started as configured; one line that says why."""


class JobError(Exception):
    """A job gave no result; it may do so another time.

    The message quotes nothing that the scan says of its patient. ``detail`` may: it is for the store, not for logs.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail

    @property
    def full(self) -> str:
        """The reason with its detail."""
        return f"{self}: {self.detail}" if self.detail else str(self)


class AnalysisBrokeError(JobError):
    """The analysis raised."""


class OutOfMemoryError(JobError):
    """The analysis asked for more memory than it may have."""


class OverTimeError(JobError):
    """The analysis ran past its time, and its worker was killed."""


class WorkerCrashedError(JobError):
    """The worker process ended at the job; the message tells how, ``detail`` holds its last words."""


class ISlot(Interface):
    """A place for one job at a time, acquired from an `IPool`."""

    def run(job: Job) -> Deferred[JobResult]:
        """Do ``job``; errback with `UnusableScanError` or a `JobError`. Cancelling kills the worker."""

    def release() -> None:
        """Give the place back."""


class IPool(Interface):
    """Somewhere to run analyses."""

    slots: int = Attribute("how many jobs it runs at once")

    def start() -> Deferred[None]:
        """Fire when every slot is ready; errback with `PoolError`."""

    def acquire() -> Deferred[ISlot]:
        """Fire with a slot as soon as one is free and its worker is ready. May be cancelled."""

    def run(job: Job) -> Deferred[JobResult]:
        """Acquire a slot, do ``job`` in it, release it. Cancelling kills the worker."""

    def stop() -> Deferred[None]:
        """Kill every worker; fire when they are gone. Jobs errback with `WorkerCrashedError`."""


def out_of_memory(detail: str) -> OutOfMemoryError:
    """Return the error of a job that asked for too much."""
    return OutOfMemoryError(
        "the analysis ran out of memory; FR_BRAIN_MEMORY_LIMIT is what it may take", detail
    )


def unwrap(outcome: Outcome) -> JobResult:
    """Return the result, or raise what came in its place."""
    if isinstance(outcome, JobResult):
        return outcome
    if isinstance(outcome, JobRefusal):
        raise UnusableScanError(outcome.reason)
    assert isinstance(outcome, JobFailure)
    if outcome.out_of_memory:
        raise out_of_memory(f"{outcome.reason}: {outcome.detail}")
    raise AnalysisBrokeError(f"the analysis broke: {outcome.reason}", outcome.detail)
