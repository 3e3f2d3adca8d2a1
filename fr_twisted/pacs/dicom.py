"""DICOM files: headers, series, and which of them are MR images that can be sent."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.facts import dicom_date_time, dicom_moment, dicom_zone, known, spacing_text, text
from fr_twisted.pacs.files import NotUsableError, Skipped, Stamp
from fr_twisted.pacs.nifti import MIN_SLICES

IMPLEMENTATION_UID = "2.25.98205412302165418243061327064327814071"
"""Names the software that wrote a file (PS3.7 D.3.3.2); a UUID-derived UID."""

MR_CLASSES = frozenset((str(MRImageStorage), str(EnhancedMRImageStorage)))

# Odd values of other people's files are no reason to warn, and the warnings quote them.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_UID = re.compile(r"[0-9][0-9.]{0,63}\Z")
TAGS = [
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "AcquisitionDateTime",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "SeriesDescription",
    "PatientID",
    "PatientSex",
    "PatientAge",
    "ScanningSequence",
    "MRAcquisitionType",
    "SequenceName",
    "PulseSequenceName",
    "SliceThickness",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "MagneticFieldStrength",
    "SpacingBetweenSlices",
    "FlipAngle",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AcquisitionNumber",
    "ImagesInAcquisition",
    "NumberOfSeriesRelatedInstances",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "TimezoneOffsetFromUTC",
]
"""What is read of a header."""


@dataclass(frozen=True)
class Slice:
    """One file of a series: what orders it, and whose it is."""

    stamp: Stamp
    series: str
    sop: str
    patient_id: str
    number: int
    position: float
    """Distance along the normal of its plane, mm; 0 where the file does not say."""
    frames: int
    header: Dataset
    """The tags that `meta_of` reads."""


@dataclass(frozen=True)
class Series:
    """A series that can be sent; ``slices`` in the order of their numbers, positions, UIDs."""

    slices: tuple[Slice, ...]
    copies: tuple[Stamp, ...]
    """Further files with an SOP Instance UID that is among the slices already."""


def is_dicom(path: Path) -> bool:
    """Return whether the file has the DICOM prefix (PS3.10 7.1).

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"


def group(stamps: Iterable[Stamp]) -> tuple[list[Series], list[Skipped]]:
    """Return the series among DICOM files that can be sent, and what cannot and why; reads all headers, blocks.

    A series with a file that cannot be read whole is not sent: measured without it, the volume would be wrong.
    """
    found: dict[str, list[Slice]] = defaultdict(list)
    broken: dict[str, str] = {}
    skipped: list[Skipped] = []
    for stamp in stamps:
        try:
            piece = read_slice(stamp)
        except TruncatedError as error:
            broken.setdefault(error.series, stamp.path.name)
            skipped.append(Skipped(stamp.path, str(error)))
        except NotUsableError as error:
            skipped.append(Skipped(stamp.path, str(error)))
        except OSError as error:
            skipped.append(Skipped(stamp.path, f"it cannot be read: {error.strerror}"))
        else:
            found[piece.series].append(piece)
    usable: list[Series] = []
    for uid, slices in found.items():
        reason = f"its series is not whole: {broken[uid]} is damaged" if uid in broken else _objection(slices)
        if reason is None:
            usable.append(_ordered(slices))
        else:
            skipped.extend(Skipped(piece.stamp.path, reason) for piece in slices)
    return usable, skipped


class TruncatedError(NotUsableError):
    """A file of ``series`` ends before its pixels do."""

    def __init__(self, series: str, reason: str) -> None:
        super().__init__(reason)
        self.series = series


def read_slice(stamp: Stamp) -> Slice:
    """Return the header of a file; pixels are not read, but seen to be there.

    Raises:
        NotUsableError: not an MR image that can be told apart and put in order.
        OSError: it cannot be read.
    """
    try:
        with stamp.path.open("rb") as stream:
            # Not defer_size: the stamp's own size tells whether the pixels are all there.
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*TAGS])
            pixels_at = stream.tell()
        return slice_of(stamp, header, pixels_at)
    except (NotUsableError, OSError):
        raise
    except InvalidDicomError:
        raise NotUsableError("not a DICOM file") from None
    except Exception:
        # pydicom raises whatever a broken file leads it to; its messages may quote the file.
        raise NotUsableError("not a readable DICOM file") from None


def slice_of(stamp: Stamp, header: Dataset, pixels_at: int) -> Slice:
    """Return the slice of a header with `TAGS`, read up to its pixels at ``pixels_at``; raises as `read_slice` does."""
    kind, modality = str(header.get("SOPClassUID", "")), _word(header, "Modality")
    if kind not in MR_CLASSES or modality != "MR":
        shown = modality if re.fullmatch(r"[A-Z]{1,16}", modality) else "unknown"
        raise NotUsableError(f"not an MR image (modality {shown})")
    series, sop = _word(header, "SeriesInstanceUID"), _word(header, "SOPInstanceUID")
    if not _UID.match(series):
        raise NotUsableError("it has no Series Instance UID")
    if not _UID.match(sop):
        raise NotUsableError("it has no valid SOP Instance UID")
    frames = int(header.get("NumberOfFrames") or 1)
    _check_pixels(stamp, header, pixels_at, series, frames)
    return Slice(
        stamp=stamp,
        series=series,
        sop=sop,
        patient_id=text(str(header.get("PatientID") or ""))
        or "",  # raises: an unreadable patient is not nobody
        number=int(header.get("InstanceNumber") or 0),
        position=_position(header),
        frames=frames,
        header=header,
    )


def _check_pixels(stamp: Stamp, header: Dataset, pixels_at: int, series: str, frames: int) -> None:
    """See that the pixels of an uncompressed image, and at least something of a compressed one, are there."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_deflated:
        return  # read whole to get at its header, or not at all
    # Tag, VR, two reserved bytes and length; without a VR only tag and length (PS3.5 7.1.2, 7.1.3).
    held = stamp.size - pixels_at - (8 if syntax is not None and syntax.is_implicit_VR else 12)
    if held <= 0:
        raise TruncatedError(series, "truncated: its pixels are missing")
    if syntax is None or syntax.is_compressed:
        return
    bits = int(header.BitsAllocated) * int(header.Rows) * int(header.Columns) * frames
    expected = bits * int(header.get("SamplesPerPixel") or 1) // 8
    if held < expected:
        raise TruncatedError(series, f"truncated: {held} of {expected} bytes of pixels")


def _objection(slices: list[Slice]) -> str | None:
    """Return why these files of one series are not sent, or None."""
    if len({piece.patient_id for piece in slices}) > 1:
        return "its series names more than one patient"
    if any("LOCALIZER" in _values(piece.header, "ImageType") for piece in slices):
        return "a localizer"
    total = sum(piece.frames for piece in {piece.sop: piece for piece in slices}.values())
    if total < MIN_SLICES:
        return f"its series has {total} slices; fewer than {MIN_SLICES} are not sent"
    return None


def _ordered(slices: list[Slice]) -> Series:
    ordered = sorted(slices, key=lambda piece: (piece.number, piece.position, piece.sop, piece.stamp.path))
    unique = {piece.sop: piece for piece in reversed(ordered)}
    kept = tuple(piece for piece in ordered if unique[piece.sop] is piece)
    return Series(kept, tuple(piece.stamp for piece in ordered if unique[piece.sop] is not piece))


def meta_of(series: Series, patient_id: str | None) -> ScanMeta:
    """Return what travels with a series; ``patient_id`` is used where the files name no patient.

    A series of nobody (anonymised files may have an empty patient id) is of a patient named after its study.
    """
    header = series.slices[0].header
    study = _word(header, "StudyInstanceUID")
    nobody = "ANON-" + hashlib.sha256((study or series.slices[0].series).encode()).hexdigest()[:12]
    return ScanMeta(
        patient_id=series.slices[0].patient_id or patient_id or nobody,
        format=PayloadFormat.DICOM_TAR,
        acquired_at=acquired_at(header),
        study_instance_uid=study if _UID.match(study) else None,
        series_instance_uid=series.slices[0].series,
        series_description=text(_word(header, "SeriesDescription")),
        facts=known(_facts(header, sum(piece.frames for piece in series.slices))),
    )


def acquired_at(header: Dataset) -> datetime | None:
    """Return when the image was acquired, by the most exact of the times that the header gives."""
    zone = dicom_zone(_word(header, "TimezoneOffsetFromUTC"))
    exact = dicom_moment(_word(header, "AcquisitionDateTime"), zone)
    pairs = (
        dicom_date_time(_word(header, f"{level}Date"), _word(header, f"{level}Time"), zone)
        for level in ("Acquisition", "Series", "Study")
    )
    return exact or next((moment for moment in pairs if moment is not None), None)


def _facts(header: Dataset, slices: int) -> dict[str, Any]:
    spacing = _floats(header, "PixelSpacing")
    through = _floats(header, "SpacingBetweenSlices") or _floats(header, "SliceThickness")
    return {
        "field_strength_t": _float(header, "MagneticFieldStrength"),
        "manufacturer": _word(header, "Manufacturer"),
        "model": _word(header, "ManufacturerModelName"),
        "sequence": _word(header, "SequenceName") or _word(header, "PulseSequenceName"),
        "acquisition_type": _word(header, "MRAcquisitionType"),
        "scanning_sequence": "\\".join(_values(header, "ScanningSequence")),
        "repetition_time_ms": _float(header, "RepetitionTime"),
        "echo_time_ms": _float(header, "EchoTime"),
        "inversion_time_ms": _float(header, "InversionTime"),
        "flip_angle_deg": _float(header, "FlipAngle"),
        "slices": slices,
        "rows": int(header.Rows),
        "columns": int(header.Columns),
        "spacing_mm": spacing_text((*spacing, *through)) if len(spacing) == 2 and through else None,
        "patient_sex": _word(header, "PatientSex")[:1],
        "patient_age": _age(_word(header, "PatientAge")),
    }


def _age(value: str) -> str | None:
    """Return an age string; ages above 89 are told as 90, for few people have them (45 CFR 164.514(b)(2)(i)(C))."""
    if not re.fullmatch(r"\d{3}[DWMY]", value):
        return None
    return "090Y" if value.endswith("Y") and int(value[:3]) > 89 else value


def _value(header: Dataset, keyword: str) -> Any:
    """Return a value, or None if there is none or none that can be read: one odd fact keeps no scan back."""
    try:
        return header.get(keyword)
    except Exception:  # pydicom raises whatever the value leads it to
        return None


def _word(header: Dataset, keyword: str) -> str:
    value = _value(header, keyword)
    return "" if value is None else str(value).strip("\0 ")


def _values(header: Dataset, keyword: str) -> list[str]:
    value = _value(header, keyword)
    if value is None:
        return []
    return [str(part) for part in value] if not isinstance(value, str) else [value]


def _floats(header: Dataset, keyword: str) -> tuple[float, ...]:
    value = _value(header, keyword)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, (list, tuple, MultiValue)) else (value,)
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return ()


def _float(header: Dataset, keyword: str) -> float | None:
    values = _floats(header, keyword)
    return values[0] if values else None


def _position(header: Dataset) -> float:
    position, orientation = _floats(header, "ImagePositionPatient"), _floats(
        header, "ImageOrientationPatient"
    )
    if len(position) != 3 or len(orientation) != 6:
        return 0.0
    normal = np.cross(orientation[:3], orientation[3:])
    return float(np.dot(position, normal))
