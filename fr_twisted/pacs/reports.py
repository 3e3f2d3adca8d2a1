"""What Fr-PACS does with reports: keeps them as files, then acknowledges; a report that comes again is written once."""

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.bundle import MAX_BUNDLE
from fr_twisted.link.interfaces import (
    Accept,
    Duplicate,
    IIntake,
    Item,
    ITransfer,
    Refuse,
    RefusedError,
    Verdict,
)
from fr_twisted.model import CHUNK_SIZE, REPORT_KIND, ReportMeta
from fr_twisted.pacs.ack_times import AckTimes
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.report_files import ReportFolder, Written
from fr_twisted.pacs.trouble import log_trouble

INDEX_DELAY = 0.5
"""Seconds after a report until the index page is written: many reports at once are one rewrite."""

_REASONS = {
    errno.ENOSPC: ("disk-full", "the disk of the reports folder is full"),
    errno.EDQUOT: ("disk-full", "the quota of the reports folder is used up"),
    errno.EACCES: ("not-writable", "the reports folder may not be written"),
    errno.EPERM: ("not-writable", "the reports folder may not be written"),
    errno.EROFS: ("not-writable", "the reports folder is on a file system that is read-only"),
    errno.ENOENT: ("not-writable", "the reports folder is gone"),
}


def refusal(error: OSError) -> RefusedError:
    """Return why a report cannot be written now; the HUB tries again later."""
    code, reason = _REASONS.get(
        error.errno or 0,
        ("not-written", f"the report cannot be written: {error.strerror or type(error).__name__}"),
    )
    return RefusedError(code, reason, retry=True)


@implementer(IIntake)
class ReportIntake:
    """The `IIntake` of a Fr-PACS node. One report is written at a time; its bytes may arrive from several HUBs at once.

    Args:
        folder: the reports folder.
        clock: time.
        acks: tells how long a scan's report took.
        run: runs a function in a thread.
        tell: is called with each report that is on the disk; what it starts must not depend on being called.
    """

    _log = Logger()

    def __init__(
        self,
        folder: ReportFolder,
        clock: IReactorTime,
        acks: AckTimes | None = None,
        *,
        run: Run = deferToThread,
        tell: Callable[[Written], None] | None = None,
    ) -> None:
        self.folder, self._clock, self._acks, self.run = folder, clock, acks or AckTimes(clock), run
        self._tell = tell
        self.lock = DeferredLock()
        self._arriving: set[str] = set()
        self._written: list[Written] = []
        self._index: IDelayedCall | None = None

    def start(self) -> Deferred[None]:
        """Make the folder, remove what is unfinished; errback with `OSError` when it cannot be used."""

        def found(written: list[Written]) -> None:
            self._written = written
            self._schedule_index()

        prepared: Deferred[list[Written]] = self.lock.run(self.run, self.folder.prepare)
        return prepared.addCallback(found)

    def stop(self) -> Deferred[None]:
        """Write the index page, if that is due; fire when nothing is being written any more."""
        if self._index is None:
            return self.lock.run(succeed, None)
        self._index.cancel()
        return self._write_index()

    # -- IIntake

    def hello(self, node: str) -> str | None:
        """Welcome every node; with TLS, only those that the authority vouches for come this far."""
        return None

    def offered(self, node: str, item: Item) -> Deferred[Verdict]:
        """Take reports that are not here yet."""
        if item.kind != REPORT_KIND:
            return succeed(
                Refuse("bad-kind", f"this node takes reports, and this is a {item.kind}", retry=False)
            )
        if item.size == 0:
            return succeed(Refuse("bad-report", "a report without a byte", retry=False))
        if item.size > MAX_BUNDLE:
            reason = f"a report of {item.size} bytes; at most {MAX_BUNDLE} are taken"
            return succeed(Refuse("too-large", reason, retry=False))
        try:
            meta = ReportMeta.model_validate(dict(item.meta))
        except ValidationError as error:
            fields = ", ".join(sorted({str(e["loc"][0]) for e in error.errors() if e["loc"]}))
            return succeed(Refuse("bad-meta", f"the facts about the report are wrong: {fields}", retry=False))
        if item.id in self._arriving:
            return succeed(Refuse("busy", "this report is arriving on another connection", retry=True))
        self._arriving.add(item.id)
        return Deferred.fromCoroutine(self._decide(item, meta)).addBoth(self._decided, item)

    async def _decide(self, item: Item, meta: ReportMeta) -> Verdict:
        try:
            there = await self.run(self.folder.find, meta.scan_id, item.id)
            if there is not None:
                return _about_known(there, item)
            part = self.folder.part_path(item.id, item.sha256)
            offset, digest = await self.run(self.folder.resume, part, CHUNK_SIZE)
        except OSError as error:
            why = refusal(error)
            return Refuse(why.code, why.reason, why.retry)
        return Accept(ReportTransfer(self, item, meta), offset, digest)

    def _decided(self, verdict: Any, item: Item) -> Any:
        if not isinstance(verdict, Accept):
            self.done(item)
        return verdict

    # -- for its transfers

    def done(self, item: Item) -> None:
        """No connection has this report on its way any more."""
        self._arriving.discard(item.id)

    def written(self, item: Item, meta: ReportMeta, written: Written) -> None:
        """A report is on the disk: say so, and list it."""
        seconds = self._acks.seconds_since(meta.scan_id)
        if seconds is None and meta.sent_at is not None:
            seconds = (datetime.now(UTC) - meta.sent_at).total_seconds()
        took = "" if seconds is None else f" {seconds:.1f} s after the scan was kept"
        self._log.info(
            "report of {scan_id} in {path}{detail}",
            scan_id=meta.scan_id,
            report_id=item.id,
            analysis=meta.analysis,
            path=str(self.folder.root / written.folder),
            detail=took,
            seconds=None if seconds is None else round(seconds, 3),
            event="report.written",
        )
        self._written.append(written)
        self._schedule_index()
        if self._tell is not None:
            self._tell(written)

    def _schedule_index(self) -> None:
        if self._index is None:
            self._index = self._clock.callLater(INDEX_DELAY, self._write_index)

    def _write_index(self) -> Deferred[None]:
        self._index = None
        writing: Deferred[None] = self.lock.run(self.run, self.folder.write_index, list(self._written))
        return writing.addErrback(
            lambda failure: log_trouble(
                self._log, "the index of reports could not be written", failure, "report.index"
            )
        )


def _about_known(there: Written, item: Item) -> Verdict:
    if there.sha256 == item.sha256:
        return Duplicate()
    return Refuse("conflict", "a report with this id and other content is here already", retry=False)


@implementer(ITransfer)
class ReportTransfer:
    """One report on its way in, collected in a hidden file."""

    def __init__(self, intake: ReportIntake, item: Item, meta: ReportMeta) -> None:
        self._intake, self._item, self._meta = intake, item, meta
        self._part = intake.folder.part_path(item.id, item.sha256)
        self._busy = 0
        self._over = False

    def write(self, offset: int, data: bytes) -> Deferred[None]:
        """Write it to the hidden file, durably."""
        return self._do(self._intake.folder.write_part, self._part, offset, data)

    def finish(self) -> Deferred[None]:
        """Verify the bundle and make the report visible."""

        def published(written: Written) -> None:
            self._intake.written(self._item, self._meta, written)

        def refused(failure: Failure) -> Failure:
            error = failure.value
            if isinstance(error, RefusedError) and not error.retry:
                forgetting = self._intake.run(self._intake.folder.discard_part, self._part)
                forgetting.addErrback(lambda _: None)  # the next start removes it
            return failure

        publishing = self._do(
            self._intake.folder.publish, self._part, self._item.id, self._item.sha256, self._meta, lock=True
        )
        publishing.addCallbacks(published, refused)
        return publishing.addBoth(self._end)

    def discard(self) -> Deferred[None]:
        """Remove the hidden file."""
        return self._do(self._intake.folder.discard_part, self._part).addBoth(self._end)

    def cut(self) -> None:
        """Keep the hidden file; the next offer goes on from there."""
        self._end(None)

    def _end(self, result: Any) -> Any:
        """Let the report be offered again, once no thread works on it any more."""
        self._over = True
        if not self._busy:
            self._intake.done(self._item)
        return result

    def _do(self, function: Callable[..., Any], *args: Any, lock: bool = False) -> Deferred[Any]:
        """Run it in a thread; an `OSError` becomes the refusal that the HUB is told."""
        self._busy += 1
        run = self._intake.run
        doing: Deferred[Any] = self._intake.lock.run(run, function, *args) if lock else run(function, *args)

        def over(result: Any) -> Any:
            self._busy -= 1
            if self._over:
                self._end(None)
            return result

        def explain(failure: Failure) -> Failure:
            error = failure.value
            return Failure(refusal(error)) if isinstance(error, OSError) else failure

        return doing.addBoth(over).addErrback(explain)
