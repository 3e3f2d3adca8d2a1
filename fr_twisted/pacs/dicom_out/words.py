"""What the sending of results says in the log."""

from datetime import UTC, datetime
from typing import Any

from twisted.logger import Logger

from fr_twisted.pacs.dicom_out.jobs import Delivery, Job, warnings_of
from fr_twisted.pacs.dicom_out.scu import Fate, Sent
from fr_twisted.setting_dicom import Archive


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
