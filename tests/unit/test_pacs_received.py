"""DICOM in without a network: spool, ledger, completion, the source, and what it sends."""

import errno
import os
import sqlite3
import tarfile
import threading
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.pacs.arrivals import Arrival, Arrivals
from fr_twisted.pacs.instances import FullError, InstanceSpool, SpoolError, ask
from fr_twisted.pacs.ledger import FILE, Ledger, State
from fr_twisted.pacs.outbox import PacsOutbox
from fr_twisted.pacs.received import ReceivedSource
from fr_twisted.pacs.rules import EVERYTHING, Rule, Rules
from tests.pacs_builders import inline, make_slice, new_folder, write_slice

KIND = "1.2.840.10008.5.1.4.1.1.4"


def file_of(folder: Path, number: int, series: str = "1.2.3", **changes: Any) -> bytes:
    """Return a Part 10 file of a slice."""
    return write_slice(folder / "one", make_slice(number, series, **changes)).read_bytes()


def encoded(number: int, syntax: UID, **changes: Any) -> bytes:
    """Return a slice of 1.2.3 as another sender encodes it: in that syntax, and with one element more."""
    dataset = make_slice(number, InstitutionName="Another", **changes)
    dataset.file_meta.TransferSyntaxUID = syntax
    if not syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    if syntax.is_compressed:
        dataset.PixelData = encapsulate([b"no frame"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    out = BytesIO()
    pydicom.dcmwrite(
        *(out, dataset),
        enforce_file_format=False,
        little_endian=syntax.is_little_endian,
        implicit_vr=syntax.is_implicit_VR,
    )
    return out.getvalue()


class SpoolCase(SynchronousTestCase):
    """Has a folder and a spool in it."""

    def setUp(self) -> None:
        """Make them."""
        self.base = new_folder(self)
        self.spool = self.open()

    def open(self, limit: int = 10**9, **more: Any) -> InstanceSpool:
        """Return the spool as a process that starts now sees it."""
        spool = InstanceSpool(self.base / "spool", limit, **more)
        spool.open()
        self.addCleanup(spool.close)
        return spool

    def files(self) -> list[str]:
        """Return the names of all files in the spool but lock and ledger."""
        root = self.base / "spool"
        return sorted(
            str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.parent != root
        )


class InstanceSpoolTests(SpoolCase):
    """`InstanceSpool`."""

    def test_addedIsThere(self) -> None:
        """What was added is there after a restart, with its class, and counted."""
        data = file_of(self.base, 1)
        added = self.spool.add("1.2.3", "1.2.3.1", KIND, (data[:200], data[200:]))
        self.assertEqual((added.new, added.count), (True, 1))
        self.spool.close()
        again = self.open()
        [instance] = again.instances("1.2.3")
        self.assertEqual((instance.sop, instance.kind), ("1.2.3.1", KIND))
        self.assertEqual(instance.stamp.path.read_bytes(), data)
        self.assertEqual(again.used, len(data))
        self.assertEqual(again.find("1.2.3.1"), ("1.2.3", instance))

    def test_syncedBeforeItHasItsName(self) -> None:
        """The bytes are synced before the instance has its name, so that a name never stands for half a file."""
        seen: list[tuple[int, list[str]]] = []
        self.spool.close()

        def fsync(handle: int) -> None:
            seen.append((os.fstat(handle).st_size, self.files()))

        self.open(fsync=fsync).add("1.2.3", "1.2.3.1", KIND, (b"a" * 5000,))
        self.assertEqual(seen, [(5000, ["part/0.dcm"])])
        self.assertEqual(self.files(), ["series/1.2.3/1.2.3.1.dcm"])

    def test_duplicates(self) -> None:
        """A second one is no new one; the first is kept, and whether the second is another image is told."""
        first = file_of(self.base, 1)
        self.spool.add("1.2.3", "1.2.3.1", KIND, (first,))
        for data, what in (
            (first, ()),
            (encoded(1, ImplicitVRLittleEndian), ()),
            (file_of(self.base, 1, PixelData=bytes(128)), ("pixels",)),
            (b"two", ("patient or study", "size or place")),
        ):
            added = self.spool.add("1.2.3", "1.2.3.1", KIND, (data[:100], data[100:]))
            self.assertEqual((added.new, added.changed), (False, what))
        self.assertEqual(self.spool.instances("1.2.3")[0].stamp.path.read_bytes(), first)

    def test_watermark(self) -> None:
        """Over its limit, or with too little left on the disk, nothing more is taken; what is removed makes room."""
        self.spool.close()
        spool = self.open(limit=10)
        spool.add("1.1", "1.1.1", KIND, (b"123456",))
        self.assertRaises(FullError, spool.add, "1.1", "1.1.2", KIND, (b"12345",))
        self.assertTrue(spool.remove("1.1", frozenset(["1.1.1"])))
        spool.add("1.1", "1.1.2", KIND, (b"12345",))
        spool.close()
        nearly = self.open(reserve=100, free=lambda _: 104)
        nearly.add("1.2", "1.2.1", KIND, (b"1234",))
        self.assertRaises(FullError, nearly.add, "1.2", "1.2.2", KIND, (b"12345",))

    def test_failures(self) -> None:
        """A full disk and a broken one are told apart; neither leaves anything, nor counts as there."""
        for number, kind in ((errno.ENOSPC, FullError), (errno.EDQUOT, FullError), (errno.EIO, OSError)):

            def fail(_: int, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            self.spool.close()
            self.spool = self.open(fsync=fail)
            self.assertRaises(kind, self.spool.add, "1.1", "1.1.1", KIND, (b"1",))
            self.assertEqual((self.files(), self.spool.series(), self.spool.used), ([], [], 0))

    def test_halfWritten(self) -> None:
        """What a killed process had half written or half removed is gone after the next start."""
        self.spool.close()
        root = self.base / "spool"
        (root / "part" / "7.dcm").write_bytes(b"half")
        (root / "part" / "gone-1").mkdir()
        (root / "part" / "gone-1" / "1.2.dcm").write_bytes(b"x")
        (root / "series" / "1.2.3").mkdir()
        (root / "series" / "1.2.3" / "1.2.3.9.dcm").write_bytes(b"no DICOM")
        again = self.open()
        self.assertEqual(self.files(), ["series/1.2.3/1.2.3.9.dcm"])
        self.assertEqual(again.series(), [])

    def test_oneOwner(self) -> None:
        """A spool has one Fr-PACS; a second one is told so."""
        other = InstanceSpool(self.base / "spool", 1)
        self.assertIn("another Fr-PACS", str(self.assertRaises(SpoolError, other.open)))
        self.spool.add("1.1", "1.1.1", KIND, (b"1",))

    def test_noPaths(self) -> None:
        """What is no UID never becomes a path."""
        for uid in ("", "..", "../1", "/1", "a", "1/2", "1" * 65, "1.2\n"):
            self.assertRaises(ValueError, self.spool.add, uid, "1.1", KIND, (b"1",))
            self.assertRaises(ValueError, self.spool.add, "1.1", uid, KIND, (b"1",))

    def test_removedOnlyAsExpected(self) -> None:
        """A series that has more than was expected stays."""
        self.spool.add("1.1", "1.1.1", KIND, (b"1",))
        self.spool.add("1.1", "1.1.2", KIND, (b"1",))
        self.assertFalse(self.spool.remove("1.1", frozenset(["1.1.1"])))
        self.assertEqual(len(self.spool.instances("1.1")), 2)

    def test_manyAtOnce(self) -> None:
        """Threads that add the same instances at once leave each of them once, whole, and one of them new."""
        new: list[bool] = []

        def work() -> None:
            for number in range(40):
                new.append(self.spool.add("1.1", f"1.1.{number + 1}", KIND, (b"%d" % number * 100,)).new)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual((len(new), sum(new)), (160, 40))
        self.assertEqual(len(self.files()), 40)
        self.assertEqual(self.spool.used, sum(len(b"%d" % n * 100) for n in range(40)))


class ArrivalsTests(SynchronousTestCase):
    """`Arrivals`."""

    def setUp(self) -> None:
        """Note what is complete."""
        self.clock = Clock()
        self.complete: list[tuple[str, str]] = []
        self.arrivals = Arrivals(self.clock, 5.0, 60.0, lambda *said: self.complete.append(said))

    def arrive(self, association: int, count: int, series: str = "1.1", **more: Any) -> None:
        """Let a new instance arrive."""
        self.arrivals.arrived(association, Arrival(series, True, count, **more))

    def series(self) -> list[str]:
        """Return the series that were complete so far."""
        return [series for series, _ in self.complete]

    def test_quietAfterRelease(self) -> None:
        """After a release a short quiet is enough, and not before it is over."""
        self.arrive(1, 1)
        self.arrivals.closed(1, True)
        self.clock.advance(4.9)
        self.assertEqual(self.complete, [])
        self.clock.advance(0.2)
        self.assertEqual(self.complete, [("1.1", "nothing more came for 5 s after the release")])
        self.clock.advance(1000)
        self.assertEqual(len(self.complete), 1)

    def test_anAssociationEach(self) -> None:
        """A sender that opens an association for each instance is awaited: the quiet begins anew each time."""
        for number in range(1, 6):
            self.arrive(number, number)
            self.arrivals.closed(number, True)
            self.clock.advance(4)
        self.assertEqual(self.complete, [])
        self.clock.advance(1)
        self.assertEqual(self.series(), ["1.1"])

    def test_brokenOff(self) -> None:
        """A sender that broke off is given time to come again; its second, whole try ends with a short quiet."""
        self.arrive(1, 1)
        self.arrivals.closed(1, False)
        self.clock.advance(59)
        self.arrivals.arrived(2, Arrival("1.1", False, 1))
        self.arrive(2, 2)
        self.arrivals.closed(2, True)
        self.arrivals.closed(2, False)  # the connection went after the release
        self.assertEqual(self.complete, [])
        self.clock.advance(5)
        self.assertEqual(self.series(), ["1.1"])
        self.arrive(3, 3)
        self.arrivals.closed(3, False)
        self.clock.advance(59)
        self.assertEqual(len(self.complete), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.complete), 2)

    def test_twoSenders(self) -> None:
        """While one of two associations with a series is open, the release of the other says nothing."""
        self.arrive(1, 1)
        self.arrive(2, 2)
        self.arrivals.closed(1, True)
        self.clock.advance(50)
        self.assertEqual(self.complete, [])
        self.arrivals.closed(2, True)
        self.clock.advance(5)
        self.assertEqual(self.series(), ["1.1"])

    def test_openForHours(self) -> None:
        """An association that stays open does not hold up a series that nothing more comes of."""
        self.arrive(1, 1)
        self.clock.advance(40)
        self.arrive(1, 1, series="1.9")
        self.clock.advance(20)
        self.assertEqual(self.series(), ["1.1"])

    def test_expectedCount(self) -> None:
        """When as many are there as the headers say, nothing is awaited."""
        for number in range(1, 4):
            self.assertEqual(self.complete, [])
            self.arrive(1, number, expected=3, acquisition=1)
        self.assertEqual(self.complete, [("1.1", "all 3 instances are there")])
        self.clock.advance(1000)
        self.assertEqual(len(self.complete), 1)

    def test_countOfOneAcquisition(self) -> None:
        """A count of one acquisition is none of a series that has two."""
        self.arrive(1, 1, expected=2, acquisition=1)
        self.arrive(1, 2, expected=2, acquisition=2)
        self.arrive(1, 3, expected=2, acquisition=1)
        self.assertEqual(self.complete, [])

    def test_moreThanExpected(self) -> None:
        """Where more come than the headers say, each acquisition of its own, they are one latecomers' revision."""
        count = 0
        for acquisition in range(1, 11):
            for _ in range(35):
                count += 1
                self.arrive(1, count, expected=35, acquisition=acquisition)
        self.assertEqual(len(self.complete), 1)
        self.arrivals.closed(1, True)
        self.clock.advance(5)
        self.assertEqual(len(self.complete), 2)

    def test_duplicatesOfTheSent(self) -> None:
        """An instance that is in a scan already opens nothing."""
        self.arrivals.arrived(1, Arrival("1.1", False, 5))
        self.arrivals.closed(1, True)
        self.clock.advance(1000)
        self.assertEqual((self.complete, self.arrivals.open), ([], []))

    def test_asked(self) -> None:
        """A person's word ends the waiting."""
        self.arrive(1, 1)
        self.arrivals.ask("1.1")
        self.assertEqual(self.complete, [("1.1", "a person said so")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """After stop nothing is complete any more."""
        self.arrive(1, 1)
        self.arrivals.found("1.2")
        self.arrivals.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SourceCase(SpoolCase):
    """Has a source over a spool, and an outbox over that."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        (self.base / "work").mkdir()
        self.clock, self.time = Clock(), 1000.0
        self.rules = EVERYTHING
        self.start()

    def start(self) -> None:
        """Start what a daemon starts."""
        self.ledger = Ledger(self.spool.root)
        self.ledger.open()
        self.addCleanup(self.ledger.close)
        self.source = ReceivedSource(
            self.spool,
            self.ledger,
            self.rules,
            "pacs",
            lambda: self.base / "work",
            self.clock,
            quiet=5.0,
            patience=60.0,
            keep=100.0,
            run=inline,
            now=lambda: self.time,
        )
        self.outbox = PacsOutbox([self.source], self.clock, run=inline, jitter=lambda: 1.0)
        self.outbox.start()
        self.addCleanup(self.outbox.stop)

    def restart(self) -> None:
        """Be killed, and start again."""
        self.outbox.stop()
        self.ledger.close()
        self.spool.close()
        self.spool = self.open()
        self.start()

    def receive_encoded(self, syntax: UID, **changes: Any) -> None:
        """Let the eight slices of 1.2.3 arrive and be complete, encoded by another sender."""
        for number in range(1, 9):
            data = encoded(number, syntax, **changes)
            added = self.spool.add("1.2.3", f"1.2.3.{number}", KIND, (data,))
            self.source.arrived(7, Arrival("1.2.3", added.new, added.count))
            if added.changed:
                self.source.changed("1.2.3", f"1.2.3.{number}", added.changed)
        self.source.closed(7, True)
        self.clock.advance(5)

    def let_go(self) -> None:
        """Let the spool let go what is done with."""
        self.time += 101
        self.clock.pump([60, 1])
        self.assertEqual(self.spool.series(), [])

    def receive(
        self,
        numbers: range,
        association: int = 1,
        series: str = "1.2.3",
        released: bool | None = True,
        **changes: Any,
    ) -> None:
        """Let slices of a series arrive on an association; released: None leaves it open."""
        for number in numbers:
            data = file_of(self.base, number, series, **changes)
            added = self.spool.add(series, f"{series}.{number}", KIND, (data,))
            self.source.arrived(association, Arrival(series, added.new, added.count))
        if released is not None:
            self.source.closed(association, released)

    def send(self) -> tuple[Any, list[str]]:
        """Have the next scan acknowledged; return its item and the UIDs in its tar."""
        item = self.successResultOf(self.outbox.next_item())
        assert item is not None
        data = self.successResultOf(self.outbox.read(item, 0, item.size))
        with tarfile.open(fileobj=BytesIO(data)) as tar:
            files = [BytesIO(tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
        self.successResultOf(self.outbox.acknowledged(item, False))
        return item, [str(pydicom.dcmread(file).SOPInstanceUID) for file in files]

    def nothing(self) -> None:
        """See that nothing more is to be sent."""
        waiting = self.outbox.next_item()
        self.assertNoResult(waiting)
        waiting.addErrback(lambda _: None)
        waiting.cancel()

    def state(self, series: str = "1.2.3") -> State | None:
        """Return what the ledger says of a series."""
        latest = self.ledger.latest(series)
        return None if latest is None else latest.state


class ReceivedSourceTests(SourceCase):
    """`ReceivedSource`."""

    def test_aSeries(self) -> None:
        """A received series becomes one scan of all its instances, in order, and the ledger says that it is kept."""
        self.receive(range(8, 0, -1))
        self.clock.advance(5)
        item, sops = self.send()
        self.assertEqual(sops, [f"1.2.3.{number}" for number in range(1, 9)])
        self.assertEqual(
            (item.meta["series_instance_uid"], item.meta["revision"], item.meta["priority"]), ("1.2.3", 1, 5)
        )
        self.assertNotIn("supersedes", item.meta)
        self.assertEqual(self.state(), State.KEPT)
        self.nothing()

    def test_latecomers(self) -> None:
        """Late instances make a new scan of all instances, which names the scan that it takes the place of."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        first, _ = self.send()
        self.receive(range(9, 11), association=2)
        self.clock.advance(5)
        second, sops = self.send()
        self.assertEqual(len(sops), 10)
        self.assertNotEqual(second.id, first.id)
        self.assertEqual((second.meta["revision"], second.meta["supersedes"]), (2, first.id))
        self.nothing()

    def test_latecomersBeforeItWasSent(self) -> None:
        """Where the first scan was not offered yet, only the whole one is."""
        self.receive(range(1, 9))
        self.outbox.stop()
        self.restart()
        self.clock.advance(60)
        item = self.successResultOf(self.outbox.next_item())
        assert item is not None
        self.receive(range(9, 11), association=2)
        self.clock.advance(5)
        self.successResultOf(self.outbox.deferred(item, "busy", "later"))
        self.clock.advance(10)
        second, sops = self.send()
        self.assertEqual((len(sops), second.meta["revision"]), (10, 2))
        self.clock.advance(60)
        self.nothing()

    def test_sentAgain(self) -> None:
        """A series that is sent again, whole, is no news."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.receive(range(1, 9), association=2)
        self.clock.advance(100)
        self.nothing()

    def test_sentAgainWhenItWasRemoved(self) -> None:
        """When it had left the spool meanwhile, the scan is the same, which the HUB knows."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        first, _ = self.send()
        self.time += 101
        self.clock.pump([60, 1])
        self.assertEqual(self.spool.series(), [])
        self.receive(range(1, 9), association=2)
        self.clock.advance(5)
        second, _ = self.send()
        self.assertEqual(second.id, first.id)

    def test_sentAgainInAnotherEncoding(self) -> None:
        """Sent again in another transfer syntax the images are the same: that makes no scan, and is told."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        first, _ = self.send()
        for syntax, words in (
            (ImplicitVRLittleEndian, "came again in another encoding; the HUB has these images"),
            (ExplicitVRBigEndian, "came again in another encoding; the HUB has these images"),
            (JPEGLSLossless, "the HUB has these images, which were not all compared: some are compressed"),
        ):
            self.let_go()
            self.receive_encoded(syntax)
            self.nothing()
            latest = self.ledger.latest("1.2.3")
            assert latest is not None
            self.assertEqual(
                (
                    latest.number,
                    latest.state,
                    latest.scan_id,
                    latest.note is not None and words in latest.note,
                ),
                (1, State.KEPT, first.id, True),
            )
        self.restart()
        self.clock.advance(60)
        self.nothing()
        # A person may want it sent all the same.
        ask(self.spool.root, "1.2.3")
        self.clock.advance(1)
        second, sops = self.send()
        self.assertEqual((len(sops), second.meta["revision"], second.meta["supersedes"]), (8, 2, first.id))

    def test_changedUnderTheSameUids(self) -> None:
        """Images that changed are a new revision in the place of the former, and people are told what changed."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        former, _ = self.send()
        with capturedLogs() as said:
            cases: tuple[tuple[dict[str, Any], str], ...] = (
                ({"PixelData": bytes(128)}, "pixels"),
                ({"PatientID": "CORRECTED", "PixelData": bytes(128)}, "patient or study"),
                (
                    {"PatientID": "CORRECTED", "PixelData": bytes(128), "PixelSpacing": [2, 2]},
                    "size or place",
                ),
            )
            for number, (changes, what) in enumerate(cases, start=2):
                self.let_go()
                self.receive_encoded(ImplicitVRLittleEndian, **changes)
                item, _ = self.send()
                self.assertEqual((item.meta["revision"], item.meta["supersedes"]), (number, former.id))
                latest = self.ledger.latest("1.2.3")
                assert latest is not None
                self.assertEqual(latest.note, f"came again with {what} changed, under the same UIDs")
                former = item
        self.assertEqual(len([event for event in said if event.get("event") == "series.changed"]), 3)

    def test_changedWhileItIsHere(self) -> None:
        """While the spool has the first ones these are kept, and what came later under their UIDs is told, once."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        with capturedLogs() as said:
            self.receive_encoded(ImplicitVRLittleEndian)
            self.receive_encoded(ImplicitVRLittleEndian, PixelData=bytes(128))
        self.nothing()
        self.assertEqual(self.ledger.all_changed(), {"1.2.3": (8, "pixels")})
        self.assertEqual([event["event"] for event in said if "event" in event], ["dicom.differs"])

    def test_forgotten(self) -> None:
        """After ninety days nothing of a series is left in the ledger, and what is younger stays."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.receive_encoded(ImplicitVRLittleEndian, PixelData=bytes(128))
        self.time += 91 * 86400
        self.receive(range(1, 9), series="1.2.4")
        self.clock.advance(5)
        self.send()
        self.clock.pump([60, 1])
        self.assertEqual([revision.series for revision in self.ledger.everything()], ["1.2.4"])
        self.assertEqual((self.ledger.memberships("1.2.3.1"), self.ledger.all_changed()), ([], {}))
        self.assertEqual(len(self.ledger.memberships("1.2.4.1")), 1)

    def test_ledgerOfBefore(self) -> None:
        """A ledger of an earlier version is taken on with all that it has."""
        self.outbox.stop()
        self.ledger.close()
        path = self.spool.root / FILE
        path.unlink()
        with closing(sqlite3.connect(path)) as old:
            old.execute(
                "CREATE TABLE revisions (series TEXT, revision INTEGER, state TEXT NOT NULL, why TEXT, scan_id TEXT,"
                " reason TEXT, at REAL, settled_at REAL, PRIMARY KEY (series, revision)) WITHOUT ROWID"
            )
            old.execute("INSERT INTO revisions VALUES ('1.2.3', 1, 'kept', 'x', 'scan-1', NULL, 1, 2)")
            old.commit()
        self.start()
        latest = self.ledger.latest("1.2.3")
        assert latest is not None
        self.assertEqual((latest.scan_id, latest.note, self.ledger.marks("1.2.3", 1)), ("scan-1", None, {}))

    def late_stranger(self) -> None:
        """Have a series wait for the HUB, and an instance of another patient come late in it."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.receive(range(9, 10), association=2, PatientID="OTHER")
        self.clock.advance(5)
        latest = self.ledger.latest("1.2.3")
        assert latest is not None
        self.assertEqual((latest.number, latest.state), (2, State.UNUSABLE))

    def test_lateStranger(self) -> None:
        """An instance that makes the whole of a series unusable does not keep what waits from being sent."""
        self.late_stranger()
        self.time += 1000
        self.clock.pump([60, 1])
        self.assertEqual(self.spool.series(), ["1.2.3"])
        self.assertEqual(len(self.send()[1]), 8)

    def test_lateStrangerAndKilled(self) -> None:
        """Nor if Fr-PACS is killed before it was sent."""
        self.late_stranger()
        self.restart()
        self.assertEqual(len(self.send()[1]), 8)
        self.nothing()

    def test_begunAgainAndBrokenOff(self) -> None:
        """A part of what the HUB has, sent again alone, is no news; a person may want it sent all the same."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.time += 101
        self.clock.pump([60, 1])
        self.receive(range(1, 4), association=2, released=False)
        self.clock.advance(60)
        self.nothing()
        self.assertEqual(self.spool.series(), [])
        latest = self.ledger.latest("1.2.3")
        assert latest is not None
        self.assertEqual((latest.number, latest.state), (1, State.KEPT))

    def test_partChanged(self) -> None:
        """A part of what the HUB has is no scan though its images changed; that is told, and nothing is lost unseen."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.let_go()
        with capturedLogs() as said:
            self.receive(range(1, 4), association=2, PixelData=bytes(128))
            self.clock.advance(5)
        self.nothing()
        self.assertEqual((self.state(), self.ledger.all_changed()), (State.KEPT, {"1.2.3": (3, "pixels")}))
        [event] = [event for event in said if event.get("event") == "series.changed"]
        self.assertIn("came again with pixels changed, and not whole: send all of it", event["reason"])

    def test_otherRulesSince(self) -> None:
        """What the HUB has stays kept, and committed to, when it comes again under rules that ignore it."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.let_go()
        self.source.rules = Rules(rule=(Rule(name="rest", ignore=True),))
        self.receive(range(1, 9), association=2)
        self.clock.advance(5)
        self.nothing()
        self.assertEqual(self.state(), State.KEPT)

    def test_disconnected(self) -> None:
        """A connection that is gone counts as broken off, unless it is told within a moment that it was released."""
        self.receive(range(1, 9), released=None)
        self.source.disconnected(1)
        self.source.closed(1, True)
        self.clock.pump([1, 4])
        self.assertEqual(len(self.send()[1]), 8)
        self.receive(range(9, 11), association=2, released=None)
        self.source.disconnected(2)
        self.clock.pump([1, 59])
        self.nothing()
        self.clock.advance(1)
        self.assertEqual(len(self.send()[1]), 10)

    def test_killedWhileItArrived(self) -> None:
        """Killed in the middle, what was stored waits for the sender to come again, and is sent once, whole."""
        self.receive(range(1, 5), released=None)
        self.restart()
        self.clock.advance(30)
        self.nothing()
        self.receive(range(1, 9), association=2)
        self.clock.advance(5)
        _, sops = self.send()
        self.assertEqual(sops, [f"1.2.3.{number}" for number in range(1, 9)])
        self.clock.advance(100)
        self.nothing()

    def test_killedBeforeItWasAcknowledged(self) -> None:
        """A series that was complete is offered at once by the next, as the same scan and revision."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        item = self.successResultOf(self.outbox.next_item())
        assert item is not None
        self.restart()
        again, _ = self.send()
        self.assertEqual((again.id, again.meta), (item.id, item.meta))
        self.restart()
        self.clock.advance(100)
        self.nothing()

    def test_interleaved(self) -> None:
        """Two series that arrive in turns on one association are two scans."""
        for number in range(1, 9):
            self.receive(range(number, number + 1), series="1.1", released=None)
            self.receive(range(number, number + 1), series="1.2", released=None)
        self.source.closed(1, True)
        self.clock.advance(5)
        found = {item.meta["series_instance_uid"]: sops for item, sops in (self.send(), self.send())}
        self.assertEqual({uid: len(sops) for uid, sops in found.items()}, {"1.1": 8, "1.2": 8})
        self.assertTrue(all(sop.startswith(uid) for uid, sops in found.items() for sop in sops))

    def test_twoAssociations(self) -> None:
        """One series on two associations, with some instances on both, is one scan with each instance once."""
        self.receive(range(1, 6), association=1, released=None)
        self.receive(range(4, 9), association=2)
        self.source.closed(1, True)
        self.clock.advance(5)
        self.assertEqual(self.send()[1], [f"1.2.3.{number}" for number in range(1, 9)])
        self.nothing()

    def test_ignored(self) -> None:
        """What the rules ignore is not sent; priority and analysis of what they take travel with it."""
        self.source.rules = Rules(
            rule=(
                Rule(name="T1", description="t1", priority=8, analysis="t1-volumes"),
                Rule(name="rest", ignore=True),
            )
        )
        self.receive(range(1, 9))
        self.receive(range(1, 9), series="1.2.4", SeriesDescription="flair")
        self.clock.advance(5)
        item, _ = self.send()
        self.assertEqual((item.meta["priority"], item.meta["analysis"]), (8, "t1-volumes"))
        self.nothing()
        self.assertEqual((self.state("1.2.4"), self.state()), (State.IGNORED, State.KEPT))

    def test_nothingToSend(self) -> None:
        """A localizer, and what is no MR image at all, are noted as unusable with the reason."""
        self.receive(range(1, 9), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        self.receive(range(1, 9), series="1.2.4", Modality="CT")
        self.clock.advance(5)
        self.nothing()
        reasons = {series: self.ledger.latest(series) for series in ("1.2.3", "1.2.4")}
        self.assertEqual({r.state for r in reasons.values() if r}, {State.UNUSABLE})
        self.assertEqual(
            [r.reason for r in reasons.values() if r], ["a localizer", "not an MR image (modality CT)"]
        )

    def test_refused(self) -> None:
        """What the HUB refuses for good is noted with its reason."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        item = self.successResultOf(self.outbox.next_item())
        assert item is not None
        self.successResultOf(self.outbox.refused(item, "too-large", "no"))
        latest = self.ledger.latest("1.2.3")
        assert latest is not None
        self.assertEqual((latest.state, latest.reason), (State.REFUSED, "too-large: no"))

    def test_ledgerFails(self) -> None:
        """A ledger that cannot be written, for want of room say, keeps nothing back for longer than it lasts."""

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        self.receive(range(1, 9))
        with mock.patch.object(self.ledger, "add", fail):
            self.clock.advance(5)
        self.nothing()
        self.clock.advance(60)
        item = self.successResultOf(self.outbox.next_item())
        assert item is not None
        with mock.patch.object(self.ledger, "settle", fail):
            self.successResultOf(self.outbox.acknowledged(item, False))
        self.assertEqual(self.state(), State.COMPLETE)
        self.clock.advance(60)
        again, _ = self.send()
        self.assertEqual((again.id, self.state()), (item.id, State.KEPT))
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 2)

    def test_asked(self) -> None:
        """A person's word is taken within a second, while the association is still open."""
        self.receive(range(1, 9), released=None)
        ask(self.spool.root, "1.2.3")
        self.clock.advance(1)
        self.assertEqual(len(self.send()[1]), 8)
        self.assertEqual(list((self.spool.root / "asked").iterdir()), [])

    def test_tidied(self) -> None:
        """What is kept leaves the spool after its time; what is not stays for ever."""
        self.receive(range(1, 9))
        self.receive(range(1, 9), series="1.2.4")
        self.clock.advance(5)
        self.send()
        self.time += 99
        self.clock.pump([60, 1])
        self.assertEqual(len(self.spool.series()), 2)
        self.time += 2
        self.clock.pump([60, 1])
        self.assertEqual(len(self.spool.series()), 1)
        self.assertEqual(len(self.send()[1]), 8)
