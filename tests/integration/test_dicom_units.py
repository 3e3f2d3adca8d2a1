"""Series through the DICOM port and all units: coded ones are measured like plain ones, odd ones end with a reason."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from fr_twisted.pacs.encode import to_dicom
from fr_twisted.pacs.generator import generate
from tests.dicom_peers import Scu
from tests.house import House, free_port, wait_for
from tests.odd_files import jpeg2000

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PLAIN = "1.2.826.0.1.3680043.9.9.100"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Provide all units, running, with a DICOM port."""
    folder = tmp_path_factory.mktemp("house")
    house = House(
        folder,
        FR_DICOM_LISTEN=f"tcp:{free_port()}:interface=127.0.0.1",
        FR_SPOOL=folder / "spool",
        FR_SERIES_QUIET=0.3,
    )
    try:
        yield house.start()
    finally:
        house.stop()


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Provide the files of a series of the generated head, 3 mm: coarse, for what is measured matters little here."""
    return [data for _, data in to_dicom(generate(12, (3.0, 3.0, 3.0)), "P-17", NOON)]


def series(images: list[bytes], uid: str, **changes: Any) -> list[Dataset]:
    """Return the images as another series; ``changes`` are attributes, None to leave one out."""
    found: list[Dataset] = []
    for number, data in enumerate(images, start=1):
        dataset = pydicom.dcmread(BytesIO(data))
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid, f"{uid}.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{uid}.{number}")
        for keyword, value in changes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        found.append(dataset)
    return found


def send(house: House, datasets: list[Dataset]) -> str:
    """Send a series by C-STORE, each of it answered with success; return the id of its scan."""
    port = int(house.pacs.settings["FR_DICOM_LISTEN"].split(":")[1])
    scu = Scu(port, syntax=datasets[0].file_meta.TransferSyntaxUID)
    assert scu.send(datasets) == [0x0000] * len(datasets)
    where = {"meta.series_instance_uid": datasets[0].SeriesInstanceUID}
    scan = wait_for("its scan in the store", lambda: house.db["brain_scans"].find_one(where), 60)
    return str(scan["_id"])


def ended(house: House, scan_id: str) -> dict[str, Any]:
    """Return the document of a scan when it is done or failed."""

    def over() -> Any:
        scan = house.db["brain_scans"].find_one({"_id": scan_id})
        return scan if scan["report_generated"] in ("Done", "Failed") else None

    found: dict[str, Any] = wait_for(f"the end of {scan_id}", over, 120)
    return found


def findings(house: House, scan_id: str) -> dict[str, Any]:
    """Return the findings in its report at Fr-PACS."""

    def report() -> Any:
        documents = (json.loads(path.read_text()) for path in house.reports.glob("*/report.json"))
        return next((each for each in documents if each["scan_id"] == scan_id), None)

    ended(house, scan_id)
    found: dict[str, Any] = wait_for("its report", report, 60)["findings"]
    return found


def coded(datasets: list[Dataset], syntax: UID) -> list[Dataset]:
    """Return images coded without loss."""
    for dataset in datasets:
        if syntax == JPEG2000Lossless:  # Pillow's coder, for pydicom has none without pylibjpeg
            dataset.PixelData = encapsulate([jpeg2000(dataset.pixel_array)])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = syntax
        else:
            dataset.compress(syntax, generate_instance_uid=False)
    return datasets


def test_compressed(house: House, images: list[bytes]) -> None:
    """A series that was coded without loss, in any syntax, gets the numbers of the same series uncompressed."""
    plain = send(house, series(images, PLAIN))
    others = {
        syntax: send(house, coded(series(images, f"{PLAIN}.{number}"), syntax))
        for number, syntax in enumerate((RLELossless, JPEGLSLossless, JPEG2000Lossless), start=1)
    }
    wanted = findings(house, plain)
    assert wanted["verdict"]["usability"] == "usable"
    assert wanted["volumes"]["white_matter"]["value"] > 200
    for syntax, scan_id in others.items():
        uid = house.db["brain_scans"].find_one({"_id": scan_id})["meta"]["series_instance_uid"]
        [kept] = Path(house.pacs.settings["FR_SPOOL"]).glob(f"series/{uid}/{uid}.7.dcm")
        assert pydicom.dcmread(kept).file_meta.TransferSyntaxUID == syntax
        found = findings(house, scan_id)
        for name in ("volumes", "asymmetry", "lesions", "quality", "verdict"):
            assert found[name] == wanted[name], (syntax.name, name)


@pytest.mark.parametrize(
    ("number", "missing"), enumerate(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"), 1)
)
def test_missing_geometry(house: House, images: list[bytes], number: int, missing: str) -> None:
    """Images that do not tell where they lie are taken, and their scan fails with what is missing and what to do."""
    failed = ended(house, send(house, series(images, f"1.2.3.{number}", **{missing: None})))
    assert failed["report_generated"] == "Failed"
    assert f"image 1 has no {missing}" in failed["error"]
    assert "export the series again" in failed["error"]
    assert failed["attempts"] == 1


def test_mixed_spacing(house: House, images: list[bytes]) -> None:
    """Slices of which some lie further apart than the others fail, with the distances."""
    datasets = series(images, "1.2.3.9")
    cosines = np.array(datasets[0].ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    half = len(datasets) // 2
    for beyond, dataset in enumerate(datasets[half:]):
        moved = np.array(dataset.ImagePositionPatient, float) + 3.0 * beyond * normal
        dataset.ImagePositionPatient = [f"{value:.4f}" for value in moved]
    failed = ended(house, send(house, datasets))
    assert failed["report_generated"] == "Failed"
    assert failed["error"] == "the slices are not evenly spaced: 3 to 6 mm apart; send a 3-D series"
