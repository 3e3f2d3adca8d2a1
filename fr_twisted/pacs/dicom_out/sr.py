"""A report's numbers as a Comprehensive 3D SR: TID 1500 (imaging measurement report), as IHE AI Results has it."""

import warnings
from collections.abc import Iterator

from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as known
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from fr_twisted.brain.analysis.schema import Findings
from fr_twisted.pacs.dicom_out import codes
from fr_twisted.pacs.dicom_out.common import (
    MANUFACTURER,
    Kind,
    finish,
    for_highdicom,
    series_description,
    series_number,
)
from fr_twisted.pacs.dicom_out.groups import Groups
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.report import Report
from fr_twisted.pacs.encode import make_uid

DESCRIBED = 3
"""Images that the image library describes; it names all, as the sources of each group (TID 1501). One costs 60 ms."""


def structured_report(
    report: Report, found: Findings, source: SourceSeries, seg: Dataset | None
) -> Comprehensive3DSR:
    """Return the report as measurements; structures that ``seg`` holds refer to their segments."""
    images = for_highdicom(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values in the source's header, which the warning quotes
        content = MeasurementReport(
            observation_context=_observer(report),
            procedure_reported=codes.BRAIN_MRI,
            imaging_measurements=Groups(report, found, source, seg).all(),
            title=known.DCM.ImagingMeasurementReport,
            referenced_images=_described(images) or None,
        )
        _name_all(content[0].ContentSequence, images)
        content[0].ContentSequence.append(_in_words(found))
        made = Comprehensive3DSR(
            evidence=[*images, *([seg] if seg is not None else [])],
            content=content[0],
            series_instance_uid=report.uid(Kind.SR, "series"),
            series_number=series_number(source, Kind.SR),
            sop_instance_uid=report.uid(Kind.SR, "instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=True,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=series_description(report, "measurements"),
            manufacturer_model_name=report.written.analysis[:64],
            software_versions=report.written.analysis_version[:64],
        )
    made.CodingSchemeIdentificationSequence = [_our_scheme()]
    finish(made, report, source)
    return made


def _observer(report: Report) -> ObservationContext:
    """Return the device that observed: this version of this analysis, and no person."""
    name, version = report.written.analysis, report.written.analysis_version
    device = DeviceObserverIdentifyingAttributes(
        uid=make_uid("observer", name, version),
        name="Fr-BRAIN",
        manufacturer_name=MANUFACTURER,
        model_name=name,
        serial_number=version,
    )
    context = ObserverContext(known.DCM.Device, device)
    return ObservationContext(observer_device_context=context)


def _described(images: list[Dataset]) -> list[Dataset]:
    """Return the first, middle and last image, where they say what the library takes to describe an image."""
    chosen = [images[n] for n in sorted({0, len(images) // 2, len(images) - 1})][:DESCRIBED]
    needed = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    for image in chosen:
        if image.SOPClassUID != MRImageStorage or any(image.get(name) is None for name in needed):
            return []
        if image.get("SliceThickness") is None:
            return []
    return chosen


def _name_all(items: ContentSequence, images: list[Dataset]) -> None:
    """Have the image library name every image, in order: descriptors are optional in it (TID 1601)."""
    library = next((item for item in items if item.name == known.DCM.ImageLibrary), None)
    if library is None:
        library = ContainerContentItem(name=known.DCM.ImageLibrary, relationship_type="CONTAINS")
        group = ContainerContentItem(name=known.DCM.ImageLibraryGroup, relationship_type="CONTAINS")
        group.ContentSequence, library.ContentSequence = ContentSequence(), ContentSequence([group])
        places = [place for place, item in enumerate(items) if item.name == known.DCM.ImagingMeasurements]
        items.insert(places[0], library)
    # highdicom makes a group for each frame of reference
    groups = library.ContentSequence
    described = {
        entry.referenced_sop_instance_uid: entry
        for group in groups
        for entry in group.ContentSequence
        if isinstance(entry, ImageContentItem)
    }
    group = groups[0]
    group.ContentSequence = ContentSequence(
        [described.get(image.SOPInstanceUID) or _entry(image) for image in images]
    )
    library.ContentSequence = ContentSequence([group])


def _entry(image: Dataset) -> ImageContentItem:
    return ImageContentItem(
        name=codes.SOURCE,
        referenced_sop_class_uid=image.SOPClassUID,
        referenced_sop_instance_uid=image.SOPInstanceUID,
        relationship_type="CONTAINS",
    )


def _in_words(found: Findings) -> ContainerContentItem:
    """Return the verdict, its reasons and the notes in words, for people (TID 1500, qualitative evaluations)."""
    item = ContainerContentItem(name=codes.QUALITATIVE, relationship_type="CONTAINS")
    item.ContentSequence = ContentSequence(
        [
            CodeContentItem(
                name=codes.QUALITY_ASSESSMENT,
                value=codes.RATINGS[found.verdict.usability],
                relationship_type="CONTAINS",
            ),
            *(
                TextContentItem(name=codes.COMMENT, value=text, relationship_type="CONTAINS")
                for text in sentences(found)
            ),
        ]
    )
    return item


def sentences(found: Findings) -> Iterator[str]:
    """Yield what the report says in words."""
    yield found.decision_support_only
    yield f"Verdict: {found.verdict.usability}."
    for reason in found.verdict.reasons:
        yield f"{reason.code} ({reason.usability}): {reason.text}"
    yield from found.notes
    if found.volumes is None:
        yield "Volumes are withheld."
    elif found.lesions is None:
        yield "Lesion candidates were not looked for."
    elif not found.lesions:
        yield "Lesion candidates were looked for, and none was found."


def _our_scheme() -> Dataset:
    """Return what the designator of our own codes stands for (PS3.3 C.12.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.OURS
    item.CodingSchemeName = "Names of Fr, for which there is no standard code"
    item.CodingSchemeResponsibleOrganization = "The Fr developers"
    return item
