"""Whether images that came again are the same images, however they are encoded. Nothing is decoded. All of it blocks.

An archive keeps images in a transfer syntax of its own and writes headers anew, so that the bytes differ though the
images do not. What counts is whose they are, where they lie, and their pixels; of compressed ones the first two.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

if TYPE_CHECKING:
    from fr_twisted.pacs.instances import Instance

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = (
    *("PlanePositionSequence", "PlaneOrientationSequence"),
    *("PixelMeasuresSequence", "PixelValueTransformationSequence"),
)
_NUMBERS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
)
_USUAL = {"NumberOfFrames": 1.0, "SamplesPerPixel": 1.0, "RescaleSlope": 1.0, "RescaleIntercept": 0.0}
"""Values that an archive may add or leave out."""

_TAGS = ["SpecificCharacterSet", "PatientID", "StudyInstanceUID", *_NUMBERS, *_GROUPS]


_SIZE = 8
"""Bytes of a digest: a ledger keeps one of each kind for each instance."""


@dataclass(frozen=True)
class Mark:
    """Digests of an image, `_SIZE` bytes each."""

    data: bytes
    """Of every byte."""
    patient: bytes
    """Of Patient ID and Study Instance UID."""
    geometry: bytes
    """Of size, place, and the scale of the pixels' values."""
    pixels: bytes | None
    """Of the pixels; None where they are compressed."""

    @property
    def packed(self) -> bytes:
        """It as a ledger keeps it."""
        return self.data + self.patient + self.geometry + (self.pixels or b"")

    @classmethod
    def unpacked(cls, packed: bytes) -> "Mark":
        """Return what `packed` was made of."""
        parts = [packed[at : at + _SIZE] for at in range(0, 4 * _SIZE, _SIZE)]
        return cls(parts[0], parts[1], parts[2], parts[3] or None)


@dataclass(frozen=True)
class Comparison:
    """How images that came again differ from those of before; of images that were not there before nothing is said."""

    changed: Mapping[str, tuple[str, ...]]
    """In what, by SOP Instance UID; nothing of those that are the same images."""
    same_bytes: bool
    """Whether all are the same files; also if nothing is known of those of before."""
    blind: bool
    """Whether the pixels of some could not be compared."""

    @property
    def words(self) -> str:
        """What changed, in words."""
        return " and ".join(dict.fromkeys(word for words in self.changed.values() for word in words))


def changed(before: Mark, after: Mark) -> tuple[str, ...]:
    """Return in words what differs between two images of the same UID; nothing: they are the same image."""
    pixels = None not in (before.pixels, after.pixels) and before.pixels != after.pixels
    differing = {
        "patient or study": before.patient != after.patient,
        "size or place": before.geometry != after.geometry,
        "pixels": pixels,
    }
    return tuple(word for word, differs in differing.items() if differs)


def mark_of(data: bytes) -> Mark:
    """Return the mark of a Part 10 file."""
    stream = io.BytesIO(data)
    whole = _digest(data)
    try:
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*_TAGS])
        whose = (str(header.get(name, "")).strip("\0 ") for name in ("PatientID", "StudyInstanceUID"))
        patient, geometry = _digest(*(text.encode() for text in whose)), _digest(*_geometry(header))
        return Mark(whole, patient, geometry, _pixels(header, data, stream.tell()))
    except Exception:  # pydicom raises whatever broken data lead it to: it is like nothing but itself
        return Mark(whole, whole, whole, None)


def marks_of(instances: "Iterable[Instance]") -> dict[str, Mark]:
    """Return the marks of instances in the spool, by SOP Instance UID.

    Raises:
        OSError: one cannot be read.
    """
    return {instance.sop: mark_of(instance.stamp.path.read_bytes()) for instance in instances}


def compare(before: Mapping[str, Mark], after: Mapping[str, Mark]) -> Comparison:
    """Return how images differ from what those of their UIDs were before."""
    pairs = {sop: (before[sop], mark) for sop, mark in after.items() if sop in before}
    return Comparison(
        {sop: what for sop, pair in pairs.items() if (what := changed(*pair))},
        all(former.data == mark.data for former, mark in pairs.values()),
        any(None in (former.pixels, mark.pixels) for former, mark in pairs.values()),
    )


def _digest(*parts: bytes | memoryview) -> bytes:
    made = hashlib.blake2b(digest_size=_SIZE)
    for part in parts:
        made.update(len(part).to_bytes(8))
        made.update(part)
    return made.digest()


def _geometry(header: Dataset) -> Iterator[bytes]:
    yield from _numbers(header)
    for group in _GROUPS:
        for number, item in enumerate(header.get(group) or ()):
            for macro in _MACROS:
                for inner in item.get(macro) or ():
                    yield f"{group} {number} {macro}".encode()
                    yield from _numbers(inner)


def _numbers(item: Dataset) -> Iterator[bytes]:
    for name in _NUMBERS:
        value: Any = item.get(name)
        if value is None or value == "":
            value = _USUAL.get(name, ())
        values = value if isinstance(value, Iterable) else (value,)
        # Archives write decimal strings anew, with other digits at the end.
        digits = 9 if name.startswith("Rescale") else 4
        yield f"{name} {[round(float(each), digits) + 0.0 for each in values]}".encode()


def _pixels(header: Dataset, data: bytes, at: int) -> bytes | None:
    """Return the digest of pixels as little endian; None: they are compressed, or of a size that is never swapped."""
    syntax = header.file_meta.TransferSyntaxUID
    bits = int(header.BitsAllocated)
    if syntax.is_compressed or (not syntax.is_little_endian and bits != 16):
        return None
    # Tag, VR, two reserved bytes and length; without a VR only tag and length (PS3.5 7.1.2, 7.1.3).
    begin = at + (8 if syntax.is_implicit_VR else 12)
    frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel") or 1)
    size = int(header.Rows) * int(header.Columns) * frames * samples * bits // 8
    held = memoryview(data)[begin : begin + size]
    if syntax.is_little_endian:
        return _digest(held)
    return _digest(np.frombuffer(held, "<u2").byteswap().tobytes())
