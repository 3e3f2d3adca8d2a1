"""The source of generated scans: NIfTI and DICOM in turn, each new, each with its truth on this side alone."""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.interfaces import Candidate
from fr_twisted.pacs.scans import Payload, Prepared, make_item
from fr_twisted.pacs.sources import Queue

if TYPE_CHECKING:
    from fr_twisted.pacs.generator import GeneratedScan

_FACTS: dict[str, str | int | float | None] = {
    "field_strength_t": 3.0,
    "manufacturer": "Fr-PACS scan generator",
    "sequence": "tfl3d1",
    "repetition_time_ms": 2300.0,
    "echo_time_ms": 2.98,
    "inversion_time_ms": 900.0,
    "flip_angle_deg": 9.0,
}
_EPOCH = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def scan_seed(base: int, number: int) -> int:
    """Return the seed of the scan ``number`` of a run with the seed ``base``."""
    digest = hashlib.sha256(f"{base}:{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


class GeneratedCandidate:
    """One scan to be generated; its methods block, some two seconds for a scan of 1 mm."""

    def __init__(
        self,
        seed: int,
        form: PayloadFormat,
        node: str,
        acquired_at: datetime,
        spool: Path,
        truth: Path | None = None,
    ) -> None:
        """Take ``truth``: a folder for ``<scan id>.json`` with the true volumes, or None."""
        self.seed, self.form = seed, form
        self._node, self._acquired_at, self._spool = node, acquired_at, spool
        self._truth = truth

    @property
    def patient_id(self) -> str:
        """Such as ``GEN-000123``."""
        return f"GEN-{self.seed % 1_000_000:06d}"

    def prepare(self) -> Prepared:
        """Generate the scan and write it to the spool folder; the same bytes each time."""
        # scipy and nibabel take half a second to import: a node that generates nothing needs neither.
        from fr_twisted.pacs.encode import to_dicom, to_nifti
        from fr_twisted.pacs.generator import generate

        scan = generate(self.seed)
        path = self._spool / f"generated-{self.seed}"
        with path.open("wb") as stream:
            if self.form is PayloadFormat.DICOM_TAR:
                with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    for uid, data in to_dicom(scan, self.patient_id, self._acquired_at, origin=self._node):
                        _add(tar, f"{uid}.dcm", data)
            else:
                stream.write(to_nifti(scan))
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        item = make_item(self._node, self._meta(scan), path.stat().st_size, digest)
        self._write_truth(item.id, scan.record())
        return Prepared(item, path, True)

    def _meta(self, scan: "GeneratedScan") -> ScanMeta:
        from fr_twisted.pacs.encode import age_string
        from fr_twisted.pacs.facts import spacing_text

        recipe = scan.recipe
        measured: dict[str, str | int | float | None] = {
            "shape": " x ".join(map(str, scan.volume.shape)),
            "spacing_mm": spacing_text(recipe.spacing),
            "patient_sex": recipe.sex,
            "patient_age": age_string(recipe.age_years),
        }
        return ScanMeta(
            patient_id=self.patient_id,
            format=self.form,
            acquired_at=self._acquired_at,
            series_description="T1 MPRAGE generated",
            facts=_FACTS | measured,
        )

    def _write_truth(self, scan_id: str, record: dict[str, Any]) -> None:
        if self._truth is not None:
            self._truth.mkdir(parents=True, exist_ok=True)
            part = self._truth / f".{scan_id}.part"
            part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            part.rename(self._truth / f"{scan_id}.json")

    def open(self, prepared: Prepared) -> Payload:
        """Open the spooled file."""
        return Payload(prepared)

    def kept(self, prepared: Prepared) -> None:
        """Nothing is to be moved."""

    def refused(self, prepared: Prepared, code: str, reason: str) -> None:
        """Nothing is to be moved."""

    def ended(self) -> None:
        """Nothing is left to do."""

    def changed(self) -> None:
        """Somebody removed it from the spool folder while it was not open; the outbox has logged that."""

    def skipped(self, reason: str) -> None:
        """It is never skipped."""


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, BytesIO(data))


class GeneratedSource:
    """``count`` generated scans, a new one every ``interval`` seconds at most.

    Args:
        seed: makes the scans of a run the same every time, their acquisition times included; None: new ones.
        truth: a folder that the true volumes are written to, for comparison; they never travel.
    """

    def __init__(
        self,
        count: int,
        node: str,
        spool: Callable[[], Path],
        clock: IReactorTime,
        *,
        interval: float = 0.0,
        seed: int | None = None,
        truth: Path | None = None,
    ) -> None:
        self._count, self._node, self._spool, self._clock = count, node, spool, clock
        self._interval, self._truth = interval, truth
        self._repeatable = seed is not None
        self._base = seed if seed is not None else int.from_bytes(os.urandom(6), "big")
        self._queue = Queue()
        self._made = 0
        self._next_at = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Nothing is made before it is asked for."""
        self._next_at = self._clock.seconds()

    def stop(self) -> None:
        """Make no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def next_candidate(self) -> Deferred[Candidate | None]:
        """Fire with the next scan when its time has come."""
        asked = self._queue.get()
        if self._made >= self._count:
            self._queue.put(None)
            return asked
        wait = max(0.0, self._next_at - self._clock.seconds())
        if wait:
            self._call = self._clock.callLater(wait, self._make)
        else:
            self._make()
        return asked

    def _make(self) -> None:
        number, self._made = self._made, self._made + 1
        self._next_at = max(self._next_at, self._clock.seconds()) + self._interval
        form = PayloadFormat.DICOM_TAR if number % 2 else PayloadFormat.NIFTI_GZ
        moment = _EPOCH + timedelta(minutes=15 * number) if self._repeatable else datetime.now(UTC)
        seed = scan_seed(self._base, number)
        self._queue.put(GeneratedCandidate(seed, form, self._node, moment, self._spool(), self._truth))
