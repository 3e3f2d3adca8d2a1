"""The label maps of a report as a DICOM Segmentation on the planes of the source images."""

import warnings
from typing import Any

import highdicom
import numpy as np
import scipy.ndimage
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fr_twisted.bundle import LABELS, LABELS_NII, LESIONS_NII
from fr_twisted.pacs.dicom_out import codes
from fr_twisted.pacs.dicom_out.common import (
    MANUFACTURER,
    Kind,
    finish,
    for_highdicom,
    series_description,
    series_number,
)
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.report import LabelMap, Report, UnreadableReportError
from fr_twisted.pacs.dicom_out.tracking import tracking

_ndimage: Any = scipy.ndimage  # its names are made at run time, unseen by type checkers
_TO_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
_VALUES = {name: value for value, name in LABELS.items()}

SEGMENTS = (
    # number, values of the label map, label, category, type, colour (RGB)
    (1, ("fluid", "ventricle"), "Cerebrospinal fluid", codes.SUBSTANCE, codes.CSF, (80, 140, 220)),
    (2, ("grey matter",), "Grey matter", codes.ANATOMICAL, codes.GREY_MATTER, (150, 150, 150)),
    (3, ("white matter",), "White matter", codes.ANATOMICAL, codes.WHITE_MATTER, (240, 240, 220)),
    (4, ("ventricle",), "Ventricles", codes.ANATOMICAL, codes.VENTRICLES, (40, 80, 200)),
)
"""The ventricles are in the fluid as well, so that each segment has the volume that the report gives."""

_FIELDS = {structure.segment: structure.field for structure in codes.STRUCTURES if structure.segment}


class GeometryError(Exception):
    """The source images are no even stack of planes; says what is missing."""


def segmentation(report: Report, source: SourceSeries) -> Segmentation | None:
    """Return the segmentation; None: the report carries no label map.

    Raises:
        UnreadableReportError: a label map is none.
        GeometryError: the source's planes cannot be put in their places.
    """
    labels = report.label_map(LABELS_NII)
    if labels is None:
        return None
    frames = {str(image.get("FrameOfReferenceUID") or "") for image in source.images}
    if frames == {""}:
        raise GeometryError("its images name no frame of reference")
    if len(frames) > 1:
        raise GeometryError("its images do not share one frame of reference")
    if labels.values.max(initial=0) > max(LABELS) or labels.values.min(initial=0) < 0:
        raise UnreadableReportError(f"{LABELS_NII} has labels that are not known here")
    lesions = report.label_map(LESIONS_NII)
    masks = _masks(labels, lesions, source)
    if not masks[..., :3].any():
        return None
    images = for_highdicom(source, float(np.linalg.norm(planes(source)[1][:3, 0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values in the source's header, which the warning quotes
        made = _encode(report, source, images, masks)
    # The library makes a new one each time; the same report is to give the same bytes.
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = report.uid(Kind.SEG, "dimensions")
    finish(made, report, source)
    return made


def _encode(
    report: Report, source: SourceSeries, images: list[Dataset], masks: NDArray[np.bool_]
) -> Segmentation:
    return Segmentation(
        source_images=images,
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=_descriptions(report, source, masks.shape[-1]),
        series_instance_uid=report.uid(Kind.SEG, "series"),
        series_number=series_number(source, Kind.SEG),
        sop_instance_uid=report.uid(Kind.SEG, "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=report.written.analysis[:64],
        software_versions=report.written.analysis_version[:64],
        device_serial_number=report.written.analysis_version[:64],
        series_description=series_description(report, "segments"),
        content_description="Tissues as they were counted. Decision support only.",
        content_label="BRAIN_TISSUES",
        content_creator_name="Fr-BRAIN",
        omit_empty_frames=True,
    )


def _descriptions(report: Report, source: SourceSeries, count: int) -> list[SegmentDescription]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=report.written.analysis[:64],
        version=report.written.analysis_version[:64],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        source=MANUFACTURER,
    )
    lesions = (codes.LESION_SEGMENT, (), "Lesion candidates", codes.ABNORMAL, codes.LESION, (220, 60, 40))
    found = []
    for number, _, label, category, kind, colour in (*SEGMENTS, lesions)[:count]:
        field = _FIELDS.get(number)
        identifier, uid = (
            tracking(report, source, field) if field else (label, report.uid("tracking", "lesions"))
        )
        found.append(
            SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                tracking_uid=uid,
                tracking_id=identifier,
                display_color=CIELabColor.from_rgb(*colour),
            )
        )
    return found


def _masks(labels: LabelMap, lesions: LabelMap | None, source: SourceSeries) -> NDArray[np.bool_]:
    """Return planes (plane, row, column, segment) in the order of the source's frames."""
    order, affine, shape = planes(source)
    placed = on_planes(labels, affine, shape)
    parts = [np.isin(placed, [_VALUES[name] for name in values]) for _, values, *_ in SEGMENTS]
    if lesions is not None:
        found = on_planes(lesions, affine, shape) > 0
        if found.any():
            parts.append(found)
    stacked = np.stack(parts, axis=-1)
    result = np.empty_like(stacked)
    result[order] = stacked
    return result


def on_planes(labels: LabelMap, affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return for each place (plane, row, column) of a grid the label of the nearest voxel, 0 outside.

    ``affine`` maps (plane, row, column) to millimetres to the right, front and top.
    """
    index = np.linalg.inv(labels.affine) @ affine
    moved = _ndimage.affine_transform(
        labels.values,
        # a coordinate of -1e-7, of decimal text, is that of the first voxel
        np.round(index[:3, :3], 6),
        np.round(index[:3, 3], 4),
        output_shape=shape,
        order=0,
        mode="grid-constant",
        cval=0,
    )
    return np.asarray(moved)


def planes(source: SourceSeries) -> tuple[NDArray[np.int64], NDArray[np.float64], tuple[int, int, int]]:
    """Return which frame is the first, second, ... plane in space; the map from plane, row, column; and their numbers.

    Raises:
        GeometryError: they have no places, or not one orientation and even distances.
    """
    try:
        frames = [frame for image in source.images for frame in _frames(image)]
        positions = np.array([frame[0] for frame in frames], np.float64)
        cosines = np.array([frame[1] for frame in frames], np.float64).reshape(-1, 6)
        down, right = np.array(frames[0][2], np.float64)
        rows, columns = int(source.first.Rows), int(source.first.Columns)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise GeometryError("its images do not tell where they lie") from None
    if len(frames) < 2 or np.abs(cosines - cosines[0]).max() > 1e-3:
        raise GeometryError("its images do not lie parallel")
    normal = np.cross(cosines[0, :3], cosines[0, 3:])
    order = np.argsort(positions @ normal, kind="stable")
    step = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
    places = positions[order[0]] + np.outer(np.arange(len(frames)), step)
    if np.abs(positions[order] - places).max() > 0.1 * np.linalg.norm(step) + 0.01:
        raise GeometryError("its images are not evenly spaced")
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = cosines[0, 3:] * down
    affine[:3, 2] = cosines[0, :3] * right
    affine[:3, 3] = positions[order[0]]
    return order, _TO_LPS @ affine, (len(frames), rows, columns)


def _frames(image: Dataset) -> list[tuple[Any, Any, Any]]:
    """Return position, orientation and pixel spacing of each frame of an image."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing)]
    shared = (
        image.SharedFunctionalGroupsSequence[0] if image.get("SharedFunctionalGroupsSequence") else Dataset()
    )

    def group(frame: Dataset, name: str) -> Dataset:
        found: Dataset = (frame if name in frame else shared)[name][0]
        return found

    return [
        (
            group(frame, "PlanePositionSequence").ImagePositionPatient,
            group(frame, "PlaneOrientationSequence").ImageOrientationPatient,
            group(frame, "PixelMeasuresSequence").PixelSpacing,
        )
        for frame in image.PerFrameFunctionalGroupsSequence
    ]
