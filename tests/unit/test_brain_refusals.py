"""Fr-BRAIN and a store that answers, and yet does not take what it is told."""

from typing import Any, cast

from twisted.internet.defer import Deferred, fail

from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.brain.ipool import WorkerCrashedError
from fr_twisted.model import ScanState
from fr_twisted.store.interfaces import Claim, StoreError, StoreFullError
from fr_twisted.store.retry import ServerError
from tests.unit.test_brain_service import BrainCase


class RefusingCase(BrainCase):
    """With a store that answers, and yet will not take what it is told."""

    refusal = ServerError("set a scan Done: the store refused: too large after update (code 17419)", 17419)

    def refuse(self, op: str, scan_id: str = "scan-1", error: Exception | None = None) -> None:
        """Have every ``op`` for that scan end in ``error``."""
        scans = self.store.scans()
        real = getattr(scans, op)

        def refusing(claim: Claim, *arguments: Any) -> Deferred[Any]:
            if claim.scan.scan_id == scan_id:
                return fail(error or self.refusal)
            return cast("Deferred[Any]", real(claim, *arguments))

        self.patch(scans, op, refusing)

    def error(self) -> str:
        """Return what is kept as the scan's error."""
        return self.store.scan_docs["scan-1"].error or ""


class RefusingStoreTests(RefusingCase):
    """Answers of a store that do not pass."""

    def test_report(self) -> None:
        """A report that is refused for good costs the attempt; in the end the scan is Failed with the true reason."""
        self.keep()
        self.keep("scan-2")
        self.refuse("complete")
        self.begin()
        self.clock.pump([1.0] * 290)
        self.assertEqual(len(self.pool.jobs), 1)
        self.clock.pump([1.0] * 900)
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertRegex(self.error(), "^after 3 attempts: .*17419")
        self.assertEqual([job.scan_id for job in self.pool.jobs].count("scan-1"), 3)
        self.assertEqual(self.state("scan-2"), ScanState.DONE)
        self.assertIn("17419", self.said("scan.retry")[0]["reason"])

    def test_payload(self) -> None:
        """So does a payload that the store will not give."""
        self.keep()
        self.store.fail_next(self.refusal, times=10_000, op="read_chunks")
        self.begin()
        self.clock.pump([1.0] * 1200)
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertRegex(self.error(), "^after 3 attempts: .*17419")
        self.assertEqual(self.pool.jobs, [])

    def test_verdict(self) -> None:
        """A verdict that is refused for good is given up soon: the scan is left to its lease, the slot to others."""
        self.keep()
        self.keep("scan-2")
        self.pool.failures = [UnusableScanError("no brain in it")]
        self.refuse("fail")
        self.begin()
        self.clock.pump([1.0] * 100)
        self.assertEqual(self.state("scan-2"), ScanState.DONE)
        self.assertRegex(self.said("scan.left")[0]["reason"], "17419.* renews")

    def test_full(self) -> None:
        """A store that is full, though small writes still work, is waited for: it is not the scan's fault."""
        self.keep()
        self.refuse("complete", error=StoreFullError("keep a report: the store is full (code 14031)"))
        self.begin()
        self.clock.pump([1.0] * 2000)
        self.assertEqual((self.brain.working_on, len(self.pool.jobs)), (["scan-1"], 1))
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 1)
        self.assertIn("is full", self.said("outage.begin")[0]["reason"])

    def test_awayForLong(self) -> None:
        """A store that is away altogether is waited for however long it takes: nothing is done twice."""
        self.keep()
        self.pool.holding = True
        self.begin()
        self.store.down = True
        self.pool.go_on()
        self.clock.pump([1.0] * 4000)
        self.store.down = False
        self.until(lambda: self.state() is ScanState.DONE, 31.0)
        self.assertEqual(len(self.pool.jobs), 1)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 1)

    def test_awayOnAndOff(self) -> None:
        """A store that comes and goes is waited for too."""
        self.keep()
        self.refuse("complete", error=StoreError("no answer"))
        self.begin()
        for _ in range(10):
            self.clock.pump([1.0] * 100)
            self.store.fail_next(op="renew")
        self.assertEqual(self.brain.working_on, ["scan-1"])
        self.assertEqual(len(self.pool.jobs), 1)


class UnstorableTests(RefusingCase):
    """Words and findings that no store can keep."""

    unstorable = ValueError("set a scan Done: it holds a value that the store cannot keep (OverflowError)")

    def test_findings(self) -> None:
        """A scan whose findings cannot be stored is Failed at once, and the reason says so; the log quotes nothing."""
        self.keep()
        self.refuse("complete", error=self.unstorable)
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertEqual(self.error(), f"its findings cannot be stored: {self.unstorable}")
        self.assertEqual(len(self.pool.jobs), 1)
        [failed] = self.said("scan.failed")
        self.assertIn("its findings cannot be stored", failed["reason"])
        self.assertNotIn(str(self.unstorable), repr(list(self.events)))

    def picky(self, op: str) -> None:
        """Have ``op`` take plain text alone."""
        scans = self.store.scans()
        real = getattr(scans, op)

        def picky(claim: Claim, error: str | None, *arguments: Any) -> Deferred[Any]:
            if error is not None and not (error.isascii() and error.isprintable()):
                return fail(self.unstorable)
            return cast("Deferred[Any]", real(claim, error, *arguments))

        self.patch(scans, op, picky)

    def test_verdict(self) -> None:
        """A reason that cannot be stored is stored in plain characters."""
        self.keep()
        self.picky("fail")
        self.pool.failures = [UnusableScanError("it is \xfc odd\1")]
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertEqual(self.error(), "it is ? odd?")

    def test_retry(self) -> None:
        """So is the reason for another attempt, which is counted."""
        self.keep()
        self.picky("release")
        self.pool.failures = [WorkerCrashedError("crash", "last \xfc words")]
        self.begin()
        released = next(e for e in self.store.scan_docs["scan-1"].history if e.event == "released")
        self.assertEqual(released.detail, "crash: last ? words")
        self.clock.advance(0)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 2)

    def test_notEvenPlain(self) -> None:
        """What is not taken even so is left to the lease, with a line that says why, and the slot works on."""
        self.keep()
        self.keep("scan-2")
        self.refuse("fail", error=self.unstorable)
        self.pool.failures = [UnusableScanError("no brain in it")]
        self.begin()
        self.clock.advance(0)
        self.assertEqual(self.state("scan-2"), ScanState.DONE)
        self.assertIn("cannot be stored", self.said("scan.left")[0]["reason"])
