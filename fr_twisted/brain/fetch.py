"""Brings the bytes of a scan from the store to a file, a few chunks in memory at a time."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from twisted.internet.defer import Deferred

from fr_twisted.model import PayloadFormat, PayloadRef, chunk_count

CHUNKS_AT_ONCE = 4
"""Chunks that are asked for, and held in memory, at a time."""

SUFFIXES = {PayloadFormat.NIFTI: ".nii", PayloadFormat.NIFTI_GZ: ".nii.gz", PayloadFormat.DICOM_TAR: ".tar"}
"""Imaging libraries go by the file's name."""

InThread = Callable[..., Deferred[Any]]
"""Calls a function with arguments outside the reactor's thread, as `twisted.internet.threads.deferToThread` does."""


class PayloadBrokenError(Exception):
    """The stored bytes are not those that were acknowledged; no further try will mend it."""


class ReadChunks(Protocol):
    """`fr_twisted.store.interfaces.IPayloads.read_chunks`, or the same with patience."""

    async def __call__(self, payload_id: str, first: int, count: int) -> list[bytes]:
        """Return chunks in order."""


def payload_name(format: PayloadFormat) -> str:
    """Return the file name of a payload of ``format``."""
    return "payload" + SUFFIXES[format]


async def fetch(read: ReadChunks, payload: PayloadRef, path: Path, in_thread: InThread) -> int:
    """Write ``payload`` to the new file ``path`` and return its size in bytes.

    Raises:
        PayloadBrokenError: it has another size or SHA-256 than it was kept with.
        Exception: what ``read`` raises; OSError when the file cannot be written.
    """
    file: BinaryIO = await in_thread(path.open, "xb")
    digest = hashlib.sha256()
    try:
        total = chunk_count(payload.size)
        for first in range(0, total, CHUNKS_AT_ONCE):
            chunks = await read(payload.payload_id, first, min(CHUNKS_AT_ONCE, total - first))
            await in_thread(_append, file, digest, chunks)
        size = file.tell()
    finally:
        await in_thread(file.close)
    if size != payload.size:
        raise PayloadBrokenError(f"the stored scan has {size} bytes instead of {payload.size}")
    if digest.hexdigest() != payload.sha256:
        raise PayloadBrokenError(
            f"the stored scan has the SHA-256 {digest.hexdigest()} instead of {payload.sha256}"
        )
    return size


def _append(file: BinaryIO, digest: Any, chunks: list[bytes]) -> None:
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
