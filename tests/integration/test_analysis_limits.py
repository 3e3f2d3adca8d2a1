"""The real analysis in real worker processes: whatever it is given, a worker says why it cannot, and works on."""

import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred

from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.brain.ipool import OutOfMemoryError
from fr_twisted.brain.jobs import Job, JobResult, Limits
from fr_twisted.brain.pool import AnalysisPool
from fr_twisted.model import PayloadFormat, ScanMeta
from tests.builders import dicom_series, dicom_tar, labelled_head, nifti_bytes
from tests.integration.test_brain_pool import descendants, error_of
from tests.odd_files import edited

reactor: Any = global_reactor

ANALYSIS = "t1-volumes"
MEMORY = 1280 * 1024 * 1024
PATIENCE = 120.0

NIFTI, DICOM = PayloadFormat.NIFTI, PayloadFormat.DICOM_TAR

Affine = Any


@pytest_twisted.async_yield_fixture(scope="module")  # type: ignore[untyped-decorator]
async def pool() -> AsyncIterator[AnalysisPool]:
    """Two slots for the real analysis."""
    made = AnalysisPool(reactor, ANALYSIS, slots=2, time_limit=PATIENCE, limits=Limits(memory=MEMORY))
    await made.start()
    yield made
    await made.stop()


def submit(
    pool: AnalysisPool, folder: Path, content: bytes, kind: PayloadFormat = NIFTI
) -> Deferred[JobResult]:
    """Have a scan analysed, within bounded time."""
    folder.mkdir(exist_ok=True)
    payload = folder / "payload"
    payload.write_bytes(content)
    meta = ScanMeta(patient_id="P1", format=kind)
    return pool.run(Job(ANALYSIS, payload, "scan-1", meta)).addTimeout(PATIENCE, reactor)


def small_head() -> tuple[Any, Affine]:
    """Return a head of 4 mm, which can just be measured, and its affine."""
    head, affine, _ = labelled_head()
    return head[::2, ::2, ::2], affine @ np.diag([2.0, 2.0, 2.0, 1.0])


def good() -> bytes:
    """Return the file of a small head."""
    return nifti_bytes(*small_head())


def greedy() -> bytes:
    """Return a file of under 1 MB that holds the largest scan there may be, of doubles: 800 MB."""
    part = gzip.compress(bytes(1 << 24), 9, mtime=0)
    header = edited(dim=(slice(1, 4), (1000, 1000, 100)), datatype=64, bitpix=64)[:352]
    return gzip.compress(header, mtime=0) + part * 48


def bad() -> list[tuple[PayloadFormat, bytes, str]]:
    """Return what comes from the outside world, and what is to be said of it."""
    head, affine = small_head()
    packed = nifti_bytes(head, affine, packed=True)
    files = dicom_series(head, affine)
    noise = np.random.default_rng(0).integers(0, 1000, head.shape).astype(np.int16)
    holed = head.astype(np.float32)
    holed[20, 20, 20] = np.nan
    return [
        (NIFTI, nifti_bytes(head, affine)[:-1000], "cut short"),
        (PayloadFormat.NIFTI_GZ, packed[: len(packed) // 2], "cut short or damaged"),
        (NIFTI, nifti_bytes(holed, affine), "1 voxels are not finite numbers"),
        (NIFTI, nifti_bytes(np.stack([head, head], -1), affine), "send one time point"),
        (NIFTI, nifti_bytes(head, affine @ np.diag([1, 1, 2.0, 1])), "sides of 0.4 to 6 mm can be analysed"),
        (NIFTI, nifti_bytes(noise, affine), "no brain was found"),
        (DICOM, dicom_tar([*files[:20], *files[22:]]), "2 of 47 slices are missing"),
        (DICOM, dicom_tar(files * 2), "files that are there twice"),
        (DICOM, dicom_tar(files)[:50_000], "cut short"),
        (DICOM, dicom_tar([*files[:9], files[9][:2000], *files[10:]]), "image 10 is cut short"),
        (DICOM, dicom_tar(dicom_series(head, affine, Modality="CT")), "modality is CT"),
        (DICOM, b"no archive at all" * 100, "no tar archive"),
        (DICOM, b"", "the archive is empty"),
    ]


async def test_bad_files_leave_the_worker_as_it_was(pool: AnalysisPool, tmp_path: Path) -> None:
    """Each bad file gets its reason, and the same processes then measure a good one."""
    family = descendants(os.getpid())
    for kind, content, words in bad():
        error = await error_of(submit(pool, tmp_path, content, kind), UnusableScanError)
        assert words in str(error)
    result = await submit(pool, tmp_path, good())
    assert result.findings["volumes"]["brain"]["value"] > 1000
    assert descendants(os.getpid()) == family


async def test_a_file_that_takes_too_much_memory(pool: AnalysisPool, tmp_path: Path) -> None:
    """It ends as out of memory, not as a killed worker; its neighbour goes on, and its slot is as good as new."""
    neighbour = submit(pool, tmp_path / "neighbour", good())
    error = await error_of(submit(pool, tmp_path / "greedy", greedy()), OutOfMemoryError)
    assert "FR_BRAIN_MEMORY_LIMIT" in str(error)
    assert (await neighbour).findings["volumes"] is not None
    both = [submit(pool, tmp_path / str(n), good()) for n in range(2)]
    assert [(await one).findings["volumes"] is not None for one in both] == [True, True]
