"""Results on their way to archives: each on its own, with pauses, over restarts, and what an answer means."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

from pydicom.uid import SecondaryCaptureImageStorage
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import make_report_id
from fr_twisted.ops.services import StartError
from fr_twisted.pacs.dicom_out import asked, objects
from fr_twisted.pacs.dicom_out.common import Kind, blank, finish
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.jobs import MOST_REFUSALS, Job, Jobs
from fr_twisted.pacs.dicom_out.lane import FIRST_DELAY, MAX_DELAY
from fr_twisted.pacs.dicom_out.objects import Made
from fr_twisted.pacs.dicom_out.promises import AWAITED, OVERDUE
from fr_twisted.pacs.dicom_out.report import Report
from fr_twisted.pacs.dicom_out.scu import Commitment, Fate, judge
from fr_twisted.pacs.dicom_out.service import LOOK_SECONDS, OVERDUE_SECONDS, DicomOutService
from fr_twisted.pacs.report_files import MARKER, ReportFolder, Written
from fr_twisted.setting_dicom import Archive
from tests.dicom_out_builders import head, sagittal_slices, write_payload
from tests.fakes_archive import FakeArchive
from tests.pacs_builders import inline, new_folder

ONE = Archive("ONE", "127.0.0.1", 104)
TWO = Archive("TWO", "127.0.0.1", 105)


def small_objects(report: Report, source: SourceSeries) -> Made:
    """Return an object of each kind that says nothing but whose it is: how they travel matters here."""
    made = {}
    for kind in Kind:
        dataset = blank(report, source, kind, SecondaryCaptureImageStorage, kind)
        made[kind] = objects.encoded(finish(dataset, report, source))
    return Made(made, {})


def small_report(root: Path, scan_id: str) -> Written:
    """Write a report without pictures."""
    written = Written(
        report_id=make_report_id(scan_id, "hand-made", "1.0"),
        sha256="0" * 64,
        scan_id=scan_id,
        patient_id="P-17",
        analysis="hand-made",
        analysis_version="1.0",
        written_at="2026-01-02T12:00:00.000+00:00",
        folder=scan_id,
    )
    (root / scan_id).mkdir(parents=True)
    (root / scan_id / "report.json").write_text("{}")
    (root / scan_id / MARKER).write_text(json.dumps(vars(written)))
    return written


MAKE_OBJECTS = Jobs.make_objects


def full_disk(_jobs: Jobs, _job: Job) -> int:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


class ServiceCase(SynchronousTestCase):
    """Has two archives, a state folder, and a scan whose headers are kept."""

    archives: tuple[Archive, ...] = (ONE, TWO)
    commitment = False

    def setUp(self) -> None:
        """Make them."""
        self.root = new_folder(self)
        self.reports = ReportFolder(self.root / "reports")
        self.clock, self.time = Clock(), 1_767_348_000.0
        self.fakes: dict[Archive, FakeArchive] = {archive: FakeArchive(archive) for archive in self.archives}
        self.patch(objects, "make", small_objects)
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.service = self.started()

    def started(self) -> DicomOutService:
        """Return a running service."""
        service = DicomOutService(
            Jobs(self.root / "state", self.reports),
            self.archives,
            self.fakes.__getitem__,
            self.clock,
            commitment=self.commitment,
            run=inline,
            jitter=lambda: 1.0,
            now=lambda: self.time,
        )
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: DicomOutService) -> None:
        """Stop it, if it runs."""
        if service.running:
            self.successResultOf(service.stopService())

    def restart(self) -> None:
        """Stop the service and start another on the same folder."""
        self.stop(self.service)
        self.service = self.started()

    def remember(self, scan_id: str = "scan-1") -> None:
        """Keep the headers of a scan, of few slices: what is sent matters here, not what is in it."""
        self.service.remember(write_payload(self.root / "p.tar", sagittal_slices(head())[:8], scan_id))

    def report(self, scan_id: str = "scan-1") -> Written:
        """Have a report arrive."""
        written = small_report(self.reports.root, scan_id)
        self.service.report_written(written)
        return written

    def said(self, event: str) -> list[LogEvent]:
        """Return what was logged of a kind."""
        return [e for e in self.events if e.get("event") == event]

    def state(self) -> list[str]:
        """Return the paths of all that is in the state folder but headers and lock."""
        out = self.root / "state" / "out"
        return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())

    def job(self, written: Written) -> dict[str, Any]:
        """Return what is noted of a report."""
        found: dict[str, Any] = json.loads(
            (self.root / "state" / "out" / f"{written.report_id}.json").read_text()
        )
        return found


class DeliveryTests(ServiceCase):
    """Reports to two archives."""

    def test_toEachOnce(self) -> None:
        """Every archive gets every object once; then only a note without names is left of the report."""
        self.remember()
        written = self.report()
        for fake in self.fakes.values():
            self.assertEqual(len(fake.kept), 4)
            self.assertEqual(set(fake.times.values()), {1})
        self.assertEqual(self.state(), [f"{written.report_id}.json"])
        note = (self.root / "state" / "out" / f"{written.report_id}.json").read_text()
        self.assertNotIn("Doe", note)
        self.assertEqual([e["count"] for e in self.said("dicom.delivered")], [4, 4])
        self.assertNotIn("Doe", str(self.events))

    def test_oneDownDoesNotHoldUpTheOther(self) -> None:
        """While one archive is down the other has everything; the one is tried with growing pauses until it is up."""
        self.fakes[ONE].down = True
        self.remember()
        self.report()
        self.assertEqual((len(self.fakes[ONE].kept), len(self.fakes[TWO].kept)), (0, 4))
        for number in range(1, 12):
            self.assertEqual(self.fakes[ONE].attempts, number)
            delay = min(MAX_DELAY, FIRST_DELAY * 2 ** (number - 1))
            self.clock.advance(delay - 0.01)
            self.assertEqual(self.fakes[ONE].attempts, number)
            self.clock.advance(0.02)
        self.fakes[ONE].down = False
        self.clock.advance(MAX_DELAY)
        self.assertEqual(len(self.fakes[ONE].kept), 4)
        self.assertEqual(self.fakes[TWO].attempts, 1)
        self.assertIn("cannot be reached", str(self.said("dicom.deferred")[0]["reason"]))
        # but for the look at what people ask
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_overARestart(self) -> None:
        """What an archive has not got when the node stops, it gets after the next start, the same bytes; no more."""
        self.fakes[ONE].down = True
        self.remember()
        written = self.report()
        before = self.state()
        self.assertEqual(len(before), 5)
        self.restart()
        self.assertEqual(self.state(), before)
        self.fakes[ONE].down = False
        self.restart()
        self.assertEqual(self.fakes[ONE].kept, self.fakes[TWO].kept)
        self.assertEqual(self.fakes[TWO].attempts, 1)
        self.assertEqual(self.state(), [f"{written.report_id}.json"])
        self.restart()
        self.assertEqual(self.fakes[ONE].attempts, 3)

    def test_reportOfBeforeTheCrash(self) -> None:
        """A report that was written when the node was killed, before it was noted, is sent after the next start."""
        self.remember()
        self.stop(self.service)
        small_report(self.reports.root, "scan-1")
        self.service = self.started()
        self.assertEqual(len(self.fakes[ONE].kept), 4)

    def test_partOfIt(self) -> None:
        """Objects that an archive has are not sent again when others have to wait."""
        self.fakes[ONE].statuses = [0x0000, 0xA700, 0x0000, 0x0110]
        self.remember()
        self.report()
        self.assertEqual(len(self.fakes[ONE].kept), 2)
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(sorted(self.fakes[ONE].times.values()), [1, 1, 1, 1])

    def test_refusedForGood(self) -> None:
        """A status that time does not mend is said clearly and not tried again; the rest is kept."""
        self.fakes[ONE].statuses = [0x0122]
        self.remember()
        written = self.report()
        self.assertEqual((len(self.fakes[ONE].kept), self.fakes[ONE].attempts), (3, 1))
        (said,) = self.said("dicom.refused")
        self.assertEqual(said["destination"], "ONE@127.0.0.1:104")
        self.assertIn("0122H: it does not support this SOP class", said["reason"])
        self.assertEqual(self.job(written)["deliveries"]["ONE@127.0.0.1:104"]["fate"], "refused")
        self.clock.advance(MAX_DELAY)
        self.restart()
        self.assertEqual(self.fakes[ONE].attempts, 1)

    def test_warning(self) -> None:
        """A warning is a success, and is recorded."""
        self.fakes[ONE].statuses = [0xB000]
        self.remember()
        written = self.report()
        self.assertEqual(len(self.fakes[ONE].kept), 4)
        (said,) = self.said("dicom.warning")
        self.assertEqual(said["status"], 0xB000)
        delivery = self.job(written)["deliveries"]["ONE@127.0.0.1:104"]
        self.assertIn("B000H: it coerced data elements", delivery["answers"].values())

    def test_damagedObject(self) -> None:
        """An object that was damaged while it waited is made anew."""
        self.fakes[ONE].down = True
        self.remember()
        written = self.report()
        for path in (self.root / "state" / "out" / written.report_id).iterdir():
            path.write_bytes(b"none")
        self.fakes[ONE].down = False
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(self.fakes[ONE].kept, {})
        self.assertIn("made anew", self.said("dicom.deferred")[-1]["reason"])
        self.clock.advance(2 * FIRST_DELAY)
        self.assertEqual(self.fakes[ONE].kept, self.fakes[TWO].kept)

    def test_diskFull(self) -> None:
        """While objects cannot be written nothing is lost: they are made later."""
        self.remember()
        self.patch(Jobs, "make_objects", full_disk)
        self.report()
        self.assertIn("No space left", self.said("dicom.trouble")[0]["reason"])
        self.patch(Jobs, "make_objects", MAKE_OBJECTS)
        self.clock.advance(MAX_DELAY)
        self.assertEqual(len(self.fakes[ONE].kept), 4)

    def test_noDicomSeries(self) -> None:
        """Of a scan that was no DICOM series there is nothing to send, and a line that says so."""
        self.report()
        self.assertEqual((self.fakes[ONE].attempts, self.state()), (0, []))
        (said,) = self.said("dicom.no-series")
        self.assertEqual(said["scan_id"], "scan-1")

    def test_twice(self) -> None:
        """A report that is told twice is sent once."""
        self.remember()
        written = self.report()
        self.service.report_written(written)
        self.assertEqual(self.fakes[ONE].attempts, 1)

    def test_damagedReport(self) -> None:
        """A report of which nothing can be made is given up with a line, and holds up nothing."""
        self.remember()
        self.remember("scan-2")
        written = small_report(self.reports.root, "scan-1")
        (self.reports.root / "scan-1" / "report.json").write_text("none")
        self.service.report_written(written)
        (said,) = self.said("dicom.nothing")
        self.assertEqual(said["scan_id"], "scan-1")
        self.report("scan-2")
        self.assertEqual(len(self.fakes[ONE].kept), 4)
        self.restart()
        self.assertEqual(self.fakes[ONE].attempts, 1)

    def test_stops(self) -> None:
        """A stop ends what is being sent."""
        self.stop(self.service)
        self.assertTrue(all(fake.aborted for fake in self.fakes.values()))

    def test_stateFolderInUse(self) -> None:
        """A second node on the same folder does not start."""
        with self.assertRaisesRegex(StartError, "FR_DICOM_STATE or --dicom-state: another Fr-PACS uses"):
            self.started()

    def test_stateFolderUnusable(self) -> None:
        """A folder that cannot be made stops the node."""
        self.stop(self.service)
        (self.root / "file").write_text("")
        jobs = Jobs(self.root / "file" / "state", self.reports)
        service = DicomOutService(jobs, (), self.fakes.__getitem__, self.clock, run=inline)
        with self.assertRaisesRegex(StartError, "cannot be used: Not a directory"):
            service.startService()


class CommitmentCase(ServiceCase):
    """Has one archive, which is asked for commitment."""

    archives = (ONE,)
    commitment = True

    def delivery(self, written: Written) -> dict[str, Any]:
        """Return what is noted."""
        found: dict[str, Any] = self.job(written)["deliveries"]["ONE@127.0.0.1:104"]
        return found


class CommitmentTests(CommitmentCase):
    """Archives that are asked to commit to keeping what they got."""

    def test_committed(self) -> None:
        """The archive's word is noted and said."""
        self.remember()
        written = self.report()
        self.assertIs(self.delivery(written)["committed"], True)
        self.assertIn("commits to keeping them", self.said("dicom.delivered")[0]["detail"])

    def test_notCommitted(self) -> None:
        """What an archive does not commit to is sent again."""
        self.fakes[ONE].down = True
        self.remember()
        written = self.report()
        names = [path for path in self.state() if path.endswith(".dcm")]
        self.assertEqual(len(names), 4)
        self.fakes[ONE].down = False
        self.fakes[ONE].failing = {"1.2.3": 0x0112}
        self.clock.advance(FIRST_DELAY)
        self.assertIs(self.delivery(written)["committed"], False)
        self.assertIn("0112H", self.delivery(written)["reason"])
        self.clock.advance(2 * FIRST_DELAY)
        self.assertIs(self.delivery(written)["committed"], True)
        self.assertEqual(set(self.fakes[ONE].times.values()), {2})

    def test_noCommitment(self) -> None:
        """An archive that does none has the objects none the less, and that is said."""
        self.fakes[ONE].does_commitment = False
        self.remember()
        written = self.report()
        self.assertEqual(self.delivery(written)["fate"], "delivered")
        self.assertIn("does no storage commitment", self.said("dicom.delivered")[0]["detail"])


class CallBackTests(CommitmentCase):
    """Archives that report on associations of their own."""

    def setUp(self) -> None:
        """Have one."""
        super().setUp()
        self.archive = self.fakes[ONE]
        self.remember()
        self.archive.calls_back = True

    def reported(self, title: str = "ONE", failed: dict[str, int] | None = None, **changes: Any) -> bool:
        """Have a report arrive on the archive's last transaction; return whether it was asked for."""
        kept = frozenset(self.archive.kept) - set(failed or ())
        word = Commitment(changes.get("transaction", self.archive.asked[-1]), True, kept, failed or {})
        return self.successResultOf(Deferred.fromCoroutine(self.service.commitment_reported(title, word)))

    def test_reported(self) -> None:
        """The report is noted and said, once; another of the same request is none that was asked for."""
        written = self.report()
        self.assertEqual(self.delivery(written)["fate"], "delivered")
        self.assertIsNone(self.delivery(written)["committed"])
        self.assertTrue(self.reported())
        self.assertIs(self.delivery(written)["committed"], True)
        self.assertEqual(len(self.said("dicom.committed")), 1)
        self.assertFalse(self.reported())

    def test_reportedWhileOthersAreMade(self) -> None:
        """A report is noted and answered at once though the objects of others are being made, which takes long."""
        written = self.report()
        making = self.service._making.acquire()
        self.assertTrue(self.reported())
        self.assertIs(self.delivery(written)["committed"], True)
        self.successResultOf(making).release()

    def test_reportedAfterARestart(self) -> None:
        """The report may come when Fr-PACS was restarted meanwhile."""
        written = self.report()
        self.restart()
        self.assertTrue(self.reported())
        self.assertIs(self.delivery(written)["committed"], True)
        self.restart()
        self.assertFalse(self.reported())

    def test_failuresReported(self) -> None:
        """What the archive does not keep after all is made and sent again, under another transaction."""
        written = self.report()
        self.assertEqual([path for path in self.state() if path.endswith(".dcm")], [])
        lost = next(iter(self.archive.kept))
        self.assertTrue(self.reported(failed={lost: 0x0112}))
        [said] = self.said("dicom.not-committed")
        self.assertIn("0112H", said["reason"])
        self.assertEqual(self.archive.times[lost], 1)
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(self.archive.times[lost], 2)
        self.assertEqual(len(set(self.archive.asked)), 2)
        self.assertTrue(self.reported())
        self.assertIs(self.delivery(written)["committed"], True)
        self.assertEqual([path for path in self.state() if path.endswith(".dcm")], [])

    def test_neverKept(self) -> None:
        """An archive that takes the objects and never commits to them is given up, with growing pauses before."""
        written = self.report()
        lost = next(iter(self.archive.kept))
        for attempt in range(1, MOST_REFUSALS):
            self.assertTrue(self.reported(failed={lost: 0x0122}))
            self.clock.advance(FIRST_DELAY * 2 ** (attempt - 1) - 0.1)
            self.assertEqual(self.archive.times[lost], attempt)
            self.clock.advance(0.2)
            self.assertEqual(self.archive.times[lost], attempt + 1)
        self.assertTrue(self.reported(failed={lost: 0x0122}))
        self.assertEqual(self.delivery(written)["fate"], "refused")
        self.clock.advance(10 * MAX_DELAY)
        self.assertEqual(self.archive.times[lost], MOST_REFUSALS)

    def test_attemptsBefore(self) -> None:
        """Attempts at an archive that was down do not count against it."""
        self.archive.down = True
        written = self.report()
        for _ in range(MOST_REFUSALS):
            self.clock.advance(MAX_DELAY)
        self.archive.down = False
        self.clock.advance(MAX_DELAY)
        self.assertTrue(self.reported(failed={next(iter(self.archive.kept)): 0x0213}))
        self.assertEqual(self.delivery(written)["fate"], "later")

    def test_oldTransaction(self) -> None:
        """A report on a request that was overtaken by a later one changes nothing."""
        written = self.report()
        asked.ask(self.root / "state", asked.Asked(written.report_id, True))
        self.clock.advance(LOOK_SECONDS)
        first, second = self.archive.asked
        self.assertFalse(self.reported(transaction=first))
        self.assertTrue(self.reported(transaction=second))
        self.assertIs(self.delivery(written)["committed"], True)

    def test_overdue(self) -> None:
        """An archive that never says whether it keeps the results is told of once, also over a restart."""
        written = self.report()
        self.time += OVERDUE - 1
        self.clock.advance(OVERDUE_SECONDS)
        self.assertEqual(self.said("dicom.overdue"), [])
        self.time += 1
        self.clock.advance(OVERDUE_SECONDS)
        [said] = self.said("dicom.overdue")
        self.assertEqual(said["detail"], "2026-01-02 10:00 UTC")
        for restart in (False, True):
            if restart:
                self.restart()
            self.time += OVERDUE
            self.clock.advance(OVERDUE_SECONDS)
        self.assertEqual(len(self.said("dicom.overdue")), 1)
        self.assertTrue(self.reported())  # it is awaited all the same
        self.assertIs(self.delivery(written)["committed"], True)

    def test_neverSaid(self) -> None:
        """What an archive has not said in thirty days is awaited no more, so that nothing is remembered for ever."""
        self.report()
        self.assertEqual(len(self.service._promises), 1)
        self.time += AWAITED
        self.clock.advance(OVERDUE_SECONDS)
        self.assertEqual(len(self.service._promises), 0)
        self.assertFalse(self.reported())
        self.assertEqual(len(self.said("dicom.overdue")), 1)

    def test_onePromiseOfAReport(self) -> None:
        """A request that is made anew closes the former one."""
        written = self.report()
        for _ in range(3):
            asked.ask(self.root / "state", asked.Asked(written.report_id, True))
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual((len(self.archive.asked), len(self.service._promises)), (4, 1))

    def test_reportOfAnother(self) -> None:
        """A report that another sends, or on a transaction that is not ours, changes nothing."""
        written = self.report()
        self.assertFalse(self.reported("OTHER"))
        self.assertFalse(self.reported(transaction="1.2.3"))
        self.assertIsNone(self.delivery(written)["committed"])

    def test_reportedEarly(self) -> None:
        """A report that comes while the sender still waits for it on its own association is not lost."""
        failing = [{"1.2.3": 0x0112}, {}]

        def early(transaction: str, uids: frozenset[str]) -> None:
            word = Commitment(transaction, True, uids, failing.pop(0))
            coming = Deferred.fromCoroutine(self.service.commitment_reported("ONE", word))
            self.assertTrue(self.successResultOf(coming))

        self.archive.while_it_waits = early
        written = self.report()
        self.assertEqual([word.transaction for word in self.archive.told], self.archive.asked)
        self.assertIs(self.delivery(written)["committed"], False)
        self.clock.advance(FIRST_DELAY)
        self.assertIs(self.delivery(written)["committed"], True)
        self.assertFalse(self.reported())


class TwoArchivesTests(ServiceCase):
    """Two archives that are asked for commitment, and call back at the same time."""

    commitment = True

    def test_atOnce(self) -> None:
        """The words of both are noted, though the second comes while the first is being written."""
        for fake in self.fakes.values():
            fake.calls_back = True
        self.remember()
        written = self.report()
        slow: list[Deferred[None]] = []
        find = self.service._jobs.find

        def later(function: Any, *arguments: Any) -> Deferred[Any]:
            if function != find:
                return inline(function, *arguments)
            slow.append(Deferred())
            return slow[-1].addCallback(lambda _: function(*arguments))

        self.service._run = later
        words = []
        for archive, fake in self.fakes.items():
            word = Commitment(fake.asked[-1], True, frozenset(fake.kept), {})
            words.append(Deferred.fromCoroutine(self.service.commitment_reported(archive.title, word)))
        while slow:
            slow.pop(0).callback(None)
        self.assertEqual([self.successResultOf(word) for word in words], [True, True])
        noted = self.job(written)["deliveries"]
        self.assertEqual([noted[str(archive)]["committed"] for archive in self.archives], [True, True])


class AskedTests(ServiceCase):
    """Results that a person wants to be sent once more."""

    def asked(self, written: Written, again: bool = False, archive: str | None = None) -> None:
        """Ask for a report, and let the service look."""
        asked.ask(self.root / "state", asked.Asked(written.report_id, again, archive))
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(list(asked.waiting(self.root / "state")), [])

    def test_refused(self) -> None:
        """The archive that refused it gets it once more, made anew; the one that has it does not."""
        self.fakes[ONE].statuses = [0x0122] * 4
        self.remember()
        written = self.report()
        self.assertEqual(self.job(written)["deliveries"][str(ONE)]["fate"], "refused")
        self.asked(written)
        self.assertEqual(self.job(written)["deliveries"][str(ONE)]["fate"], "delivered")
        self.assertEqual(set(self.fakes[TWO].times.values()), {1})
        self.assertEqual([path for path in self.state() if path.endswith(".dcm")], [])

    def test_addedLater(self) -> None:
        """An archive that was added gets what it lacks."""
        self.remember()
        written = self.report()
        three = Archive("THREE", "127.0.0.1", 106)
        self.archives = (ONE, TWO, three)
        self.fakes[three] = FakeArchive(three)
        self.restart()
        self.assertEqual(self.fakes[three].kept, {})
        self.asked(written)
        self.assertEqual(set(self.fakes[three].kept), set(self.fakes[ONE].kept))
        self.assertEqual(set(self.fakes[ONE].times.values()), {1})

    def test_again(self) -> None:
        """Asked for again, all archives get the same objects once more."""
        self.remember()
        written = self.report()
        self.asked(written, again=True)
        for archive in self.archives:
            self.assertEqual(set(self.fakes[archive].times.values()), {2})

    def test_oneArchive(self) -> None:
        """Asked for at one archive, by title or address, the others get nothing: nor one that was added as well."""
        self.remember()
        written = self.report()
        three, four = Archive("THREE", "127.0.0.1", 106), Archive("FOUR", "127.0.0.1", 107)
        self.archives = (ONE, TWO, three, four)
        self.fakes |= {archive: FakeArchive(archive) for archive in (three, four)}
        self.restart()
        self.asked(written, archive="THREE")
        self.asked(written, again=True, archive=str(TWO))
        self.restart()
        times = {archive: set(self.fakes[archive].times.values()) for archive in self.archives}
        self.assertEqual(times, {ONE: {1}, TWO: {2}, three: {1}, four: set()})
        self.asked(written, archive="NONE")
        self.assertIn("FR_DICOM_ARCHIVES does not name", self.said("dicom.unknown")[0]["log_format"])

    def test_twoAtOnce(self) -> None:
        """A report may be asked for at two archives before Fr-PACS looks."""
        self.remember()
        written = self.report()
        asked.ask(self.root / "state", asked.Asked(written.report_id, True, "ONE"))
        self.asked(written, True, "TWO")
        self.assertEqual([set(fake.times.values()) for fake in self.fakes.values()], [{2}, {2}])

    def test_whileOneWaits(self) -> None:
        """While one archive is awaited, the other, which refused it, gets it; the first gets it once."""
        self.fakes[ONE].statuses = [0x0122] * 4
        self.fakes[TWO].down = True
        self.remember()
        written = self.report()
        self.asked(written)
        self.assertEqual(self.job(written)["deliveries"][str(ONE)]["fate"], "delivered")
        self.fakes[TWO].down = False
        self.clock.advance(4 * FIRST_DELAY)
        self.assertEqual(set(self.fakes[TWO].times.values()), {1})

    def test_unknown(self) -> None:
        """A report that is none is told once."""
        asked.ask(self.root / "state", asked.Asked("report-x", False))
        self.clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual(len(self.said("dicom.unknown")), 1)

    def test_damagedWish(self) -> None:
        """A file that says nothing that could be asked is removed, and does not stand in the way of others."""
        self.remember()
        written = self.report()
        folder = self.root / "state" / asked.FOLDER
        folder.mkdir()
        for name, text in (("a", ""), ("b", "[]"), ("c", '{"report": 1}')):
            (folder / name).write_text(text)
        self.asked(written, again=True)
        self.assertEqual(list(folder.iterdir()), [])
        self.assertEqual(set(self.fakes[ONE].times.values()), {2})

    def test_beforeTheStart(self) -> None:
        """What was asked while no Fr-PACS ran is done by the next."""
        self.fakes[ONE].statuses = [0x0122] * 4
        self.remember()
        written = self.report()
        self.stop(self.service)
        asked.ask(self.root / "state", asked.Asked(written.report_id, False))
        self.service = self.started()
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.job(written)["deliveries"][str(ONE)]["fate"], "delivered")


class GoneTests(ServiceCase):
    """Reports that somebody removed while an archive was down."""

    def test_reportIsGone(self) -> None:
        """Without objects and report there is nothing to send any more: that is told once, and not tried for ever."""
        self.fakes[ONE].down = True
        self.remember()
        written = self.report()
        shutil.rmtree(self.reports.root / written.folder)
        shutil.rmtree(self.root / "state" / "out" / written.report_id)
        self.fakes[ONE].down = False
        self.clock.pump([FIRST_DELAY, 4 * FIRST_DELAY, MAX_DELAY])
        self.assertEqual(len(self.said("dicom.nothing")), 1)
        self.assertEqual(self.job(written)["deliveries"][str(ONE)]["fate"], "refused")
        self.assertTrue(self.job(written)["done"])


class NoStudyTests(ServiceCase):
    """A series that names no study."""

    def test_nothingIsMade(self) -> None:
        """Of such a series no objects are made that would be filed nowhere, and it is said why."""
        slices = sagittal_slices(head())[:8]
        for dataset in slices:
            dataset.StudyInstanceUID = ""
        self.service.remember(write_payload(self.root / "p.tar", slices, "scan-1"))
        self.report()
        [said] = self.said("dicom.nothing")
        self.assertIn("names no study", said["reason"])
        self.assertEqual(self.fakes[ONE].kept, {})


class StatusTests(SynchronousTestCase):
    """What a C-STORE status means."""

    def test_fates(self) -> None:
        """Success and warnings are delivered, want of resources waits, what time does not mend is refused."""
        for fate, statuses in {
            Fate.DELIVERED: (0x0000, 0xB000, 0xB006, 0xB007, 0x0111),
            Fate.LATER: (0xA700, 0xA701, 0xA7FF, 0x0110, 0x0213),
            Fate.REFUSED: (0x0122, 0x0124, 0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0117, 0xFFFF),
        }.items():
            for status in statuses:
                self.assertIs(judge(status).fate, fate, f"{status:04X}")
                self.assertIn(f"{status:04X}H: ", judge(status).text)


class JobsTests(ServiceCase):
    """The state folder."""

    def test_doneButNotRemoved(self) -> None:
        """Objects that a killed node had no time to remove are removed at the next start."""
        self.remember()
        written = self.report()
        folder = self.root / "state" / "out" / written.report_id
        folder.mkdir()
        (folder / "0-seg.dcm").write_bytes(b"names")
        self.restart()
        self.assertEqual(self.state(), [f"{written.report_id}.json"])

    def test_pruned(self) -> None:
        """With a scan's headers goes what was noted of its report."""
        self.remember()
        self.report()
        self.assertEqual(len(self.state()), 1)
        for path in (self.root / "state" / "headers").iterdir():
            path.unlink()
        self.restart()
        self.assertEqual(self.state(), [])

    def test_leftovers(self) -> None:
        """What a killed node left half written is removed at the next start."""
        self.stop(self.service)
        out = self.root / "state" / "out"
        (out / ".new-report-1").mkdir()
        (out / ".new-report-1" / "0-seg.dcm").write_text("")
        (out / ".part-report-1.json").write_text("")
        self.service = self.started()
        self.assertEqual(list(out.iterdir()), [])
