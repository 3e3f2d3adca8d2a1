"""A head as a DICOM series, its report in a folder as Fr-PACS writes it, and both as objects are made of them."""

import hashlib
import json
import tarfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from fr_twisted.brain.analysis import label_maps, page, pictures
from fr_twisted.brain.analysis.anatomy import Anatomy
from fr_twisted.brain.analysis.schema import Findings, Usability
from fr_twisted.link.interfaces import Item
from fr_twisted.model import SCAN_KIND, PayloadFormat, ScanMeta, make_report_id
from fr_twisted.pacs.dicom_out.headers import HeaderStore, SourceSeries
from fr_twisted.pacs.dicom_out.report import Report, read
from fr_twisted.pacs.report_files import MARKER, Written
from fr_twisted.pacs.scans import Prepared
from tests.pacs_builders import make_slice
from tests.report_builders import some_findings, some_head

SCAN = "scan-0123456789abcdef01234567"
SERIES = "1.2.826.0.1.3680043.9.9.1"
SPACING = (4.0, 4.0, 4.0)
PLACES = ((25, 30, 22), (20, 30, 22))


@cache
def head() -> Anatomy:
    """Return a head with two lesion candidates."""
    return some_head(PLACES, SPACING)


def sagittal_slices(anatomy: Anatomy, **changes: Any) -> list[Dataset]:
    """Return the head as sagittal slices from right to left, rows to the back, columns to the feet."""
    data = np.round(anatomy.head.data * 800).astype("<u2")
    affine = np.diag((-1.0, -1.0, 1.0, 1.0)) @ anatomy.head.affine
    result = []
    for number, plane in enumerate(reversed(range(data.shape[0])), start=1):
        corner = affine @ (plane, data.shape[1] - 1, data.shape[2] - 1, 1)
        pixels = np.flip(data[plane].T)  # the first row at the top, the first column at the front
        values: dict[str, Any] = {
            "StudyInstanceUID": "1.2.826.0.1.3680043.9.9",
            "FrameOfReferenceUID": "1.2.826.0.1.3680043.9.9.7",
            "PositionReferenceIndicator": "",
            "SeriesNumber": 3,
            "AccessionNumber": "ACC-9",
            "StudyID": "S1",
            "StudyDescription": "Brain",
            "ReferringPhysicianName": "Ref^Doc",
            "SliceThickness": SPACING[0],
            "SpacingBetweenSlices": SPACING[0],
            "PixelSpacing": [SPACING[2], SPACING[1]],
            "ImagePositionPatient": [float(value) for value in corner[:3]],
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "PixelData": pixels.tobytes(),
            **changes,
        }
        result.append(make_slice(number, SERIES, **values))
    return result


def write_payload(path: Path, slices: list[Dataset], scan_id: str = SCAN) -> Prepared:
    """Write a series as the payload of a scan."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for dataset in slices:
            out = BytesIO()
            pydicom.dcmwrite(out, dataset, enforce_file_format=True)
            entry = tarfile.TarInfo(f"{dataset.SOPInstanceUID}.dcm")
            entry.size = out.tell()
            tar.addfile(entry, BytesIO(out.getvalue()))
    meta = ScanMeta(patient_id="P-17", format=PayloadFormat.DICOM_TAR).model_dump(
        mode="json", exclude_none=True
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Prepared(Item(scan_id, SCAN_KIND, path.stat().st_size, digest, meta), path, True)


def write_report(root: Path, found: Findings, anatomy: Anatomy, scan_id: str = SCAN) -> Written:
    """Write a report as Fr-PACS does."""
    meta = ScanMeta(patient_id="P-17", format=PayloadFormat.DICOM_TAR)
    files = page.files(scan_id, meta, found, pictures.overlay(anatomy)) | label_maps.files(anatomy, found)
    name, version = found.analysis.name, found.analysis.version
    marker = {
        "report_id": make_report_id(scan_id, name, version),
        "sha256": "0" * 64,
        "scan_id": scan_id,
        "patient_id": "P-17",
        "analysis": name,
        "analysis_version": version,
        "written_at": "2026-01-02T12:00:00.000+00:00",
        "folder": scan_id,
    }
    folder = root / scan_id
    folder.mkdir(parents=True)
    for file, data in {**files, MARKER: json.dumps(marker).encode()}.items():
        (folder / file).write_bytes(data)
    return Written(**marker)


@dataclass(frozen=True)
class Case:
    """A series and its report."""

    report: Report
    source: SourceSeries
    anatomy: Anatomy

    @property
    def found(self) -> Findings:
        """The findings."""
        assert self.report.findings is not None
        return self.report.findings


def make_case(folder: Path, usability: Usability = Usability.USABLE, **changes: Any) -> Case:
    """Return a case, its files in ``folder``; ``changes`` are attributes of each slice."""
    anatomy = head()
    store = HeaderStore(folder / "headers")
    store.make()
    store.remember(write_payload(folder / "payload.tar", sagittal_slices(anatomy, **changes)))
    source = store.find(SCAN)
    assert source is not None
    found = some_findings(usability, lesions=anatomy.lesions)
    written = write_report(folder / "reports", found, anatomy)
    return Case(read(folder / "reports" / SCAN, written), source, anatomy)
