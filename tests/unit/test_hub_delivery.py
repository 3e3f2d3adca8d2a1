"""Fr-HUB's delivery of reports, from a store in memory over the link."""

import hashlib
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.hub.caretaker import CaretakerService
from fr_twisted.hub.delivery import LEASE, ReportOutbox
from fr_twisted.hub.settling import SettlingService
from fr_twisted.link.interfaces import IOutbox, Item, Refuse
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory
from fr_twisted.model import CHUNK_SIZE, PayloadFormat, ScanMeta
from fr_twisted.store.interfaces import NewReport, NewScan, StoreError
from tests.fakes_link import MemoryIntake, Wire
from tests.fakes_store import MemoryStore

BUNDLE = b"bundle" * (CHUNK_SIZE // 5)


class DeliveryCase(SynchronousTestCase):
    """A store with reports, a HUB's outbox, and the node that they are for."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.store = MemoryStore(self.clock, unit="hub")
        self.outbox = self.make_outbox("hub-1")
        self.intake = MemoryIntake()
        self.events: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def make_outbox(self, owner: str, destination: str = "pacs-1", lease: float = LEASE) -> ReportOutbox:
        """Return the outbox of one HUB."""
        return ReportOutbox(self.store, destination, owner, self.clock, lease=lease, jitter=lambda: 0.0)

    def add_report(self, name: str, source: str = "pacs-1", bundle: bytes = BUNDLE) -> str:
        """Take a scan through the store to its report; return the report's id."""
        scans = self.store.scans()
        meta = ScanMeta(patient_id="P1", format=PayloadFormat.NIFTI)
        sha = hashlib.sha256(name.encode()).hexdigest()
        upload = self.successResultOf(scans.begin_upload(NewScan(name, source, len(name), sha, meta)))
        assert upload is not None
        self.successResultOf(self.store.payloads().write_chunk(upload.payload_id, 0, name.encode()))
        self.successResultOf(scans.commit(upload))
        claim = self.successResultOf(scans.claim("brain", 60))
        assert claim is not None
        report = NewReport(f"report-of-{name}", "stand-in", "1", {"x": 1}, bundle)
        self.successResultOf(scans.complete(claim, report))
        self.clock.advance(0.01)
        return report.report_id

    def connect(self, outbox: ReportOutbox | None = None) -> Wire:
        """Return a new connection from the HUB to the node."""
        receivers = ReceiverFactory("pacs-1", self.intake, self.clock)
        senders = ReconnectingSenderFactory("hub-1", outbox or self.outbox, self.clock)
        return Wire(receivers.buildProtocol(None), senders.buildProtocol(None))

    def run_for(self, wire: Wire, seconds: float) -> None:
        """Let time pass, and bytes go."""
        for _ in range(round(seconds * 10)):
            wire.flush()
            self.clock.advance(0.1)
        wire.flush()

    def stored(self) -> list[str]:
        """Return the ids of the reports that the node has."""
        return [name for name, _ in self.intake.stored]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log events of this name."""
        return [entry for entry in self.events if entry.get("event") == event]


class DeliveryTests(DeliveryCase):
    """Reports on their way."""

    def test_interface(self) -> None:
        """It is what the link asks for."""
        self.assertTrue(verifyObject(IOutbox, self.outbox))

    def test_delivered(self) -> None:
        """A waiting report is sent whole, and its status set when the node acknowledged it."""
        report_id = self.add_report("a")
        self.run_for(self.connect(), 0.1)
        self.assertEqual(self.intake.stored, [(report_id, BUNDLE)])
        report = self.store.report_docs[report_id]
        self.assertTrue(report.status)
        self.assertIsNotNone(report.delivered_at)

    def test_notBeforeAck(self) -> None:
        """Status stays False until the node's acknowledgement."""
        report_id = self.add_report("a")
        self.intake.holding = True
        wire = self.connect()
        self.run_for(wire, 0.5)
        self.assertFalse(self.store.report_docs[report_id].status)
        self.intake.release(len(self.intake.held))
        wire.flush()
        while self.intake.held:
            self.intake.release()
            wire.flush()
        self.assertTrue(self.store.report_docs[report_id].status)

    def test_inOrder(self) -> None:
        """Reports of a node go in the order in which they were made."""
        ids = [self.add_report(name) for name in "cab"]
        self.run_for(self.connect(), 0.1)
        self.assertEqual(self.stored(), ids)

    def test_onlyTheirNode(self) -> None:
        """A report goes to the node that sent its scan."""
        self.add_report("a", source="elsewhere")
        mine = self.add_report("b")
        self.run_for(self.connect(), 3)
        self.assertEqual(self.stored(), [mine])

    def test_wakesUp(self) -> None:
        """A report that is made while the link is idle goes at once where the store says so."""
        wire = self.connect()
        self.run_for(wire, 10)
        report_id = self.add_report("a")
        wire.flush()
        self.assertEqual(self.stored(), [report_id])

    def test_polls(self) -> None:
        """Without change streams it goes within the poll's 2 s."""
        self.store.streams = False
        wire = self.connect()
        self.run_for(wire, 10)
        report_id = self.add_report("a")
        self.run_for(wire, 2.1)
        self.assertEqual(self.stored(), [report_id])

    def test_nodeAway(self) -> None:
        """While the node is away nothing is taken from the store, and everything goes when it is back."""
        report_id = self.add_report("a")
        self.clock.advance(3600)
        self.assertEqual(self.store.report_docs[report_id].attempts, 0)
        self.run_for(self.connect(), 0.1)
        self.assertEqual(self.stored(), [report_id])

    def test_cutAndResumed(self) -> None:
        """A report whose link is cut is due at once, and stored once."""
        report_id = self.add_report("a")
        self.intake.holding = True
        wire = self.connect()
        self.run_for(wire, 0.1)
        wire.cut()
        self.intake.holding = False
        self.run_for(self.connect(), 1)
        self.assertEqual(self.stored(), [report_id])
        self.assertTrue(self.store.report_docs[report_id].status)

    def test_refusedForNow(self) -> None:
        """A report that the node refuses for now is offered again after growing pauses."""
        report_id = self.add_report("a")
        self.intake.refuse = Refuse("full", "the disk is full", retry=True)
        wire = self.connect()
        self.run_for(wire, 20)
        delays = [round(entry["seconds"]) for entry in self.logged("report.deferred")]
        self.assertEqual(delays[:4], [1, 2, 4, 8])
        self.intake.refuse = None
        self.run_for(wire, 20)
        self.assertEqual(self.stored(), [report_id])

    def test_jitterShortens(self) -> None:
        """Chance takes up to a quarter of a pause, so that reports that failed together do not return together."""
        self.outbox = ReportOutbox(self.store, "pacs-1", "hub-1", self.clock, jitter=lambda: 1.0)
        self.add_report("a")
        self.intake.refuse = Refuse("full", "the disk is full", retry=True)
        self.run_for(self.connect(), 10)
        self.assertEqual([entry["seconds"] for entry in self.logged("report.deferred")][:3], [0.75, 1.5, 3.0])

    def test_anyCodeMayPause(self) -> None:
        """A refusal for now is a refusal whatever its code: it pauses."""
        self.add_report("a")
        self.intake.refuse = Refuse("shutdown", "stopping", retry=True)
        self.run_for(self.connect(), 20)
        self.assertLess(len(self.logged("report.deferred")), 6)

    def test_reportThatBreaksItsNode(self) -> None:
        """A report at which the connection breaks each time lets the others pass."""
        bad, good = self.add_report("a"), self.add_report("b")
        offered = self.intake.offered

        def break_at_bad(node: str, item: Item) -> Any:
            if item.id == bad:
                self.clock.callLater(0, lambda: self.wire.cut())
                return Deferred()
            return offered(node, item)

        self.intake.offered = break_at_bad  # type: ignore[method-assign]
        for _ in range(8):
            self.wire = self.connect()
            self.run_for(self.wire, 0.5)
        self.assertEqual(self.stored(), [good])

    def test_survivesADefect(self) -> None:
        """An error that nobody foresaw is logged and does not end the deliveries to the node."""
        report_id = self.add_report("a")
        self.store.fail_next(TypeError("x"), op="take")
        wire = self.connect()
        self.run_for(wire, 5)
        self.assertEqual(self.stored(), [report_id])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_refusedForGood(self) -> None:
        """A report that the node refuses for good is kept aside, said so once, and the next one goes."""
        bad = self.add_report("a")
        self.intake.refuse = Refuse("bad-bundle", "not a report", retry=False)
        wire = self.connect()
        self.run_for(wire, 1)
        self.intake.refuse = None
        good = self.add_report("b")
        self.run_for(wire, 60)
        self.assertEqual(self.stored(), [good])
        self.assertTrue(self.store.report_docs[bad].refused)
        self.assertEqual(len(self.logged("report.refused")), 1)

    def test_twoHubs(self) -> None:
        """Two HUBs on one store send a report once."""
        ids = {self.add_report(name) for name in "abcd"}
        wires = [self.connect(), self.connect(self.make_outbox("hub-2"))]
        for _ in range(5):
            for wire in wires:
                self.run_for(wire, 0.1)
        self.assertEqual(sorted(self.stored()), sorted(ids))
        self.assertEqual(len(self.intake.transfers), 4)

    def test_hubDies(self) -> None:
        """What a HUB that died had taken goes by another when its lease ends."""
        report_id = self.add_report("a")
        self.successResultOf(self.store.reports().take("pacs-1", "hub-dead", LEASE))
        wire = self.connect()
        self.run_for(wire, LEASE - 10)
        self.assertEqual(self.stored(), [])
        self.run_for(wire, 13)
        self.assertEqual(self.stored(), [report_id])

    def test_leaseAsSet(self) -> None:
        """A HUB that was told another lease takes that: when it dies, its reports go by another so much sooner."""
        report_id = self.add_report("a")
        dying = self.make_outbox("hub-dead", lease=7.0).next_item()
        item = self.successResultOf(dying)
        assert item is not None
        self.assertEqual(item.id, report_id)
        wire = self.connect()
        self.run_for(wire, 6)
        self.assertEqual(self.stored(), [])
        self.run_for(wire, 4)
        self.assertEqual(self.stored(), [report_id])

    def test_stop(self) -> None:
        """A stop waits until a report that the end of its link cut short is given back, and no lease is left behind."""
        report_id = self.add_report("a")
        self.intake.holding = True
        wire = self.connect()
        self.run_for(wire, 0.5)
        self.assertIsNotNone(self.store.report_docs[report_id].lease)
        service = SettlingService([self.outbox], 1.0, self.clock)
        service.startService()
        self.store.hold("put_back")
        wire.cut()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.store.release()
        self.successResultOf(stopped)
        self.assertIsNone(self.store.report_docs[report_id].lease)

    def test_stopInVain(self) -> None:
        """A stop does not wait longer than it may for a store that does not answer."""
        self.add_report("a")
        self.store.hold("take")
        wire = self.connect()
        self.run_for(wire, 0.5)
        service = SettlingService([self.outbox], 1.0, self.clock)
        service.startService()
        wire.cut()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(1.1)
        self.successResultOf(stopped)
        self.store.release()

    def test_storeFails(self) -> None:
        """A store that is away is asked again, said so once, and what it could not note is sent and noted once more."""
        report_id = self.add_report("a")
        self.store.fail_next(StoreError("not primary"), op="delivered")
        wire = self.connect()
        self.run_for(wire, 1)
        self.store.down = True
        self.run_for(wire, 30)
        self.store.down = False
        self.assertEqual(len(self.logged("outage.begin")), 2)
        self.run_for(wire, LEASE + 5)
        self.assertEqual(self.stored(), [report_id])
        self.assertTrue(self.store.report_docs[report_id].status)

    def test_givenUpWhileTaken(self) -> None:
        """A report taken at the moment the link goes is put back, due at once."""
        report_id = self.add_report("a")
        self.store.hold("take")
        wire = self.connect()
        wire.flush()
        wire.cut()
        self.store.release()
        self.assertIsNone(self.store.report_docs[report_id].lease)
        self.run_for(self.connect(), 1)
        self.assertEqual(self.stored(), [report_id])


class CaretakerTests(DeliveryCase):
    """`CaretakerService`."""

    def setUp(self) -> None:
        """Make one that knows one node."""
        super().setUp()
        self.store_ready: Deferred[None] = Deferred()
        self.caretaker = CaretakerService(
            self.store, {"pacs-1": "tcp:x:1"}, 60, self.clock, lambda: self.store_ready
        )
        self.caretaker.startService()
        self.addCleanup(self.caretaker.stopService)
        self.assertEqual(self.store.calls, [])
        self.store_ready.callback(None)
        self.assertEqual(self.store.calls, ["repair", "waiting", "clean"])

    def test_unknownNode(self) -> None:
        """Reports for a node that is not configured wait, and are shown when their number changes."""
        self.add_report("a", source="ghost")
        self.add_report("b")
        for _ in range(3):
            self.clock.advance(60)
        [entry] = self.logged("report.unroutable")
        self.assertEqual((entry["peer"], entry["count"]), ("ghost", 1))
        self.add_report("c", source="ghost")
        self.clock.advance(60)
        self.assertEqual(len(self.logged("report.unroutable")), 2)

    def test_oneStepFails(self) -> None:
        """What does not work, for the store or for a defect, holds up nothing else of a round."""
        for error in (StoreError("away"), KeyError("payload_id")):
            self.store.calls.clear()
            failing: Deferred[int] = fail(error)
            self.patch(self.store.scans(), "repair", lambda failing=failing: failing)
            self.clock.advance(60)
            self.assertEqual(self.store.calls, ["waiting", "clean"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_unservedAnalysis(self) -> None:
        """An analysis that no BRAIN runs is logged once, a round after a scan named it, and again when it is lost."""
        wanted = {"t1-volumes"}
        caretaker = CaretakerService(self.store, {}, 60, self.clock, lambda: succeed(None), wanted=wanted)
        caretaker.startService()
        self.addCleanup(caretaker.stopService)
        self.successResultOf(self.store.scans().claim("brain", 60.0, "t1-volumes"))
        self.clock.advance(60)
        wanted.add("lesions")
        self.clock.advance(60)
        self.assertEqual(self.logged("scan.unserved"), [])
        for _ in range(3):
            self.clock.advance(60)
        [entry] = self.logged("scan.unserved")
        self.assertEqual((entry["analysis"], entry["reason"]), ("lesions", "yet"))
        self.successResultOf(self.store.scans().claim("brain", 60.0, "lesions"))
        for _ in range(61):
            self.clock.advance(60)
        told = [(entry["analysis"], entry["reason"]) for entry in self.logged("scan.unserved")[1:]]
        self.assertEqual(told, [("t1-volumes", "in the last hour"), ("lesions", "in the last hour")])

    def test_storeAway(self) -> None:
        """A round that the store fails is followed by another."""
        self.store.down = True
        self.clock.advance(60)
        self.store.down = False
        self.store.calls.clear()
        self.clock.advance(60)
        self.assertEqual(self.store.calls, ["repair", "waiting", "clean"])

    def test_retention(self) -> None:
        """With a limit for it, the bytes of scans that were delivered so long ago are removed, and that is logged."""
        report_id = self.add_report("a")
        report = self.store.report_docs[report_id]
        self.successResultOf(self.store.reports().delivered(report))
        caretaker = CaretakerService(
            self.store, {}, 60, self.clock, lambda: succeed(None), keep_payload_days=2
        )
        caretaker.startService()
        self.addCleanup(caretaker.stopService)
        self.clock.advance(2 * 86400 - 60)
        self.assertEqual(self.logged("scan.payload-removed"), [])
        self.clock.advance(120)
        [entry] = self.logged("scan.payload-removed")
        self.assertEqual((entry["count"], entry["limit"]), (1, 2))
        self.clock.advance(1200)
        scan = self.store.scan_docs[report.scan_id]
        self.assertIsNotNone(scan.payload_removed_at)
        self.assertEqual(self.store.chunk_numbers(scan.payload_id), {})

    def test_stopsInTheMiddle(self) -> None:
        """Stopping does not wait for a round."""
        self.store.hold("waiting")
        self.clock.advance(60)
        self.caretaker.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
