"""Runs the sending of results: a queue for each archive, so that one that is down holds up no other."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import random
from typing import Any
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.ops.services import StartError
from fr_twisted.pacs.dicom_out import asked, words
from fr_twisted.pacs.dicom_out.asked import Asked
from fr_twisted.pacs.dicom_out.jobs import (
    DamagedObjectError,
    Delivery,
    Job,
    Jobs,
    NothingToMakeError,
    StateInUseError,
)
from fr_twisted.pacs.dicom_out.lane import MAX_DELAY, ISender, Lane, pause
from fr_twisted.pacs.dicom_out.promises import Promise, Promises
from fr_twisted.pacs.dicom_out.scu import Commitment, Fate, Sent
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.report_files import Written
from fr_twisted.pacs.scans import Prepared
from fr_twisted.pacs.trouble import log_trouble
from fr_twisted.setting_dicom import Archive

LOOK_SECONDS = 1.0
"""Between two looks for what people ask."""

OVERDUE_SECONDS = 60.0
"""Between two looks for commitments that are awaited for too long."""

PRUNE_SECONDS = 86400.0
"""Between two looks for headers that are too old."""


class DicomOutService(Service):
    """Sends the results of DICOM series to archives, and remembers over a restart what is to be sent.

    Args:
        jobs: the state folder.
        archives: where to.
        make: makes the sender of an archive.
        clock: time.
        commitment: whether archives are asked to commit to keeping them.
        run: runs a function in a thread.
        jitter: a number from 0 to 1.
        now: the time, seconds since 1970.
    """

    _log = Logger()

    def __init__(
        self,
        jobs: Jobs,
        archives: Sequence[Archive],
        make: Callable[[Archive], ISender],
        clock: IReactorTime,
        *,
        commitment: bool = False,
        run: Run = deferToThread,
        jitter: Callable[[], float] = random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._jobs, self._archives, self.clock, self.jitter = jobs, tuple(archives), clock, jitter
        self._commitment, self._run, self._now = commitment, run, now
        self._lanes = [Lane(archive, make(archive), self) for archive in self._archives]
        self._open: dict[str, Job] = {}
        self._making = DeferredLock()
        self._tasks: set[Deferred[None]] = set()
        self._later: set[IDelayedCall] = set()
        self._pruned = self._overdue_at = 0.0
        self._promises = Promises()
        self._writing = DeferredLock()
        self._noting = DeferredLock()
        """Held while a job is read and changed that may be in no queue: two would change two copies of it."""
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    # -- its life

    def startService(self) -> None:
        """Take the state folder, and take up what an earlier run left.

        Raises:
            StartError: the folder cannot be used.
        """
        try:
            self._jobs.open()
        except StateInUseError:
            raise StartError(
                f"FR_DICOM_STATE or --dicom-state: another Fr-PACS uses {self._jobs.state}"
            ) from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StartError(
                f"FR_DICOM_STATE or --dicom-state: {self._jobs.state} cannot be used: {reason}"
            ) from error
        super().startService()
        self.spawn(self._resume())

    def stopService(self) -> Deferred[None]:
        """End what is being sent; it goes on after the next start."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        for call in self._later:
            call.cancel()
        self._later.clear()
        for lane in self._lanes:
            lane.stop()
        aborting = [self._run(lane.sender.abort) for lane in self._lanes]
        waiting = DeferredList([*aborting, *self._tasks], consumeErrors=True)
        return waiting.addCallback(lambda _: self._jobs.close())

    def spawn(self, work: Any) -> None:
        """Run a coroutine of our own; what it did not expect is logged."""
        task: Deferred[None] = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(lambda failure: failure.trap(CancelledError))
        task.addErrback(
            lambda failure: self._log.failure("sending results failed", failure, event="dicom.defect")
        )
        task.addCallback(lambda _: self._tasks.discard(task))

    async def _resume(self) -> None:
        self._pruned = self.clock.seconds()
        for job in await self._run(self._jobs.known):
            self._promises.take_up(job, self._archives, self._now())
            if not job.done:
                job.expect(self._archives)
                self.spawn(self._take(job))
        if self.running:
            self._looking.start(LOOK_SECONDS, now=False).addErrback(
                lambda failure: self._log.failure("looking for what is asked", failure, event="dicom.defect")
            )

    # -- scans and reports

    def remember(self, prepared: Prepared) -> None:
        """Keep what must be known of a series to file its results beside it; blocks, and raises `OSError`."""
        self._jobs.headers.remember(prepared)

    def report_written(self, written: Written) -> None:
        """Have the results of a report made and sent."""
        if self.running:
            self.spawn(self._add(written))

    async def _add(self, written: Written) -> None:
        try:
            if self.clock.seconds() - self._pruned > PRUNE_SECONDS:
                self._pruned = self.clock.seconds()
                await self._making.run(self._run, self._jobs.prune)
            job = await self._run(self._jobs.add, written)
        except OSError as error:
            # The report is safe in its folder; the next start finds that it was not noted.
            self._retry(lambda: self.report_written(written), written.scan_id, error)
            return
        if job is None:
            words.say_no_series(self._log, written)
        elif not job.done:
            job.expect(self._archives)
            await self._take(job)

    async def _take(self, job: Job) -> None:
        """Make the objects of a job, and put it into the queues of the archives that have not got them."""
        if job.report_id in self._open or not self.running:
            return
        self._open[job.report_id] = job
        began = self.clock.seconds()
        try:
            count = await self._make(job)
        except OSError as error:
            del self._open[job.report_id]
            self._retry(lambda: self.spawn(self._take(job)), job.scan_id, error)
            return
        except CancelledError:
            return
        except NothingToMakeError as error:
            count, reason = 0, str(error)
        except Exception as error:
            count, reason = 0, type(error).__name__
        else:
            reason = "nothing can be made of its report"
        if not count:
            self._give_up(job, reason)
            await self._settle(job)
            return
        words.say_made(self._log, job, count, self.clock.seconds() - began)
        waiting = job.waiting(self._archives)
        if not waiting:
            await self._settle(job)
        for lane in self._lanes:
            if lane.archive in waiting:
                lane.put(job)

    # -- what people ask

    def _look(self) -> Deferred[None]:
        """Take up what was asked; that the folder cannot be read is told, and it is tried again."""
        looking: Deferred[None] = Deferred.fromCoroutine(self._take_up())
        self._tasks.add(looking)

        def over(result: Any) -> None:
            self._tasks.discard(looking)
            if isinstance(result, Failure):
                log_trouble(self._log, "what was asked cannot be looked at", result, "dicom.not-looked")

        return looking.addBoth(over)

    async def _take_up(self) -> None:
        state = self._jobs.state
        for one in await self._run(lambda: list(asked.waiting(state))):
            if not self.running:
                return
            await self._noting.run(self._send_anew, one)
            await self._run(asked.answered, state, one)
        if self.clock.seconds() - self._overdue_at >= OVERDUE_SECONDS:
            self._overdue_at = self.clock.seconds()
            for promise in self._promises.overdue(self._now()):
                if self.running:
                    await self._noting.run(self._say_overdue, promise)

    async def _say_overdue(self, promise: Promise) -> None:
        """Say once of a report and archive that its word is overdue; it is awaited all the same."""
        job = self._open.get(promise.report_id) or await self._run(self._jobs.find, promise.report_id)
        delivery = None if job is None else job.deliveries.get(str(promise.archive))
        if job is None or delivery is None or delivery.warned or not delivery.is_awaited:
            return
        delivery.warned = True
        words.say_overdue(self._log, job, promise.archive)
        await self._note(job)

    async def _send_anew(self, one: Asked) -> None:
        report_id = one.report_id
        job = self._open.get(report_id) or await self._run(self._jobs.find, report_id)
        meant = one.meant(self._archives)
        if not meant:
            words.say_no_archive(self._log, report_id)
            return
        if job is None:
            words.say_no_report(self._log, report_id)
            return
        reopened = job.reopen(meant, one.again)
        waiting = job.waiting(self._archives)
        job.done = not waiting
        await self._note(job)
        words.say_asked(self._log, job, job.waiting(meant))
        if report_id in self._open:
            for lane in self._lanes:
                if lane.archive in reopened:
                    lane.put(job)
        elif waiting:
            self.spawn(self._take(job))

    # -- making

    async def _make(self, job: Job) -> int:
        """See that the objects of a job are there; return how many there are.

        Raises:
            CancelledError: the service stops, and many may wait for their turn.
        """
        await self._making.acquire()
        try:
            if not self.running:
                raise CancelledError
            count: int = await self._run(self._jobs.make_objects, job)
        finally:
            self._making.release()
        if not job.made:
            job.made = True
            await self._note(job)
        return count

    def _retry(self, again: Callable[[], None], scan_id: str, error: OSError) -> None:
        delay = MAX_DELAY * (0.1 + 0.1 * self.jitter())
        words.say_trouble(self._log, scan_id, error, delay)
        self._after(delay, again)

    def _after(self, delay: float, act: Callable[[], None]) -> None:
        """Do something later, unless we stop before."""

        def go() -> None:
            self._later.discard(call)
            act()

        call = self.clock.callLater(delay, go)
        self._later.add(call)

    def _give_up(self, job: Job, reason: str) -> None:
        words.say_nothing(self._log, job, reason)
        for archive in job.waiting(self._archives):
            job.deliveries[str(archive)] = Delivery(fate=Fate.REFUSED, reason=f"not made: {reason}")

    # -- sending

    async def deliver(self, job: Job, lane: Lane) -> Delivery:
        """Send a job to the archive of a lane; return what is known of it now."""
        delivery = job.delivery(lane.archive)
        skip = frozenset() if self._commitment else frozenset(delivery.kept)
        began = self.clock.seconds()
        transaction = f"2.25.{uuid4().int}" if self._commitment else None
        if transaction is not None:
            self._promises.asking(transaction, job.report_id, lane.archive, self._now())

        def send() -> tuple[int, Sent]:
            objects = {u: data for u, data in self._jobs.objects(job).items() if u not in skip}
            return len(objects), lane.sender.send(objects, transaction)

        try:
            await self._make(job)
            wanted, sent = await self._run(send)
        except OSError as error:
            wanted, sent = 1, Sent({}, f"its objects cannot be read: {error.strerror}")
        except DamagedObjectError:
            job.made = False
            wanted, sent = 1, Sent({}, "its objects were damaged, and are made anew")
        except (ValueError, NothingToMakeError) as error:
            # Its report is gone from the folder, or damaged: no further attempt makes objects of it.
            if transaction is not None:
                self._promises.asked(transaction, None)
            self._give_up(job, type(error).__name__)
            await self._settle(job)
            return job.delivery(lane.archive)
        if transaction is not None:
            sent = replace(sent, commitment=self._promises.asked(transaction, sent.commitment))
        if not self.running and sent.trouble is not None:
            return delivery
        delivery = job.note(lane.archive, sent, wanted)
        delivery.asked_at = self._now() if delivery.is_awaited else None
        words.say(self._log, job, lane.archive, sent, self.clock.seconds() - began)
        await self._settle(job)
        return delivery

    async def commitment_reported(self, title: str, word: Commitment) -> bool:
        """Note what an archive says on an association of its own; what it does not keep is sent again.

        Return whether there is such a request: False is no matter of ours. Once it returns, the word is on the disk,
        or belongs to a request whose sending is not noted either: killed then, we ask anew.
        """
        return await self._noting.run(self._reported, title, word)

    async def _reported(self, title: str, word: Commitment) -> bool:
        promise = self._promises.find(word.transaction, title)
        if promise is None or not self.running:
            return False
        lane = next(lane for lane in self._lanes if lane.archive == promise.archive)
        if self._promises.came_early(word):
            lane.sender.report_came(word)
            return True
        job = self._open.get(promise.report_id) or await self._run(self._jobs.find, promise.report_id)
        if job is None or job.delivery(promise.archive).transaction != word.transaction:
            self._promises.close(word.transaction)  # it was sent anew since
            return False
        job.committed(promise.archive, word)
        words.say_committed(self._log, job, promise.archive)
        await self._settle(job)
        self._promises.close(word.transaction)
        if job.waiting([promise.archive]) and self.running:
            self._send_again(job, lane)
        return True

    def _send_again(self, job: Job, lane: Lane) -> None:
        """After a pause that grows with each attempt; a restart takes it up too."""
        self._open[job.report_id] = job
        self._after(pause(job.delivery(lane.archive).attempts, self.jitter()), lambda: lane.put(job))

    async def _settle(self, job: Job) -> None:
        """Note a job; when no archive waits for it any more, remove its objects."""
        job.done = not job.waiting(self._archives)
        await self._note(job)
        if job.done:
            self._open.pop(job.report_id, None)
            # In turn with what makes them, which may take long: nobody waits for that, least of all an archive.
            self.spawn(self._discard(job.report_id))

    async def _discard(self, report_id: str) -> None:
        await self._making.run(self._run, self._jobs.discard_objects, report_id)

    async def _note(self, job: Job) -> None:
        # Text is made of it here: another queue may change it while a thread writes.
        text = job.model_dump_json(indent=2)
        await self._writing.run(self._run, self._jobs.write, job.report_id, text)

    def say_later(self, job: Job, archive: Archive, delay: float) -> None:
        """Say that an archive is tried again."""
        words.say_later(self._log, job, archive, delay)
