"""NIfTI files: is it one, whole, of one volume, and what is known of it."""

import gzip
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.facts import iso_moment, known, spacing_text, text
from fr_twisted.pacs.files import NotUsableError, Stamp

MIN_SLICES = 8
"""A volume with fewer is a localizer, or nothing that a brain can be measured on."""

_BLOCK = 1024 * 1024
_SLACK = 1024 * 1024
_COMPANIONS = (".json", ".bval", ".bvec")
_SUBJECT = re.compile(r"(?:^|_)(sub-[A-Za-z0-9]{1,60})(?=_|\.|$)")
_SUFFIX = re.compile(r"(?i)\.nii(\.gz)?$")
_MAX_SIDECAR = 1024 * 1024


def is_nifti_name(path: Path) -> bool:
    """Return whether the file is called ``.nii`` or ``.nii.gz``."""
    return _SUFFIX.search(path.name) is not None


def companions(path: Path) -> list[Path]:
    """Return where the files that dcm2niix and BIDS put beside a NIfTI file would be."""
    stem = _SUFFIX.sub("", path.name)
    return [path.with_name(stem + suffix) for suffix in _COMPANIONS]


def inspect(stamp: Stamp, patient_id: str | None) -> ScanMeta:
    """Return what is known of a NIfTI file; reads it to its end, blocks.

    Args:
        stamp: the file.
        patient_id: the patient it is of; None: as its name says (BIDS ``sub-...``, else the name itself).

    Raises:
        NotUsableError: not NIfTI, not whole, or not one 3-D volume of some slices.
        OSError: it cannot be read.
    """
    try:
        image: Any = nibabel.load(stamp.path)
    except FileNotFoundError:
        raise
    except (ImageFileError, HeaderDataError, EOFError, ValueError, zlib.error, gzip.BadGzipFile):
        raise NotUsableError("not a readable NIfTI file") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise NotUsableError("not a NIfTI-1 or NIfTI-2 file")
    _check_shape(image.shape)
    compressed = stamp.path.name.lower().endswith(".gz")
    _check_length(stamp, _expected(image), compressed)
    sidecar = _sidecar(stamp.path)
    return ScanMeta(
        patient_id=patient_id or patient_of_name(stamp.path),
        format=PayloadFormat.NIFTI_GZ if compressed else PayloadFormat.NIFTI,
        acquired_at=iso_moment(sidecar.get("AcquisitionDateTime")),
        series_description=text(_string(sidecar.get("SeriesDescription"))),
        facts=known(_image_facts(image)) | known(_sidecar_facts(sidecar)),
    )


def patient_of_name(path: Path) -> str:
    """Return the patient id that a file's name stands for, 1 to 64 safe characters."""
    stem = _SUFFIX.sub("", path.name)
    subject = _SUBJECT.search(stem)
    if subject is not None:
        return subject[1]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:64] or "unnamed"


def _check_shape(shape: tuple[int, ...]) -> None:
    shown = " x ".join(map(str, shape))
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        raise NotUsableError(f"not one 3-D volume ({shown})")
    if min(shape[:3]) < MIN_SLICES:
        raise NotUsableError(f"fewer than {MIN_SLICES} slices ({shown}); a localizer is not sent")


def _expected(image: Any) -> int:
    """Return the bytes that the file has, uncompressed, by its header."""
    voxel = int(image.get_data_dtype().itemsize)
    return int(image.dataobj.offset) + voxel * math.prod(int(n) for n in image.shape)


def _check_length(stamp: Stamp, expected: int, compressed: bool) -> None:
    if not compressed:
        length = stamp.size
    else:
        length = 0
        try:
            with gzip.open(stamp.path) as stream:
                while block := stream.read(_BLOCK):
                    length += len(block)
                    if length > expected + _SLACK:
                        raise NotUsableError("it holds more than its header says")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise NotUsableError("truncated or damaged: it cannot be decompressed to its end") from None
    if length < expected:
        raise NotUsableError(f"truncated: {length} of {expected} bytes")


def _image_facts(image: Any) -> dict[str, Any]:
    rows, columns, slices = (int(n) for n in image.shape[:3])
    spacing = tuple(float(edge) for edge in image.header.get_zooms()[:3])
    return {"shape": f"{rows} x {columns} x {slices}", "spacing_mm": spacing_text(spacing)}


def _sidecar(path: Path) -> dict[str, Any]:
    """Return what a JSON file beside the NIfTI file says, if there is one that can be read."""
    beside = companions(path)[0]
    try:
        if beside.is_symlink() or beside.stat().st_size > _MAX_SIDECAR:
            return {}
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sidecar_facts(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a BIDS sidecar, whose times are in seconds, in the units of DICOM."""
    return {
        "field_strength_t": sidecar.get("MagneticFieldStrength"),
        "manufacturer": _string(sidecar.get("Manufacturer")),
        "model": _string(sidecar.get("ManufacturersModelName")),
        "sequence": _string(sidecar.get("PulseSequenceName") or sidecar.get("SequenceName")),
        "repetition_time_ms": _milliseconds(sidecar.get("RepetitionTime")),
        "echo_time_ms": _milliseconds(sidecar.get("EchoTime")),
        "inversion_time_ms": _milliseconds(sidecar.get("InversionTime")),
        "flip_angle_deg": _number(sidecar.get("FlipAngle")),
    }


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _milliseconds(value: Any) -> float | None:
    seconds = _number(value)
    return None if seconds is None else seconds * 1000
