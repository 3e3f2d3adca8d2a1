"""An instance as it arrives over a network: what it is, and why it is not taken."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from fr_twisted.pacs import dicom
from fr_twisted.pacs.files import Stamp
from fr_twisted.pacs.instances import UID as PLAIN_UID

MISMATCH = 0xA900
"""Data Set does not match SOP Class (PS3.4 B.2.3)."""

NOT_UNDERSTOOD = 0xC000
"""Cannot understand (PS3.4 B.2.3)."""


class NotTakenError(Exception):
    """An instance is not taken: with the status that its sender gets, and a comment without what is in it."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status


@dataclass(frozen=True)
class Received:
    """What an instance says of itself: UIDs, and how many instances its series or acquisition has."""

    series: str
    sop: str
    kind: str
    expected: int | None
    acquisition: int | None


def part10_head(kind: str, sop: str, syntax: str) -> bytes:
    """Return what stands before the data set in a Part 10 file; the same for the same instance, whoever sends it."""
    meta: Any = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(kind)
    meta.MediaStorageSOPInstanceUID = UID(sop)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(dicom.IMPLEMENTATION_UID)
    meta.ImplementationVersionName = "FR-PACS"
    out: Any = io.BytesIO()
    out.write(bytes(128) + b"DICM")
    write_file_meta_info(out, meta, enforce_standard=True)
    return bytes(out.getvalue())


def examine(head: bytes, data: bytes, kind: str, sop: str) -> Received:
    """Return what an instance is. Its header is read; its pixels are not, but seen to be there.

    Args:
        head: as `part10_head` made it.
        data: the data set.
        kind: the SOP Class UID that the sender names beside it.
        sop: the SOP Instance UID likewise.

    Raises:
        NotTakenError: it cannot be read or told apart, is not what its sender says, or is cut short.
    """
    stream = io.BytesIO(head + data)
    try:
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*dicom.TAGS])
        pixels_at = stream.tell()
        series = _uid(header, "SeriesInstanceUID")
        inside = _uid(header, "SOPClassUID"), _uid(header, "SOPInstanceUID")
    except Exception:
        # pydicom raises whatever broken data lead it to; its messages may quote them.
        raise NotTakenError(NOT_UNDERSTOOD, "the data set cannot be read") from None
    if not PLAIN_UID.match(series):
        raise NotTakenError(NOT_UNDERSTOOD, "no valid Series Instance UID")
    if inside != (kind, sop):
        raise NotTakenError(MISMATCH, "SOP UIDs differ from those of the C-STORE")
    _see_whole(header, pixels_at, len(head) + len(data))
    related = _count(header, "NumberOfSeriesRelatedInstances")
    acquisition = None if related else _count(header, "AcquisitionNumber")
    return Received(series, sop, kind, related or _count(header, "ImagesInAcquisition"), acquisition)


def _see_whole(header: Dataset, pixels_at: int, size: int) -> None:
    """Refuse an image that ends before its pixels do; what else may be wrong with it is judged with its series."""
    try:
        dicom.slice_of(Stamp(Path("instance"), size, 0), header, pixels_at)
    except dicom.TruncatedError as error:
        raise NotTakenError(NOT_UNDERSTOOD, str(error)) from None
    except Exception:  # pydicom raises whatever a broken value leads it to
        return


def _uid(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword, "")).strip("\0 ")


def _count(header: Dataset, keyword: str) -> int | None:
    """Return a number that is above 0; None where there is none that can be read."""
    try:
        value = int(str(header.get(keyword)))
    except Exception:  # pydicom raises whatever the value leads it to
        return None
    return value if value > 0 else None
