"""All objects of one report, as bytes of Part 10 files. Blocks for a few seconds: for a thread."""

import io
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from twisted.logger import Logger

from fr_twisted.bundle import OVERLAY_PNG, REPORT_PDF
from fr_twisted.pacs.dicom_out.common import Kind, malformed
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.pictures import encapsulated_pdf, secondary_capture
from fr_twisted.pacs.dicom_out.report import Report, UnreadableReportError
from fr_twisted.pacs.dicom_out.seg import GeometryError, segmentation
from fr_twisted.pacs.dicom_out.sr import structured_report

_log = Logger()


@dataclass(frozen=True)
class Made:
    """The files that were made of a report, and of objects that could not be made why."""

    files: dict[Kind, bytes]
    missing: dict[Kind, str]


def make(report: Report, source: SourceSeries) -> Made:
    """Return what can be made of a report, the segmentation first, for the measurements refer to it.

    The same report and headers give the same bytes. What cannot be made is logged, and does not keep the rest back.
    """
    made: dict[Kind, Dataset] = {}
    missing: dict[Kind, str] = {}

    def attempt(kind: Kind, function: Callable[..., Dataset | None], *args: Any) -> None:
        try:
            dataset = function(report, *args)
        except (UnreadableReportError, GeometryError) as error:
            missing[kind] = str(error)
        except Exception as error:  # what a source's header leads libraries to; messages may quote it
            missing[kind] = f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}"
        else:
            if dataset is not None:
                made[kind] = dataset

    _say_malformed(report, source)
    attempt(Kind.SEG, segmentation, source)
    if report.findings is None:
        missing[Kind.SR] = "its findings are of a form that is not known here"
    else:
        attempt(Kind.SR, structured_report, report.findings, source, made.get(Kind.SEG))
    if OVERLAY_PNG in report.files:
        attempt(Kind.SC, secondary_capture, source, report.files[OVERLAY_PNG])
    if REPORT_PDF in report.files:
        attempt(Kind.PDF, encapsulated_pdf, source, report.files[REPORT_PDF])
    for kind, reason in missing.items():
        _say(report, kind, reason)
    return Made({kind: encoded(dataset) for kind, dataset in made.items()}, missing)


def encoded(dataset: Dataset) -> bytes:
    """Return the Part 10 file of an object."""
    out = io.BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def _say_malformed(report: Report, source: SourceSeries) -> None:
    """Say which dates and times of the source are none: in the objects they stand as it gives them."""
    if odd := malformed(source.images):
        _log.warn(
            "{scan_id}: {what} of its series is no date or time; the objects say it as the series does",
            scan_id=report.written.scan_id,
            report_id=report.written.report_id,
            what=", ".join(odd),
            event="dicom.malformed",
        )


def _say(report: Report, kind: Kind, reason: str) -> None:
    _log.warn(
        "{scan_id}: no {kind} object: {reason}",
        scan_id=report.written.scan_id,
        report_id=report.written.report_id,
        kind=kind.name,
        reason=reason,
        event="dicom.not-made",
    )
