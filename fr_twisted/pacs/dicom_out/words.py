"""What the sending of results says in the log."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from twisted.logger import Logger

from fr_twisted.pacs.dicom_out.jobs import Delivery, Job, warnings_of
from fr_twisted.pacs.dicom_out.scu import Fate, Sent
from fr_twisted.pacs.report_files import Written
from fr_twisted.setting_dicom import Archive


def say_no_series(log: Logger, written: Written) -> None:
    """Say that nothing is made of a report, for there are no images that it could be filed beside."""
    text = "no DICOM objects of {scan_id}: it was no DICOM series, or sent before archives were set"
    log.info(text, scan_id=written.scan_id, report_id=written.report_id, event="dicom.no-series")


def say_made(log: Logger, job: Job, count: int, seconds: float) -> None:
    """Say how many objects were made, and that it took so many seconds."""
    text = "made {count} objects of {report_id}: {seconds:.1f} s"
    log.debug(text, count=count, seconds=seconds, event="dicom.made", **_names(job))


def say_nothing(log: Logger, job: Job, reason: str) -> None:
    """Say that nothing can be made of a report, now or ever."""
    text = "{scan_id}: no DICOM objects of its report can be made ({reason}); the report is in its folder"
    log.error(text, reason=reason, event="dicom.nothing", **_names(job))


def say_trouble(log: Logger, scan_id: str, error: OSError, delay: float) -> None:
    """Say what keeps objects from being made, and when that is tried again."""
    text = "the results of {scan_id} cannot be made into DICOM objects: {reason}; again in {delay:.0f} s"
    reason = error.strerror or type(error).__name__
    log.error(text, scan_id=scan_id, reason=reason, delay=delay, event="dicom.trouble")


def say_asked(log: Logger, job: Job, waiting: Sequence[Archive]) -> None:
    """Say where a report is sent that a person asks for once more."""
    text = "the results of {scan_id} are asked for once more: to {destination}"
    names = ", ".join(map(str, waiting)) or "no archive: all have it"
    log.info(text, destination=names, event="dicom.asked", **_names(job))


def say_no_report(log: Logger, report_id: str) -> None:
    """Say that what a person asks for is not there."""
    text = "{report_id} was asked for, and is no report that could be sent"
    log.warn(text, report_id=report_id, event="dicom.unknown")


def say_no_archive(log: Logger, report_id: str) -> None:
    """Say that a person asks for a report at an archive that is not there."""
    text = "{report_id} was asked for at an archive that FR_DICOM_ARCHIVES does not name"
    log.warn(text, report_id=report_id, event="dicom.unknown")


def _names(job: Job) -> dict[str, Any]:
    return {"scan_id": job.scan_id, "report_id": job.report_id}


def say(log: Logger, job: Job, archive: Archive, sent: Sent, seconds: float) -> None:
    """Say how an attempt went, which took so many seconds."""
    delivery = job.delivery(archive)
    fields: dict[str, Any] = {
        "scan_id": job.scan_id,
        "report_id": job.report_id,
        "destination": str(archive),
        "attempts": delivery.attempts,
    }
    for answer in warnings_of(sent):
        text = "{destination} kept an object of {report_id} with a warning: {reason}"
        log.warn(text, reason=answer.text, status=answer.status, event="dicom.warning", **fields)
    if delivery.fate is Fate.DELIVERED:
        log.info(
            "{destination} has the results of {scan_id}: {count} objects, {seconds:.1f} s{detail}",
            count=len(delivery.kept),
            seconds=seconds,
            detail=_missing_words(job) + _commitment_words(delivery, sent),
            event="dicom.delivered",
            **fields,
        )
    elif delivery.fate is Fate.REFUSED:
        log.error(
            "{destination} refuses results of {scan_id} for good: {reason}",
            reason=delivery.reason,
            event="dicom.refused",
            **fields,
        )


def say_committed(log: Logger, job: Job, archive: Archive) -> None:
    """Say what an archive said, on an association of its own, of its duty to keep them."""
    delivery = job.delivery(archive)
    fields = {"scan_id": job.scan_id, "report_id": job.report_id, "destination": str(archive)}
    if delivery.committed:
        text = "{destination} commits to keeping the results of {scan_id}"
        log.info(text, event="dicom.committed", **fields)
    elif delivery.fate is Fate.REFUSED:
        text = "{destination} does not commit to the results of {scan_id}, however often: {reason}"
        log.error(text, reason=delivery.reason, event="dicom.refused", **fields)
    else:
        text = "{destination} was given the results of {scan_id}: {reason}; they are sent again"
        log.warn(text, reason=delivery.reason, event="dicom.not-committed", **fields)


def say_overdue(log: Logger, job: Job, archive: Archive) -> None:
    """Say that an archive took a request for commitment long ago, and never said what became of it."""
    text = (
        "{destination} has the results of {scan_id}, and has not said since {detail} whether it keeps them;"
        " does it know where FR_DICOM_LISTEN is? fr archives list shows all such results"
    )
    since = since_words(job.delivery(archive))
    fields = {"scan_id": job.scan_id, "report_id": job.report_id, "destination": str(archive)}
    log.warn(text, detail=since, event="dicom.overdue", **fields)


def since_words(delivery: Delivery) -> str:
    """Return when commitment was asked for, such as ``2026-01-02 10:00 UTC``."""
    if delivery.asked_at is None:
        return "an unknown time"
    return f"{datetime.fromtimestamp(delivery.asked_at, UTC):%Y-%m-%d %H:%M} UTC"


def say_later(log: Logger, job: Job, archive: Archive, delay: float) -> None:
    """Say that an archive is tried again."""
    delivery = job.delivery(archive)
    log.warn(
        "{destination} has not got the results of {scan_id} yet: {reason}; again in {delay:.0f} s",
        scan_id=job.scan_id,
        report_id=job.report_id,
        destination=str(archive),
        reason=delivery.reason or "something broke",
        attempts=delivery.attempts,
        delay=delay,
        event="dicom.deferred",
    )


def _missing_words(job: Job) -> str:
    return f", incomplete: no {', no '.join(job.missing)}" if job.missing else ""


def _commitment_words(delivery: Delivery, sent: Sent) -> str:
    if sent.commitment is None:
        return ""
    if delivery.committed:
        return ", and commits to keeping them"
    return (
        ", but does no storage commitment"
        if not sent.commitment.asked
        else "; it was asked to commit to them"
    )
