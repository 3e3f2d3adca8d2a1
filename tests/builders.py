"""Builds small scans for tests: volumes, NIfTI files, DICOM series and their tar. Needs the brain extra."""

import gzip
import io
import tarfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

Volume = NDArray[Any]
Affine = NDArray[np.float64]


def template_head() -> tuple[NDArray[np.int16], Affine]:
    """Return the average brain, without a skull, at 2 mm: values 0..972 (98, 116, 94) and its affine (RAS, mm)."""
    stored = files("fr_twisted.brain.analysis") / "data" / "template_2mm.npz"
    with stored.open("rb") as stream, np.load(stream) as data:
        return data["t1"].astype(np.int16) * 4, np.asarray(data["affine"], np.float64)


def labelled_head(
    noise: float = 0.03, bias: float = 0.1
) -> tuple[NDArray[np.int16], Affine, dict[str, float]]:
    """Return a 2 mm brain without a skull whose truth is known, its affine (RAS, mm), and its volumes in mL.

    Every voxel is what the template's maps call most likely there: fluid 200, grey 440, white 560, with smooth coil
    brightness (plus and minus ``bias``) and Gaussian ``noise`` (of white). Keys: csf, grey_matter, white_matter.
    """
    stored = files("fr_twisted.brain.analysis") / "data" / "template_2mm.npz"
    with stored.open("rb") as stream, np.load(stream) as data:
        maps = np.stack([data[name] for name in ("csf", "gm", "wm")])
        inside, affine = data["mask"] > 127, np.asarray(data["affine"], np.float64)
    label = np.where(inside, maps.argmax(0) + 1, 0)
    rng = np.random.default_rng(7)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in label.shape), indexing="ij")
    image = np.array([0.0, 200, 440, 560])[label] * (1 + bias * (x + y * y - z) / 2)
    image += np.where(inside, rng.normal(0, noise * 560, label.shape), 0)
    counts = np.bincount(label.ravel())[1:] * 0.008
    names = ("csf", "grey_matter", "white_matter")
    return (
        np.maximum(np.round(image), inside).astype(np.int16),
        affine,
        dict(zip(names, counts.tolist(), strict=True)),
    )


def ball(shape: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    """Return a ball in the middle of a grid, radius in voxels."""
    place = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    return np.asarray(np.sqrt((place**2).sum(0)) <= radius)


def small_volume(shape: tuple[int, int, int] = (6, 5, 4), seed: int = 0) -> NDArray[np.int16]:
    """Return different values in every voxel, 0..999, for tests of reading."""
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def small_affine(spacing: tuple[float, float, float] = (1.0, 1.5, 2.0)) -> Affine:
    """Return an affine along the axes, its origin off the centre."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-12.0, 7.0, 30.0)
    return affine


def nifti_bytes(
    volume: Volume,
    affine: Affine,
    *,
    packed: bool = False,
    edit: Callable[[Any], None] | None = None,
    version: int = 1,
) -> bytes:
    """Return a NIfTI file.

    Args:
        volume: stored as it is, whatever its type and number of axes.
        affine: RAS millimetres; written as sform and qform.
        packed: whether to gzip it, without a time stamp.
        edit: changes the header after it is made, before it is written.
        version: 1 or 2.
    """
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    content = bytearray(image.to_bytes())
    if edit is not None:
        header = image.header.__class__(bytes(content[: image.header.sizeof_hdr]))
        edit(header)
        content[: image.header.sizeof_hdr] = header.binaryblock
    return gzip.compress(bytes(content), mtime=0) if packed else bytes(content)


def dicom_series(volume: Volume, affine: Affine, **tags: Any) -> list[bytes]:
    """Return the Part 10 files of a classic MR series, one for each index of the volume's last axis, in that order.

    Args:
        volume: integers (i, j, k); i runs along image columns, j along image rows.
        affine: from (i, j, k) to RAS millimetres; written in DICOM's LPS as decimal text of up to 16 characters.
        tags: attributes of every image, by keyword; None leaves one out. A callable is given k.
    """
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    axes = to_lps[:3, :3] / spacing
    uids = [generate_uid(entropy_srcs=["fr-tests", name]) for name in ("study", "series", "frame")]
    result = []
    for k in range(volume.shape[2]):
        image = _mr_image(volume[:, :, k], uids, k)
        image.ImageOrientationPatient = [_decimal(n) for n in (*axes[:, 0], *axes[:, 1])]
        image.ImagePositionPatient = [_decimal(n) for n in to_lps[:3, 3] + to_lps[:3, 2] * k]
        image.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        image.SliceThickness = _decimal(spacing[2])
        for keyword, value in tags.items():
            value = value(k) if callable(value) else value
            if value is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, value)
        result.append(part10(image))
    return result


def _decimal(number: float) -> str:
    return f"{number + 0.0:.10g}"[:16]


def _mr_image(plane: Volume, uids: Sequence[str], k: int) -> Dataset:
    image = Dataset()
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = generate_uid(entropy_srcs=["fr-tests", "image", str(k)])
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = uids
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = (
        "Doe^Jane",
        "P1",
        "19700101",
        "F",
    )
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = "20260102"
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "101112"
    image.AccessionNumber = image.ReferringPhysicianName = image.StudyID = (
        image.PositionReferenceIndicator
    ) = ""
    image.Manufacturer, image.Modality, image.PatientPosition = "Fr tests", "MR", "HFS"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image.SeriesDescription, image.SeriesNumber, image.InstanceNumber = "T1", 1, k + 1
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "GR", "SP", ""
    image.MRAcquisitionType, image.RepetitionTime, image.EchoTime, image.EchoTrainLength = (
        "3D",
        "2300",
        "3",
        "1",
    )
    image.WindowCenter, image.WindowWidth = "500", "1000"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    pixels = np.ascontiguousarray(plane.T)
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    image["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return image


def part10(image: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a data set as the bytes of a DICOM Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax)
    image.file_meta = meta
    out = io.BytesIO()
    pydicom.dcmwrite(out, image, enforce_file_format=True)
    return out.getvalue()


def multi_frame(series: Sequence[bytes]) -> bytes:
    """Return a classic MR series as one legacy converted enhanced MR image."""
    images = [pydicom.dcmread(io.BytesIO(data)) for data in series]
    converted = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        images,
        series_instance_uid=generate_uid(entropy_srcs=["fr-tests", "enhanced"]),
        series_number=2,
        sop_instance_uid=generate_uid(entropy_srcs=["fr-tests", "enhanced", "image"]),
        instance_number=1,
    )
    return part10(converted)


def dicom_tar(contents: Sequence[bytes]) -> bytes:
    """Return an uncompressed tar of files named ``0001.dcm``, ``0002.dcm``, ..."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, content in enumerate(contents, start=1):
            entry = tarfile.TarInfo(f"{number:04d}.dcm")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
