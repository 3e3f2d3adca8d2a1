"""The reader and the checks of the fault rounds, against a real server and real folders that are tampered with."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.daemons import ROOT
from tests.faults import endings, reader, verify
from tests.faults.inject_base import direct_client
from tests.faults.periods import Periods
from tests.faults.problems import BYTES, DOUBLED, LOST, ORPHAN, STUCK
from tests.faults.scans import Expected, expect, nifti

NOW = datetime.now(UTC)
NODE = "pacs-1"


def bundle(report: bytes) -> bytes:
    """Return a report's tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("report.json")
        entry.size = len(report)
        tar.addfile(entry, io.BytesIO(report))
    return stream.getvalue()


@dataclass
class Bench:
    """A store and a node's reports in which one scan was reported, as Fr would have left them."""

    client: MongoClient[dict[str, Any]]
    reports: Path
    scan: Expected

    @property
    def db(self) -> Any:
        """The database."""
        return self.client.get_default_database()

    def found(self) -> list[tuple[str, str]]:
        """Return kind and what of everything that is wrong."""
        ids = {self.scan.scan_id}
        snapshot = reader.take(self.db, ids, set(), {NODE: self.reports})
        acknowledged = {self.scan.scan_id: self.scan.sha256}
        problems = verify.check(snapshot, {self.scan.scan_id: self.scan}, acknowledged, {})
        return [(problem.kind, problem.what) for problem in problems]

    def keep(self, payload_id: str, data: bytes) -> None:
        """Write chunks of 1000 bytes."""
        for n, at in enumerate(range(0, len(data), 1000)):
            chunk = data[at : at + 1000]
            self.db["brain_chunks"].insert_one(
                {
                    "_id": f"{payload_id}:{n}",
                    "files_id": payload_id,
                    "n": n,
                    "size": len(chunk),
                    "data": chunk,
                }
            )

    def fill(self, data: bytes) -> None:
        """Write the scan, its report and the report's folder."""
        scan, report = self.scan, b'{"findings": {}}'
        content = bundle(report)
        self.keep("ps", data)
        self.keep("pr", content)
        self.db["brain_scans"].insert_one(
            {
                "_id": scan.scan_id,
                "patient_id": scan.patient_id,
                "source": NODE,
                "report_generated": "Done",
                "payload_id": "ps",
                "size": scan.size,
                "sha256": scan.sha256,
                "attempts": 1,
                "error": None,
                "lease": None,
            }
        )
        self.db["brain_reports"].insert_one(
            {
                "_id": "report-1",
                "scan_id": scan.scan_id,
                "destination": NODE,
                "status": True,
                "payload_id": "pr",
                "sha256": hashlib.sha256(content).hexdigest(),
                "analysis": "t1",
                "analysis_version": "1",
            }
        )
        self.write_folder(scan.scan_id, "report-1", report)

    def write_folder(self, name: str, report_id: str, report: bytes) -> None:
        """Write a report's folder."""
        folder = self.reports / name
        folder.mkdir()
        marker = {"report_id": report_id, "scan_id": self.scan.scan_id}
        (folder / reader.MARKER).write_text(json.dumps(marker))
        (folder / "report.json").write_bytes(report)


@pytest.fixture
def bench(database_uri: str, tmp_path: Path) -> Iterator[Bench]:
    """Provide a bench where nothing is wrong."""
    data = nifti("a")
    with direct_client(database_uri) as client:
        made = Bench(client, tmp_path, expect(NODE, "sub-a", data))
        made.fill(data)
        yield made


def _scan(**change: Any) -> Callable[[Bench], object]:
    return lambda b: b.db["brain_scans"].update_one({"_id": b.scan.scan_id}, {"$set": change})


def _copy_report(bench: Bench) -> None:
    report = bench.db["brain_reports"].find_one()
    bench.db["brain_reports"].insert_one(report | {"_id": "report-2"})


_EXPIRED = {"owner": "brain-1.x", "token": 1, "expires_at": NOW - timedelta(minutes=1)}

TAMPERINGS: dict[str, tuple[Callable[[Bench], object], str]] = {
    "a scan is gone": (lambda b: b.db["brain_scans"].delete_one({}), LOST),
    "a report is gone": (lambda b: b.db["brain_reports"].delete_one({}), LOST),
    "a report's folder is gone": (lambda b: (b.reports / b.scan.scan_id).rename(b.reports / "x"), LOST),
    "a report twice": (_copy_report, DOUBLED),
    "a folder twice": (lambda b: b.write_folder(f"{b.scan.scan_id}.r", "report-1", b"{}"), DOUBLED),
    "a scan waits": (_scan(report_generated="To Do"), STUCK),
    "a scan is left by its BRAIN": (_scan(report_generated="In Progress", lease=_EXPIRED), STUCK),
    "a report waits": (lambda b: b.db["brain_reports"].update_one({}, {"$set": {"status": False}}), STUCK),
    "a report is in its scan": (_scan(pending_report={"payload_id": "pr"}), STUCK),
    "a chunk is changed": (
        lambda b: b.db["brain_chunks"].update_one({"_id": "ps:0"}, {"$set": {"data": b"x" * 1000}}),
        BYTES,
    ),
    "a chunk is gone": (lambda b: b.db["brain_chunks"].delete_one({"_id": "ps:0"}), BYTES),
    "a report's chunk is gone": (lambda b: b.db["brain_chunks"].delete_one({"_id": "pr:0"}), BYTES),
    "a file is changed": (
        lambda b: (b.reports / b.scan.scan_id / "report.json").write_bytes(b"{}"),
        BYTES,
    ),
    "chunks of nothing": (lambda b: b.keep("px", b"x"), ORPHAN),
}


def test_nothing_is_found(bench: Bench) -> None:
    """Where nothing is wrong nothing is found."""
    assert bench.found() == []


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found(name: str, bench: Bench) -> None:
    """What is done to the store or the folder is found."""
    tamper, kind = TAMPERINGS[name]
    tamper(bench)
    assert kind in [found for found, _ in bench.found()]


def test_listed_chunks(bench: Bench) -> None:
    """Chunks that the cleaner has listed are right during a run, and orphans when it has had its turn."""
    bench.keep("px", b"x")
    bench.db["brain_garbage"].insert_one({"_id": "px", "since": NOW})
    assert bench.found() == []
    cleaned = verify.check_cleaned(reader.take(bench.db, set(), set(), {}))
    assert [(problem.kind, problem.what) for problem in cleaned] == [(ORPHAN, "px")]


def test_what_is_to_be_removed(bench: Bench) -> None:
    """Uploads, what was given up, and payloads of delivered scans are told of until they are gone; and when overdue."""
    db, hour = bench.db, timedelta(hours=1)
    assert reader.removable(db) == [f"payload of delivered scan {bench.scan.scan_id}"]
    db["brain_scans"].update_one({}, {"$set": {"payload_removed_at": NOW}})
    assert reader.removable(db) == []
    db["brain_uploads"].insert_one({"_id": "u", "payload_id": "pu", "touched_at": NOW - hour})
    db["brain_garbage"].insert_one({"_id": "px", "since": NOW - hour})
    assert reader.removable(db) == ["upload u", "given-up payload px"]
    assert reader.overdue(db, 3000, 3000) == ["upload u", "given-up payload px"]
    assert reader.overdue(db, 4000, 3000) == ["given-up payload px"]
    assert reader.overdue(db, 3000, 4000) == ["upload u"]
    shortly = Periods(grace=0.1, upload_ttl=0.1, keep=0.1, round=0.01)
    assert [problem.what for problem in endings.wait_removed(db, shortly)] == reader.removable(db)


def test_retired_payload(bench: Bench) -> None:
    """The chunks of a payload that was given up belong to nothing, unless the cleaner has them listed."""
    bench.db["brain_scans"].update_one({}, {"$set": {"payload_removed_at": NOW}})
    assert (ORPHAN, "ps") in bench.found()
    bench.db["brain_garbage"].insert_one({"_id": "ps", "since": NOW})
    assert (ORPHAN, "ps") not in bench.found()


def test_fr_verify_is_asked(database_uri: str, tmp_path: Path) -> None:
    """The cleaner and ``fr verify`` are run on the store; what the one leaves and the other finds is a problem."""
    assert endings.clean(database_uri) == []
    assert endings.verify(database_uri, tmp_path) == []
    with direct_client(database_uri) as client:
        chunk = {"_id": "px:0", "files_id": "px", "n": 0, "size": 1, "data": b"x"}
        client.get_default_database()["brain_chunks"].insert_one(chunk)
    assert endings.clean(database_uri) == []
    found = endings.verify(database_uri, tmp_path)
    assert [problem.what for problem in found] == ["px"]
    assert "fr verify: orphan" in found[0].text
    nobody = endings.verify("mongodb://127.0.0.1:1/fr?serverSelectionTimeoutMS=500", tmp_path)
    assert [problem.what for problem in nobody] == ["fr verify"]


_SAY = """
from fr_twisted.config import HubSettings
from fr_twisted.hub.caretaker import CaretakerService
from fr_twisted.store import completion, mongo, uploads, payloads
store = mongo.MongoStore("mongodb://127.0.0.1/fr", clock=None, node="n", unit="u")
care = CaretakerService(store, {}, 86400.0, None, None, keep_payload_days=1.0)
print(completion.GRACE_SECONDS, uploads.GRACE_SECONDS, payloads.TOUCH_SECONDS, store.scans()._garbage._grace,
      care._upload_ttl, care._interval, care._keep_payload_days)
"""


@pytest.mark.parametrize(
    ("unit", "said"),
    [("frhub", "15.0 15.0 1.0 15.0 12.0 1.0 1.0"), ("worker", "600.0 600.0 60.0 600.0 86400.0 60.0 1.0")],
)
def test_short_periods(unit: str, said: str, tmp_path: Path) -> None:
    """A unit that is started with short periods has them wherever they are read; no other process has."""
    shutil.copy(Path(endings.__file__).with_name("sitecustomize_units.py"), tmp_path / "sitecustomize.py")
    search = os.pathsep.join((str(tmp_path), str(ROOT)))
    environment = {"PYTHONPATH": search, "PATH": os.environ["PATH"], **Periods().environment()}
    command = [sys.executable, "-c", _SAY, unit]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == said, done.stderr
