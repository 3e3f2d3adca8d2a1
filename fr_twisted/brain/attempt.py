"""One claimed scan on its way through a slot: fetch, analyse, report; and what becomes of it when that fails."""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.brain.fetch import PayloadBrokenError, fetch, payload_name
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.brain.ipool import ISlot, JobError, PoolError
from fr_twisted.brain.jobs import Job, JobResult
from fr_twisted.brain.tenure import RefusedError, Surroundings, Tenure
from fr_twisted.model import make_report_id
from fr_twisted.ops.logs import describe_exception
from fr_twisted.ops.services import Ready
from fr_twisted.ops.workdir import TooLargeError
from fr_twisted.store.interfaces import Claim, NewReport, PayloadMissingError, StaleTokenError, StoreError

_MAX_ERROR = 2000
_MAX_PLAIN = 200
_NOT_PLAIN = re.compile(r"[^ -~]")
_SILENT_END = (
    "the BRAIN that worked on it ended without a word, or was cut off from the store; its log and the kernel's may "
    "tell, which kills for want of memory"
)

_OF_THE_SCAN = frozenset((errno.EFBIG, errno.ENAMETOOLONG))
"""Errors of files that come of the scan, and would come again: larger than a file may be, for one."""


@dataclass(frozen=True)
class Rules:
    """How scans are worked on."""

    owner: str
    """Whose the leases are: one name for each running BRAIN."""
    analysis: str
    """As `fr_twisted.brain.catalog.load` takes it."""
    lease: float
    """Seconds."""
    max_attempts: int
    """Attempts after which a scan is ``Failed``."""


class Attempt:
    """The work on one claim.

    It is over when the store knows the outcome, when the lease was taken over (the result is dropped then), or after
    `stop`, which kills the analysis and gives the scan back; an outcome that is being written is written.
    """

    _log = Logger()

    def __init__(self, claim: Claim, slot: ISlot, rules: Rules, around: Surroundings) -> None:
        self._claim = claim
        self._slot = slot
        self._rules = rules
        self._around = around
        self._scans = around.store.scans()
        self._tenure = Tenure(claim, rules.lease, around)
        self._began = around.clock.seconds()
        self._ended = Ready()
        self.trouble: str | None = None
        """What kept this BRAIN, rather than the scan, from being able to do it."""

    @property
    def scan_id(self) -> str:
        """The scan's id."""
        return self._claim.scan.scan_id

    def when_over(self) -> Deferred[None]:
        """Fire, never errback, when there is no more to do."""
        return self._ended.when()

    def start(self) -> None:
        """Begin the work."""
        self._say("claimed {scan_id}, attempt {attempt}", "scan.claimed", attempt=self._claim.attempt)
        self._tenure.start()
        work = Deferred.fromCoroutine(self._run()).addErrback(self._unexpected)
        work.addBoth(lambda _: self._end()).addErrback(self._unexpected)

    def stop(self) -> None:
        """Give the scan back as soon as possible, the attempt not counted."""
        self._tenure.stop()

    async def _run(self) -> None:
        lost = False
        try:
            await self._settle()
        except StaleTokenError:
            lost = True
        except (StoreError, CancelledError) as error:
            if not self._tenure.lost:
                reason = str(error) or "this BRAIN stops while the store does not answer"
                self._say("left {scan_id} to its lease: {reason}", "scan.left", reason=reason)
        if lost or self._tenure.lost:
            self._say("{scan_id} was taken over; its result is dropped", "scan.lost")

    async def _settle(self) -> None:
        """Do the work and tell the store what became of it."""
        most = self._rules.max_attempts
        if self._claim.attempt > most:
            # Each attempt begins with a claim: the one before this did not live to tell how it ended.
            told = self._claim.scan.error
            reason = f"after {most} attempts: {'the last' if told else 'each'} time {_SILENT_END}"
            await self._fail(f"{reason}; before: {told}" if told else reason, reason)
            return
        if self._claim.scan.payload_removed_at is not None:
            day = self._claim.scan.payload_removed_at.date().isoformat()
            await self._fail(
                f"its bytes were removed on {day}, as FR_KEEP_PAYLOAD_DAYS says: no new analysis"
            )
            return
        try:
            report = await self._tenure.cancellable(Deferred.fromCoroutine(self._analyse()))
        except CancelledError:
            if not self._tenure.lost:
                await self._give_back(None)
        except UnusableScanError as error:
            await self._fail(str(error))
        except (PayloadBrokenError, PayloadMissingError) as error:
            reason = f"{error}; sent once more from where it came, it is received anew"
            await self._fail(reason, payload_broken=True)
        except JobError as error:
            await self._fall_short(str(error), error.full)
        except (RefusedError, TooLargeError) as error:
            # Of one too large: another BRAIN may have the room; without any, it must not be the first for ever.
            await self._fall_short(str(error), str(error))
        except (PoolError, OSError) as error:
            await self._stumble(error)
        else:
            await self._complete(report)

    async def _stumble(self, error: Exception) -> None:
        """Give the scan back, uncounted where nothing speaks against it: another BRAIN, or a later try, may do it."""
        reason = describe_exception(error)
        if isinstance(error, OSError) and error.errno in _OF_THE_SCAN:
            await self._fall_short(reason, reason)
            return
        self.trouble = reason
        await self._give_back(reason)

    async def _analyse(self) -> NewReport:
        """Fetch and analyse; return the report."""
        in_thread, scan = self._around.in_thread, self._claim.scan
        folder: Path = await in_thread(self._around.work.make, self.scan_id, scan.payload.size)
        try:
            payload = folder / payload_name(scan.meta.format)
            began = self._around.clock.seconds()
            size = await fetch(self._read_chunks, scan.payload, payload, in_thread)
            seconds = self._seconds_since(began)
            self._say(
                "fetched {scan_id}: {bytes} B, {seconds} s", "scan.fetched", bytes=size, seconds=seconds
            )
            result = await self._slot.run(Job(self._rules.analysis, payload, scan.scan_id, scan.meta))
            self._say(
                "analysed {scan_id}: {seconds} s, {cpu} CPU s",
                "scan.analysed",
                seconds=round(result.seconds, 2),
                cpu=round(result.cpu_seconds, 2),
                memory=result.peak_rss,
            )
            return self._make_report(result, await in_thread(result.bundle.read_bytes))
        finally:
            await in_thread(self._around.work.remove, folder)

    def _make_report(self, result: JobResult, bundle: bytes) -> NewReport:
        return NewReport(
            report_id=make_report_id(self.scan_id, result.analysis, result.analysis_version),
            analysis=result.analysis,
            analysis_version=result.analysis_version,
            findings=result.findings,
            bundle=bundle,
        )

    async def _read_chunks(self, payload_id: str, first: int, count: int) -> list[bytes]:
        payloads = self._around.store.payloads()
        return await self._tenure.ask(lambda: payloads.read_chunks(payload_id, first, count))

    async def _complete(self, report: NewReport) -> None:
        try:
            kept = await self._tenure.tell_result(lambda: self._scans.complete(self._claim, report))
        except ValueError as error:
            # The same findings would come of every further attempt. What the error quotes may be from the findings.
            what = "its findings cannot be stored"
            shown = f"{what} ({describe_exception(error)}); more is said where the scan is kept"
            await self._fail(f"{what}: {error}", shown)
            return
        except RefusedError as error:
            await self._fall_short(str(error), str(error))
            return
        self._say(
            "{scan_id} is done: {report_id}, {seconds} s",
            "scan.done",
            report_id=kept.report_id,
            seconds=self._seconds_since(self._began),
        )

    async def _fail(self, reason: str, shown: str | None = None, payload_broken: bool = False) -> None:
        await self._tell(lambda text: self._scans.fail(self._claim, text, payload_broken), reason)
        self._say("{scan_id} failed: {reason}", "scan.failed", reason=shown or reason)

    async def _fall_short(self, reason: str, full: str) -> None:
        """Let it be tried anew, unless this was the last attempt. ``reason`` goes to the log, ``full`` to the store."""
        attempt, most = self._claim.attempt, self._rules.max_attempts
        if attempt >= most:
            await self._fail(f"after {attempt} attempts: {full}", f"after {attempt} attempts: {reason}")
            return
        await self._tell(lambda text: self._scans.release(self._claim, text, True), full)
        self._say(
            "{scan_id} is to be tried again after attempt {attempt}: {reason}",
            "scan.retry",
            attempt=attempt,
            reason=reason,
        )

    async def _give_back(self, error: str | None) -> None:
        if error is None:
            await self._tenure.tell_verdict(lambda: self._scans.release(self._claim, None, False))
        else:
            await self._tell(lambda text: self._scans.release(self._claim, text, False), error)
        self._say("gave {scan_id} back: {reason}", "scan.released", reason=error or "this BRAIN stops")

    async def _tell(self, operation: Callable[[str], Deferred[None]], reason: str) -> None:
        """Tell the store a reason; one that it cannot keep, in fewer and plain characters.

        Raises:
            RefusedError: it cannot keep those either.
        """
        try:
            await self._tenure.tell_verdict(lambda: operation(reason[:_MAX_ERROR]))
        except ValueError:
            plain = _NOT_PLAIN.sub("?", reason[:_MAX_PLAIN])
            try:
                await self._tenure.tell_verdict(lambda: operation(plain))
            except ValueError as error:
                what = f"how the attempt ended cannot be stored ({describe_exception(error)})"
                raise RefusedError(what) from None

    def _unexpected(self, failure: Failure) -> None:
        self._log.failure("work on {scan_id}", failure, scan_id=self.scan_id, event="scan.error")

    def _end(self) -> None:
        self._tenure.end()
        # First this: whoever is given the slot next is to know how it went.
        self._ended.succeed()
        self._slot.release()

    def _seconds_since(self, moment: float) -> float:
        return round(self._around.clock.seconds() - moment, 3)

    def _say(self, message: str, event: str, **fields: object) -> None:
        self._log.info(message, scan_id=self.scan_id, event=event, **fields)
