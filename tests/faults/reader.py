"""What is there, seen from outside: documents and chunks by pymongo, reports and leftovers by looking into folders."""

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from pymongo.errors import PyMongoError

T = TypeVar("T")

SCANS, REPORTS, CHUNKS = "brain_scans", "brain_reports", "brain_chunks"
UPLOADS, GARBAGE = "brain_uploads", "brain_garbage"

MARKER = ".fr-report.json"
_AT_ONCE = 50
_RETRIES = 20


@dataclass(frozen=True)
class Payload:
    """The bytes of a scan or report, as their chunks have them."""

    sha256: str
    size: int
    whole: bool
    """The chunks are numbered 0, 1, ... without a gap."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of a report: its files and the SHA-256 of each."""


@dataclass(frozen=True)
class OnDisk:
    """One folder of a node's reports."""

    node: str
    folder: str
    report_id: str
    scan_id: str
    files: Mapping[str, str]


@dataclass
class Snapshot:
    """Everything that the checks look at."""

    now: datetime
    """By the store's clock."""
    scans: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Documents of this round's scans, by id."""
    strangers: list[str] = field(default_factory=list)
    """Ids of scans that nobody sent."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    """Documents of reports of this round's scans."""
    payloads: dict[str, Payload] = field(default_factory=dict)
    """By payload id."""
    in_progress: list[dict[str, Any]] = field(default_factory=list)
    chunk_owners: set[str] = field(default_factory=set)
    """Payload ids of all chunks that there are."""
    used: set[str] = field(default_factory=set)
    """Payload ids that a scan, a report or an upload names; a scan whose payload was removed names none."""
    listed: set[str] = field(default_factory=set)
    """Payload ids that the cleaner will look at."""
    uploads: list[dict[str, Any]] = field(default_factory=list)
    indexes: dict[str, set[str]] = field(default_factory=dict)
    disk: list[OnDisk] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Unfinished files in reports folders."""
    waiting: list[str] = field(default_factory=list)
    """Files that were not taken from the watched folders, or were refused."""


def patiently(ask: Callable[[], T]) -> T:
    """Ask the store again while it cannot answer.

    Raises:
        PyMongoError: it could not for too long.
    """
    for attempt in range(_RETRIES):
        try:
            return ask()
        except PyMongoError:
            if attempt == _RETRIES - 1:
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")


def by_ids(collection: Any, ids: Iterable[str], key: str = "_id", **more: Any) -> list[dict[str, Any]]:
    """Return the documents of these ids, some at a time."""
    wanted, found = sorted(ids), []
    for first in range(0, len(wanted), _AT_ONCE):
        query = {key: {"$in": wanted[first : first + _AT_ONCE]}}
        found += patiently(lambda query=query: list(collection.find(query, **more)))  # type: ignore[misc]
    return found


def take(db: Any, ids: set[str], known: set[str], nodes: Mapping[str, Path]) -> Snapshot:
    """Look at everything.

    Args:
        db: a pymongo database, read past all proxies.
        ids: the scans of this round.
        known: those of earlier rounds.
        nodes: the reports folder of each node.
    """
    hello = patiently(lambda: db.client.admin.command("hello"))
    snapshot = Snapshot(hello["localTime"].replace(tzinfo=UTC))
    snapshot.scans = {scan["_id"]: scan for scan in by_ids(db[SCANS], ids)}
    snapshot.reports = by_ids(db[REPORTS], ids, "scan_id")
    query = {"report_generated": "In Progress"}
    snapshot.in_progress = patiently(lambda: list(db[SCANS].find(query, {"lease": 1})))
    for scan in snapshot.scans.values():
        snapshot.payloads[scan["payload_id"]] = payload(db, scan["payload_id"])
    for report in snapshot.reports:
        snapshot.payloads[report["payload_id"]] = payload(db, report["payload_id"], True)
    _add_owners(db, ids | known, snapshot)
    snapshot.indexes = indexes(db)
    for node, folder in nodes.items():
        _add_disk(node, folder, ids, snapshot)
    return snapshot


def removable(db: Any) -> list[str]:
    """Return what a house that removes what nobody needs has not removed yet, where nothing is under way."""
    kept = {"report_generated": "Done", "payload_removed_at": None}
    return [
        *(f"upload {one}" for one in _ids(db, UPLOADS, {})),
        *(f"given-up payload {one}" for one in _ids(db, GARBAGE, {})),
        *(f"payload of delivered scan {one}" for one in _ids(db, SCANS, kept)),
    ]


def overdue(db: Any, upload_seconds: float, garbage_seconds: float) -> list[str]:
    """Return the uploads, and what was given up, that nothing has happened to for longer than that."""
    now = patiently(lambda: db.client.admin.command("hello"))["localTime"].replace(tzinfo=UTC)
    untouched, given_up = (now - timedelta(seconds=seconds) for seconds in (upload_seconds, garbage_seconds))
    return [
        *(f"upload {one}" for one in _ids(db, UPLOADS, {"touched_at": {"$lt": untouched}})),
        *(f"given-up payload {one}" for one in _ids(db, GARBAGE, {"since": {"$lt": given_up}})),
    ]


def _ids(db: Any, collection: str, query: Mapping[str, Any]) -> list[str]:
    return [document["_id"] for document in patiently(lambda: list(db[collection].find(query, {"_id": 1})))]


def indexes(db: Any) -> dict[str, set[str]]:
    """Return the names of the indexes of each collection."""
    names = (SCANS, REPORTS, CHUNKS, UPLOADS, GARBAGE)
    return {name: patiently(lambda name=name: set(db[name].index_information())) for name in names}  # type: ignore[misc]


def payload(db: Any, payload_id: str, is_bundle: bool = False) -> Payload:
    """Return what the chunks of a payload hold."""
    query = {"files_id": payload_id}
    chunks = patiently(lambda: list(db[CHUNKS].find(query, {"n": 1, "data": 1}).sort("n", 1)))
    data = b"".join(bytes(chunk["data"]) for chunk in chunks)
    whole = [chunk["n"] for chunk in chunks] == list(range(len(chunks)))
    files = bundle_files(data) if is_bundle else {}
    return Payload(hashlib.sha256(data).hexdigest(), len(data), whole, files)


def bundle_files(data: bytes) -> dict[str, str]:
    """Return the files of a report's tar, each with its SHA-256; empty when it is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            files = {entry.name: tar.extractfile(entry) for entry in tar}
            return {name: hashlib.sha256(f.read()).hexdigest() for name, f in files.items() if f}
    except (tarfile.TarError, EOFError):
        return {}


def _add_owners(db: Any, ids: set[str], snapshot: Snapshot) -> None:
    scans = patiently(
        lambda: list(
            db[SCANS].find(
                {}, {"payload_id": 1, "pending_report.payload_id": 1, "payload_removed_at": 1, "_id": 1}
            )
        )
    )
    reports = patiently(lambda: list(db[REPORTS].find({}, {"payload_id": 1})))
    snapshot.uploads = patiently(lambda: list(db[UPLOADS].find({}, {"payload_id": 1, "touched_at": 1})))
    snapshot.strangers = sorted(scan["_id"] for scan in scans if scan["_id"] not in ids)
    for document in [*scans, *reports, *snapshot.uploads]:
        if document.get("payload_removed_at") is None:
            snapshot.used.add(document["payload_id"])
        if pending := document.get("pending_report"):
            snapshot.used.add(pending["payload_id"])
    snapshot.listed = {entry["_id"] for entry in patiently(lambda: list(db[GARBAGE].find({})))}
    chunks = patiently(lambda: list(db[CHUNKS].find({}, {"_id": 0, "files_id": 1})))
    snapshot.chunk_owners = {chunk["files_id"] for chunk in chunks}


def _add_disk(node: str, folder: Path, ids: set[str], snapshot: Snapshot) -> None:
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            snapshot.hidden.append(f"{node}: {entry.name}")
        elif entry.is_dir() and entry.name.split(".")[0] in ids:
            snapshot.disk.append(on_disk(node, Path(entry.path)))


def on_disk(node: str, folder: Path) -> OnDisk:
    """Return what a folder of reports holds."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marker = {}
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != MARKER and path.is_file()
    }
    return OnDisk(node, folder.name, str(marker.get("report_id", "")), str(marker.get("scan_id", "")), files)
