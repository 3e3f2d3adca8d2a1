"""The whole road with real processes: scans go in, daemons are killed, every scan has one report."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fr_twisted.model import CHUNK_SIZE
from fr_twisted.pacs.encode import to_dicom, to_nifti
from fr_twisted.pacs.generator import generate
from tests.house import House, wait_for

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Provide a house, not started, and leave no process."""
    house = House(tmp_path, FR_LINK_WINDOW=1, FR_LEASE=4, FR_BRAIN_SLOTS=2)
    try:
        yield house
    finally:
        house.stop()


def put_nifti(folder: Path) -> Path:
    """Write an uncompressed 1 mm scan of 4-byte voxels, large enough to be caught half sent; return its path."""
    packed = folder / "packed.nii.gz"
    packed.write_bytes(to_nifti(generate(11)))
    path = folder / "sub-NIFTI_T1w.nii"
    image = nibabel.Nifti1Image.from_filename(packed)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine), path)
    packed.unlink()
    return path


def put_dicom(folder: Path) -> Path:
    """Write a 2 mm series; return its folder."""
    series = folder / "series"
    series.mkdir()
    for uid, data in to_dicom(generate(12, (2.0, 2.0, 2.0)), "DICOM-1", NOON):
        (series / f"{uid}.dcm").write_bytes(data)
    return series


def test_every_scan_has_one_report(house: House, tmp_path: Path) -> None:
    """With HUB killed while a scan is half sent and BRAIN while it analyses, each scan has exactly one report."""
    house.start()
    made = tmp_path / "made"
    made.mkdir()
    nifti, series = put_nifti(made), put_dicom(made)
    content = nifti.read_bytes()
    chunks = -(-len(content) // CHUNK_SIZE)
    assert chunks > 20

    shutil.move(nifti, house.watched / nifti.name)
    upload = wait_for("an upload", lambda: house.db["brain_uploads"].find_one(), step=0.002)
    third = {"_id": f"{upload['payload_id']}:2"}
    wait_for("a scan half sent", lambda: house.db["brain_chunks"].find_one(third, {"_id": 1}), step=0.002)
    house.hub.kill()
    assert house.db["brain_scans"].find_one() is None, "the scan was whole already: the kill came too late"
    kept = house.db["brain_chunks"].count_documents({})
    assert 0 < kept < chunks
    assert (house.watched / nifti.name).exists(), "moved before it was acknowledged"
    house.hub.start()
    shutil.move(series, house.watched / series.name)

    wait_for("an analysis under way", lambda: house.brain.events("scan.fetched"))
    house.brain.kill()
    in_progress = list(house.db["brain_scans"].find({"report_generated": "In Progress"}))
    assert in_progress
    house.brain.start()

    wait_for("both reports", lambda: len(list(house.reports.glob("*/report.json"))) >= 2)
    wait_for("both statuses", lambda: house.db["brain_reports"].count_documents({"status": True}) == 2)
    check_final(house, content)
    check_resumed(house, kept, chunks)
    for daemon in (house.pacs, house.hub, house.brain):
        daemon.stop()
        assert not daemon.events("link.defect"), daemon.log


def check_final(house: House, content: bytes) -> None:
    """Check, from outside, that every state is final and every scan has its one report."""
    scans = list(house.db["brain_scans"].find())
    assert [scan["report_generated"] for scan in scans] == ["Done", "Done"], scans
    assert {scan["patient_id"] for scan in scans} == {"sub-NIFTI", "DICOM-1"}
    assert hashlib.sha256(content).hexdigest() in {scan["sha256"] for scan in scans}
    assert house.db["brain_uploads"].count_documents({}) == 0
    reports = list(house.db["brain_reports"].find())
    assert sorted(report["scan_id"] for report in reports) == sorted(scan["_id"] for scan in scans)
    folders = [folder for folder in house.reports.iterdir() if folder.is_dir()]
    assert sorted(folder.name for folder in folders) == sorted(scan["_id"] for scan in scans)
    for folder in folders:
        assert {"report.json", "report.html", "report.pdf", "overlay.png"} <= {
            file.name for file in folder.iterdir()
        }
        report = json.loads((folder / "report.json").read_text())
        assert report["scan_id"] == folder.name
        assert 900 < report["findings"]["volumes"]["brain"]["value"] < 2000
    written = [event["report_id"] for event in house.pacs.events("report.written")]
    assert sorted(written) == sorted(report["_id"] for report in reports)
    assert sorted(p.name for p in (house.watched / "sent").iterdir()) == ["series", "sub-NIFTI_T1w.nii"]


def check_resumed(house: House, kept: int, chunks: int) -> None:
    """Check that the half-sent scan was resumed behind what was durable, by what the HUB logged."""
    large = max(house.db["brain_scans"].find(), key=lambda scan: scan["size"])
    [resumed] = [event for event in house.hub.events("link.resumed") if event["item_id"] == large["_id"]]
    assert (kept - 1) * CHUNK_SIZE <= resumed["offset"] < chunks * CHUNK_SIZE
    assert house.db["brain_chunks"].count_documents({"files_id": large["payload_id"]}) == chunks
