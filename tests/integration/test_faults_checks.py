"""The reader and the checks of the fault rounds, against a real server and real folders that are tampered with."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.faults import reader, verify
from tests.faults.inject_base import direct_client
from tests.faults.scans import Expected, expect, nifti
from tests.faults.verify import BYTES, DOUBLED, LOST, ORPHAN, STUCK

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
