"""The memory twin offers what the interfaces promise, and its knobs work."""

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.store.interfaces import IPayloads, IReports, IScans, IStore, StoreError
from fr_twisted.store.ioperators import IOperators
from tests.fakes_store import MemoryStore
from tests.store_behaviour import NODE, Bench


class MemoryStoreTests(SynchronousTestCase):
    """`MemoryStore` itself."""

    def setUp(self) -> None:
        """Make a store."""
        self.clock = Clock()
        self.store = MemoryStore(self.clock)

    def test_interfaces(self) -> None:
        """It provides all four interfaces, method by method."""
        self.assertTrue(verifyObject(IStore, self.store))
        self.assertTrue(verifyObject(IPayloads, self.store.payloads()))
        self.assertTrue(verifyObject(IScans, self.store.scans()))
        self.assertTrue(verifyObject(IOperators, self.store.operators()))
        self.assertTrue(verifyObject(IReports, self.store.reports()))

    def test_hold(self) -> None:
        """A held operation takes effect when it is released, and others are not held."""
        self.store.hold("write_chunk")
        written = self.store.payloads().write_chunk("p", 0, b"abc")
        self.assertNoResult(written)
        self.assertEqual(self.store.chunk_docs, {})
        self.successResultOf(self.store.now())
        self.assertEqual(self.store.held, 1)
        self.store.release()
        self.successResultOf(written)
        self.assertEqual(self.store.chunk_docs, {("p", 0): b"abc"})

    def test_releaseSome(self) -> None:
        """Held operations are released in order, as many as asked for; cancelled ones take no effect."""
        self.store.hold()
        first, second, third = (self.store.payloads().write_chunk("p", n, b"abc") for n in range(3))
        second.cancel()
        self.failureResultOf(second)
        self.store.release(2)
        self.successResultOf(first)
        self.assertNoResult(third)
        self.store.release()
        self.successResultOf(third)
        self.assertEqual(set(self.store.chunk_docs), {("p", 0), ("p", 2)})

    def test_failNext(self) -> None:
        """So many operations of that name fail without effect, then they work again."""
        self.store.fail_next(KeyError("x"), op="write_chunk", times=2)
        self.successResultOf(self.store.now())
        for _ in range(2):
            self.failureResultOf(self.store.payloads().write_chunk("p", 0, b"abc"), KeyError)
        self.assertEqual(self.store.chunk_docs, {})
        self.successResultOf(self.store.payloads().write_chunk("p", 0, b"abc"))

    def test_undatedReport(self) -> None:
        """A report without a date, as one set back from refused, is due now."""
        bench = Bench(self.store, lambda _: succeed(None))
        reports = self.store.reports()
        report = self.successResultOf(Deferred.fromCoroutine(bench.report()))
        self.successResultOf(reports.refused(report, "x"))
        self.assertIsNone(self.successResultOf(reports.next_due(NODE)))
        refused = self.store.report_docs[report.report_id]
        self.store.report_docs[report.report_id] = refused.model_copy(update={"refused": False})
        self.assertEqual(self.successResultOf(reports.next_due(NODE)), 0)
        self.assertIsNotNone(self.successResultOf(reports.take(NODE, "hub", 60.0)))

    def test_down(self) -> None:
        """While it is down everything errbacks with a StoreError, held operations too."""
        self.store.hold()
        held = self.store.now()
        self.store.down = True
        self.failureResultOf(self.store.open(), StoreError)
        self.store.release()
        self.failureResultOf(held, StoreError)
        self.store.down = False
        self.successResultOf(self.store.open())
        self.assertEqual(self.store.calls, ["now", "open", "open"])
