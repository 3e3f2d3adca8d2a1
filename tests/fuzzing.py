"""What fuzz tests share: how many examples, the bounds on time and memory, and a process that runs them under a limit.

The usual examples are the same every time. FR_FUZZ_EXAMPLES asks for so many others of each kind: a campaign.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fr_twisted.brain.analysis.read import read
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat
from tests.builders import dicom_tar
from tests.odd_files import edited, enhanced, series
from tests.strategies_scans import ARCHIVE, NIFTI, archives, nifti_files

T = TypeVar("T")

EXAMPLES = int(os.environ.get("FR_FUZZ_EXAMPLES", "0"))

MOST_SECONDS = 3.0
"""Of processor time, for one small file."""

MOST_BYTES = 96 * 1024 * 1024
"""Of further memory, for one small file that declares anything: the parts in which readers read, and libraries."""

ROOT = Path(__file__).parents[1]


def fuzz(usual: int) -> settings:
    """Return the settings of a test: the same ``usual`` number of examples, or FR_FUZZ_EXAMPLES others."""
    return settings(
        max_examples=EXAMPLES or usual,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def read_or_refuse(path: Path, kind: PayloadFormat) -> str:
    """Read a file within bounds; return "" or the reason why it cannot be used.

    Raises:
        Exception: anything else went wrong, or it took too long.
    """
    began = time.process_time()
    reason = ""
    try:
        read(path, kind)
    except UnusableScanError as error:
        reason = str(error) or "a reason without words"
    took = time.process_time() - began
    assert len(reason.splitlines()) < 2, reason
    assert reason != "a reason without words"
    assert took < MOST_SECONDS, f"it took {took:.1f} s"
    return reason


def memory(name: str) -> int:
    """Return a figure of /proc/self/status (proc(5)) in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def peak_of(work: Callable[[], T]) -> tuple[int, T]:
    """Do ``work``; return by how many bytes the resident memory rose meanwhile, and what ``work`` returns."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    result = work()
    return memory("VmHWM") - before, result


def under_limit(function: str, extra: int = MOST_BYTES) -> dict[str, Any]:
    """Call a function, ``module:name``, in a process that may take ``extra`` bytes more than it starts with.

    Returns what it returns, which is JSON-able.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.fuzzing", function, str(extra), folder]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def bombs() -> dict[str, bytes]:
    """Return small files, by name, that would like to be gigabytes; those of NIfTI end in ``.nii``."""
    zeros = gzip.compress(bytes(1 << 24), 9, mtime=0)
    large = edited(dim=(slice(1, 4), (1200, 1200, 60)), datatype=64)
    return {
        "declares much, holds nothing.nii": large,
        "declares much, holds little, packed.nii": gzip.compress(large + bytes(1 << 20), mtime=0),
        "declares little, holds gigabytes.nii": gzip.compress(NIFTI, mtime=0) + zeros * 128,
        "begins after gigabytes.nii": gzip.compress(edited(vox_offset=60e6)[:352], mtime=0) + zeros * 128,
        "nothing but gigabytes.nii": zeros * 128,
        "dim of 30000.nii": edited(dim=(slice(1, 4), 30000)),
        "large slices": dicom_tar(series(Rows=1200, Columns=1200)),
        "many frames": dicom_tar(enhanced(lambda image: setattr(image, "NumberOfFrames", 2**31 - 1))),
        "folders": ARCHIVE[:512] * 3,
    }


def read_bombs(folder: Path) -> dict[str, Any]:
    """Read `bombs`; return by how many bytes memory rose with each, and what was said. In a process of its own."""
    read(_written(folder, ARCHIVE), PayloadFormat.DICOM_TAR)
    result = {}
    for name, content in bombs().items():
        kind = PayloadFormat.NIFTI if name.endswith(".nii") else PayloadFormat.DICOM_TAR
        result[name] = peak_of(partial(read_or_refuse, _written(folder, content), kind))
    return result


def read_strange_files(folder: Path) -> dict[str, Any]:
    """Read fuzzed files; return by format how many, and the largest rise of memory. In a process of its own."""
    read(_written(folder, ARCHIVE), PayloadFormat.DICOM_TAR)
    nifti = _rises(folder, PayloadFormat.NIFTI, nifti_files())
    return {"nifti": nifti, "dicom": _rises(folder, PayloadFormat.DICOM_TAR, archives())}


def _rises(folder: Path, kind: PayloadFormat, files: st.SearchStrategy[bytes]) -> tuple[int, int]:
    rises = []

    @fuzz(100)
    @given(files)
    def look(content: bytes) -> None:
        rise, _ = peak_of(partial(read_or_refuse, _written(folder, content), kind))
        rises.append(rise)

    look()
    return len(rises), max(rises)


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "payload"
    path.write_bytes(content)
    return path


def _main(function: str, extra: str, folder: str) -> None:
    module, _, name = function.partition(":")
    work = getattr(__import__(module, fromlist=[name]), name)
    limit = memory("VmData") + int(extra)
    # what counts for a worker too: private memory that may be written
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    print(json.dumps(work(Path(folder))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
