"""The scans that are sent: small NIfTI files made by the harness itself, and what must become of each."""

import hashlib
import random
import struct
from dataclasses import dataclass
from pathlib import Path

SMALL = (8, 8, 8)
LARGE = (128, 128, 80)
"""2.5 MiB of 2-byte voxels: three chunks."""


@dataclass(frozen=True)
class Expected:
    """A scan that was given to Fr: what must be known of it at the end."""

    scan_id: str
    node: str
    patient_id: str
    sha256: str
    size: int
    poison: bool = False
    """It cannot be analysed, and must end ``Failed``."""
    path: Path | None = None
    """The file in the node's watched folder; None: sent by the harness's own client."""
    refusable: bool = False
    """Another scan of the same id may have been first; then it is refused for good."""


def nifti(seed: str, shape: tuple[int, int, int] = SMALL) -> bytes:
    """Return a NIfTI-1 file (nifti1.h, `n+1`) of 2-byte voxels that are random by ``seed``."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1.0, 2.0, 2.0, 2.0, 0, 0, 0, 0)
    struct.pack_into("<fff", header, 108, 352.0, 1.0, 0.0)
    struct.pack_into("<hh", header, 252, 0, 1)
    for row in range(3):
        line = [2.0 if column == row else 0.0 for column in range(4)]
        struct.pack_into("<4f", header, 280 + 16 * row, *line)
    header[344:348] = b"n+1\0"
    return bytes(header) + random.Random(seed).randbytes(2 * shape[0] * shape[1] * shape[2])


def scan_id(node: str, patient_id: str, sha256: str) -> str:
    """Return the id that docs/architecture.md gives a scan: by node, patient and bytes."""
    digest = hashlib.sha256("\0".join((node, patient_id, sha256)).encode()).hexdigest()
    return f"scan-{digest[:24]}"


def expect(
    node: str, patient_id: str, data: bytes, *, poison: bool = False, path: Path | None = None
) -> Expected:
    """Return what must become of a file with these bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Expected(scan_id(node, patient_id, sha256), node, patient_id, sha256, len(data), poison, path)
