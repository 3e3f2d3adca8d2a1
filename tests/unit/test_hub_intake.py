"""Fr-HUB's intake, over the link, into a store in memory."""

from typing import Any

import bson
from hypothesis import given, settings
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.hub.intake import MAX_META_DEPTH, MOST_WANTED, ScanIntake, unstorable
from fr_twisted.link.interfaces import Accept, IIntake, Item, ITransfer, Refuse
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory
from fr_twisted.model import CHUNK_SIZE, ScanState
from fr_twisted.store.interfaces import ConflictError, StoreError
from tests.fakes_link import MemoryOutbox, Wire, make_item
from tests.fakes_store import MemoryStore
from tests.strategies import METAS

META: dict[str, Any] = {
    "patient_id": "P1",
    "format": "nifti",
    "acquired_at": "2026-01-02T03:04:05+01:00",
    "extra": [1, None],
}
CONTENT = bytes(range(256)) * (CHUNK_SIZE // 256) * 2 + b"the rest"


class IntakeCase(SynchronousTestCase):
    """A HUB and a sender that has scans for it."""

    def setUp(self) -> None:
        """Make both ends."""
        self.clock = Clock()
        self.store = MemoryStore(self.clock, unit="hub")
        self.intake = ScanIntake(self.store, self.clock)
        self.item = make_item(CONTENT, "scan-1", **META)
        self.outbox = MemoryOutbox((self.item, CONTENT))
        self.outbox.retry = False

    def connect(self, node: str = "pacs-1") -> Wire:
        """Return a new connection of ``node``."""
        receivers = ReceiverFactory("hub", self.intake, self.clock)
        senders = ReconnectingSenderFactory(node, self.outbox, self.clock)
        return Wire(receivers.buildProtocol(None), senders.buildProtocol(None))

    def offer_again(self, item: Item, content: bytes) -> tuple[Any, ...]:
        """Offer something on a connection of its own; return how it ended."""
        self.outbox = MemoryOutbox((item, content))
        self.outbox.retry = False
        self.connect().flush()
        [outcome] = self.outbox.outcomes()
        return outcome


class KeepTests(IntakeCase):
    """What is acknowledged is kept."""

    def test_interfaces(self) -> None:
        """It is what the link asks for."""
        self.assertTrue(verifyObject(IIntake, self.intake))
        verdict = self.successResultOf(self.intake.offered("pacs-1", self.item))
        assert isinstance(verdict, Accept)
        self.assertTrue(verifyObject(ITransfer, verdict.transfer))

    def test_kept(self) -> None:
        """A scan that was acknowledged is To Do, with its bytes, its facts and its source."""
        self.connect().flush()
        self.assertEqual(self.outbox.outcomes(), [("acknowledged", "scan-1", False)])
        scan = self.store.scan_docs["scan-1"]
        self.assertIs(scan.report_generated, ScanState.TO_DO)
        self.assertEqual((scan.source, scan.patient_id, scan.size), ("pacs-1", "P1", len(CONTENT)))
        self.assertEqual(scan.meta.model_dump(mode="json")["extra"], [1, None])
        self.assertEqual(self.store.read(scan.payload), CONTENT)

    def test_namedAnalysis(self) -> None:
        """The analyses that accepted scans name are remembered, but never more than so many."""
        wanted: set[str] = set()
        intake = ScanIntake(self.store, self.clock, wanted=wanted)
        for n in range(MOST_WANTED + 5):
            item = make_item(b"x", f"scan-{n}", **META, analysis=f"a{n % 103}")
            self.successResultOf(intake.offered("pacs-1", item))
        self.assertEqual(wanted, {f"a{n}" for n in range(MOST_WANTED)})
        bad = make_item(b"x", "scan-bad", **META, analysis="")
        verdict = self.successResultOf(intake.offered("pacs-1", bad))
        assert isinstance(verdict, Refuse)
        self.assertIn("meta.analysis", verdict.reason)

    def test_notAckedUntilStored(self) -> None:
        """Nothing is acknowledged while the commit is under way, and the scan is not visible."""
        self.store.hold("commit")
        wire = self.connect()
        wire.flush()
        self.assertEqual((self.outbox.outcomes(), self.store.scan_docs), ([], {}))
        self.store.release()
        wire.flush()
        self.assertEqual(self.outbox.outcomes(), [("acknowledged", "scan-1", False)])

    def test_duplicate(self) -> None:
        """A scan that is kept is acknowledged again without its bytes, and stays as it is."""
        self.connect().flush()
        self.store.calls.clear()
        self.assertEqual(self.offer_again(self.item, CONTENT), ("acknowledged", "scan-1", True))
        self.assertNotIn("write_chunk", self.store.calls)
        self.assertEqual(len(self.store.scan_docs), 1)

    def test_resume(self) -> None:
        """After a cut only what is not durable is sent, and the whole is verified."""
        self.store.hold("write_chunk")
        wire = self.connect()
        wire.flush()
        self.store.release(1)
        wire.cut()
        self.store.release()
        self.store.chunk_docs = {key: data for key, data in self.store.chunk_docs.items() if key[1] == 0}
        self.assertEqual(self.offer_again(self.item, CONTENT), ("acknowledged", "scan-1", False))
        self.assertEqual(self.outbox.reads, [CHUNK_SIZE, 2 * CHUNK_SIZE])
        self.assertEqual(self.store.read(self.store.scan_docs["scan-1"].payload), CONTENT)

    def test_resumeAtTheEnd(self) -> None:
        """When only the commit was lost, nothing is sent again."""
        self.store.hold("commit")
        wire = self.connect()
        wire.flush()
        wire.cut()
        self.store._held = None
        self.assertEqual(self.offer_again(self.item, CONTENT), ("acknowledged", "scan-1", False))
        self.assertEqual(self.outbox.reads, [])

    def test_damagedWhileStored(self) -> None:
        """Bytes that were damaged in the store are found by a resume, and the scan is sent anew."""
        self.store.hold("commit")
        wire = self.connect()
        wire.flush()
        wire.cut()
        self.store._held = None
        key = next(key for key in self.store.chunk_docs if key[1] == 1)
        self.store.chunk_docs[key] = b"x" * CHUNK_SIZE
        self.assertEqual(self.offer_again(self.item, CONTENT), ("deferred", "scan-1", "sha256-mismatch"))
        self.assertEqual(self.offer_again(self.item, CONTENT), ("acknowledged", "scan-1", False))
        self.assertEqual(self.store.read(self.store.scan_docs["scan-1"].payload), CONTENT)


class RefuseTests(IntakeCase):
    """What is not kept is said so, for now or for good."""

    def test_otherBytes(self) -> None:
        """An id that is kept with other bytes is refused for good."""
        self.connect().flush()
        other = make_item(b"other", "scan-1", **META)
        self.assertEqual(self.offer_again(other, b"other"), ("refused", "scan-1", "conflict"))

    def test_badMeta(self) -> None:
        """Facts that make no scan are refused for good, before a byte is sent."""
        for meta in (
            {},
            {"patient_id": "P", "format": "jpeg"},
            META | {"deep": {"$set": 1}},
            META | {"n": 2**63},
        ):
            outcome = self.offer_again(make_item(b"x", "bad", **meta), b"x")
            self.assertEqual(outcome, ("refused", "bad", "bad-meta"))
        self.assertEqual(self.store.upload_docs, {})

    def test_unstorableFacts(self) -> None:
        """Facts that the store itself cannot hold are refused for good."""
        self.store.fail_next(ValueError("a document of 17 MB"), op="begin_upload")
        self.assertEqual(self.offer_again(self.item, CONTENT), ("refused", "scan-1", "bad-meta"))

    def test_otherKind(self) -> None:
        """A HUB takes scans only."""
        item = make_item(b"x", "r", kind="report", **META)
        self.assertEqual(self.offer_again(item, b"x"), ("refused", "r", "bad-kind"))

    def test_empty(self) -> None:
        """A scan of no bytes is none."""
        self.assertEqual(self.offer_again(make_item(b"", "e", **META), b""), ("refused", "e", "bad-item"))

    def test_storeDown(self) -> None:
        """While the store is away every offer is refused for now, and the connection stays."""
        self.store.down = True
        wire = self.connect()
        wire.flush()
        self.assertEqual(self.outbox.outcomes(), [("deferred", "scan-1", "store")])
        self.store.down = False
        self.outbox.add(self.item, CONTENT)
        wire.flush()
        self.assertEqual(self.outbox.outcomes()[-1], ("acknowledged", "scan-1", False))

    def test_storeFailsInBetween(self) -> None:
        """A chunk or commit that fails is a refusal for now, after which the scan is kept once."""
        for op in ("write_chunk", "commit"):
            self.store.fail_next(StoreError("not primary"), op=op)
            self.assertEqual(self.offer_again(self.item, CONTENT), ("deferred", "scan-1", "store"))
            self.assertEqual(self.store.scan_docs, {})
        self.assertEqual(self.offer_again(self.item, CONTENT), ("acknowledged", "scan-1", False))

    def test_conflictAtCommit(self) -> None:
        """Losing a race for the id with other bytes is a refusal for good."""
        self.store.fail_next(ConflictError("scan-1 is kept with other bytes"), op="commit")
        self.assertEqual(self.offer_again(self.item, CONTENT), ("refused", "scan-1", "conflict"))

    def test_conflictOfAChunk(self) -> None:
        """A chunk that differs from what came before begins the upload again at 0."""
        self.store.fail_next(ConflictError("chunk 0 is kept with other bytes"), op="write_chunk")
        self.assertEqual(self.offer_again(self.item, CONTENT), ("deferred", "scan-1", "not-kept"))
        self.assertEqual(self.store.upload_docs, {})
        self.assertEqual(self.offer_again(self.item, CONTENT), ("acknowledged", "scan-1", False))


class UnstorableTests(SynchronousTestCase):
    """`unstorable`."""

    def test_depth(self) -> None:
        """Nesting is bounded."""
        value: Any = 1
        for _ in range(MAX_META_DEPTH + 1):
            value = [value]
        self.assertIn("levels", unstorable(value) or "")
        self.assertIsNone(unstorable(value[0]))

    @settings(deadline=None)
    @given(METAS)
    def test_whatPassesIsBson(self, meta: dict[str, Any]) -> None:
        """Whatever passes can be written as BSON."""
        if unstorable(meta) is None:
            self.assertEqual(bson.decode(bson.encode({"meta": meta}))["meta"], meta)
