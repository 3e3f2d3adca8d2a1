"""What Fr-PACS has to send: candidates of several sources, prepared a few ahead, offered, retried, settled."""

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.pacs.ack_times import AckTimes
from fr_twisted.pacs.files import ChangedError, NotUsableError
from fr_twisted.pacs.interfaces import Candidate, Source
from fr_twisted.pacs.scans import Payload, Prepared
from fr_twisted.pacs.trouble import log_trouble

MAX_DELAY = 30.0
"""Seconds before an item is offered again, at most."""

PREPARED = 3
"""Scans that are prepared at once, the one on its way included: bounds what the spool folder holds."""

MAX_DEFERRED = 64
"""Scans that wait for their next offer; while there are so many, no new ones are taken up."""

Run = Callable[..., Deferred[Any]]
"""Runs a function in a thread: `deferToThread`, or something that a test controls."""


@dataclass(eq=False)
class Entry:
    """A candidate on its way through the outbox."""

    candidate: Candidate
    prepared: Prepared | None = None
    payload: Payload | None = None
    attempts: int = 0
    offered_at: float = 0.0
    told_at: float = 0.0


@implementer(IOutbox)
class PacsOutbox:
    """The `IOutbox` of a Fr-PACS node: prepares in threads, forgets nothing that is not acknowledged or refused.

    An item that was not kept this time waits 1, 2, 4, ... up to `MAX_DELAY` seconds, half of that by chance, and is
    then prepared anew, so that a file that has changed is noticed and the spool folder holds only what is next.
    """

    _log = Logger()

    def __init__(
        self,
        sources: Sequence[Source],
        clock: IReactorTime,
        acks: AckTimes | None = None,
        *,
        run: Run = deferToThread,
        prepared: int = PREPARED,
        jitter: Callable[[], float] = random,
        remember: Callable[[Prepared], None] | None = None,
    ) -> None:
        """Take ``remember``, which is called in a thread with each scan before it is offered."""
        self._remember = remember
        self._sources, self._clock, self._run, self._jitter = sources, clock, run, jitter
        self._acks = acks or AckTimes(clock)
        self._room = DeferredSemaphore(prepared)
        self._entries: set[Entry] = set()
        self._ready: deque[Entry] = deque()
        self._offered: dict[str, Entry] = {}
        self._later: dict[Entry, IDelayedCall] = {}
        self._opening: Entry | None = None
        self._waiters: list[Deferred[Item | None]] = []
        self._idle: list[Deferred[None]] = []
        self._calm: list[Deferred[None]] = []
        self._tasks: set[Deferred[None]] = set()
        self._jobs: set[Deferred[None]] = set()
        self._filling = 0
        self._running = False

    # -- its life

    def start(self) -> None:
        """Start the sources and take up what they have."""
        self._running = True
        self._filling = len(self._sources)
        for source in self._sources:
            source.start()
        for source in self._sources:
            self._spawn(self._fill(source))

    def stop(self) -> Deferred[None]:
        """Take up nothing more; fire when no thread is at work. What was not acknowledged stays where it came from."""
        self._running = False
        for source in self._sources:
            source.stop()
        for call in self._later.values():
            call.cancel()
        self._later.clear()
        for task in list(self._tasks):
            task.cancel()
        for entry in list(self._entries):
            self._release(entry)
        self._ready.clear()
        return DeferredList(list(self._jobs)).addCallback(lambda _: None)

    def when_idle(self) -> Deferred[None]:
        """Fire when the sources have no more and everything they had is acknowledged, refused or skipped."""
        idle: Deferred[None] = Deferred(lambda d: self._idle.remove(d) if d in self._idle else None)
        self._idle.append(idle)
        self._check_idle()
        return idle

    def _check_idle(self) -> None:
        if self._running and not self._filling and not self._entries:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run it; a result that nobody waits for any more is dropped, but `stop` still waits for the thread."""
        job: Deferred[None] = Deferred()
        self._jobs.add(job)
        result = self._run(function, *args)
        outcome: Deferred[Any] = Deferred()

        def over(value: Any) -> None:
            self._jobs.discard(job)
            outcome.callback(value)
            job.callback(None)

        result.addBoth(over)
        return outcome

    def _spawn(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        task: Deferred[None] = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def over(result: Any) -> Any:
            self._tasks.discard(task)
            return result

        task.addBoth(over)
        task.addErrback(lambda failure: failure.trap(CancelledError))
        task.addErrback(
            lambda failure: self._log.failure("the outbox failed", failure, event="outbox.defect")
        )

    # -- preparing

    async def _fill(self, source: Source) -> None:
        while self._running and (candidate := await source.next_candidate()) is not None:
            entry = Entry(candidate)
            self._entries.add(entry)
            while len(self._later) >= MAX_DEFERRED:
                calm: Deferred[None] = Deferred()
                self._calm.append(calm)
                await calm
            await self._prepare(entry)
        self._filling -= 1
        self._check_idle()

    async def _prepare(self, entry: Entry) -> None:
        await self._room.acquire()
        try:
            entry.prepared = await self._in_thread(self._prepare_one, entry.candidate)
        except (ChangedError, NotUsableError) as error:
            self._drop(entry, error)
        except CancelledError:
            self._room.release()
            raise
        except Exception as error:
            log_trouble(self._log, "a scan could not be prepared", Failure(error), "scan.unprepared")
            self._put_off(entry)
        else:
            item = entry.prepared.item
            self._log.info(
                "prepared {scan_id}, {bytes} bytes", scan_id=item.id, bytes=item.size, event="scan.prepared"
            )
            self._ready.append(entry)
            self._serve()

    def _prepare_one(self, candidate: Candidate) -> Prepared:
        prepared = candidate.prepare()
        if self._remember is not None:
            try:
                self._remember(prepared)
            except BaseException:
                prepared.discard()
                raise
        return prepared

    def _drop(self, entry: Entry, error: Exception) -> None:
        """It is not what it was, or not to be sent: forget it; its source knows what to do."""
        self._release(entry)
        self._entries.discard(entry)
        self._room.release()
        if isinstance(error, ChangedError):
            self._log.info("a scan is looked at again: {reason}", reason=str(error), event="scan.changed")
            entry.candidate.changed()
        else:
            entry.candidate.skipped(str(error))
        self._check_idle()

    def _put_off(self, entry: Entry) -> float:
        """Offer it again later; return after how many seconds."""
        self._release(entry)
        self._room.release()
        entry.attempts += 1
        delay = min(MAX_DELAY, 2.0 ** min(entry.attempts - 1, 16)) * (0.5 + 0.5 * self._jitter())
        if self._running:
            self._later[entry] = self._clock.callLater(delay, self._again, entry)
        return delay

    def _again(self, entry: Entry) -> None:
        self._later.pop(entry, None)
        calm, self._calm = self._calm, []
        for deferred in calm:
            deferred.callback(None)
        self._spawn(self._prepare(entry))

    def _release(self, entry: Entry) -> None:
        """Close its file, remove what is spooled."""
        payload, entry.payload = entry.payload, None
        prepared, entry.prepared = entry.prepared, None

        def release() -> None:
            if payload is not None:
                payload.close()
            if prepared is not None:
                prepared.discard()

        if payload is not None or prepared is not None:
            self._in_thread(release).addErrback(
                lambda failure: log_trouble(
                    self._log, "a file could not be released", failure, "scan.unreleased"
                )
            )

    # -- IOutbox

    def next_item(self) -> Deferred[Item | None]:
        """Fire with the next prepared item, its file open and what it was made of unchanged."""
        waiter: Deferred[Item | None] = Deferred(
            lambda d: self._waiters.remove(d) if d in self._waiters else None
        )
        self._waiters.append(waiter)
        self._serve()
        return waiter

    def _serve(self) -> None:
        if not self._waiters or not self._ready or self._opening is not None:
            return
        entry = self._opening = self._ready.popleft()
        opening = self._in_thread(entry.candidate.open, entry.prepared)
        opening.addCallbacks(self._opened, self._not_opened, callbackArgs=(entry,), errbackArgs=(entry,))
        opening.addErrback(
            lambda failure: self._log.failure("the outbox failed", failure, event="outbox.defect")
        )

    def _opened(self, payload: Payload, entry: Entry) -> None:
        self._opening = None
        if not self._running or entry.prepared is None:
            self._close(payload)
            return
        if not self._waiters or entry.prepared.item.id in self._offered:
            # Nobody waits any more; or another copy of the same scan is on its way: this one after it.
            self._close(payload)
            self._ready.appendleft(entry)
            return
        entry.payload = payload
        entry.offered_at = self._clock.seconds()
        entry.told_at = entry.offered_at
        item = entry.prepared.item
        self._offered[item.id] = entry
        self._log.info("offering {scan_id}", scan_id=item.id, bytes=item.size, event="scan.offered")
        self._waiters.pop(0).callback(item)
        self._serve()

    def _close(self, payload: Payload) -> None:
        self._in_thread(payload.close).addErrback(
            lambda failure: log_trouble(self._log, "a file could not be closed", failure, "scan.unreleased")
        )

    def _not_opened(self, failure: Failure, entry: Entry) -> None:
        self._opening = None
        if not self._running:
            return
        if isinstance(failure.value, (ChangedError, NotUsableError)):
            self._drop(entry, failure.value)
        else:
            log_trouble(self._log, "a scan cannot be opened", failure, "scan.unprepared")
            self._put_off(entry)
        self._serve()

    def read(self, item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Read from the open file, in a thread."""
        entry = self._offered.get(item.id)
        if entry is None or entry.payload is None:
            raise ChangedError("the item is not on offer")
        reading: Deferred[bytes] = self._in_thread(entry.payload.read, offset, size)
        return reading

    def progress(self, item: Item, kept: int) -> None:
        """Say so, at most once a second."""
        entry = self._offered.get(item.id)
        now = self._clock.seconds()
        if entry is None or now - entry.told_at < 1.0:
            return
        entry.told_at = now
        self._log.info(
            "{scan_id}: {bytes} of {size} bytes kept",
            scan_id=item.id,
            bytes=kept,
            size=item.size,
            event="scan.progress",
        )

    def acknowledged(self, item: Item, duplicate: bool) -> Deferred[None]:
        """The HUB keeps it: let its source note that."""
        self._acks.note(item.id)
        entry = self._offered.pop(item.id, None)
        if entry is None:
            return succeed(None)
        self._log.info(
            "acknowledged {scan_id}, {bytes} bytes in {seconds:.2f} s",
            scan_id=item.id,
            bytes=item.size,
            seconds=self._clock.seconds() - entry.offered_at,
            duplicate=duplicate,
            event="scan.acknowledged",
        )
        return self._end(entry, item, entry.candidate.kept)

    def refused(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """The HUB never takes it: let its source note that."""
        entry = self._offered.pop(item.id, None)
        self._log.warn(
            "refused {scan_id}: {code}: {reason}",
            scan_id=item.id,
            code=code,
            reason=reason,
            event="scan.refused",
        )
        if entry is None:
            return succeed(None)
        return self._end(entry, item, entry.candidate.refused, code, reason)

    def _end(self, entry: Entry, item: Item, note: Callable[..., None], *args: str) -> Deferred[None]:
        """Have it noted in a thread; that this fails is logged, and no reason to hold up the others."""

        def failed(failure: Failure) -> None:
            log_trouble(
                self._log,
                "{scan_id} is done with, but its files could not be put away",
                failure,
                "scan.not-put-away",
                scan_id=item.id,
            )

        def over(_: Any) -> None:
            self._release(entry)
            self._entries.discard(entry)
            if self._running:
                self._room.release()
                entry.candidate.ended()
                self._check_idle()

        noting = self._in_thread(note, entry.prepared, *args)
        noting.addErrback(failed)
        return noting.addCallback(over)

    def deferred(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Not kept this time: again later."""
        entry = self._offered.pop(item.id, None)
        if entry is not None and self._running:
            delay = self._put_off(entry)
            self._log.info(
                "{scan_id} was not kept ({code}: {reason}); again in {delay:.1f} s",
                scan_id=item.id,
                code=code,
                reason=reason,
                delay=delay,
                attempts=entry.attempts,
                event="scan.deferred",
            )
        return succeed(None)

    interrupted = deferred  # either way the scan is offered again after a pause
