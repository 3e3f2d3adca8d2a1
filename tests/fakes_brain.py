"""A pool that works in this process and thread, for unit tests of what uses one."""

from collections import Counter

from twisted.internet.defer import Deferred, DeferredQueue, fail, succeed
from zope.interface import implementer

from fr_twisted.brain import jobs
from fr_twisted.brain.ipool import IPool, ISlot, WorkerCrashedError, unwrap
from fr_twisted.brain.jobs import Job, JobResult


@implementer(ISlot)
class InlineSlot:
    """Does a job at once, or when the test says so."""

    def __init__(self, pool: "InlinePool") -> None:
        self.pool = pool
        self.job: Job | None = None
        self._waiting: Deferred[JobResult] | None = None

    def run(self, job: Job) -> Deferred[JobResult]:
        """Do ``job``, or hold it."""
        self.job = job
        self.pool.jobs.append(job)
        if self.pool.failures:
            return fail(self.pool.failures.pop(0))
        if not self.pool.holding:
            return self._do(job)
        self._waiting = Deferred(lambda _: self.pool.note("killed"))
        return self._waiting

    def go_on(self) -> None:
        """Do the job that is held."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and self.job is not None and not waiting.called:
            self._do(self.job).chainDeferred(waiting)

    def crash(self, error: Exception) -> None:
        """End the job that is held by ``error``."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(error)

    def release(self) -> None:
        """Be free again."""
        self.crash(WorkerCrashedError("the slot was released"))
        self.job = None
        self.pool.busy.discard(self)
        self.pool.idle.put(self)

    def _do(self, job: Job) -> Deferred[JobResult]:
        try:
            return succeed(unwrap(jobs.run(job)))
        except Exception as error:
            return fail(error)


@implementer(IPool)
class InlinePool:
    """Runs jobs in this thread.

    - ``holding = True``: jobs wait until `go_on`;
    - ``failures``: errors that the next jobs end with;
    - ``start_error``: what `start` errbacks with.
    """

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.holding = False
        self.failures: list[Exception] = []
        self.start_error: Exception | None = None
        self.events: Counter[str] = Counter()
        self.jobs: list[Job] = []
        self.busy: set[InlineSlot] = set()
        self.idle: DeferredQueue[ISlot] = DeferredQueue()

    def note(self, event: str) -> None:
        """Count an event."""
        self.events[event] += 1

    def start(self) -> Deferred[None]:
        """Offer the slots."""
        if self.start_error is not None:
            return fail(self.start_error)
        self.note("started")
        for _ in range(self.slots):
            self.idle.put(InlineSlot(self))
        return succeed(None)

    def acquire(self) -> Deferred[ISlot]:
        """Fire with a free slot."""
        return self.idle.get().addCallback(self._acquired)

    def _acquired(self, slot: ISlot) -> ISlot:
        assert isinstance(slot, InlineSlot)
        self.busy.add(slot)
        return slot

    def run(self, job: Job) -> Deferred[JobResult]:
        """Do ``job`` in a slot."""
        return Deferred.fromCoroutine(self._run(job))

    async def _run(self, job: Job) -> JobResult:
        slot = await self.acquire()
        try:
            return await slot.run(job)
        finally:
            slot.release()

    def go_on(self) -> None:
        """Do what is held, and hold no more."""
        self.holding = False
        for slot in list(self.busy):
            slot.go_on()

    def stop(self) -> Deferred[None]:
        """End what is held."""
        self.note("stopped")
        for slot in list(self.busy):
            slot.crash(WorkerCrashedError("the pool was stopped"))
        return succeed(None)
