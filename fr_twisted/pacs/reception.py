"""Puts DICOM in together: spool, ledger, rules, source, port and commitments, as services of Fr-PACS."""

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.config import PacsSettings
from fr_twisted.ops.services import IReady, Ready, StartError
from fr_twisted.pacs import event_report, scp
from fr_twisted.pacs.commitment import CommitmentBook
from fr_twisted.pacs.instances import InstanceSpool, SpoolError
from fr_twisted.pacs.ledger import Ledger
from fr_twisted.pacs.received import ReceivedSource
from fr_twisted.pacs.rules import EVERYTHING, RulesError, load

if TYPE_CHECKING:
    from fr_twisted.pacs.dicom_out.service import DicomOutService

_NOTE_WITHIN = 20.0
"""Seconds in which an archive's report is to be noted; else it is answered with a failure, and comes again."""

_ENDPOINT = re.compile(r"tcp:(\d+)(?::interface=(.+))?")


class SpoolService(Service):
    """The spool with all that is kept in it: open from start to stop. Before the outbox, which takes series from it."""

    def __init__(self, settings: PacsSettings, work: Callable[[], Path], reactor: Any) -> None:
        """Take ``work``, which returns the folder for prepared payloads. Touches no file yet."""
        self._settings = settings
        self.spool = InstanceSpool(settings.dicom_spool, settings.spool_limit, settings.spool_reserve)
        self.ledger = Ledger(settings.dicom_spool)
        self.source = ReceivedSource(
            self.spool,
            self.ledger,
            EVERYTHING,
            settings.node,
            work,
            reactor,
            quiet=settings.series_quiet,
            patience=settings.series_patience,
            keep=settings.spool_keep,
            patient_id=settings.patient_id,
        )

    def startService(self) -> None:
        """Open them.

        Raises:
            StartError: the spool or the rules cannot be used.
        """
        try:
            if self._settings.series_rules is not None:
                self.source.rules = load(self._settings.series_rules)
            self.spool.open()
            self.ledger.open()
        except RulesError as error:
            raise StartError(f"FR_SERIES_RULES or --series-rules: {error}") from error
        except SpoolError as error:
            raise StartError(f"FR_SPOOL or --dicom-spool: {error}") from error
        except sqlite3.Error as error:
            raise StartError(
                f"FR_SPOOL or --dicom-spool: the ledger in {self.spool.root} cannot be used: {error}"
            ) from error
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Close them when nothing is at work on them any more."""
        if not self.running:
            return succeed(None)
        super().stopService()

        def close(_: object) -> None:
            self.ledger.close()
            self.spool.close()

        return self.source.when_quiet().addCallback(close)


@implementer(IReady)
class DicomPortService(Service):
    """The DICOM port: open when what a predecessor left in the spool is taken up; the first thing to stop."""

    _log = Logger()

    def __init__(
        self,
        settings: PacsSettings,
        kept: SpoolService,
        reactor: Any,
        results: "DicomOutService | None" = None,
    ) -> None:
        """Take ``results``, which is told of what archives say of the objects that it sent them."""
        self._settings, self._source, self._reactor = settings, kept.source, reactor
        self._results = results
        call = reactor.callFromThread
        self._book = CommitmentBook(
            kept.ledger, kept.spool, self._report, reactor, settings.commit_wait, call
        )
        self._port = scp.StorageScp(_port_settings(settings), kept.spool, kept.source, self._book, call)
        if results is not None and settings.dicom_commitment:
            self._port.heard = self._heard
        self._ready = Ready()

    def _heard(self, title: str, _kind: int, information: Any) -> None:
        """Note the report of an archive; called in an association's thread, and back when it is on the disk."""
        from fr_twisted.pacs.dicom_out.scu import read_report

        def note() -> Deferred[bool]:
            assert self._results is not None
            noting = Deferred.fromCoroutine(
                self._results.commitment_reported(title, read_report(information))
            )
            return noting.addTimeout(_NOTE_WITHIN, self._reactor)

        call: Any = blockingCallFromThread  # whose types know of no Deferred that has a value
        if not call(self._reactor, note):
            raise scp.NotAskedError

    def _report(self, association: Any, peer: str, kind: int, information: Any) -> str | None:
        address = event_report.address_of(self._settings.dicom_peers, peer)
        return event_report.report(self._settings.dicom_aet, association, peer, address, kind, information)

    def startService(self) -> None:
        """Listen, when the source is ready."""
        super().startService()
        self._source.on_settled = self._book.look
        listening = self._source.recovered.addCallback(lambda _: self._listen())
        listening.addCallbacks(self._bound, self._ready.fail)

    def _listen(self) -> Deferred[int | None]:
        if not self.running:
            return succeed(None)
        listening: Deferred[int | None] = deferToThread(self._port.start)
        return listening.addErrback(self._not_bound)

    def _not_bound(self, failure: Failure) -> None:
        failure.trap(OSError)
        reason = getattr(failure.value, "strerror", None) or failure.value
        raise StartError(
            f"FR_DICOM_LISTEN or --dicom-listen: cannot listen on {self._settings.dicom_listen}: {reason}"
        )

    def _bound(self, port: int | None) -> None:
        if port is None:
            return
        self._log.info("DICOM port {port} is open", port=port, event="dicom.bound")
        if not self._settings.dicom_allow:
            self._log.warn(
                "any AE title may send; FR_DICOM_ALLOW names those that may", event="dicom.anybody"
            )
        self._book.start()
        self._ready.succeed()

    def when_ready(self) -> Deferred[None]:
        """Fire when the port is open."""
        return self._ready.when()

    def stopService(self) -> Deferred[None]:
        """Abort the associations, and stop when no thread is at work."""
        super().stopService()
        stopping = self._book.stop()
        return stopping.addCallback(lambda _: deferToThread(self._port.stop))


def _port_settings(settings: PacsSettings) -> scp.ScpSettings:
    found = _ENDPOINT.fullmatch(settings.dicom_listen or "tcp:0")
    assert found is not None
    return scp.ScpSettings(
        host=found[2] or "",
        port=int(found[1]),
        title=settings.dicom_aet,
        allowed=_allowed(settings),
        max_pdu=settings.dicom_max_pdu,
        jpeg=settings.dicom_jpeg,
        max_associations=settings.dicom_max_associations,
    )


def _allowed(settings: PacsSettings) -> list[str]:
    """Return who may call: also archives that are asked for commitment, for they call back; none: anybody."""
    callers = list(settings.dicom_allow)
    if callers and settings.dicom_commitment:
        callers += [archive.title for archive in settings.dicom_archives if archive.title not in callers]
    return callers
