"""Sources of scans: paths, a watched folder, the generator; and the folders that files are moved to."""

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import PayloadFormat
from fr_twisted.pacs import moves
from fr_twisted.pacs.files import REFUSED, SENT, Skipped, Stamp, take_stamp, walk
from fr_twisted.pacs.generated import GeneratedSource
from fr_twisted.pacs.outbox import PacsOutbox
from fr_twisted.pacs.sources import PathSource, SkipLog
from fr_twisted.pacs.watch import WatchSource
from tests.pacs_builders import inline, make_slice, new_folder, write_nifti, write_series, write_slice


class SourceCase(SynchronousTestCase):
    """Has a folder, a spool folder, a clock and the events that were logged."""

    def setUp(self) -> None:
        """Make them."""
        self.base = new_folder(self)
        self.root, self.spool = self.base / "in", self.base / "spool"
        self.root.mkdir(parents=True)
        self.spool.mkdir()
        self.clock = Clock()
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def skipped(self) -> list[tuple[str, str]]:
        """Return what was reported as skipped."""
        return [(e["path"], e["reason"]) for e in self.events if e.get("event") == "file.skipped"]

    def outbox(self, source: Any) -> PacsOutbox:
        """Return a started outbox over one source."""
        outbox = PacsOutbox([source], self.clock, run=inline, jitter=lambda: 1.0)
        outbox.start()
        self.addCleanup(outbox.stop)
        return outbox

    def tree(self, folder: Path | None = None) -> list[str]:
        """Return the relative paths of all files below a folder."""
        top = folder or self.root
        return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())

    def send(self, outbox: PacsOutbox) -> str:
        """Take the next item, read it, acknowledge it; return its id."""
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        self.assertEqual(len(self.successResultOf(outbox.read(item, 0, item.size))), item.size)
        self.successResultOf(outbox.acknowledged(item, False))
        return item.id


class SkipLogTests(SourceCase):
    """`SkipLog`."""

    def test_wholeSeriesInOneLine(self) -> None:
        """Many files with one reason are one line with the first name and the count; few are named each."""
        log = SkipLog()
        many = [Skipped(self.root / f"{n:02}.dcm", "its series is not whole") for n in range(20)]
        few = [Skipped(self.root / f"{n}.txt", "no scan") for n in range(2)]
        log.say([*many, *few])
        log.say(many)
        said = [e for e in self.events if e.get("event") == "file.skipped"]
        loud = [(e["path"], e.get("count")) for e in said if e["log_level"].name == "warn"]
        self.assertEqual(loud, [("00.dcm", 19), ("0.txt", None), ("1.txt", None)])
        self.assertEqual(len(said), 22)


class PathSourceTests(SourceCase):
    """Paths of the command line."""

    def source(self, *paths: Path) -> PathSource:
        """Return a source of these paths."""
        return PathSource(paths, "pacs", lambda: self.spool, self.clock, run=inline)

    def test_filesAndFolders(self) -> None:
        """Files and folders are sent once, in order, and stay where they are."""
        file = write_nifti(self.base / "sub-1.nii.gz")
        write_series(self.root / "series")
        write_nifti(self.root / "sub-2.nii")
        outbox = self.outbox(self.source(file, self.root))
        idle = outbox.when_idle()
        ids = {self.send(outbox) for _ in range(3)}
        self.assertEqual(len(ids), 3)
        self.successResultOf(idle)
        self.assertEqual(len(self.tree()), 9)
        self.assertTrue(file.exists())

    def test_nothingToSend(self) -> None:
        """Paths with nothing to send are reported, and the source is at its end."""
        (self.base / "text").write_text("hello")
        outbox = self.outbox(self.source(self.root, self.base / "text", self.base / "none"))
        self.successResultOf(outbox.when_idle())
        self.assertEqual(
            self.skipped(),
            [
                ("in", "there is nothing in it to send"),
                ("text", "neither NIfTI nor DICOM"),
                ("none", "there is no such file or folder"),
            ],
        )

    def test_changedWhileItWaits(self) -> None:
        """A file that changed before its turn is looked at again when it has settled, and sent as it is then."""
        file = write_nifti(self.base / "sub-1.nii.gz")
        outbox = self.outbox(self.source(file))
        idle = outbox.when_idle()
        write_nifti(file, fill=8)
        os.utime(file, ns=(1, 1))
        asked = outbox.next_item()
        self.assertNoResult(asked)
        self.assertNoResult(idle)
        self.clock.advance(2)
        item = self.successResultOf(asked)
        assert item is not None
        self.assertEqual(item.size, file.stat().st_size)
        self.successResultOf(outbox.acknowledged(item, False))
        self.successResultOf(idle)

    def test_goneWhileItWaits(self) -> None:
        """A file that vanished before its turn is reported, and the source comes to its end."""
        write_nifti(self.root / "a.nii")
        gone = write_nifti(self.root / "b.nii")
        outbox = self.outbox(self.source(self.root))
        gone.unlink()
        self.send(outbox)
        asked = outbox.next_item()
        self.clock.advance(2)
        self.successResultOf(outbox.when_idle())
        self.assertNoResult(asked)
        self.assertIn(("in", "its files are gone"), self.skipped())

    def test_changedSeriesIsSentAlone(self) -> None:
        """Of a folder whose one series changed, that series is sent again, the others once."""
        paths = write_series(self.root / "s", 8, "1.2.3")
        write_series(self.root / "t", 8, "1.2.4")
        outbox = self.outbox(self.source(self.root))
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        self.successResultOf(outbox.deferred(item, "busy", "later"))
        write_slice(self.root / "s" / paths[0].name, make_slice(8, PatientID="P-99", PatientName="A^Longer"))
        for path in paths[1:]:
            path.unlink()
        for number in range(1, 8):
            write_slice(self.root / "s" / f"n{number}", make_slice(number, PatientID="P-99"))
        self.send(outbox)
        self.clock.advance(1)
        self.clock.advance(2)
        again = self.successResultOf(outbox.next_item())
        assert again is not None
        self.assertEqual((again.meta["patient_id"], again.meta["series_instance_uid"]), ("P-99", "1.2.3"))
        self.successResultOf(outbox.acknowledged(again, False))
        self.successResultOf(outbox.when_idle())


class WatchTests(SourceCase):
    """A watched folder."""

    def watch(self) -> PacsOutbox:
        """Return an outbox over the watched folder."""
        self.source = WatchSource(self.root, "pacs", lambda: self.spool, self.clock, run=inline)
        return self.outbox(self.source)

    def pass_time(self, seconds: int) -> None:
        """Let the source look once a second."""
        for _ in range(seconds):
            self.clock.advance(1)

    def test_settlesFirst(self) -> None:
        """A file is taken when it has not changed for two seconds, and not before."""
        outbox = self.watch()
        asked = outbox.next_item()
        file = write_nifti(self.root / "sub-1.nii.gz")
        whole = file.read_bytes()
        for part in (1, 2, 3):
            file.write_bytes(whole[: part * 100])
            self.pass_time(1)
        self.assertNoResult(asked)
        file.write_bytes(whole)
        self.pass_time(2)
        self.assertNoResult(asked)
        self.pass_time(1)
        self.assertIsNotNone(self.successResultOf(asked))
        self.assertEqual(self.skipped(), [])

    def test_sentOnAck(self) -> None:
        """A file is moved to sent/ when it is acknowledged, with its sidecar, and is not sent again."""
        write_nifti(self.root / "sub-1.nii.gz")
        (self.root / "sub-1.json").write_text("{}")
        outbox = self.watch()
        self.pass_time(3)
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        self.assertEqual(self.tree(), ["sub-1.json", "sub-1.nii.gz"])
        self.successResultOf(outbox.acknowledged(item, False))
        self.assertEqual(self.tree(), ["sent/sub-1.json", "sent/sub-1.nii.gz"])
        self.pass_time(10)
        self.assertNoResult(outbox.next_item())

    def test_refusedForGood(self) -> None:
        """A refused file is moved to refused/ with the reason beside it."""
        write_nifti(self.root / "sub-1.nii.gz")
        outbox = self.watch()
        self.pass_time(3)
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        self.successResultOf(outbox.refused(item, "too-large", "at most 5 bytes are taken"))
        self.assertEqual(self.tree(), ["refused/sub-1.nii.gz", "refused/sub-1.nii.gz.reason.txt"])
        reason = (self.root / "refused/sub-1.nii.gz.reason.txt").read_text()
        self.assertIn("too-large: at most 5 bytes are taken", reason)
        self.assertIn(item.id, reason)

    def test_otherwiseItStays(self) -> None:
        """A file that could not be sent this time stays, and is offered again."""
        write_nifti(self.root / "sub-1.nii.gz")
        outbox = self.watch()
        self.pass_time(3)
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        self.successResultOf(outbox.deferred(item, "connection-lost", "gone"))
        self.assertEqual(self.tree(), ["sub-1.nii.gz"])
        self.pass_time(2)
        self.assertEqual(self.successResultOf(outbox.next_item()), item)

    def test_seriesFolder(self) -> None:
        """A folder is one unit: taken when none of it changes any more, moved whole, and gone from where it was."""
        outbox = self.watch()
        asked = outbox.next_item()
        for number in range(1, 9):
            write_slice(self.root / "study" / "a" / f"{number}", make_slice(number))
            self.pass_time(1)
        self.assertNoResult(asked)
        self.pass_time(2)
        item = self.successResultOf(asked)
        assert item is not None
        self.successResultOf(outbox.acknowledged(item, False))
        self.assertEqual(self.tree(), [f"sent/study/a/{n}" for n in range(1, 9)])
        self.assertEqual([path.name for path in self.root.iterdir()], ["sent"])

    def test_skippedOnce(self) -> None:
        """What cannot be sent stays, is reported once, and again when it changes."""
        note = self.root / "note.txt"
        note.write_text("hello")
        write_series(self.root / "short", 3)
        self.watch()
        self.pass_time(10)
        self.assertEqual([name for name, _ in self.skipped()], ["note.txt", "IM0000", "IM0001", "IM0002"])
        self.assertEqual(len(self.tree()), 4)
        note.unlink()
        self.pass_time(1)
        note.write_text("hello again")
        self.pass_time(4)
        self.assertEqual([name for name, _ in self.skipped()][4:], ["note.txt"])

    def test_completedLater(self) -> None:
        """A truncated file that is completed later is sent with its series."""
        paths = write_series(self.root / "s")
        whole = paths[0].read_bytes()
        paths[0].write_bytes(whole[:-5])
        outbox = self.watch()
        self.pass_time(5)
        asked = outbox.next_item()
        self.assertNoResult(asked)
        asked.cancel()
        self.failureResultOf(asked)
        self.assertTrue(self.skipped())
        paths[0].write_bytes(whole)
        self.pass_time(4)
        self.send(outbox)
        self.assertEqual(len(self.tree(self.root / "sent" / "s")), 8)

    def test_looseSlices(self) -> None:
        """Slices that lie loose in the watched folder are moved to a folder of their own."""
        write_series(self.root)
        outbox = self.watch()
        self.pass_time(3)
        scan_id = self.send(outbox)
        self.assertEqual(self.tree(), [f"sent/{scan_id}/IM000{n}" for n in range(8)])

    def test_changedAfterItWasSent(self) -> None:
        """A file that changed while it was on its way stays, and is sent as it is now."""
        file = write_nifti(self.root / "sub-1.nii.gz")
        outbox = self.watch()
        self.pass_time(3)
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        write_nifti(file, fill=9)
        os.utime(file, ns=(3, 3))
        self.successResultOf(outbox.acknowledged(item, False))
        self.assertEqual(self.tree(), ["sub-1.nii.gz"])
        self.pass_time(4)
        again = self.successResultOf(outbox.next_item())
        assert again is not None
        self.assertNotEqual(again.id, item.id)

    def test_vanishes(self) -> None:
        """A file that vanishes before its turn is forgotten, and welcome when it comes again."""
        file = write_nifti(self.root / "sub-1.nii.gz")
        outbox = self.watch()
        self.pass_time(3)
        file.unlink()
        asked = outbox.next_item()
        self.pass_time(3)
        self.assertNoResult(asked)
        write_nifti(file)
        self.pass_time(4)
        self.successResultOf(asked)

    def test_folderGone(self) -> None:
        """That the watched folder is away is said once, and so is its return."""
        self.watch()
        self.root.rename(self.base / "elsewhere")
        self.pass_time(5)
        (self.base / "elsewhere").rename(self.root)
        self.pass_time(2)
        said = [e["event"] for e in self.events if str(e.get("event", "")).startswith("watch.")]
        self.assertEqual(said, ["watch.failing", "watch.recovered"])

    def test_unmovableFileIsNotSentAgain(self) -> None:
        """A kept file that cannot be moved away is not sent over and over."""
        write_nifti(self.root / "sub-1.nii.gz")
        (self.root / "sent").write_text("a file where the folder should be")
        outbox = self.watch()
        self.pass_time(3)
        self.send(outbox)
        (said,) = (e for e in self.events if e.get("event") == "scan.not-put-away")
        self.assertNotIn("sub-1", str(said["reason"]))
        asked = outbox.next_item()
        self.pass_time(10)
        self.assertNoResult(asked)


class MovesTests(SourceCase):
    """Putting files away."""

    def stamps(self) -> list[Stamp]:
        """Return the files in the folder."""
        return [item for item in walk(self.root, watched=True) if isinstance(item, Stamp)]

    def test_nameClash(self) -> None:
        """What is in sent/ already is never overwritten; the newcomer gets another name."""
        for text in "abc":
            (self.root / "x.nii.gz").write_text(text)
            moves.put_away(self.root, self.stamps(), "scan-1", SENT)
        self.assertEqual(self.tree(), ["sent/x.nii.gz", "sent/x~1.nii.gz", "sent/x~2.nii.gz"])
        self.assertEqual((self.root / "sent/x.nii.gz").read_text(), "a")

    def test_folderClash(self) -> None:
        """A folder of the same name goes beside the first, all of it."""
        for _ in range(2):
            write_series(self.root / "s" / "t")
            moves.put_away(self.root, self.stamps(), "scan-1", SENT)
        self.assertEqual(len(self.tree(self.root / "sent" / "s")), 8)
        self.assertEqual(len(self.tree(self.root / "sent" / "s~1" / "t")), 8)

    def test_reasonsOfSeries(self) -> None:
        """The reason of a series lies beside its folder; a second one in that folder gets its own."""
        write_series(self.root / "s", 8, "1.2.3", prefix="A")
        first = self.stamps()
        write_series(self.root / "s", 8, "1.2.4", prefix="B")
        second = [stamp for stamp in self.stamps() if stamp not in first]
        moves.put_away(self.root, first, "scan-1", REFUSED, "one")
        moves.put_away(self.root, second, "scan-2", REFUSED, "two")
        self.assertEqual((self.root / "refused/s.reason.txt").read_text(), "one\n")
        self.assertEqual((self.root / "refused/s.scan-2.reason.txt").read_text(), "two\n")
        write_series(self.root, 8, "1.2.5", prefix="C")
        moves.put_away(self.root, self.stamps(), "scan-3", REFUSED, "three")
        self.assertEqual((self.root / "refused/scan-3.reason.txt").read_text(), "three\n")
        self.assertEqual(len(self.tree(self.root / "refused" / "scan-3")), 8)

    def test_crashAtEveryMove(self) -> None:
        """Whenever the process dies among the moves of a series, the next start moves the rest, and only once."""
        for dies_after in range(9):
            root = self.base / f"in{dies_after}"
            write_series(root / "s")
            stamps = [item for item in walk(root, watched=True) if isinstance(item, Stamp)]
            renames = 0
            real = Path.rename

            def rename(path: Path, target: Path) -> Path:
                nonlocal renames
                if renames > dies_after:  # noqa: B023
                    raise KeyboardInterrupt
                renames += 1
                return real(path, target)  # noqa: B023

            with patch.object(Path, "rename", rename):
                try:
                    moves.put_away(root, stamps, "scan-1", SENT)
                except KeyboardInterrupt:
                    self.assertEqual(renames, dies_after + 1)
            moves.recover(root)
            self.assertEqual(self.tree(root), [f"sent/s/IM000{n}" for n in range(8)])
            self.assertEqual(moves.recover(root), 0)
            self.assertFalse((root / "s").exists())

    def test_evilJournal(self) -> None:
        """A journal that names a path outside the folder is not obeyed."""
        (self.root / "sent").mkdir()
        (self.base / "precious").write_text("x")
        for pairs in ([["../precious", "sent/x"]], [["/etc/hostname", "sent/x"]], "nonsense", 5):
            (self.root / "sent" / ".moving-scan-1.json").write_text(json.dumps(pairs))
            self.assertEqual(moves.recover(self.root), 0)
            self.assertEqual(self.tree(), [])
        self.assertTrue((self.base / "precious").exists())

    def test_nothingLeftToMove(self) -> None:
        """Files that are gone or changed are left alone."""
        file = write_nifti(self.root / "a.nii")
        stamp = take_stamp(file)
        os.utime(file, ns=(1, 1))
        moves.put_away(self.root, [stamp], "scan-1", SENT)
        self.assertEqual(self.tree(), ["a.nii"])


class GeneratedSourceTests(SourceCase):
    """The generator as a source."""

    def source(self, count: int, **options: Any) -> GeneratedSource:
        """Return a source."""
        source = GeneratedSource(count, "pacs", lambda: self.spool, self.clock, **options)
        source.start()
        return source

    def test_countAndInterval(self) -> None:
        """As many as wanted, NIfTI and DICOM in turn, no faster than wanted; then no more."""
        source = self.source(3, interval=10.0)
        first: Any = self.successResultOf(source.next_candidate())
        second = source.next_candidate()
        self.clock.advance(9)
        self.assertNoResult(second)
        self.clock.advance(1)
        found: Any = self.successResultOf(second)
        self.assertEqual([first.form, found.form], [PayloadFormat.NIFTI_GZ, PayloadFormat.DICOM_TAR])
        self.clock.advance(30)
        self.assertIsNotNone(self.successResultOf(source.next_candidate()))
        self.assertIsNone(self.successResultOf(source.next_candidate()))

    def test_seeds(self) -> None:
        """A seed makes a run repeatable; without one, each run is new."""

        def seeds(**options: Any) -> list[int]:
            source = self.source(4, **options)
            found: list[Any] = [self.successResultOf(source.next_candidate()) for _ in range(4)]
            return [candidate.seed for candidate in found]

        self.assertEqual(seeds(seed=5), seeds(seed=5))
        self.assertNotEqual(seeds(seed=5), seeds(seed=6))
        self.assertNotEqual(seeds(), seeds())
        self.assertEqual(len(set(seeds(seed=5))), 4)

    def test_stop(self) -> None:
        """Stopping leaves no timer."""
        source = self.source(3, interval=10.0)
        self.successResultOf(source.next_candidate())
        source.next_candidate()
        source.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
