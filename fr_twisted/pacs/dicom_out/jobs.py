"""What is to be sent to archives, over a restart: a small file for each report, and its objects until they are there.

``<state>/headers/`` holds the headers of sent series, ``<state>/out/<report id>.json`` what became of a report at each
archive, ``<state>/out/<report id>/`` its objects while an archive still waits for them. All of it blocks.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread

from fr_twisted.model import ItemId
from fr_twisted.pacs.dicom_out.headers import HeaderStore
from fr_twisted.pacs.dicom_out.scu import Answer, Commitment, Fate, Sent
from fr_twisted.pacs.report_files import ReportFolder, Written, sync_folder, write_durably
from fr_twisted.setting_dicom import Archive

MOST_REFUSALS = 8
"""Times that an archive takes objects and does not commit to them; then it is not tried again by itself."""

HEADERS = "headers"
OUT = "out"


class Delivery(BaseModel):
    """One report at one archive."""

    fate: Fate = Fate.LATER
    attempts: int = 0
    reason: str | None = Field(default=None, description="why not yet, or why never")
    kept: set[str] = Field(default_factory=set, description="SOP instance UIDs that it has")
    answers: dict[str, str] = Field(default_factory=dict, description="by SOP instance UID, the last")
    committed: bool | None = Field(
        default=None, description="the archive's word that it keeps them; None: none"
    )
    uncommitted: int = Field(default=0, description="how often it took them and did not commit to them")
    transaction: str | None = Field(default=None, description="of the commitment that was asked for last")
    asked: bool = Field(default=False, description="whether the archive took that request")
    asked_at: float | None = Field(default=None, description="when it did, seconds since 1970")
    warned: bool = Field(default=False, description="whether people were told that its word is overdue")

    @property
    def over(self) -> bool:
        """Whether no more is to be done."""
        return self.fate is not Fate.LATER

    @property
    def is_awaited(self) -> bool:
        """Whether the archive took a request for commitment, and has not said yet what became of it."""
        return self.asked and self.committed is None


class Job(BaseModel):
    """One report on its way to the archives."""

    report_id: ItemId
    scan_id: ItemId
    made: bool = False
    done: bool = False
    missing: dict[str, str] = Field(
        default_factory=dict, description="by kind, such as SR, why an object could not be made"
    )
    deliveries: dict[str, Delivery] = Field(default_factory=dict)

    def delivery(self, archive: Archive) -> Delivery:
        """Return what is known of it at an archive."""
        return self.deliveries.setdefault(str(archive), Delivery())

    def expect(self, archives: Iterable[Archive]) -> None:
        """Have it sent to these, if it was not decided yet who gets it."""
        for archive in archives if not self.deliveries else ():
            self.delivery(archive)

    def waiting(self, archives: Iterable[Archive]) -> list[Archive]:
        """Return those of ``archives`` that are to get it, and have not got it yet."""
        told = ((archive, self.deliveries.get(str(archive))) for archive in archives)
        return [archive for archive, delivery in told if delivery is not None and not delivery.over]

    def reopen(self, archives: Iterable[Archive], again: bool) -> list[Archive]:
        """Have it sent to archives that refused it or were added, and ``again`` to those that have it.

        Return which they are.
        """
        meant = (Fate.REFUSED, Fate.DELIVERED) if again else (Fate.REFUSED,)
        found = []
        for archive in archives:
            delivery = self.deliveries.get(str(archive))
            if delivery is None or delivery.fate in meant:
                found.append(archive)
                self.deliveries[str(archive)] = Delivery(attempts=delivery.attempts if delivery else 0)
        return found

    def note(self, archive: Archive, sent: Sent, wanted: int) -> Delivery:
        """Add how an attempt to send ``wanted`` objects went."""
        delivery = self.delivery(archive)
        delivery.attempts += 1
        for uid, answer in sent.answers.items():
            delivery.answers[uid] = answer.text
            if answer.fate is Fate.DELIVERED:
                delivery.kept.add(uid)
        delivery.fate, delivery.reason = _outcome(sent, wanted)
        if sent.commitment is not None:
            self.committed(archive, sent.commitment)
        return delivery

    def committed(self, archive: Archive, word: Commitment) -> None:
        """Add the archive's word on its duty to keep the objects; what it does not keep is sent again."""
        delivery = self.delivery(archive)
        delivery.transaction, delivery.asked = word.transaction, word.asked
        if not word.asked:
            delivery.reason = "it does no storage commitment"
        elif word.failed:
            codes = ", ".join(sorted({f"{code:04X}H" for code in word.failed.values()}))
            delivery.committed = False
            delivery.uncommitted += 1
            delivery.fate = Fate.LATER if delivery.uncommitted < MOST_REFUSALS else Fate.REFUSED
            delivery.kept -= set(word.failed)
            delivery.reason = f"it does not commit to {len(word.failed)} of its objects ({codes})"
        elif word.failed is not None:
            delivery.committed = True


def _outcome(sent: Sent, wanted: int) -> tuple[Fate, str | None]:
    refused = [answer for answer in sent.answers.values() if answer.fate is Fate.REFUSED]
    later = [answer for answer in sent.answers.values() if answer.fate is Fate.LATER]
    if sent.trouble is not None or later or len(sent.answers) < wanted:
        return Fate.LATER, sent.trouble or (later[0].text if later else "not all were answered")
    if refused:
        return Fate.REFUSED, "; ".join(sorted({answer.text for answer in refused}))
    return Fate.DELIVERED, None


def warnings_of(sent: Sent) -> list[Answer]:
    """Return the answers that are a success with a warning."""
    return [a for a in sent.answers.values() if a.fate is Fate.DELIVERED and a.status not in (0, None)]


class DamagedObjectError(Exception):
    """An object that waits is not what was written."""


class NothingToMakeError(Exception):
    """Of a report no objects can be made; one line that says why."""


class StateInUseError(Exception):
    """Another Fr-PACS uses the state folder."""


class Jobs:
    """The state folder.

    Args:
        state: where it is.
        reports: where reports are.
    """

    def __init__(self, state: Path, reports: ReportFolder) -> None:
        self.state, self._reports = state, reports
        self.headers = HeaderStore(state / HEADERS)
        self._out = state / OUT
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder, and hold it until `close`.

        Raises:
            StateInUseError: somebody else does.
            OSError: it cannot be made or written.
        """
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.state / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StateInUseError from None
        self._lock = lock
        self._out.mkdir(mode=0o700, exist_ok=True)
        self.headers.make()
        for left in self._out.glob(".*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def close(self) -> None:
        """Let it go."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    # -- jobs

    def known(self) -> list[Job]:
        """Return the jobs, and new ones of reports that there was no time to note."""
        self.prune()
        jobs = [job for written in self._reports.written() if (job := self.add(written)) is not None]
        for job in jobs:
            if job.done:
                self.discard_objects(job.report_id)  # the node was killed before that
        return jobs

    def find(self, report_id: str) -> Job | None:
        """Return the job of a report."""
        return self._load(report_id)

    def add(self, written: Written) -> Job | None:
        """Return the job of a report, noted durably; None: its scan was no DICOM series, or is long gone."""
        known = self._load(written.report_id)
        if known is not None or not self.headers.knows(written.scan_id):
            return known
        job = Job(report_id=written.report_id, scan_id=written.scan_id)
        self.write(job.report_id, job.model_dump_json())
        return job

    def write(self, report_id: str, text: str) -> None:
        """Note a job, as JSON, durably."""
        path = self._path(report_id)
        part = path.with_name(f".part-{path.name}")
        part.unlink(missing_ok=True)
        write_durably(part, text.encode())
        part.rename(path)
        sync_folder(self._out)

    def _load(self, report_id: str) -> Job | None:
        return _read_job(self._path(report_id))

    def _path(self, report_id: str) -> Path:
        return self._out / f"{report_id}.json"

    def prune(self) -> None:
        """Forget headers that are old, and what became of reports whose headers are gone."""
        self.headers.prune()
        for path in self._out.glob("*.json"):
            job = self._load(path.stem)
            if job is not None and not self.headers.knows(job.scan_id):
                self.discard_objects(job.report_id)
                path.unlink(missing_ok=True)

    # -- objects

    def make_objects(self, job: Job) -> int:
        """Make the objects of a report, if that was not done; return how many there are.

        Raises:
            OSError: they cannot be written, or the report cannot be read.
            UnreadableReportError, ValueError: the report or the headers are damaged.
            NothingToMakeError: they would be filed nowhere.
        """
        if not job.made or not self._files(job):
            # highdicom takes a second to import
            from fr_twisted.pacs.dicom_out import objects
            from fr_twisted.pacs.dicom_out.report import read

            written = self._reports.find(job.scan_id, job.report_id)
            source = self.headers.find(job.scan_id)
            if written is None or source is None:
                raise ValueError("its report or its headers are gone")
            if not str(source.first.get("StudyInstanceUID") or "").strip():
                raise NothingToMakeError("its series names no study that they could be filed in")
            report = read(self._reports.root / written.folder, written)
            made = objects.make(report, source)
            job.missing = {kind.name: reason for kind, reason in made.missing.items()}
            self._write_objects(job, {kind.value: data for kind, data in made.files.items()})
        return len(self._files(job))

    def _write_objects(self, job: Job, files: dict[str, bytes]) -> None:
        fresh, target = self._out / f".new-{job.report_id}", self._folder(job)
        for folder in (fresh, target):
            shutil.rmtree(folder, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for number, (name, data) in enumerate(files.items()):
            write_durably(fresh / f"{number}-{name}.dcm", data)
        sync_folder(fresh)
        fresh.rename(target)
        sync_folder(self._out)

    def objects(self, job: Job) -> dict[str, bytes]:
        """Return the objects by SOP instance UID, in the order of sending.

        Raises:
            OSError: one cannot be read.
            DamagedObjectError: one is none.
        """
        return {_uid_of(path): path.read_bytes() for path in self._files(job)}

    def _files(self, job: Job) -> list[Path]:
        return sorted(self._folder(job).glob("*.dcm"))

    def _folder(self, job: Job) -> Path:
        return self._out / job.report_id

    def discard_objects(self, report_id: str) -> None:
        """Remove the objects: no archive waits for them any more."""
        shutil.rmtree(self._out / report_id, ignore_errors=True)


def every_job(state: Path) -> list[Job]:
    """Return the jobs that are noted in a state folder, which may be another's, in the order of their reports' ids."""
    return [job for path in sorted((state / OUT).glob("*.json")) if (job := _read_job(path)) is not None]


def _read_job(path: Path) -> Job | None:
    try:
        return Job.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _uid_of(path: Path) -> str:
    try:
        return str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
    except (InvalidDicomError, AttributeError):
        raise DamagedObjectError from None
