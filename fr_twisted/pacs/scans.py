"""From files to items: what among files can be sent, and the payload that travels. All of it blocks: for threads."""

import hashlib
import os
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from fr_twisted.link.interfaces import Item
from fr_twisted.model import SCAN_KIND, PayloadFormat, ScanMeta, make_scan_id
from fr_twisted.pacs import dicom, nifti
from fr_twisted.pacs.files import ChangedError, NotUsableError, Skipped, Stamp


@dataclass(frozen=True)
class Drop:
    """One scan found on disk.

    ``files`` are its payload, in order; ``entries`` their names in the tar (none for NIfTI); ``others`` are moved along
    with them: sidecars of a NIfTI file, further copies of slices.
    """

    files: tuple[Stamp, ...]
    entries: tuple[str, ...]
    others: tuple[Stamp, ...]
    meta: ScanMeta

    @property
    def all_files(self) -> tuple[Stamp, ...]:
        """Everything that belongs to it."""
        return self.files + self.others

    def check(self) -> None:
        """See that the payload's files are what they were.

        Raises:
            ChangedError: one is not.
        """
        for stamp in self.files:
            stamp.check()


@dataclass(frozen=True)
class Prepared:
    """An item and the file that holds its bytes; ``spooled`` when that file is ours, to be removed."""

    item: Item
    path: Path
    spooled: bool

    def discard(self) -> None:
        """Remove the file if it is ours."""
        if self.spooled:
            self.path.unlink(missing_ok=True)


def classify(stamps: Iterable[Stamp], patient_id: str | None) -> tuple[list[Drop], list[Skipped]]:
    """Return the scans among files, by the path of their first file, and every file that is not sent, with the reason.

    Args:
        stamps: files, at any depth.
        patient_id: for files that name no patient.
    """
    drops: list[Drop] = []
    skipped: list[Skipped] = []
    slices: list[Stamp] = []
    by_path = {stamp.path: stamp for stamp in stamps}
    quiet = {path for path in by_path if path.name.upper() == "DICOMDIR"}
    for path, stamp in by_path.items():
        try:
            if nifti.is_nifti_name(path):
                others = tuple(by_path[other] for other in nifti.companions(path) if other in by_path)
                quiet.update(other.path for other in others)
                drops.append(Drop((stamp,), (), others, nifti.inspect(stamp, patient_id)))
            elif path not in quiet and dicom.is_dicom(path):
                slices.append(stamp)
            elif path not in quiet:
                skipped.append(Skipped(path, "neither NIfTI nor DICOM"))
        except NotUsableError as error:
            skipped.append(Skipped(path, str(error)))
        except FileNotFoundError:
            continue  # gone since it was seen
        except OSError as error:
            skipped.append(Skipped(path, f"it cannot be read: {error.strerror}"))
    usable, unusable = dicom.group(slices)
    for series in usable:
        _add_series(series, patient_id, drops, skipped)
    drops.sort(key=lambda drop: drop.files[0].path)
    return drops, [item for item in skipped + unusable if item.path not in quiet]


def _add_series(
    series: dicom.Series, patient_id: str | None, drops: list[Drop], skipped: list[Skipped]
) -> None:
    files = tuple(piece.stamp for piece in series.slices)
    try:
        meta = dicom.meta_of(series, patient_id)
    except (ValueError, TypeError, AttributeError):  # values that are none of their kind
        skipped.extend(Skipped(stamp.path, "its header has values that cannot be read") for stamp in files)
        return
    drops.append(Drop(files, tuple(f"{piece.sop}.dcm" for piece in series.slices), series.copies, meta))


def prepare(drop: Drop, node: str, spool: Path) -> Prepared:
    """Return the item of a scan: a NIfTI file as it lies, a DICOM series as a tar in the folder ``spool``.

    Raises:
        ChangedError: a file is not what it was when it was looked at.
        OSError: no room in the spool folder, or a file that cannot be read.
    """
    if drop.meta.format is PayloadFormat.DICOM_TAR:
        handle, name = tempfile.mkstemp(".tar", "scan-", spool)
        os.close(handle)
        path, spooled = Path(name), True
        try:
            size, digest = write_tar(path, drop)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    else:
        path, spooled = drop.files[0].path, False
        size, digest = _hash_file(path)
    drop.check()
    return Prepared(make_item(node, drop.meta, size, digest), path, spooled)


def make_item(node: str, meta: ScanMeta, size: int, digest: str) -> Item:
    """Return the item of a payload of ``size`` bytes with the SHA-256 ``digest``."""
    scan_id = make_scan_id(node, meta.patient_id, digest)
    return Item(scan_id, SCAN_KIND, size, digest, meta.model_dump(mode="json", exclude_none=True))


def write_tar(path: Path, drop: Drop) -> tuple[int, str]:
    """Write the series to ``path``; return size and SHA-256. The same files give the same bytes.

    Raises:
        ChangedError: a file is gone or shorter than it was.
    """
    with path.open("wb") as stream:
        writer = _Hashing(stream)
        with tarfile.open(fileobj=cast(IO[bytes], writer), mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for stamp, name in zip(drop.files, drop.entries, strict=True):
                _add_entry(tar, stamp, name)
    return writer.size, writer.digest.hexdigest()


def _add_entry(tar: tarfile.TarFile, stamp: Stamp, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = stamp.size, 0o644
    try:
        source = stamp.path.open("rb")
    except FileNotFoundError:
        raise ChangedError(f"{stamp.path.name} is gone") from None
    with source:
        if os.fstat(source.fileno()).st_size != stamp.size:
            raise ChangedError(f"{stamp.path.name} has changed")
        tar.addfile(entry, source)


class _Hashing:
    """The part of a file that tarfile writes to: hashes what passes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self.digest.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        """Return the position."""
        return self.size


def _hash_file(path: Path) -> tuple[int, str]:
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
            return stream.tell(), digest.hexdigest()
    except FileNotFoundError:
        raise ChangedError(f"{path.name} is gone") from None


class Payload:
    """The open file of an item that is being sent. Methods block."""

    def __init__(self, prepared: Prepared, files: Sequence[Stamp] = ()) -> None:
        """Open it.

        Raises:
            ChangedError: one of ``files``, which it was made of, has changed since, or it is gone.
        """
        for stamp in files:
            stamp.check()
        try:
            self._fd = os.open(prepared.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ChangedError(f"{prepared.path.name} is gone") from None
        self._lock = (
            threading.Lock()
        )  # a descriptor must not be closed, and given to another file, during a read

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes at ``offset``.

        Raises:
            ChangedError: the file is shorter than it was.
        """
        data = bytearray()
        with self._lock:
            while len(data) < size:
                more = os.pread(self._fd, size - len(data), offset + len(data)) if self._fd >= 0 else b""
                if not more:
                    raise ChangedError("the file has become shorter")
                data += more
        return bytes(data)

    def close(self) -> None:
        """Close it, once."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
