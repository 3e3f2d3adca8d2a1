"""Reads one MR series out of a tar of DICOM Part 10 files: classic slices, or one enhanced multi-frame image."""

import io
import mmap
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from fr_twisted.brain.analysis.read_nifti import MAX_VOXELS
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError

MAX_FILES = 4096
MAX_BYTES = 1024 * 1024 * 1024
"""Of all files of a series together."""

MULTI_FRAME = {EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage}

TOLERANCE = 0.02
"""Share of the slice distance by which the distance of two slices may differ from it."""

SHIFT_TOLERANCE = 0.05
"""Share of the slice distance by which slices may be shifted in their plane."""

ORIENTATION_TOLERANCE = 1e-3
"""By which direction cosines may differ between slices: they are decimal text."""

Positions = NDArray[np.float64]


def read_dicom_tar(stream: IO[bytes]) -> Volume:
    """Return the series in the tar ``stream``, rescaled (slope and intercept of each slice), slices by position.

    Raises:
        UnusableScanError: not one complete, evenly spaced MR series; says what is wrong with which image.
    """
    images = list(_images(stream))
    if not images:
        raise UnusableScanError("the archive holds no DICOM file; send the files of one MR series")
    _check_one_series(images)
    if images[0].SOPClassUID in MULTI_FRAME:
        if len(images) > 1:
            raise UnusableScanError(f"the series has {len(images)} multi-frame images; send one of them")
        return _from_multi_frame(images[0])
    return _from_slices(images)


def _images(stream: IO[bytes]) -> Iterator[Dataset]:
    """Yield the images of a tar, one by one, without writing anything anywhere."""
    total = 0
    # a map is read no further than its end, whatever sizes the archive's headers claim
    with (
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view,
        tarfile.open(fileobj=view, mode="r:") as archive,
    ):
        for number, entry in enumerate(archive, start=1):
            if entry.isdir():
                continue
            total += entry.size
            if number > MAX_FILES or total > MAX_BYTES:
                raise UnusableScanError(
                    f"the archive holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB; send one MR series"
                )
            content = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
            if content is None:
                raise UnusableScanError(
                    f"entry {number} of the archive is no plain file; pack the DICOM files themselves"
                )
            yield _image(content.read(), number)


def _image(data: bytes, number: int) -> Dataset:
    if DeflatedExplicitVRLittleEndian.encode() in data:
        raise UnusableScanError(
            f"image {number} is deflated; send it uncompressed (Explicit VR Little Endian)"
        )
    try:
        image = pydicom.dcmread(io.BytesIO(data))
    except InvalidDicomError as error:
        raise UnusableScanError(
            f"file {number} of the archive is not DICOM; send the files of one MR series"
        ) from error
    _check_image(image, number)
    return image


def _check_image(image: Dataset, number: int) -> None:
    """Refuse what is no MR image of grey values that can be decoded within the limits."""
    modality = str(image.get("Modality", "missing"))
    if modality != "MR":
        known = modality if modality.isalnum() and len(modality) <= 16 else "not valid"
        raise UnusableScanError(
            f"image {number} is not MR (its modality is {known}); send a T1-weighted MR series"
        )
    kind = UID(str(image.get("SOPClassUID", "")))
    if kind != MRImageStorage and kind not in MULTI_FRAME:
        name = kind.name if kind.is_valid and kind.name != kind else "unknown"
        raise UnusableScanError(
            f"object {number} is no MR image (its SOP class is {name}); send the images alone"
        )
    needed = ["SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "BitsAllocated", "PixelData"]
    if kind == MRImageStorage:
        needed += ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
    for name in needed:
        if name not in image or image[name].is_empty:
            raise UnusableScanError(f"image {number} has no {name}; export the series again")
    if int(image.get("SamplesPerPixel", 1)) != 1:
        raise UnusableScanError(f"image {number} is in colour; send the original MR images")
    frames = int(image.get("NumberOfFrames") or 1)
    if kind == MRImageStorage and frames != 1:
        raise UnusableScanError(
            f"image {number} has {frames} frames but is no enhanced MR image; send single slices"
        )
    _check_size(int(image.Rows) * int(image.Columns) * frames)


def _check_size(voxels: int) -> None:
    if not 0 < voxels <= MAX_VOXELS:
        raise UnusableScanError(
            f"the series declares {voxels} voxels, not 1 to {MAX_VOXELS}; send a scan of about 1 mm"
        )


def _check_one_series(images: Sequence[Dataset]) -> None:
    """Refuse images that are not of one series, shape, orientation and frame of reference."""
    for name, meaning in (
        ("SeriesInstanceUID", "series"),
        ("SOPClassUID", "kinds of image"),
        ("FrameOfReferenceUID", "frames of reference (the patient was moved between them)"),
        ("Rows", "numbers of rows"),
        ("Columns", "numbers of columns"),
    ):
        found = {str(image.get(name)) for image in images}
        if len(found) > 1:
            raise UnusableScanError(f"the archive mixes {len(found)} {meaning}; send one series at a time")
    _check_size(int(images[0].Rows) * int(images[0].Columns) * len(images))


def _from_slices(images: Sequence[Dataset]) -> Volume:
    positions = np.array([image.ImagePositionPatient for image in images], np.float64)
    orientations = np.array([image.ImageOrientationPatient for image in images], np.float64)
    check_stack(positions, orientations, [str(image.PixelSpacing) for image in images])
    volume = highdicom.get_volume_from_series(
        images,
        dtype=np.float32,
        apply_real_world_transform=False,
        rtol=2 * TOLERANCE,
        perpendicular_tol=SHIFT_TOLERANCE,
        orientation_tol=ORIENTATION_TOLERANCE,
    )
    return _to_volume(volume)


def _from_multi_frame(image: Dataset) -> Volume:
    frames = image.PerFrameFunctionalGroupsSequence
    shared = image.SharedFunctionalGroupsSequence[0]

    def of(frame: Dataset, group: str) -> Dataset:
        item: Dataset = (frame if group in frame else shared)[group].value[0]
        return item

    check_stack(
        np.array([of(frame, "PlanePositionSequence").ImagePositionPatient for frame in frames], np.float64),
        np.array(
            [of(frame, "PlaneOrientationSequence").ImageOrientationPatient for frame in frames], np.float64
        ),
        [str(of(frame, "PixelMeasuresSequence").PixelSpacing) for frame in frames],
    )
    volume = highdicom.Image.from_dataset(image, copy=False).get_volume(
        dtype=np.float32,
        apply_real_world_transform=False,
        rtol=2 * TOLERANCE,
        perpendicular_tol=SHIFT_TOLERANCE,
    )
    return _to_volume(volume)


def _to_volume(volume: highdicom.Volume) -> Volume:
    """Return a volume of (slice, row, column) with axes (column, row, slice), as viewers and NIfTI converters count."""
    affine = np.asarray(volume.get_affine("RAS"), np.float64)
    data = np.asarray(volume.array, np.float32)
    return Volume(data.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])


def check_stack(positions: Positions, orientations: Positions, pixel_spacings: Sequence[str]) -> None:
    """Refuse slices that are not one evenly spaced stack.

    Args:
        positions: Image Position (Patient) of each slice (n, 3), mm.
        orientations: Image Orientation (Patient) of each (n, 6), direction cosines.
        pixel_spacings: Pixel Spacing of each, as text.

    Raises:
        UnusableScanError: with what is wrong, in mm.
    """
    if len(positions) < 2:
        raise UnusableScanError("the series has only one slice; send the full series")
    if np.abs(orientations - orientations[0]).max() > ORIENTATION_TOLERANCE:
        raise UnusableScanError(
            "the slices do not have the same orientation (a localiser or several stacks); send one 3-D series"
        )
    if len(set(pixel_spacings)) > 1:
        raise UnusableScanError(
            "the slices do not have the same pixel spacing; send one series as it was acquired"
        )
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    place = np.sort(positions @ normal)
    gaps = np.diff(place)
    step = float(np.median(gaps))
    if gaps.min() < max(0.01, 0.1 * step):
        same = int((gaps < max(0.01, 0.1 * step)).sum())
        raise UnusableScanError(
            f"{same} slices lie where another lies already (several time points, echoes or a doubled export);"
            " send one of them"
        )
    _check_gaps(gaps, step)
    across = positions - np.outer(positions @ normal, normal)
    if np.abs(across - across[0]).max() > SHIFT_TOLERANCE * step + 0.01:
        raise UnusableScanError(
            "the slices are shifted against each other (a tilted stack); send the scan as acquired"
        )


def _check_gaps(gaps: Positions, step: float) -> None:
    uneven = np.abs(gaps - step) > max(TOLERANCE * step, 0.01)
    if not uneven.any():
        return
    ratio = gaps[uneven] / step
    if np.all(np.abs(ratio - np.round(ratio)) < 0.1):
        missing = int((np.round(ratio) - 1).sum())
        raise UnusableScanError(
            f"{missing} of {len(gaps) + 1 + missing} slices are missing: slices are {step:.3g} mm apart, but"
            f" {float(gaps.max()):.3g} mm at {int(uneven.sum())} places; send the full series"
        )
    raise UnusableScanError(
        f"the slices are not evenly spaced: {float(gaps.min()):.3g} to {float(gaps.max()):.3g} mm apart;"
        " send a 3-D series"
    )
