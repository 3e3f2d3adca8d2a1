"""From first byte to durable: one 176-slice 23 MB MR series over the link, and over C-STORE to storescp and Orthanc.

Needs Debian's dcmtk and orthanc; what is missing is left out and said. All on loopback, in turns, in one run.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fr_twisted.pacs.encode import to_dicom
from fr_twisted.pacs.generator import generate
from tests.benchmarks.table import Row
from tests.house import House, free_port, wait_for

STORESCU = "/usr/bin/storescu"
STORESCP = "/usr/bin/storescp"
ORTHANC = "/usr/sbin/Orthanc"
TUNED = "storescp, TCP_NODELAY=1 on both sides and its files synced afterwards"
ROUNDS = 3
SLICES, ROWS, COLUMNS = 176, 256, 256


def series(folder: Path, seed: int) -> Path:
    """Write a series of 176 slices of 256 x 256; return its folder."""
    scan = generate(seed)
    box = np.zeros((SLICES, ROWS, COLUMNS), scan.volume.dtype)
    part = tuple(slice(0, min(have, want)) for have, want in zip(scan.volume.shape, box.shape, strict=True))
    box[part] = scan.volume[part]
    whole = replace(scan, volume=box)
    folder.mkdir(parents=True)
    for uid, data in to_dicom(whole, "BENCH", datetime(2026, 1, 2, tzinfo=UTC), origin=str(folder)):
        (folder / f"{uid}.dcm").write_bytes(data)
    return folder


def c_store(peer: "Peer", folder: Path) -> float:
    """Return the seconds that storescu takes to send a folder; for a tuned peer, with its files synced to disk."""
    since = time.perf_counter()
    command = [STORESCU, "-aec", "ANY", "+sd", "127.0.0.1", str(peer.port), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=peer.environment)
    if peer.tuned:
        for file in peer.folder.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    return time.perf_counter() - since


def over_link(house: House, folder: Path) -> tuple[float, float]:
    """Return the seconds from the first OFFER to ACK, and from the file's discovery (hash and tar included)."""
    before = len(house.pacs.events("scan.acknowledged"))
    shutil.move(folder, house.watched / folder.name)
    wait_for("ACK", lambda: len(house.pacs.events("scan.acknowledged")) > before)
    event = house.pacs.events("scan.acknowledged")[-1]
    prepared = [e for e in house.pacs.events("scan.prepared") if e["scan_id"] == event["scan_id"]][-1]
    return float(event["seconds"]), float(prepared.get("seconds", 0.0))


class Peer:
    """storescp or Orthanc on a free port."""

    def __init__(self, name: str, folder: Path, tuned: bool = False) -> None:
        self.name, self.folder, self.tuned = name, folder, tuned
        # dcmtk leaves Nagle's algorithm on unless it is told otherwise on both sides.
        self.environment = os.environ | ({"TCP_NODELAY": "1"} if tuned else {})
        self.port = free_port()
        folder.mkdir(parents=True)
        if name.startswith("storescp"):
            command = [STORESCP, "-od", str(folder), "-aet", "ANY", str(self.port)]
        else:
            settings = {
                "StorageDirectory": str(folder),
                "IndexDirectory": str(folder),
                "DicomPort": self.port,
                "DicomAet": "ANY",
                "HttpServerEnabled": False,
                "DicomAlwaysAllowStore": True,
                "SyncStorageArea": True,
                "Plugins": [],
            }
            (folder / "orthanc.json").write_text(json.dumps(settings))
            command = [ORTHANC, str(folder / "orthanc.json")]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment
        )
        wait_for(f"{name} listening", self._listens, 30)

    def _listens(self) -> bool:
        echo = ["/usr/bin/echoscu", "-aec", "ANY", "127.0.0.1", str(self.port)]
        return subprocess.run(echo, capture_output=True, timeout=10).returncode == 0

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
            return
        self.process.kill()


def measure() -> list[Row]:
    """Measure each way ROUNDS times in turns; medians count."""
    if not Path(STORESCU).exists():
        return [Row("series over C-STORE against the link", "left out: dcmtk is not installed")]
    kinds = (("storescp", STORESCP), ("Orthanc", ORTHANC), (TUNED, STORESCP))
    names = [name for name, path in kinds if Path(path).exists()]
    seconds: dict[str, list[float]] = {"link": [], **{name: [] for name in names}}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        house = House(root / "house", FR_BRAIN_ANALYSIS="tests.benchmarks.standin:QUICK_REPORT")
        peers = [Peer(name, root / f"peer-{number}", name == TUNED) for number, name in enumerate(names)]
        try:
            house.start()
            for number in range(ROUNDS):
                folder = series(root / f"series-{number}", number + 1)
                size = sum(file.stat().st_size for file in folder.iterdir())
                for peer in peers:
                    seconds[peer.name].append(c_store(peer, folder))
                seconds["link"].append(over_link(house, folder)[0])
        finally:
            house.stop()
            for peer in peers:
                peer.stop()
    link = statistics.median(seconds["link"])
    rows = [
        Row(
            f"{SLICES}-slice series, {size / 1e6:.0f} MB: over the link, first byte to durable",
            f"{link:.2f} s",
        )
    ]
    for name in names:
        other = statistics.median(seconds[name])
        text = f"{other / link:.1f} times the link's time ({other:.2f} s)"
        target = ("", None) if name == TUNED else ("10 times (expected)", other / link > 10)
        rows.append(Row(f"the same with storescu to {name}", text, *target))
    return rows
