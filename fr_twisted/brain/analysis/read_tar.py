"""Walks an uncompressed tar without writing anything anywhere, in time and memory bounded by what is really there.

Not by `tarfile.open`: that takes an archive with a damaged entry for one that ends before it, so that slices would be
missing unseen, and older versions of it can be led to read one entry for ever (CVE-2025-8194, CVE-2024-6232). The
header blocks are decoded by its `tarfile.TarInfo` (POSIX.1-2017 pax, "ustar Interchange Format"); names are not used.
"""

import io
import tarfile
from collections.abc import Iterator
from typing import IO

from fr_twisted.brain.interfaces import UnusableScanError

MAX_FILES = 4096
MAX_BYTES = 1024 * 1024 * 1024
"""Of all files of a series together."""

MAX_HEADERS = 4 * MAX_FILES
"""Folders, long names and the like included."""

BLOCK = tarfile.BLOCKSIZE

_ABOUT_THE_NEXT = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Entries that hold long names, times and owners of the next, which are of no account here."""

_ABOUT_BYTES = 4096
"""Of such an entry, looked at."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"PK": "zip", b"\x28\xb5": "zstd"}


def files(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the content of each file of the archive in the file ``stream``.

    Raises:
        UnusableScanError: no archive, not whole, too large, or with entries that are no plain files.
    """
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    number, total = 0, 0
    for entry in _headers(stream, end):
        if entry.isdir():
            continue
        if entry.type in _ABOUT_THE_NEXT:
            if b"GNU.sparse" in stream.read(min(entry.size, _ABOUT_BYTES)):
                raise _not_plain(number + 1)
            continue
        number += 1
        total += entry.size
        if number > MAX_FILES or total > MAX_BYTES:
            raise _too_much()
        if entry.type not in tarfile.REGULAR_TYPES or entry.type == tarfile.GNUTYPE_SPARSE:
            raise _not_plain(number)
        if entry.size > end - stream.tell():
            raise _damaged(number - 1)
        yield number, stream.read(entry.size)


def _headers(stream: IO[bytes], end: int) -> Iterator[tarfile.TarInfo]:
    """Yield every header, the stream standing behind it, up to the mark at the end of the archive."""
    place, count = 0, 0
    for _ in range(MAX_HEADERS):
        stream.seek(place)
        block = stream.read(BLOCK)
        if place and block == bytes(BLOCK):
            return
        try:
            # any bytes are a name in this encoding
            entry = tarfile.TarInfo.frombuf(block, "latin-1", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise _damaged(count) if place else _no_archive(block, end) from error
        if entry.size < 0 or (entry.size > end and not entry.isreg()):
            raise _damaged(count)
        yield entry
        count += entry.isreg()
        place += BLOCK + -(-entry.size // BLOCK) * BLOCK
    raise _too_much()


def _no_archive(block: bytes, end: int) -> UnusableScanError:
    if block == bytes(BLOCK):
        return UnusableScanError("the archive holds no DICOM file; send the files of one MR series")
    if not end:
        return UnusableScanError("the archive is empty; export the series again")
    if block[:2] in _COMPRESSED:
        kind = _COMPRESSED[block[:2]]
        return UnusableScanError(f"the archive is compressed ({kind}); send an uncompressed tar")
    if block[128:132] == b"DICM":
        return UnusableScanError(
            "the file is one DICOM file and no archive; send a tar of all files of the series"
        )
    return UnusableScanError(
        "the file is no tar archive, or its start is damaged; send a tar of the files of one MR series"
    )


def _damaged(number: int) -> UnusableScanError:
    return UnusableScanError(
        f"the archive is cut short or damaged after {number} files; copy or export it again"
    )


def _not_plain(number: int) -> UnusableScanError:
    return UnusableScanError(
        f"entry {number} of the archive is no plain file (a link, device or sparse file);"
        " pack the DICOM files themselves"
    )


def _too_much() -> UnusableScanError:
    return UnusableScanError(
        f"the archive holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB; send one MR series"
    )
