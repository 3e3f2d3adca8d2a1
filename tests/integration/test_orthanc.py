"""Orthanc and the whole of Fr: images go from Orthanc to Fr, and the results come back beside them."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset

from fr_twisted.brain.analysis.schema import Findings
from fr_twisted.ops.orthanc import OrthancClient, OrthancPorts
from fr_twisted.pacs.dicom_out import codes
from fr_twisted.pacs.encode import to_dicom
from fr_twisted.pacs.generator import generate
from tests.dicom_peers import needs_dcmtk, storescu
from tests.house import House, free_port, wait_for
from tests.iod_check import complaints
from tests.orthanc_peer import needs_orthanc, orthanc

pytestmark = [needs_orthanc, needs_dcmtk]

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
QUIET = 1
RESULTS = {"SR": 1, "SEG": 1, "OT": 1, "DOC": 1}


@pytest.fixture
def ports() -> OrthancPorts:
    """Provide three free ports."""
    return OrthancPorts(free_port(), free_port(), free_port())


@pytest.fixture
def house(tmp_path: Path, ports: OrthancPorts) -> Iterator[House]:
    """Provide a house with DICOM in and out, not started, and leave no process."""
    house = House(
        tmp_path,
        FR_DICOM_LISTEN=f"tcp:{ports.fr}:interface=127.0.0.1",
        FR_DICOM_ALLOW="ORTHANC",
        FR_DICOM_COMMITMENT="yes",
        FR_DICOM_ARCHIVES=f"ORTHANC@127.0.0.1:{ports.dicom}",
        FR_DICOM_PEERS=f"ORTHANC=127.0.0.1:{ports.dicom}",
        FR_DICOM_STATE=tmp_path / "state",
        FR_SPOOL=tmp_path / "spool",
        FR_SERIES_QUIET=QUIET,
    )
    try:
        yield house
    finally:
        house.stop()


def write_series(folder: Path) -> list[str]:
    """Write a 2 mm series of the generated head; return its SOP Instance UIDs."""
    folder.mkdir()
    made = list(to_dicom(generate(12, (2.0, 2.0, 2.0)), "DICOM-1", NOON))
    for number, (_, data) in enumerate(made):
        (folder / f"IM{number:04d}").write_bytes(data)
    return [uid for uid, _ in made]


def counts(peer: OrthancClient, study: str) -> dict[str, int]:
    """Return how many instances Orthanc has in the study, by modality."""
    return {modality: len(instances) for modality, instances in peer.series(study).items()}


def test_results_beside_the_images(house: House, ports: OrthancPorts, tmp_path: Path) -> None:
    """What storescu brings to Orthanc goes on to Fr, whose SR, SEG, picture and PDF Orthanc then has in its study."""
    uids = write_series(tmp_path / "study")
    house.start()
    with orthanc(tmp_path / "orthanc", ports, route=True) as peer:
        sent = storescu(ports.dicom, tmp_path / "study", called="ORTHANC")
        assert sent.returncode == 0, sent.stderr
        [study] = peer.get("/studies")
        images = {"MR": len(uids)}
        wait_for("the results in Orthanc", lambda: counts(peer, study) == images | RESULTS)
        check_results(peer, study, house, tmp_path)
        check_commitment(peer, uids)
        wait_for("its word on the results", lambda: committed(house), 30)
        # All of it once more is no news.
        series = next(
            s for s in peer.get(f"/studies/{study}/series") if s["MainDicomTags"]["Modality"] == "MR"
        )
        job = peer.post("/modalities/fr/store", [series["ID"]])
        assert job["FailedInstancesCount"] == 0, job
        time.sleep(QUIET + 1.5)
        assert len(house.pacs.events("scan.prepared")) == 1
        assert counts(peer, study) == images | RESULTS
        assert len(peer.get("/studies")) == 1
    house.pacs.stop()
    assert "Traceback" not in house.pacs.log.read_text()
    assert house.db["brain_scans"].count_documents({}) == 1


def committed(house: House) -> bool:
    """Tell whether Orthanc committed to the results: it reports on an association of its own, at once or later."""
    at_once = any("commits to keeping" in event["detail"] for event in house.pacs.events("dicom.delivered"))
    return at_once or bool(house.pacs.events("dicom.committed"))


def check_results(peer: OrthancClient, study: str, house: House, folder: Path) -> None:
    """See that what Orthanc has is valid, and says what the report says."""
    found: dict[str, Dataset] = {}
    for modality, instances in peer.series(study).items():
        for instance in instances[: 1 if modality == "MR" else None]:
            data = peer.file(instance)
            found[modality] = pydicom.dcmread(BytesIO(data))
            path = folder / f"{modality}.dcm"
            path.write_bytes(data)
            for tool in ("dcm2json", "dsrdump") if modality == "SR" else ("dcm2json",):
                done = subprocess.run([str(shutil.which(tool)), str(path)], capture_output=True, timeout=60)
                assert (done.returncode, done.stderr) == (0, b""), (tool, modality, done.stderr)
    image = found.pop("MR")
    for modality, dataset in found.items():
        assert complaints(dataset) == [], modality
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            assert dataset.get(keyword, "") == image.get(keyword, ""), (modality, keyword)
    [path] = house.reports.glob("*/report.json")
    findings = Findings.model_validate(json.loads(path.read_text())["findings"])
    report: Any = highdicom.sr.srread(folder / "SR.dcm").content
    check_numbers(report, findings)
    segments: Any = highdicom.seg.segread(folder / "SEG.dcm")
    assert segments.FrameOfReferenceUID == image.FrameOfReferenceUID
    check_segments(segments, findings)


def check_numbers(report: Any, found: Findings) -> None:
    """See that each number of the findings stands in the SR, and no other. Coordinates are single floats there."""
    assert found.volumes is not None
    assert found.asymmetry is not None
    assert found.brain_parenchymal_fraction is not None
    sides = {None: "whole", codes.LEFT: "left", codes.RIGHT: "right"}
    fields = {structure.code: structure.field for structure in codes.STRUCTURES}
    names = {code: name for name, code in codes.READINGS.items()}
    names |= {codes.VOLUME: "volume", codes.RATIO: "ratio", codes.ASYMMETRY: "asymmetry"}
    names |= {codes.BRAIN_FRACTION: "fraction", codes.CONTRAST: "contrast", codes.SCORE: "score"}
    said: dict[tuple[str, ...], float] = {}
    groups = report.get_volumetric_roi_measurement_groups() + report.get_image_measurement_groups()
    for group in groups:
        if group.finding_type == codes.IMAGE_QUALITY:
            place: tuple[str, ...] = ("quality",)
        else:
            place = (fields[group.finding_type], sides[group.finding_sites[0].laterality])
        said |= {(*place, names[each.name]): float(each.value) for each in group.get_measurements()}
    for group in report.get_planar_roi_measurement_groups():
        place = (group.tracking_identifier,)
        said |= {(*place, names[each.name]): float(each.value) for each in group.get_measurements()}
        said |= {(*place, axis): float(v) for axis, v in zip("xyz", group.roi.value[0], strict=True)}
    wanted: dict[tuple[str, ...], float] = {}
    for structure in codes.STRUCTURES:
        reading = getattr(found.volumes, structure.field)
        wanted[structure.field, "whole", "volume"] = reading.value * 1000
        if structure.field != "intracranial":
            wanted[structure.field, "whole", "ratio"] = reading.percent_of_intracranial
    wanted["brain", "whole", "fraction"] = found.brain_parenchymal_fraction.value
    for field, asymmetry in (
        ("grey_matter", found.asymmetry.grey_matter),
        ("ventricles", found.asymmetry.ventricles),
    ):
        wanted[field, "whole", "asymmetry"] = asymmetry.index.value
        wanted[field, "left", "volume"] = asymmetry.left_ml * 1000
        wanted[field, "right", "volume"] = asymmetry.right_ml * 1000
    for lesion in found.lesions or ():
        place = (f"Lesion candidate {lesion.number}",)
        x, y, z = lesion.centroid_patient_mm  # RAS; DICOM's is LPS
        wanted |= {(*place, axis): value for axis, value in zip("xyz", (-x, -y, z), strict=True)}
        wanted[*place, "volume"], wanted[*place, "score"] = lesion.volume.value, lesion.score.value
        wanted[*place, "contrast"] = lesion.contrast.value
    for name in codes.READINGS:
        if (value := getattr(found.quality, name).value) is not None:
            wanted["quality", name] = value
    assert found.lesions, "the generated head has lesions, so that their numbers are compared too"
    assert set(said) == set(wanted)
    for key, value in wanted.items():
        assert said[key] == pytest.approx(value, rel=1e-6 if key[-1] in "xyz" else 1e-9), key


def check_segments(segments: Any, found: Findings) -> None:
    """See that each segment has as many voxels as its volume says.

    The analysis worked on the grid of these 2 mm images, so each voxel of a segment is one that was counted. What is
    left is that the report gives mL to two places: half of 0.01 mL, which is less than one voxel of 8 mm3.
    """
    assert found.volumes is not None
    volumes = {s.segment: getattr(found.volumes, s.field).value * 1000 for s in codes.STRUCTURES if s.segment}
    volumes[codes.LESION_SEGMENT] = sum(lesion.volume.value for lesion in found.lesions or ())
    assert set(volumes) == set(segments.segment_numbers)
    for number, volume in volumes.items():
        pixels = segments.get_volume(segment_numbers=[number], combine_segments=False).array
        assert int(pixels.sum()) * 8.0 == pytest.approx(volume, abs=5.0 + 1e-6), number


def check_commitment(peer: OrthancClient, uids: list[str]) -> None:
    """See that Orthanc asks Fr to commit to the images, and is told that all are kept."""
    request = {"DicomInstances": [["1.2.840.10008.5.1.4.1.1.4", uid] for uid in uids]}
    asked = peer.post("/modalities/fr/storage-commitment", request)

    def answer() -> Any:
        told = peer.get(asked["Path"])
        return told if told["Status"] != "Pending" else None

    told = wait_for("the commitment report", answer, 30)
    assert told["Status"] == "Success", told
    assert len(told["Success"]) == len(uids)
