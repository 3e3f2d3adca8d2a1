"""What all objects that are made of a report have in common: patient, study, equipment, times, text encoding."""

import copy
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DA, DT, TM

from fr_twisted import __version__
from fr_twisted.brain.analysis.schema import DECISION_SUPPORT
from fr_twisted.pacs.dicom import IMPLEMENTATION_UID
from fr_twisted.pacs.dicom_out.headers import EMPTY, PATIENT, STUDY, SourceSeries
from fr_twisted.pacs.dicom_out.report import Report
from fr_twisted.pacs.facts import dicom_zone

MANUFACTURER = "Fr"

_TEXTS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
"""Value representations that the Specific Character Set is about (PS3.5 6.1.2.2)."""


_PARSERS: Mapping[str, Callable[[Any], object]] = {"DA": DA, "DT": DT, "TM": TM}


class Kind(StrEnum):
    """The objects of one report. The value is also the name of the file that waits to be sent."""

    SEG = "seg"
    SR = "sr"
    SC = "sc"
    PDF = "pdf"

    @property
    def number(self) -> int:
        """Its place in what is added to a source series: the end of its series number."""
        return list(Kind).index(self) + 1


def series_number(source: SourceSeries, kind: Kind) -> int:
    """Return a Series Number that shows what belongs together: those of series 3 are 301 to 304."""
    try:
        number = int(source.first.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return 100 * (number if 0 < number < 10**6 else 90) + kind.number


def series_description(report: Report, what: str) -> str:
    """Return such as ``Fr t1-volumes: measurements``."""
    return f"Fr {report.written.analysis}: {what}"[:64]


def content_time(report: Report, source: SourceSeries) -> datetime:
    """Return when the report was written, in the zone that all times of the study are in (PS3.3 C.12.1.1)."""
    zone = dicom_zone(str(source.first.get("TimezoneOffsetFromUTC") or ""))
    return report.moment.astimezone(zone)


def for_highdicom(source: SourceSeries, thickness: float | None = None) -> list[Dataset]:
    """Return the images with all that highdicom takes for granted; `finish` puts back what the source says.

    ``thickness``: of slices that do not tell theirs (it is of type 2), mm.
    """
    images = copy.deepcopy(list(source.images))
    for image in images:
        for keyword in EMPTY:
            if keyword not in image:
                setattr(image, keyword, "")
        if image.PatientSex not in ("M", "F", "O"):
            image.PatientSex = ""
        for keyword in malformed([image]):
            setattr(image, keyword, "")
        if thickness is not None and "NumberOfFrames" not in image and not image.get("SliceThickness"):
            image.SliceThickness = f"{thickness:.6g}"
        image.SpecificCharacterSet = "ISO_IR 192"
    return images


def malformed(images: Iterable[Dataset]) -> list[str]:
    """Return the keywords of dates and times that are none, such as ``01/02/1950``; the library fails on them."""
    found: dict[str, None] = {}
    for image in images:
        for element in image:
            parse = _PARSERS.get(element.VR)
            if parse is None or element.is_empty:
                continue
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            try:
                for value in values:
                    parse(value)
            except Exception:  # it quotes the value
                found[element.keyword] = None
    return list(found)


def blank(report: Report, source: SourceSeries, kind: Kind, sop_class: UID, what: str) -> Dataset:
    """Return an object with all that its modules of series, equipment and SOP have in common."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, report.uid(kind, "instance")
    dataset.SeriesInstanceUID, dataset.SeriesNumber = report.uid(kind, "series"), series_number(source, kind)
    dataset.SeriesDescription, dataset.InstanceNumber = series_description(report, what), 1
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, report.written.analysis[:64]
    dataset.SoftwareVersions = report.written.analysis_version[:64]
    dataset.ConversionType = "WSD"
    return dataset


def finish(dataset: Dataset, report: Report, source: SourceSeries) -> Dataset:
    """Give an object the patient and study of its source, its times, its maker and its encoding."""
    for keyword in (*PATIENT, *STUDY):
        if keyword in dataset:
            delattr(dataset, keyword)
        if keyword in source.first:
            dataset[keyword] = copy.deepcopy(source.first[keyword])
    for keyword in EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    moment = content_time(report, source)
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.ContentDate, dataset.ContentTime = date, time
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.ContributingEquipmentSequence = [_maker(report)]
    dataset.SpecificCharacterSet = _character_set(dataset)
    _meta(dataset)
    return dataset


def _maker(report: Report) -> Dataset:
    """Return who made it (PS3.3 C.12.1.1.5), as IHE AI Results has it."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, report.written.analysis[:64]
    item.SoftwareVersions = [report.written.analysis_version[:64], f"fr-twisted {__version__}"]
    item.ContributionDescription = DECISION_SUPPORT
    return item


def _character_set(dataset: Dataset) -> str:
    """Return Latin-1 where that holds all texts, which every reader has, else UTF-8."""
    try:
        for element in dataset.iterall():
            if element.VR in _TEXTS and element.value is not None:
                str(element.value).encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def _meta(dataset: Dataset) -> None:
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "FR-PACS"
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
