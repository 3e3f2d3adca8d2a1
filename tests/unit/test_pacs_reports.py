"""Reports on the PACS side: verified, written whole or not at all, once, then acknowledged."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted import bundle
from fr_twisted.link.interfaces import Accept, Duplicate, IIntake, Item, ITransfer, Refuse, RefusedError
from fr_twisted.model import CHUNK_SIZE, make_report_id
from fr_twisted.pacs.ack_times import AckTimes
from fr_twisted.pacs.report_files import MARKER, MAX_LISTED, ReportFolder, Written, index_page
from fr_twisted.pacs.reports import INDEX_DELAY, ReportIntake
from tests.pacs_builders import Threads, inline, new_folder

SCAN = "scan-0123456789abcdef01234567"


def pack(scan_id: str = SCAN, pad: int = 10, **said: Any) -> bytes:
    """Return a bundle whose report.json says that it is of ``scan_id``."""
    report = {"scan_id": scan_id, "analysis": "t1-volumes", "analysis_version": "1", **said}
    files = {
        "report.json": json.dumps(report).encode(),
        "report.html": b"<p>fine</p>",
        "overlay.png": bytes(pad),
    }
    return bundle.pack(files)


def offer(data: bytes, scan_id: str = SCAN, version: str = "1", **changes: Any) -> Item:
    """Return the offer of a report."""
    meta = {
        "scan_id": scan_id,
        "patient_id": "P<1>",
        "analysis": "t1-volumes",
        "analysis_version": version,
        "created_at": "2026-01-02T03:04:05Z",
    }
    digest = hashlib.sha256(data).hexdigest()
    values: dict[str, Any] = {
        "id": make_report_id(scan_id, "t1-volumes", version),
        "kind": "report",
        "meta": meta,
    }
    return Item(**{**values, "size": len(data), "sha256": digest, **changes})


class ReportsCase(SynchronousTestCase):
    """Has a reports folder and an intake."""

    def setUp(self) -> None:
        """Make them."""
        self.root = new_folder(self) / "reports"
        self.clock = Clock()
        self.acks = AckTimes(self.clock)
        self.intake = self.make_intake()
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def make_intake(self, run: Callable[..., Any] = inline) -> ReportIntake:
        """Return a started intake."""
        intake = ReportIntake(ReportFolder(self.root), self.clock, self.acks, run=run)
        starting = intake.start()
        if run is inline:
            self.successResultOf(starting)
        return intake

    def verdict(self, item: Item) -> Any:
        """Offer an item."""
        return self.successResultOf(self.intake.offered("hub", item))

    def accept(self, item: Item) -> Any:
        """Offer an item that is accepted, and return its transfer."""
        verdict = self.verdict(item)
        self.assertIsInstance(verdict, Accept)
        return verdict.transfer

    def deliver(self, data: bytes, **changes: Any) -> None:
        """Have a report accepted, written and finished."""
        transfer = self.accept(offer(data, **changes))
        for offset in range(0, len(data), CHUNK_SIZE):
            self.successResultOf(transfer.write(offset, data[offset : offset + CHUNK_SIZE]))
        self.successResultOf(transfer.finish())

    def refusal(self, data: bytes, **changes: Any) -> RefusedError:
        """Return why a report is refused at its end."""
        transfer = self.accept(offer(data, **changes))
        self.successResultOf(transfer.write(0, data))
        error = self.failureResultOf(transfer.finish(), RefusedError).value
        assert isinstance(error, RefusedError)
        return error

    def tree(self) -> list[str]:
        """Return the relative paths of all files, hidden ones too."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def hidden(self) -> list[str]:
        """Return the unfinished work in the folder."""
        return [path.name for path in self.root.glob(".*")]


class IntakeTests(ReportsCase):
    """Reports that arrive as they should."""

    def test_interfaces(self) -> None:
        """They are an IIntake and an ITransfer; every node is welcome."""
        self.assertTrue(verifyObject(IIntake, self.intake))
        self.assertTrue(verifyObject(ITransfer, self.accept(offer(pack()))))
        self.assertIsNone(self.intake.hello("hub"))

    def test_written(self) -> None:
        """The files are in the folder of the scan, with a marker and nothing else; one line is logged."""
        self.acks.note(SCAN)
        self.clock.advance(7.5)
        self.deliver(pack())
        names = ("overlay.png", "report.html", "report.json")
        ours = [f"{SCAN}/{MARKER}", *(f"{SCAN}/{name}" for name in names)]
        self.assertEqual(self.tree(), sorted(["index.html", *ours]))
        self.assertEqual(json.loads((self.root / SCAN / "report.json").read_text())["scan_id"], SCAN)
        self.assertEqual(self.hidden(), [])
        (said,) = (e for e in self.events if e.get("event") == "report.written")
        self.assertEqual((said["scan_id"], said["seconds"]), (SCAN, 7.5))
        self.assertEqual(said["path"], str(self.root / SCAN))
        self.assertNotIn("P<1>", str(said))

    def test_told(self) -> None:
        """Whoever wants to know of reports is told of each once it is on the disk, and of a duplicate not again."""
        told: list[tuple[Written, bool]] = []

        def tell(written: Written) -> None:
            told.append((written, (self.root / SCAN / MARKER).exists()))

        self.intake = ReportIntake(ReportFolder(self.root), self.clock, self.acks, run=inline, tell=tell)
        self.successResultOf(self.intake.start())
        self.deliver(pack())
        self.assertEqual(self.verdict(offer(pack())), Duplicate())
        ((written, there),) = told
        self.assertEqual((written.scan_id, there), (SCAN, True))

    def test_secondsSinceTheHubHadIt(self) -> None:
        """Of a scan of an earlier run, the time that the HUB names counts."""
        data = pack()
        item = offer(data)
        item = offer(data, meta={**item.meta, "sent_at": "2026-01-02T03:04:05Z"})
        transfer = self.accept(item)
        self.successResultOf(transfer.write(0, data))
        self.successResultOf(transfer.finish())
        (said,) = (e for e in self.events if e.get("event") == "report.written")
        self.assertGreater(said["seconds"], 0)

    def test_manyChunks(self) -> None:
        """A report of several chunks, whose writes overlap, is put together in order."""
        data = pack(pad=2 * CHUNK_SIZE + 5)
        transfer = self.accept(offer(data))
        starts = range(0, len(data), CHUNK_SIZE)
        for done in [transfer.write(at, data[at : at + CHUNK_SIZE]) for at in starts]:
            self.successResultOf(done)
        self.successResultOf(transfer.finish())
        self.assertEqual((self.root / SCAN / "overlay.png").stat().st_size, 2 * CHUNK_SIZE + 5)

    def test_twiceIsOnce(self) -> None:
        """A report that comes again is a duplicate, after a restart too, and nothing is written."""
        self.deliver(pack())
        before = [(path, path.stat().st_mtime_ns) for path in self.root.rglob("*")]
        self.assertEqual(self.verdict(offer(pack())), Duplicate())
        self.intake = self.make_intake()
        self.assertEqual(self.verdict(offer(pack())), Duplicate())
        self.assertEqual(before, [(path, path.stat().st_mtime_ns) for path in self.root.rglob("*")])

    def test_sameIdOtherBytes(self) -> None:
        """A report with a known id and other bytes is refused for good."""
        self.deliver(pack())
        verdict = self.verdict(offer(pack(pad=11)))
        self.assertEqual((verdict.code, verdict.retry), ("conflict", False))

    def test_otherVersion(self) -> None:
        """A report of another version goes to a folder of its own; each is a duplicate when it comes again."""
        second = pack(analysis_version="2")
        self.deliver(pack())
        self.deliver(second, version="2")
        other = f"{SCAN}.{make_report_id(SCAN, 't1-volumes', '2')}"
        self.assertTrue((self.root / other / "report.json").is_file())
        self.assertEqual(self.verdict(offer(pack())), Duplicate())
        self.assertEqual(self.verdict(offer(second, version="2")), Duplicate())

    def test_folderOfSomebodyElse(self) -> None:
        """A folder of that name that is not ours is left alone."""
        (self.root / SCAN).mkdir()
        self.deliver(pack())
        self.assertEqual(list((self.root / SCAN).iterdir()), [])
        self.assertEqual(self.verdict(offer(pack())), Duplicate())

    def test_resumed(self) -> None:
        """After a cut, a report goes on from the last whole chunk, with the digest of what is there."""
        data = pack(pad=3 * CHUNK_SIZE)
        transfer = self.accept(offer(data))
        self.successResultOf(transfer.write(0, data[:CHUNK_SIZE]))
        transfer.cut()
        (part,) = self.root.glob(".part-*")
        with part.open("ab") as stream:
            stream.write(b"half a chunk that nobody was told of")
        verdict = self.verdict(offer(data))
        self.assertEqual(verdict.offset, CHUNK_SIZE)
        self.assertEqual(verdict.digest.hexdigest(), hashlib.sha256(data[:CHUNK_SIZE]).hexdigest())
        for at in range(CHUNK_SIZE, len(data), CHUNK_SIZE):
            self.successResultOf(verdict.transfer.write(at, data[at : at + CHUNK_SIZE]))
        self.successResultOf(verdict.transfer.finish())
        self.assertEqual(self.hidden(), [])

    def test_discarded(self) -> None:
        """Bytes with the wrong digest are forgotten; the next offer begins at 0."""
        data = pack(pad=CHUNK_SIZE)
        transfer = self.accept(offer(data))
        self.successResultOf(transfer.write(0, data[:CHUNK_SIZE]))
        self.successResultOf(transfer.discard())
        self.assertEqual(self.hidden(), [])
        self.assertEqual(self.verdict(offer(data)).offset, 0)

    def test_onTwoConnections(self) -> None:
        """The same report on a second connection has to wait until the first is over."""
        data = pack()
        transfer = self.accept(offer(data))
        verdict = self.verdict(offer(data))
        self.assertEqual((verdict.code, verdict.retry), ("busy", True))
        transfer.cut()
        self.accept(offer(data))

    def test_cutWhileAThreadWrites(self) -> None:
        """A report whose connection is cut is not offered anew while a thread still works on it."""
        threads = Threads()
        self.intake = self.make_intake(threads)
        threads.release()
        data = pack()
        asked = self.intake.offered("hub", offer(data))
        for _ in range(3):
            threads.release()
        verdict: Any = self.successResultOf(asked)
        transfer = verdict.transfer
        writing = transfer.write(0, data)
        transfer.cut()
        self.assertEqual(self.verdict(offer(data)).code, "busy")
        threads.release()
        self.successResultOf(writing)
        self.assertNoResult(self.intake.offered("hub", offer(data)))


class RefusingTests(ReportsCase):
    """Reports that are not taken."""

    def assertRefused(self, item: Item, code: str) -> None:
        """Assert that an offer is refused for good."""
        verdict = self.verdict(item)
        self.assertIsInstance(verdict, Refuse)
        self.assertEqual((verdict.code, verdict.retry), (code, False))

    def test_offers(self) -> None:
        """Other kinds, sizes over the limit, empty ones and wrong facts are refused for good."""
        data = pack()
        self.assertRefused(offer(data, kind="scan"), "bad-kind")
        self.assertRefused(offer(data, size=bundle.MAX_BUNDLE + 1), "too-large")
        self.assertRefused(offer(data, size=0), "bad-report")
        self.assertRefused(offer(data, meta={}), "bad-meta")
        self.assertRefused(offer(data, meta={**offer(data).meta, "scan_id": "../x"}), "bad-meta")

    def test_notABundle(self) -> None:
        """Bytes that are no bundle are refused for good, and forgotten."""
        for data in (
            b"hello",
            bytes(20480),
            bundle.pack({"report.json": b"not JSON"}),
            bundle.pack({"report.json": b"[]"}),
        ):
            error = self.refusal(data)
            self.assertEqual((error.code, error.retry), ("bad-report", False))
            self.assertEqual(self.tree(), [])

    def test_ofAnotherScan(self) -> None:
        """A bundle that says it is of another scan, patient or version is refused for good."""
        wrong: list[dict[str, Any]] = [
            {"scan_id": "scan-other"},
            {"patient_id": "P-2"},
            {"analysis": "t2-volumes"},
            {"analysis_version": "2"},
        ]
        for said in wrong:
            self.assertFalse(self.refusal(pack(**said)).retry)
        self.assertEqual(self.tree(), [])

    def test_fullDisk(self) -> None:
        """A full disk is a refusal for now, with the reason; later the report is taken."""
        data = pack()
        for name, expected in (
            (errno.ENOSPC, "disk-full"),
            (errno.EACCES, "not-writable"),
            (errno.EIO, "not-written"),
        ):
            transfer = self.accept(offer(data))
            with patch("os.pwrite", side_effect=OSError(name, os.strerror(name))):
                error: Any = self.failureResultOf(transfer.write(0, data), RefusedError).value
            self.assertEqual((error.code, error.retry), (expected, True))
            transfer.cut()
        transfer = self.accept(offer(data))
        self.successResultOf(transfer.write(0, data))
        with patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            error = self.failureResultOf(transfer.finish(), RefusedError).value
        self.assertEqual((error.code, error.retry), ("disk-full", True))
        self.assertFalse((self.root / SCAN).exists())
        self.deliver(data)

    def test_unusableFolder(self) -> None:
        """A reports folder that cannot be made is an OSError at the start."""
        self.root.parent.joinpath("file").write_text("x")
        intake = ReportIntake(ReportFolder(self.root.parent / "file" / "reports"), self.clock, run=inline)
        self.failureResultOf(intake.start(), OSError)


class CrashTests(ReportsCase):
    """The process dies at any step of writing a report."""

    def test_atEveryStep(self) -> None:
        """Whatever step it dies at: no half a report, no rest after the next start, and one report after redelivery."""
        seen_whole = 0
        for number in range(40):
            scan_id = f"scan-{number:024d}"
            data = pack(scan_id)
            item = offer(data, scan_id=scan_id)
            transfer = self.accept(item)
            self.successResultOf(transfer.write(0, data))
            died = self._die_at(number, transfer)
            folder = self.root / scan_id
            if folder.exists():
                seen_whole += 1
                self.assertEqual(len(list(folder.iterdir())), 4)
            self.intake = self.make_intake()
            self.assertEqual(self.hidden(), [])
            verdict = self.verdict(item)
            self.assertIsInstance(verdict, Duplicate if folder.exists() else Accept)
            if isinstance(verdict, Accept):
                self.successResultOf(verdict.transfer.write(0, data))
                self.successResultOf(verdict.transfer.finish())
            self.assertEqual(len(list(folder.iterdir())), 4)
            self.assertEqual(len(list(self.root.glob(f"{scan_id}*"))), 1)
            if not died:
                break
        self.assertGreater(number, 10)
        self.assertGreater(seen_whole, 1)

    def _die_at(self, step: int, transfer: Any) -> bool:
        """Finish with the process dying at the given step; return whether there were so many."""
        left = step

        def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise SystemExit
                return real(*args, **options)

            return call

        real: dict[str, Callable[..., Any]] = {
            "os.fsync": os.fsync,
            "pathlib.Path.rename": Path.rename,
            "pathlib.Path.unlink": Path.unlink,
            "pathlib.Path.open": Path.open,
            "pathlib.Path.chmod": Path.chmod,
        }
        patches = [patch(name, mortal(function)) for name, function in real.items()]
        patches.append(patch.object(shutil, "rmtree", lambda *_, **__: None))  # the dead clean nothing up
        for one in patches:
            one.start()
        try:
            finishing = transfer.finish()
            finishing.addErrback(lambda failure: failure.trap(SystemExit))
        except SystemExit:
            pass
        finally:
            for one in patches:
                one.stop()
        self.clock = Clock()
        return left < 0

    def test_leftovers(self) -> None:
        """Unfinished work of an earlier run is removed at the start; reports and other files are not."""
        self.deliver(pack())
        (self.root / ".new-abc").mkdir()
        (self.root / ".new-abc" / "report.json").write_text("{}")
        (self.root / ".part-report-1-0123").write_text("x")
        (self.root / ".mine").write_text("x")
        (self.root / "notes.txt").write_text("x")
        self.intake = self.make_intake()
        self.assertEqual(self.hidden(), [".mine"])
        self.assertIn("notes.txt", self.tree())
        self.assertTrue((self.root / SCAN / "report.json").exists())


class IndexTests(ReportsCase):
    """The page that lists the reports."""

    def test_listsNewestFirst(self) -> None:
        """Reports of this and earlier runs are on the page, newest first, with nothing of theirs taken for HTML."""
        for number in range(3):
            scan_id = f"scan-{number}"
            self.deliver(pack(scan_id), scan_id=scan_id)
        self.intake = self.make_intake()
        self.deliver(pack("scan-9"), scan_id="scan-9")
        self.clock.advance(INDEX_DELAY)
        page = (self.root / "index.html").read_text()
        places = [page.index(f'href="scan-{n}/report.html"') for n in (9, 2, 1, 0)]
        self.assertEqual(places, sorted(places))
        self.assertIn("P&lt;1&gt;", page)
        self.assertNotIn("P<1>", page)

    def test_oncePerHalfSecond(self) -> None:
        """Many reports are one rewrite of the page; stopping writes it at once."""
        self.clock.advance(INDEX_DELAY)
        with patch.object(ReportFolder, "write_index", autospec=True) as write:
            for number in range(3):
                self.deliver(pack(f"scan-{number}"), scan_id=f"scan-{number}")
            self.clock.advance(INDEX_DELAY)
            self.assertEqual(write.call_count, 1)
            self.deliver(pack("scan-5"), scan_id="scan-5")
            self.successResultOf(self.intake.stop())
            self.assertEqual(write.call_count, 2)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.successResultOf(self.intake.stop())

    def test_long(self) -> None:
        """The page is bounded, and says how many reports there are."""
        one = Written(
            "report-1", "0" * 64, "scan-1", "P", "a", "1", "2026-01-01T00:00:00.000+00:00", "scan-1"
        )
        page = index_page([one] * (MAX_LISTED + 5))
        self.assertEqual(page.count("<tr><td>"), MAX_LISTED)
        self.assertIn(f"{MAX_LISTED + 5} in all", page)
