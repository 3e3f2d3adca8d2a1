"""The services of Fr-PACS: what it sends, and the folder that reports are kept in."""

from collections.abc import Sequence
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.ops.services import IReady, Ready, StartError
from fr_twisted.ops.workdir import WorkDir, WorkDirError
from fr_twisted.pacs.outbox import PacsOutbox
from fr_twisted.pacs.reports import ReportIntake


class Spool:
    """A private folder for prepared payloads, there from `make` to `remove`; what a killed node left is removed."""

    def __init__(self, parent: Path | None, node: str) -> None:
        self._folder = WorkDir(parent, node, "pacs")

    def __call__(self) -> Path:
        """Return the folder."""
        return self._folder.path

    def make(self) -> None:
        """Make it, for this user alone; `WorkDirError` when that cannot be."""
        self._folder.open()

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._folder.close()


class OutboxService(Service):
    """Runs an outbox: sees that what it was told to send is there, has the spool folder, stops its threads."""

    def __init__(
        self, outbox: PacsOutbox, spool: Spool, send: Sequence[Path] = (), watch: Path | None = None
    ) -> None:
        self.outbox, self._spool, self._send, self._watch = outbox, spool, send, watch

    def startService(self) -> None:
        """Begin to prepare.

        Raises:
            StartError: a path to be sent is not there, the watched folder is none, or no spool folder can be made.
        """
        for path in self._send:
            if not path.exists():
                raise StartError(f"FR_PACS_SEND or --send: there is no {path}")
        if self._watch is not None and not self._watch.is_dir():
            raise StartError(f"FR_PACS_WATCH or --watch: {self._watch} is no folder; make it first")
        try:
            self._spool.make()
        except WorkDirError as error:
            raise StartError(f"FR_PACS_SPOOL or --spool: {error}") from error
        super().startService()
        self.outbox.start()

    def stopService(self) -> Deferred[None]:
        """Stop preparing, and remove the spool folder when no thread writes to it any more."""
        if not self.running:
            return succeed(None)
        super().stopService()
        return self.outbox.stop().addCallback(lambda _: self._spool.remove())


@implementer(IReady)
class ReportsService(Service):
    """Runs a report intake: ready when the reports folder can be written."""

    def __init__(self, intake: ReportIntake) -> None:
        self.intake = intake
        self._ready = Ready()

    def startService(self) -> None:
        """Make and clean the folder."""
        super().startService()

        def unusable(failure: Failure) -> None:
            failure.trap(OSError)
            root, reason = self.intake.folder.root, getattr(failure.value, "strerror", None)
            raise StartError(f"FR_PACS_REPORTS or --reports: {root} cannot be written: {reason}")

        starting = self.intake.start().addErrback(unusable)
        starting.addCallbacks(lambda _: self._ready.succeed(), self._ready.fail)

    def when_ready(self) -> Deferred[None]:
        """Fire when reports can be written."""
        return self._ready.when()

    def stopService(self) -> Deferred[None]:
        """Wait until nothing is being written."""
        super().stopService()
        return self.intake.stop()
