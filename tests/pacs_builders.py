"""Small NIfTI files and DICOM series, and stand-ins for threads, for the tests of Fr-PACS."""

import gzip
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

EDGE = 8


def new_folder(case: SynchronousTestCase) -> Path:
    """Return an empty folder that is removed after the test; `mktemp` leaves it in the current one under pytest."""
    made = TemporaryDirectory()
    case.addCleanup(made.cleanup)
    return Path(made.name).resolve()


def inline(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Run at once what would run in a thread."""
    return maybeDeferred(function, *args)


class Threads:
    """Runs what would run in a thread when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[None], Callable[..., Any], tuple[Any, ...]]] = []
        self.holding = True

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Take a job."""
        if not self.holding:
            return inline(function, *args)
        gate: Deferred[None] = Deferred()
        self.waiting.append((gate, function, args))
        return gate.addCallback(lambda _: function(*args))

    def release(self) -> None:
        """Run what waits now."""
        waiting, self.waiting = self.waiting, []
        for gate, _, _ in waiting:
            gate.callback(None)


def write_nifti(path: Path, shape: tuple[int, ...] = (10, 11, 12), fill: int = 7) -> Path:
    """Write a NIfTI file of int16 noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(fill)
    image: Any = nibabel.Nifti1Image(rng.integers(0, 999, shape, np.int16), np.diag((1.0, 1.5, 2.0, 1.0)))
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data, 1, mtime=0) if path.name.endswith(".gz") else data)
    return path


def make_slice(number: int, series: str = "1.2.3", **changes: Any) -> Dataset:
    """Return one slice of an MR series; ``changes`` are attributes, None to leave one out."""
    dataset = Dataset()
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "SOPClassUID": str(MRImageStorage),
        "SOPInstanceUID": f"{series}.{number}",
        "StudyDate": "20260102",
        "StudyTime": "101112",
        "AcquisitionDate": "20260102",
        "AcquisitionTime": "103000.5",
        "Modality": "MR",
        "Manufacturer": "Maker",
        "SeriesDescription": "T1 test",
        "PatientName": "Doe^Jane",
        "PatientID": "P-17",
        "PatientBirthDate": "19500203",
        "PatientSex": "F",
        "PatientAge": "076Y",
        "RepetitionTime": "2300",
        "EchoTime": "2.98",
        "MagneticFieldStrength": "3",
        "SpacingBetweenSlices": "1.2",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": series,
        "InstanceNumber": number,
        "ImagePositionPatient": [0, 0, 1.2 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": EDGE,
        "Columns": EDGE,
        "PixelSpacing": [1, 1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": np.full((EDGE, EDGE), number, "<u2").tobytes(),
    }
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(str(dataset.SOPClassUID))
    meta.MediaStorageSOPInstanceUID = UID(str(dataset.get("SOPInstanceUID", "1.9")))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    return dataset


def write_slice(path: Path, dataset: Dataset) -> Path:
    """Write a Part 10 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=False, little_endian=True, implicit_vr=False)
    return path


def write_series(
    folder: Path, count: int = 8, series: str = "1.2.3", prefix: str = "IM", **changes: Any
) -> list[Path]:
    """Write a series of ``count`` slices, the file names in the reverse order of the slices."""
    return [
        write_slice(folder / f"{prefix}{count - number:04d}", make_slice(number, series, **changes))
        for number in range(1, count + 1)
    ]
