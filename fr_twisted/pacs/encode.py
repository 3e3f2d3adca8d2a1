"""Generated scans as files: one compressed NIfTI, or a classic MR DICOM series. The same scan gives the same bytes."""

import gzip
import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from fr_twisted.pacs.dicom import IMPLEMENTATION_UID
from fr_twisted.pacs.generator.truth import GeneratedScan
from fr_twisted.pacs.series_template import SeriesTemplate, Slice

PLANES = {"axial": (2, 1, 0), "sagittal": (0, 2, 1), "coronal": (1, 2, 0)}
"""For each orientation, the volume's axis that runs through slices, along columns (down) and along rows (right)."""


def to_nifti(scan: GeneratedScan, compressed: bool = True) -> bytes:
    """Return the scan as ``.nii.gz`` (or ``.nii``) bytes, int16, qform and sform in scanner coordinates (code 1)."""
    image = nibabel.Nifti1Image(scan.volume, scan.affine)
    image.set_sform(scan.affine, 1)
    image.set_qform(scan.affine, 1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"Fr-PACS generated scan"
    # Level 1: noise hardly compresses, and the higher levels take ten times as long for a few per cent.
    return (
        gzip.compress(image.to_bytes(), compresslevel=1, mtime=0) if compressed else bytes(image.to_bytes())
    )


def make_uid(*words: object) -> str:
    """Return the one UID of these words, of the 2.25 form (PS3.5 B.2) with 120 bits."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def age_string(years: int) -> str:
    """Return a DICOM age such as ``045Y``; ages above 89 are told as 90, as for people (`fr_twisted.pacs.dicom`)."""
    return f"{min(years, 90):03d}Y"


def natural_plane(scan: GeneratedScan) -> str:
    """Return the plane whose slices are the thickest; sagittal of cubic voxels, as 3-D scans of heads mostly are."""
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    return max(("sagittal", "axial", "coronal"), key=lambda plane: float(spacing[PLANES[plane][0]]))


def to_dicom(
    scan: GeneratedScan, patient_id: str, acquired_at: datetime, plane: str | None = None, origin: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Yield (SOP Instance UID, bytes of the Part 10 file) of each slice, in the order of the slices.

    Args:
        scan: with cubic axes, as `generate` makes them.
        patient_id: up to 64 ASCII characters.
        acquired_at: aware; written with its offset from UTC.
        plane: a key of `PLANES`; None: the `natural_plane`.
        origin: mixed into the UIDs, so that two nodes with one seed make two series.

    Raises:
        ValueError: unknown plane.
    """
    plane = natural_plane(scan) if plane is None else plane
    if plane not in PLANES:
        raise ValueError(f"{plane!r} is none of {', '.join(PLANES)}")
    pixels, first, steps = _stack(scan, plane)
    words = (origin, scan.recipe.seed, patient_id, acquired_at.isoformat(), plane, scan.volume.shape)
    dataset = _series(scan, patient_id, acquired_at, words)
    _geometry(dataset, pixels, steps)
    normal = steps[0] / np.linalg.norm(steps[0])
    template: SeriesTemplate | None = None
    for number, plane_pixels in enumerate(pixels):
        position = first + number * steps[0]
        piece = Slice(
            uid=make_uid("sop", *words, number),
            number=number + 1,
            position=tuple(f"{value + 0.0:.4f}" for value in position),
            location=f"{float(position @ normal) + 0.0:.4f}",
            pixels=plane_pixels.astype("<u2").tobytes(),
        )
        template = SeriesTemplate(dataset, piece) if template is None else template
        yield piece.uid, template.encode(piece)


def _stack(
    scan: GeneratedScan, plane: str
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
    """Return pixels (slice, row, column), the first voxel's centre and the steps along those axes (LPS mm).

    Columns run to the patient's left or back, rows down to the feet or back, as they are shown.
    """
    order = PLANES[plane]
    to_lps = np.diag((-1.0, -1.0, 1.0))
    affine = to_lps @ scan.affine[:3]
    pixels = scan.volume.transpose(order)
    steps = [affine[:, axis] for axis in order]
    first = affine[:, 3].copy()
    for axis in (1, 2):
        main = int(np.argmax(abs(steps[axis])))
        wrong = steps[axis][main] > 0 if main == 2 else steps[axis][main] < 0
        if wrong:
            first = first + steps[axis] * (pixels.shape[axis] - 1)
            steps[axis] = -steps[axis]
            pixels = np.flip(pixels, axis)
    return pixels, first, steps


def _series(
    scan: GeneratedScan, patient_id: str, acquired_at: datetime, words: tuple[object, ...]
) -> Dataset:
    """Return what all slices have in common but the geometry."""
    dataset = Dataset()
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "FR-PACS"
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.SOPClassUID = MRImageStorage
    dataset.TimezoneOffsetFromUTC = acquired_at.strftime("%z")[:5] or "+0000"
    date, time = acquired_at.strftime("%Y%m%d"), acquired_at.strftime("%H%M%S.%f")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.Modality = "MR"
    dataset.Manufacturer = "Fr-PACS scan generator"
    dataset.StudyDescription = "Brain MRI, generated"
    dataset.SeriesDescription = "T1 MPRAGE generated"
    dataset.PatientName = "Generated^Scan"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex, dataset.PatientAge = scan.recipe.sex, age_string(scan.recipe.age_years)
    dataset.BodyPartExamined = "BRAIN"
    dataset.ScanningSequence, dataset.SequenceVariant = ["GR", "IR"], ["SK", "SP", "MP"]
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "3D"
    dataset.SequenceName = "tfl3d1"
    dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = "2300", "2.98", "900"
    dataset.NumberOfAverages, dataset.EchoTrainLength, dataset.FlipAngle = "1", "1", "9"
    dataset.MagneticFieldStrength = "3"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = make_uid("study", *words)
    dataset.SeriesInstanceUID = make_uid("series", *words)
    dataset.FrameOfReferenceUID = make_uid("frame", *words)
    dataset.SeriesNumber = 1
    dataset.PositionReferenceIndicator = ""
    return dataset


def _geometry(dataset: Dataset, pixels: npt.NDArray[np.int16], steps: list[npt.NDArray[np.float64]]) -> None:
    """Fill in the image plane and pixel modules (PS3.3 C.7.6.2, C.7.6.3)."""
    through, down, right = (float(np.linalg.norm(step)) for step in steps)
    dataset.ImageOrientationPatient = [
        f"{value + 0.0:.6f}" for value in (*(steps[2] / right), *(steps[1] / down))
    ]
    dataset.PixelSpacing = [f"{down:.6f}", f"{right:.6f}"]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = f"{through:.6f}"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    _, dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    top = float(np.percentile(pixels[::3, ::3, ::3], 99.5))
    dataset.WindowCenter, dataset.WindowWidth = f"{top / 2:.0f}", f"{max(top, 1):.0f}"
