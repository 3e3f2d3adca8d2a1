"""Reads one MR series out of a tar of DICOM Part 10 files: classic slices, or one enhanced multi-frame image."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from fr_twisted.brain.analysis import read_dicom_pixels as pixels
from fr_twisted.brain.analysis.check import MAX_SIDE, MAX_VOXELS
from fr_twisted.brain.analysis.read_dicom_pixels import EXPORT, is_given, number_of, numbers_of, words_of
from fr_twisted.brain.analysis.read_dicom_stack import Plane, stack
from fr_twisted.brain.analysis.read_tar import MAX_BYTES as MAX_BYTES
from fr_twisted.brain.analysis.read_tar import MAX_FILES as MAX_FILES
from fr_twisted.brain.analysis.read_tar import files
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError

MULTI_FRAME = {EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage}

NEEDED = (
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PhotometricInterpretation",
    "PixelData",
)
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")

ALIKE = {
    "SeriesInstanceUID": "series",
    "PatientID": "patients",
    "SOPClassUID": "kinds of image",
    "FrameOfReferenceUID": "frames of reference (the patient was moved between them)",
    "Rows": "numbers of rows",
    "Columns": "numbers of columns",
    "PhotometricInterpretation": "meanings of bright (PhotometricInterpretation)",
}
"""What all images of a series share, and what it is to those who read the reason."""

TOLD_APART = {
    "EchoTime": "echo times",
    "InversionTime": "inversion times",
    "ImageType": "types of image, such as magnitude and phase",
    "TemporalPositionIdentifier": "time points",
    "AcquisitionNumber": "acquisitions",
    "AcquisitionTime": "acquisition times",
}
"""What slices in one place differ in, the most telling first."""

MODALITIES = {
    *("CR", "CT", "DX", "ECG", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA"),
    *("DOC", "KO", "PR", "REG", "RTDOSE", "RTPLAN", "RTSTRUCT", "SC", "SEG", "SR"),
}
"""Values of Modality (PS3.3 C.7.3.1.1.1) that may stand in a reason; what else stands there may be anything."""

PHASE = {"P", "PHASE", "PHASE MAP"}
"""Values of Image Type."""


@dataclass(frozen=True)
class Image:
    """What is kept of one file: its planes, and the words in which images of a series are compared."""

    planes: list[Plane]
    words: dict[str, str]


def read_dicom_tar(stream: IO[bytes]) -> Volume:
    """Return the series in the tar ``stream``, rescaled (slope and intercept of each slice), slices by position.

    Padding is air; where low values are bright they are turned round. One file is held at a time, beside the pixels.

    Raises:
        UnusableScanError: not one complete, evenly spaced MR series; says what is wrong with which image.
    """
    images = list(_images(stream))
    if not images:
        raise UnusableScanError("the archive holds no DICOM file; send the files of one MR series")
    for name, meaning in ALIKE.items():
        found = {image.words[name] for image in images}
        if len(found) > 1:
            raise UnusableScanError(f"the archive mixes {len(found)} {meaning}; send one series at a time")
    if images[0].words["SOPClassUID"] in MULTI_FRAME and len(images) > 1:
        raise UnusableScanError(f"the series has {len(images)} multi-frame images; send one of them")
    return stack([plane for image in images for plane in image.planes], lambda: _difference(images))


def _difference(images: Sequence[Image]) -> str:
    """Return why there may be several slices in one place."""
    if len({image.words["SOPInstanceUID"] for image in images}) < len(images):
        return "files that are there twice"
    for name, meaning in TOLD_APART.items():
        found = {image.words[name] for image in images}
        if 1 < len(found) <= len(images) // 2:
            return f"{len(found)} {meaning}"
    return "several time points, echoes or a doubled export"


def _images(stream: IO[bytes]) -> Iterator[Image]:
    voxels = 0
    for number, data in files(stream):
        image, where = _parsed(data, number), f"image {number}"
        frames = _check_image(image, number)
        voxels += frames * image.Rows * image.Columns
        if voxels > MAX_VOXELS:
            raise UnusableScanError(
                f"the series has more than {MAX_VOXELS} voxels; send a scan of about 1 mm"
            )
        yield Image(_planes(image, frames, where), _words(image))


def _words(image: Dataset) -> dict[str, str]:
    return {name: "\\".join(words_of(image, name)) for name in (*ALIKE, *TOLD_APART, "SOPInstanceUID")}


def _parsed(data: bytes, number: int) -> Dataset:
    if DeflatedExplicitVRLittleEndian.encode() in data:
        raise UnusableScanError(f"image {number} is deflated; {pixels.UNCOMPRESSED}")
    try:
        return pydicom.dcmread(io.BytesIO(data))
    except InvalidDicomError as error:
        raise UnusableScanError(
            f"file {number} of the archive is not DICOM; send the files of one MR series"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # parsers of broken files raise anything; the text of such an error may quote the file
        raise UnusableScanError(f"file {number} of the archive is damaged DICOM; copy or {EXPORT}") from error


def _check_image(image: Dataset, number: int) -> int:
    """Refuse what is no MR image of grey values that can be decoded within the limits; return its number of frames."""
    where = f"image {number}"
    kind = _check_kind(image, number)
    classic = kind == MRImageStorage
    for name in (*NEEDED, *(PLACE if classic else ())):
        if not is_given(image, name, where):
            raise UnusableScanError(
                f"{where} has no {name}: it is cut short, or an odd export; copy or {EXPORT}"
            )
    types = set(words_of(image, "ImageType"))
    if types & PHASE:
        raise UnusableScanError(
            f"{where} is a phase image; send the magnitude images of a T1-weighted series"
        )
    if "LOCALIZER" in types:
        raise UnusableScanError(f"{where} is a localiser; send a 3-D T1-weighted series")
    frames = number_of(image, "NumberOfFrames", where, 1) if is_given(image, "NumberOfFrames", where) else 1
    if classic and frames != 1:
        raise UnusableScanError(
            f"{where} has {frames} frames but is no enhanced MR image; send single slices"
        )
    sides = [number_of(image, name, where, 1) for name in ("Rows", "Columns")]
    if max(sides) > MAX_SIDE:
        raise UnusableScanError(
            f"{where} declares {sides[0]} x {sides[1]} pixels, more than {MAX_SIDE} along a side; send a scan of about"
            " 1 mm"
        )
    for name, side in zip(("Rows", "Columns"), sides, strict=True):
        image.add_new(name, "US", side)
    pixels.check_pixels(image, frames, where)
    return frames


def _check_kind(image: Dataset, number: int) -> UID:
    kind = UID("\\".join(words_of(image, "SOPClassUID")))
    modality = "\\".join(words_of(image, "Modality"))
    if (kind == MRImageStorage or kind in MULTI_FRAME) and modality == "MR":
        return kind
    if not kind or not modality:
        missing = "SOPClassUID" if not kind else "Modality"
        raise UnusableScanError(
            f"image {number} has no {missing}: it is cut short or no image; copy or {EXPORT}"
        )
    name = kind.name if kind.is_valid and kind.name != kind else "unknown kind"
    shown = modality if modality in MODALITIES else "not a known one"
    raise UnusableScanError(
        f"object {number} is no MR image ({name}, its modality is {shown}); send the images of one T1-weighted MR"
        " series alone"
    )


def _planes(image: Dataset, frames: int, where: str) -> list[Plane]:
    """Return the planes of an image that passed `_check_image`, decoded."""
    classic = image.SOPClassUID == MRImageStorage
    groups = [] if classic else _groups(image, frames, where)
    stored = pixels.decode(image, frames, where)
    padding = pixels.padding_of(image, where)
    result = []
    for k, values in enumerate(stored):
        found = image if classic else groups[k]
        result.append(
            Plane(
                position=numbers_of(found, "ImagePositionPatient", where, 3),
                orientation=numbers_of(found, "ImageOrientationPatient", where, 6),
                spacing=numbers_of(found, "PixelSpacing", where, 2),
                pixels=values,
                scale=pixels.scale_of(found, where),
                padding=pixels.padded(values, padding),
                inverted=pixels.is_inverted(image),
            )
        )
    return result


GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""The functional groups (PS3.3 C.7.6.16.2) that are read, and what of each; the last need not be there."""


def _groups(image: Dataset, frames: int, where: str) -> list[Dataset]:
    """Return for each frame of an enhanced image what a classic image would say itself."""
    try:
        every = list(image.PerFrameFunctionalGroupsSequence)
        shared = next(iter(image.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    except Exception as error:
        raise UnusableScanError(f"{where} has no valid functional groups of frames; {EXPORT}") from error
    if len(every) != frames:
        raise UnusableScanError(f"{where} has {frames} frames but tells the place of {len(every)}; {EXPORT}")
    return [_flat(frame, shared, where) for frame in every]


def _flat(frame: Dataset, shared: Dataset, where: str) -> Dataset:
    result = Dataset()
    for group, names in GROUPS.items():
        items = (frame if group in frame else shared).get(group)
        if not items:
            if "RescaleSlope" not in names:
                raise UnusableScanError(f"{where} has no {names[0]} of each frame; {EXPORT}")
            continue
        for name in names:
            if name in items[0]:
                result[name] = items[0][name]
    return result
