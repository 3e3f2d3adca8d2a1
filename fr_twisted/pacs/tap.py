"""``twistd frpacs``: options and the services of Fr-PACS."""

from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service

from fr_twisted.config import PacsSettings
from fr_twisted.ops.options import settings_options

if TYPE_CHECKING:
    from fr_twisted.pacs.dicom_out.service import DicomOutService
    from fr_twisted.pacs.interfaces import Source
    from fr_twisted.pacs.report_files import ReportFolder
    from fr_twisted.pacs.service import Spool

Options = settings_options(PacsSettings, "Sends brain scans to Fr-HUB and keeps the reports that come back.")


def _results(settings: PacsSettings, reports: "ReportFolder", clock: Any) -> "DicomOutService":
    """Return what sends results to archives; the libraries that it needs are imported for nobody else."""
    from fr_twisted.pacs.dicom_out.jobs import Jobs
    from fr_twisted.pacs.dicom_out.scu import Sender
    from fr_twisted.pacs.dicom_out.service import DicomOutService

    return DicomOutService(
        Jobs(settings.dicom_state, reports),
        settings.dicom_archives,
        lambda archive: Sender(archive, settings.dicom_aet),
        clock,
        commitment=settings.dicom_commitment,
    )


def makeService(options: Any) -> IService:
    """Return Fr-PACS. Its children stop in the reverse order: port, link to the HUB, connections, reports, outbox."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import clientFromString, serverFromString

    from fr_twisted.bundle import MAX_BUNDLE
    from fr_twisted.link.protocol import LinkTimes
    from fr_twisted.link.receiver_factory import DrainService, ReceiverFactory
    from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
    from fr_twisted.ops.services import ListeningService, make_unit
    from fr_twisted.pacs.ack_times import AckTimes
    from fr_twisted.pacs.outbox import PacsOutbox
    from fr_twisted.pacs.report_files import ReportFolder
    from fr_twisted.pacs.reports import ReportIntake
    from fr_twisted.pacs.service import OutboxService, ReportsService, Spool

    clock: Any = reactor
    settings: PacsSettings = options.settings
    if settings.dicom_listen is not None:
        # The network library is needed by nobody else.
        from fr_twisted.pacs.reception import DicomPortService, SpoolService
    node, spool = settings.node, Spool(settings.spool, settings.node)
    sources = _sources(settings, spool, clock)
    reception = SpoolService(settings, spool, clock) if settings.dicom_listen is not None else None
    if reception is not None:
        sources.append(reception.source)
    acks, reports = AckTimes(clock), ReportFolder(settings.reports)
    results = _results(settings, reports, clock) if settings.dicom_archives else None
    outbox = PacsOutbox(sources, clock, acks, remember=results.remember if results else None)
    intake = ReportIntake(reports, clock, acks, tell=results.report_written if results else None)
    times = LinkTimes.with_silence(settings.link_silence)
    receivers = ReceiverFactory(
        node, intake, clock, window=settings.link_window, max_item=MAX_BUNDLE, times=times
    )
    senders = ReconnectingSenderFactory(node, outbox, clock, times=times)
    root = make_unit("pacs", options, clock)
    hub, patience = clientFromString(clock, settings.hub), settings.stop_timeout / 4
    children: list[Service | None] = [
        reception,
        results,
        OutboxService(outbox, spool, settings.send, settings.watch),
        ReportsService(intake),
        DrainService(receivers, patience),
        SenderService(hub, senders, patience),
        ListeningService(serverFromString(clock, settings.listen), receivers, settings.listen),
        DicomPortService(settings, reception, clock, results) if reception is not None else None,
    ]
    for child in filter(None, children):
        child.setServiceParent(root)
    return root


def _sources(settings: PacsSettings, spool: "Spool", clock: Any) -> "list[Source]":
    """Return where scans come from, but for those that come by DICOM."""
    from fr_twisted.pacs.generated import GeneratedSource
    from fr_twisted.pacs.sources import PathSource
    from fr_twisted.pacs.watch import WatchSource

    node, patient_id = settings.node, settings.patient_id
    sources: list[Source] = []
    if settings.send:
        sources.append(PathSource(settings.send, node, spool, clock, patient_id=patient_id))
    if settings.watch is not None:
        sources.append(WatchSource(settings.watch, node, spool, clock, patient_id=patient_id))
    if settings.generate:
        sources.append(
            GeneratedSource(
                settings.generate,
                node,
                spool,
                clock,
                interval=settings.interval,
                seed=settings.seed,
                truth=settings.truth,
            )
        )
    return sources
