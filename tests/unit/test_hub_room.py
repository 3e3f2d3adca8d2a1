"""Fr-HUB and the room in the store: scans wait with their node before it is full, and nothing else stops."""

from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.hub.intake import ScanIntake
from fr_twisted.hub.room import INTERVAL, Limits, RoomService, free_bytes
from fr_twisted.link.interfaces import Accept
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory
from fr_twisted.model import ScanMeta, ScanState
from fr_twisted.store.interfaces import NewScan, Room, StoreError
from fr_twisted.store.room import read_room, tells_free
from fr_twisted.store.uri import parse
from tests.fakes_link import Wire, make_item
from tests.unit.test_hub_intake import META, IntakeCase

MIB = 1024**2


class RoomCase(IntakeCase):
    """A HUB that looks at the room in its store: 100 MiB are to stay free, and there may be 1000 in it."""

    limits = Limits(min_free=100 * MIB, quota=1000 * MIB, folder=Path("/data"))

    def setUp(self) -> None:
        """Make it, with a store that has room."""
        super().setUp()
        self.events = EventLoggingObserver.createWithCleanup(cast(Any, self), globalLogPublisher)
        self.local_free: int | None = None
        self.store.room_told = Room(500 * MIB, 0)
        self.room = RoomService(
            self.store, self.limits, self.clock, lambda: succeed(None), lambda _: self.local_free
        )
        self.room.startService()
        self.addCleanup(self.room.stopService)
        self.intake = ScanIntake(self.store, self.clock, self.room)

    def logged(self, event: str) -> list[LogEvent]:
        """Return the log lines of that event."""
        return [entry for entry in self.events if entry.get("event") == event]

    def see(self, free: int | None, used: int = 0) -> None:
        """Let the store have so many MiB free and used, and the HUB look."""
        self.store.room_told = Room(None if free is None else free * MIB, used * MIB)
        self.clock.advance(INTERVAL)


class WatermarkTests(RoomCase):
    """When there is too little room."""

    def test_refusedForNow(self) -> None:
        """A scan is refused for now with the reason, nothing of it is written, and it is kept once there is room."""
        self.see(99)
        self.store.calls.clear()
        self.assertEqual(self.offer_again(self.item, b""), ("deferred", "scan-1", "store-full"))
        self.assertEqual(self.store.calls, ["peek_upload"])
        [refused] = self.logged("link.refused")
        self.assertIn("99 MiB are free, FR_STORE_MIN_FREE is 100 MiB", refused["reason"])
        self.see(500)
        content = b"x" * 100
        item = make_item(content, "scan-1", **META)
        self.assertEqual(self.offer_again(item, content), ("acknowledged", "scan-1", False))

    def test_connectionStays(self) -> None:
        """The connection on which a scan was refused goes on, and takes the scan when there is room."""
        content = b"x" * 100
        item = make_item(content, "scan-1", **META)
        self.see(50)
        self.outbox.items.clear()
        self.outbox.add(item, content)
        receivers = ReceiverFactory("hub", self.intake, self.clock)
        senders = ReconnectingSenderFactory("pacs-1", self.outbox, self.clock)
        wire = Wire(receivers.buildProtocol(None), senders.buildProtocol(None))
        wire.flush()
        self.see(500)
        self.outbox.add(item, content)
        wire.flush()
        self.assertEqual(
            self.outbox.outcomes(), [("deferred", "scan-1", "store-full"), ("acknowledged", "scan-1", False)]
        )

    def test_duplicateIsAcknowledged(self) -> None:
        """A scan that is kept is acknowledged however full the store is."""
        content = b"x" * 100
        item = make_item(content, "scan-1", **META)
        self.assertEqual(self.offer_again(item, content), ("acknowledged", "scan-1", False))
        self.see(0)
        self.assertEqual(self.offer_again(item, content), ("acknowledged", "scan-1", True))

    def test_storeDown(self) -> None:
        """With no room and no store a scan is refused for now."""
        self.see(0)
        self.store.down = True
        self.assertEqual(self.offer_again(self.item, b""), ("deferred", "scan-1", "store"))

    def test_toldOnce(self) -> None:
        """That there is no room is logged when it begins, and when it is over."""
        for free in (50, 40, 30):
            self.see(free)
            self.assertIsNotNone(self.room.refusal(1))
        self.assertEqual(len(self.logged("store.full")), 1)
        self.see(500)
        self.see(500)
        self.assertEqual(len(self.logged("store.room")), 1)
        self.see(50)
        self.assertEqual(len(self.logged("store.full")), 2)

    def test_hysteresis(self) -> None:
        """It takes a tenth of the limit more to take scans again than it took to refuse them."""
        self.see(102)
        self.assertIsNone(self.room.refusal(MIB))
        self.see(99)
        for free, taken in ((102, False), (109, False), (112, True), (102, True)):
            self.see(free)
            self.assertEqual(self.room.refusal(MIB) is None, taken, free)

    def test_quota(self) -> None:
        """The quota counts what is in the database, with the same slack."""
        self.see(500, 998)
        self.assertIsNone(self.room.refusal(MIB))
        self.see(500, 1001)
        self.assertIn("1001 MiB are used, FR_STORE_QUOTA is 1000 MiB", self.room.refusal(MIB) or "")
        self.see(500, 950)
        self.assertIsNotNone(self.room.refusal(MIB))
        self.see(500, 890)
        self.assertIsNone(self.room.refusal(MIB))

    def test_largeScan(self) -> None:
        """A scan that does not fit is refused while smaller ones are taken; that is told once, until one would fit."""
        self.see(150)
        for _ in range(3):
            self.assertIn("for a scan of 60 MiB", self.room.refusal(60 * MIB) or "")
            self.assertIsNone(self.room.refusal(40 * MIB))
        self.assertEqual(len(self.logged("store.full")), 1)
        self.see(155)
        self.assertEqual(self.logged("store.room"), [])
        self.see(170)
        self.assertEqual(len(self.logged("store.room")), 1)

    def test_whatIsComing(self) -> None:
        """Between two looks what was let in counts, until a look that began after it came."""
        self.see(200)
        over = self.room.expect(60 * MIB)
        self.assertIsNotNone(self.room.refusal(50 * MIB))
        over()
        over()
        self.assertIsNotNone(self.room.refusal(50 * MIB))
        self.store.hold("room")
        self.see(200)
        late = self.room.expect(45 * MIB)
        late()
        self.store.release()
        self.assertIsNone(self.room.refusal(50 * MIB))
        self.assertIsNotNone(self.room.refusal(60 * MIB))
        self.see(200)
        self.assertIsNone(self.room.refusal(100 * MIB))

    def half_received(self, name: str, kept: int, size: int) -> Any:
        """Return a scan of ``size`` MiB of which ``kept`` are in the store, and what it is made of."""
        content = name[-1:].encode() * size * MIB
        item = make_item(content, name, **META)
        facts = ScanMeta.model_validate(META)
        new = NewScan(name, "pacs-1", item.size, item.sha256, facts)
        upload = self.successResultOf(self.store.scans().begin_upload(new))
        assert upload is not None
        for n in range(kept):
            self.store.chunk_docs[upload.payload_id, n] = content[n * MIB : (n + 1) * MIB]
        return item, content

    def test_resumedNearTheQuota(self) -> None:
        """Two half-received scans are finished where what is wanted of each has room, though both wholes have not."""
        scans = [self.half_received(name, 4, 6) for name in ("scan-a", "scan-b")]
        self.see(500, 995)
        for item, content in scans:
            self.assertEqual(self.offer_again(item, content), ("acknowledged", item.id, False))
        self.assertEqual(self.logged("store.full"), [])

    def test_resumedWithoutRoom(self) -> None:
        """A half-received scan is refused for now where the rest of it has no room, and the upload is left alone."""
        item, content = self.half_received("scan-a", 4, 6)
        before = self.store.upload_docs["scan-a"].token
        self.see(500, 999)
        self.assertEqual(self.offer_again(item, content), ("deferred", "scan-a", "store-full"))
        [refused] = self.logged("link.refused")
        self.assertIn("no room for 2 MiB more of a scan", refused["reason"])
        self.assertEqual(self.store.upload_docs["scan-a"].token, before)

    def test_resumedAfterFull(self) -> None:
        """A half-received scan need not wait for the slack that new ones wait for: it may be what holds the room."""
        item, content = self.half_received("scan-a", 4, 6)
        self.see(500, 1001)
        self.see(500, 995)
        self.assertEqual(self.offer_again(make_item(b"x", "new", **META), b"x")[0], "deferred")
        self.assertEqual(self.offer_again(item, content), ("acknowledged", "scan-a", False))

    def test_resumedIsCountedOnce(self) -> None:
        """Of a resumed scan only what is still wanted is expected, also where the whole would have room."""
        item, _ = self.half_received("scan-a", 4, 6)
        self.see(500, 990)
        verdict = self.successResultOf(self.intake.offered("pacs-1", item))
        self.assertIsInstance(verdict, Accept)
        self.assertIsNone(self.room.refusal(8 * MIB))
        self.assertIsNotNone(self.room.refusal(9 * MIB))

    def test_transfersCount(self) -> None:
        """A scan counts from its offer to its end, whether it is kept, refused, cut or found to be kept already."""
        self.see(200)
        expected: list[int] = []
        over: list[int] = []

        def expect(size: int) -> Any:
            expected.append(size)
            return Mock(side_effect=lambda: over.append(size))

        self.room.expect = expect  # type: ignore[method-assign]
        content = b"x" * 100
        item = make_item(content, "scan-1", **META)
        for op, times in (("begin_upload", 1), ("write_chunk", 2), ("commit", 3)):
            self.store.fail_next(StoreError("x"), op=op)
            self.offer_again(item, content)
            self.assertEqual(len(expected), times)
            self.assertEqual(len(set(over)), 1)
            over.clear()
        self.offer_again(item, content)
        self.assertEqual(set(over), {100})
        over.clear()
        self.offer_again(item, content)
        self.assertEqual(over, [100])

    def test_failedLook(self) -> None:
        """A store that does not answer changes nothing, and is asked again."""
        self.see(50)
        self.store.down = True
        self.see(500)
        self.assertIsNotNone(self.room.refusal(1))
        self.store.down = False
        self.see(500)
        self.assertIsNone(self.room.refusal(1))

    def test_refusedLook(self) -> None:
        """That the store will not tell, as for want of rights, is told once in a row, and each row."""
        for _ in range(2):
            self.store.fail_next(StoreError("the store refused: not allowed (code 13)"), times=2, op="room")
            self.see(500)
            self.see(500)
            self.see(500)
        told = self.logged("store.blind")
        self.assertEqual(len(told), 2)
        self.assertIn("code 13", told[0]["reason"])

    def test_slowLooks(self) -> None:
        """A look that took long is followed by a pause that is longer still."""
        self.store.hold("room")
        self.clock.advance(INTERVAL)
        self.clock.advance(3.0)
        self.store.release()
        asked = self.store.calls.count("room")
        self.clock.advance(59.0)
        self.assertEqual(self.store.calls.count("room"), asked)
        self.clock.advance(1.5)
        self.assertEqual(self.store.calls.count("room"), asked + 1)

    def test_reportsGoOn(self) -> None:
        """Reports are delivered and scans analysed while no new scan is taken."""
        content = b"x" * 100
        self.offer_again(make_item(content, "scan-1", **META), content)
        self.see(0)
        claim = self.successResultOf(self.store.scans().claim("brain", 60))
        assert claim is not None
        self.successResultOf(self.store.scans().fail(claim, "x"))
        self.assertIs(self.store.scan_docs["scan-1"].report_generated, ScanState.FAILED)

    def test_stop(self) -> None:
        """Stopping leaves no timer, in the middle of a look too."""
        self.store.hold("room")
        self.clock.advance(INTERVAL)
        self.room.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SilentStoreTests(RoomCase):
    """A store that does not tell how much is free."""

    limits = Limits(min_free=100 * MIB, folder=Path("/data"))

    def test_folder(self) -> None:
        """The file system of its folder is looked at, where that is on this machine."""
        self.local_free = 50 * MIB
        self.see(None)
        self.assertIsNotNone(self.room.refusal(1))
        self.local_free = 500 * MIB
        self.see(None)
        self.assertIsNone(self.room.refusal(1))
        self.assertEqual(self.logged("store.blind"), [])

    def test_blind(self) -> None:
        """Where there is no folder either, everything is taken, and that the limit has no effect is told once."""
        self.see(None)
        self.see(None)
        self.assertIsNone(self.room.refusal(10**15))
        self.assertEqual(len(self.logged("store.blind")), 1)


class PartsTests(SynchronousTestCase):
    """What it is made of."""

    def test_noLimits(self) -> None:
        """Without limits the store is not asked."""
        room = RoomService(None, Limits(), None, lambda: self.fail("asked"))  # type: ignore[arg-type]
        room.startService()
        self.assertIsNone(room.refusal(10**15))

    def test_notReady(self) -> None:
        """Before the store is open nothing is known, and nothing refused for that."""
        ready: Deferred[None] = Deferred()
        room = RoomService(None, Limits(1), None, lambda: ready)  # type: ignore[arg-type]
        room.startService()
        self.assertIsNone(room.refusal(10**15))
        room.stopService()
        ready.callback(None)

    def test_freeBytes(self) -> None:
        """The free bytes of a folder are told, of one that is not there none."""
        self.assertGreater(free_bytes(Path("/")) or 0, 0)
        self.assertIsNone(free_bytes(Path("/no/such/folder")))

    def test_answers(self) -> None:
        """MongoDB tells what is free; of a cluster the fullest shard counts; the embedded server tells what is used."""
        one = {"dataSize": 5, "indexSize": 2.0, "fsTotalSize": 100.0, "fsUsedSize": 70.0}
        self.assertEqual(read_room(one), Room(30, 7))
        shards = {"a": {"fsTotalSize": 100, "fsUsedSize": 20}, "b": {"fsTotalSize": 100, "fsUsedSize": 95}}
        self.assertEqual(read_room({**one, "raw": shards}), Room(5, 7))
        self.assertEqual(read_room({"dataSize": 5, "indexSize": 2}), Room(None, 7))
        self.assertFalse(tells_free({"version": "8.2.11", "secantusVersion": "0.7"}))
        self.assertTrue(tells_free({"version": "8.2.11"}))

    def test_local(self) -> None:
        """A store is on this machine when all of its hosts are."""
        for uri, local in (
            ("mongodb://127.0.0.1:1/fr", True),
            ("mongodb://[::1]:1,localhost:2/fr", True),
            ("mongodb://127.0.0.1,db2/fr", False),
        ):
            self.assertEqual(parse(uri).is_local, local)
