"""Reports on disk: a folder each, there whole or not at all, whatever happens in between. Blocks: for threads.

``<reports>/<scan id>/`` holds the first report of a scan; one of another analysis or version goes to
``<reports>/<scan id>.<report id>/``. Beside the report's own files lies `MARKER`, which says what the folder holds and
is how a report that comes again is recognised. Hidden names are work in progress, removed by the next start.
"""

import hashlib
import html
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fr_twisted import bundle
from fr_twisted.link.interfaces import RefusedError
from fr_twisted.model import ReportMeta, utc_text

MARKER = ".fr-report.json"
INDEX = "index.html"
MAX_LISTED = 1000
"""Reports on the index page; all others are in their folders."""

_PART = ".part-"
_NEW = ".new-"


@dataclass(frozen=True)
class Written:
    """What the marker of a report's folder says. ``folder`` is its name."""

    report_id: str
    sha256: str
    scan_id: str
    patient_id: str
    analysis: str
    analysis_version: str
    written_at: str
    folder: str


class ReportFolder:
    """The reports folder. Its methods block, and must not be called for one report by two threads at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> list[Written]:
        """Make the folder, remove what an earlier run left unfinished, return the reports that are there.

        Raises:
            OSError: it cannot be made or written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.root):
            pass  # it can be written, or this raises
        for left in self.root.glob(".*"):
            if left.name.startswith(_NEW):
                shutil.rmtree(left)
            elif left.name.startswith(_PART):
                left.unlink()
        return self.written()

    def written(self) -> list[Written]:
        """Return the reports that are there, in the order of their writing."""
        if not self.root.is_dir():
            return []
        found = (self._marker(path) for path in self.root.iterdir() if path.is_dir())
        return sorted((w for w in found if w is not None), key=lambda written: written.written_at)

    def find(self, scan_id: str, report_id: str) -> Written | None:
        """Return what is written of this report, or None."""
        for folder in (self.root / scan_id, self.root / f"{scan_id}.{report_id}"):
            written = self._marker(folder)
            if written is not None and written.report_id == report_id:
                return written
        return None

    def _marker(self, folder: Path) -> Written | None:
        try:
            data = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            return Written(**{**data, "folder": folder.name})
        except (OSError, ValueError, TypeError):
            return None

    # -- bytes as they arrive

    def part_path(self, report_id: str, sha256: str) -> Path:
        """Return the file that the bytes of a report are collected in."""
        return self.root / f"{_PART}{report_id}-{sha256[:16]}"

    def resume(self, part: Path, chunk: int) -> tuple[int, Any]:
        """Return how many bytes of it are there in whole chunks, and a hashlib object fed with them."""
        digest = hashlib.sha256()
        try:
            with part.open("r+b") as stream:
                kept = os.fstat(stream.fileno()).st_size // chunk * chunk
                stream.truncate(kept)
                for _ in range(0, kept, chunk):
                    digest.update(stream.read(chunk))
        except FileNotFoundError:
            return 0, digest
        return kept, digest

    def write_part(self, part: Path, offset: int, data: bytes) -> None:
        """Write bytes durably."""
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            view, at = memoryview(data), offset
            while view:
                count = os.pwrite(descriptor, view, at)
                view, at = view[count:], at + count
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def discard_part(self, part: Path) -> None:
        """Forget the bytes."""
        part.unlink(missing_ok=True)

    # -- the whole report

    def publish(self, part: Path, report_id: str, sha256: str, meta: ReportMeta) -> Written:
        """Make the report whose bundle is in ``part`` visible; when this returns it is durable. Twice does no harm.

        Raises:
            RefusedError: it is not a bundle, or not of the scan and analysis that it was announced as.
            OSError: it cannot be written.
        """
        try:
            files = bundle.unpack(part.read_bytes())
            _check_agreement(files[bundle.REPORT_JSON], meta)
        except bundle.BundleError as error:
            raise RefusedError("bad-report", str(error), retry=False) from None
        target = self._target(meta.scan_id, report_id)
        written = Written(
            report_id=report_id,
            sha256=sha256,
            scan_id=meta.scan_id,
            patient_id=meta.patient_id,
            analysis=meta.analysis,
            analysis_version=meta.analysis_version,
            written_at=utc_text(datetime.now(UTC)),
            folder=target.name,
        )
        marker = json.dumps(asdict(written), indent=2).encode()
        self._write_folder(target, {**files, MARKER: marker})
        self.discard_part(part)
        return written

    def _target(self, scan_id: str, report_id: str) -> Path:
        plain = self.root / scan_id
        taken = os.path.lexists(plain)
        target = self.root / f"{scan_id}.{report_id}" if taken else plain
        if taken and os.path.lexists(target):
            raise RefusedError(
                "folder-taken", f"{target.name} is there already, and is not this report", retry=False
            )
        return target

    def _write_folder(self, target: Path, files: Mapping[str, bytes]) -> None:
        fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.root))
        try:
            for name, data in files.items():
                write_durably(fresh / name, data)
            fresh.chmod(0o755 & ~_umask())
            sync_folder(fresh)
            fresh.rename(target)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync_folder(self.root)

    def write_index(self, reports: Iterable[Written]) -> None:
        """Write the page that lists ``reports``, given in the order of their writing, newest first."""
        part = self.root / f"{_PART}{INDEX}"
        part.write_text(index_page(reports), encoding="utf-8")
        part.rename(self.root / INDEX)


_SAID = ("scan_id", "patient_id", "analysis", "analysis_version")
"""Members of ``report.json`` that, where an analysis writes them, are those of the offer."""


def _check_agreement(raw: bytes, meta: ReportMeta) -> None:
    """See that ``report.json`` speaks of the scan and the analysis that the offer named."""
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        raise bundle.BundleError(f"{bundle.REPORT_JSON} is not JSON") from None
    if not isinstance(said, dict):
        raise bundle.BundleError(f"{bundle.REPORT_JSON} is not an object")
    for field in _SAID:
        if field in said and said[field] != getattr(meta, field):
            raise bundle.BundleError(
                f"its {bundle.REPORT_JSON} and its offer name different values of {field}"
            )


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the process's umask without changing it, as another thread may be creating a file."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o077)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Reports</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}th,td{{text-align:left;padding:.4rem .8rem;border-bottom:1px solid #ccc}}
</style></head><body><h1>Reports</h1><p>{count}</p>
<table><thead><tr><th>Written (UTC)</th><th>Patient</th><th>Scan</th><th>Analysis</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""
_ROW = (
    '<tr><td>{moment}</td><td>{patient}</td><td><a href="{folder}/{page}">{scan}</a></td>'
    "<td>{analysis} {version}</td></tr>"
)


def index_page(reports: Iterable[Written]) -> str:
    """Return the page that links to the newest `MAX_LISTED` of ``reports``."""
    newest = list(reports)[::-1]
    rows = [
        _ROW.format(
            moment=html.escape(written.written_at[:19].replace("T", " ")),
            patient=html.escape(written.patient_id),
            folder=html.escape(written.folder),
            page=bundle.REPORT_HTML,
            scan=html.escape(written.scan_id),
            analysis=html.escape(written.analysis),
            version=html.escape(written.analysis_version),
        )
        for written in newest[:MAX_LISTED]
    ]
    shown = f"{len(newest)} in all" + (f"; the newest {MAX_LISTED}" if len(newest) > MAX_LISTED else "")
    return _PAGE.format(count=shown, rows="\n".join(rows))
