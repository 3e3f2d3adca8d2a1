"""The files of one DICOM series: the first is encoded by pydicom, the others differ from it in a few elements."""

from dataclasses import dataclass
from io import BytesIO
from struct import pack

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID


@dataclass(frozen=True)
class Slice:
    """What differs from file to file. ``position`` and ``location``: decimal strings, mm; ``pixels``: little endian."""

    uid: str
    number: int
    position: tuple[str, ...]
    location: str
    pixels: bytes


class SeriesTemplate:
    """Writes the files of a series some hundred times faster than pydicom writes one, and the same bytes.

    Explicit VR little endian; elements are coded as PS3.5 7.1.2 says, the file meta information as PS3.10 7.1.
    """

    def __init__(self, dataset: Dataset, first: Slice) -> None:
        """Take what all slices have in common, and one slice; the dataset is filled in with that one.

        Raises:
            ValueError: an element of the slice is not where it should be in the file.
        """
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(first.uid)
        dataset.SOPInstanceUID = UID(first.uid)
        dataset.InstanceNumber = first.number
        dataset.ImagePositionPatient = list(first.position)
        dataset.SliceLocation = first.location
        dataset.PixelData = first.pixels
        out = BytesIO()
        pydicom.dcmwrite(out, dataset, enforce_file_format=True)
        content = out.getvalue()
        at = content.index(b"\x02\x00\x00\x00UL")
        self._meta_length = int.from_bytes(content[at + 8 : at + 12], "little") - len(
            _padded(first.uid, b"\0")
        )
        self._parts: list[bytes] = []
        for element in self._elements(first):
            before, found, content = content.partition(element)
            if not found:
                raise ValueError("the first file of the series does not have the elements it was given")
            self._parts.append(before)
        self._parts.append(content)

    def encode(self, piece: Slice) -> bytes:
        """Return the file of one slice, whose pixels are as many as the first one's."""
        elements = [*self._elements(piece), b""]
        return b"".join(part for pair in zip(self._parts, elements, strict=True) for part in pair)

    def _elements(self, piece: Slice) -> list[bytes]:
        """Return the elements of a slice, in the order of a file."""
        uid = _padded(piece.uid, b"\0")
        return [
            pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, self._meta_length + len(uid)),
            _short(0x0002, 0x0003, b"UI", uid),
            _short(0x0008, 0x0018, b"UI", uid),
            _short(0x0020, 0x0013, b"IS", _padded(str(piece.number))),
            _short(0x0020, 0x0032, b"DS", _padded("\\".join(piece.position))),
            _short(0x0020, 0x1041, b"DS", _padded(piece.location)),
            pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(piece.pixels)),
            piece.pixels,
        ]


def _short(group: int, element: int, kind: bytes, value: bytes) -> bytes:
    return pack("<HH2sH", group, element, kind, len(value)) + value


def _padded(text: str, fill: bytes = b" ") -> bytes:
    """Return ASCII bytes of an even number."""
    value = text.encode("ascii")
    return value + fill * (len(value) % 2)
