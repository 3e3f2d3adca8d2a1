"""The process pool: a worker process a slot, each analysing one scan at a time, none able to harm another."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from fr_twisted.brain.ipool import (
    IPool,
    ISlot,
    OutOfMemoryError,
    OverTimeError,
    PoolError,
    WorkerCrashedError,
    out_of_memory,
    unwrap,
)
from fr_twisted.brain.jobs import STARVED, Job, JobResult, Limits, Outcome
from fr_twisted.brain.worker import (
    IdleWorkerDiedError,
    WorkerDiedError,
    WorkerProcess,
    WorkerStartError,
    keep_sockets_in,
)
from fr_twisted.ops.outage import Outage

T = TypeVar("T")

_TO_ANSWER = 0.5
"""Seconds in which a worker that ran past its time may say where it was."""


def _outlive(inner: Deferred[T], on_cancel: Callable[[], None]) -> Deferred[T]:
    """Return a Deferred for the result of ``inner``.

    Cancelling it calls ``on_cancel``, which is to bring ``inner`` to its end; then it errbacks with `CancelledError`.
    """
    ended: Deferred[None] = Deferred()
    outer: Deferred[T] = Deferred(lambda _: on_cancel())

    def finish(result: Any) -> None:
        ended.callback(None)
        if not outer.called:
            outer.callback(result)

    def wait(failure: Failure) -> Any:
        failure.trap(CancelledError)
        return ended.addCallback(lambda _: failure)

    inner.addBoth(finish)
    return outer.addErrback(wait)


@implementer(ISlot)
class _Slot:
    """A worker process and what it takes to have it do a job."""

    def __init__(self, pool: "AnalysisPool", worker: WorkerProcess) -> None:
        self._pool = pool
        self.worker = worker

    def run(self, job: Job) -> Deferred[JobResult]:
        """Do ``job``."""
        return Deferred.fromCoroutine(self._run(job))

    def release(self) -> None:
        """Give the place back; a worker that is dead or worn out is replaced first."""
        self._pool.released(self)

    async def _run(self, job: Job) -> JobResult:
        try:
            return unwrap(await self._call_waking(job))
        except WorkerDiedError as error:
            if any(words in error.last_words for words in STARVED):
                raise out_of_memory(error.last_words) from error
            raise WorkerCrashedError(str(error), error.last_words) from error
        except WorkerStartError as error:
            raise PoolError(str(error)) from error
        except OutOfMemoryError:
            # What is left of its memory may be in pieces.
            self.worker.kill()
            raise

    async def _call_waking(self, job: Job) -> Outcome:
        try:
            return await self._call(job)
        except IdleWorkerDiedError:
            # It died in its sleep: nothing speaks against the job.
            await self._pool.replace(self)
            return await self._call(job)

    async def _call(self, job: Job) -> Outcome:
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            # Where it was is the reason that a person can act on.
            self.worker.ask()
            timers.append(self._pool.clock.callLater(_TO_ANSWER, self.worker.kill))

        timers = [self._pool.clock.callLater(self._pool.time_limit, expire)]
        try:
            return await _outlive(self._pool.call(self.worker, job), self.worker.kill)
        except WorkerDiedError as error:
            if expired:
                reason = f"the analysis ran past its time of {self._pool.time_limit:g} s"
                raise OverTimeError(reason, error.last_words) from error
            raise
        finally:
            for timer in timers:
                if timer.active():
                    timer.cancel()


@implementer(IPool)
class AnalysisPool:
    """Worker processes, one a slot, made by multiprocessing's fork server.

    A fork server has none of our threads, sockets and database connections, and has imported already what the
    workers need. Each worker is waited for in a thread of the pool's own; its results come back to the reactor.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        analysis: str,
        *,
        slots: int,
        time_limit: float,
        limits: Limits,
        max_jobs: int = 100,
        scratch: Callable[[], Path] | None = None,
    ) -> None:
        """Make a pool; nothing is started before `start`, because twistd may fork in between.

        Args:
            reactor: the clock, and where results of threads are delivered.
            analysis: the analysis that every worker has ready, as `fr_twisted.brain.catalog.load` takes it.
            slots: how many jobs are done at once.
            time_limit: seconds that one job may take.
            limits: what one worker process may take.
            max_jobs: after so many jobs a worker is replaced, so that what a library leaks is bounded.
            scratch: tells, when the pool starts, the folder for what multiprocessing leaves behind at a sudden end;
                None: the system's, as multiprocessing itself does. For a process that has one pool in its life.
        """
        self.slots = slots
        self.time_limit = time_limit
        self.clock: IReactorTime = reactor
        self._reactor = reactor
        self._analysis = analysis
        self._limits = limits
        self._max_jobs = max_jobs
        self._scratch = scratch
        self._workers: set[WorkerProcess] = set()
        self._idle: DeferredQueue[ISlot] = DeferredQueue()
        self._threads: ThreadPool | None = None
        self._mending: set[Deferred[None]] = set()
        self._stopped = False

    def start(self) -> Deferred[None]:
        """Start all workers; after a `PoolError` it may be called again."""
        self._stopped = False
        if self._scratch is not None:
            keep_sockets_in(self._scratch())
        self._threads = ThreadPool(minthreads=0, maxthreads=self.slots, name="fr-brain-pool")
        self._threads.start()
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            workers = await gatherResults(
                [Deferred.fromCoroutine(self._new_worker()) for _ in range(self.slots)], consumeErrors=True
            )
        except Exception as error:
            await self.stop()
            raise PoolError(str(getattr(error, "subFailure", Failure(error)).value)) from error
        for worker in workers:
            self._idle.put(_Slot(self, worker))

    def acquire(self) -> Deferred[ISlot]:
        """Fire with a free slot."""
        return self._idle.get()

    def run(self, job: Job) -> Deferred[JobResult]:
        """Do ``job`` in the next free slot."""
        return Deferred.fromCoroutine(self._acquire_and_run(job))

    async def _acquire_and_run(self, job: Job) -> JobResult:
        slot = await self.acquire()
        try:
            return await slot.run(job)
        finally:
            slot.release()

    def stop(self) -> Deferred[None]:
        """Kill everything; fire when it is gone."""
        self._stopped = True
        self._idle = DeferredQueue()
        for mending in list(self._mending):
            mending.cancel()
        for worker in self._workers:
            worker.kill()
        threads, self._threads = self._threads, None
        return Deferred.fromCoroutine(self._stop(threads))

    async def _stop(self, threads: ThreadPool | None) -> None:
        workers, self._workers = self._workers, set()

        def finish() -> None:
            if threads is not None:
                threads.stop()
            for worker in workers:
                worker.close()

        await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), finish)

    def released(self, slot: _Slot) -> None:
        """Let the slot be acquired again, with a new worker if it needs one."""
        if self._stopped:
            return
        if slot.worker.usable and slot.worker.jobs_done < self._max_jobs:
            self._idle.put(slot)
            return
        mending = Deferred.fromCoroutine(self._mend(slot))
        self._mending.add(mending)
        mending.addErrback(lambda failure: failure.trap(CancelledError))
        mending.addErrback(lambda failure: self._log.failure("a slot is lost", failure, event="pool.lost"))
        mending.addBoth(lambda _: self._mending.discard(mending))

    async def _mend(self, slot: _Slot) -> None:
        """Replace the worker of ``slot``, however long that takes."""
        outage = Outage("the process pool", self.clock)
        while True:
            try:
                await self.replace(slot)
                break
            except WorkerStartError as error:
                await deferLater(self.clock, outage.failed(str(error)))
        outage.over()
        self._idle.put(slot)

    async def replace(self, slot: _Slot) -> None:
        """Give ``slot`` a new worker.

        Raises:
            WorkerStartError: it could not be started.
        """
        await self._in_thread(slot.worker.close)
        self._workers.discard(slot.worker)
        slot.worker = await self._new_worker()

    async def _new_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self._analysis, self._limits)
        self._workers.add(worker)
        try:
            await _outlive(self._in_thread(worker.start), worker.kill)
        except BaseException:
            self._workers.discard(worker)
            raise
        self._log.debug("worker {pid} is ready", pid=worker.pid, event="pool.worker")
        return worker

    def call(self, worker: WorkerProcess, job: Job) -> Deferred[Outcome]:
        """Fire with the worker's answer."""
        return self._in_thread(worker.call, job)

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        if self._threads is None:
            raise WorkerStartError("the pool has been stopped")
        return deferToThreadPool(self._reactor, self._threads, partial(function, *arguments))
