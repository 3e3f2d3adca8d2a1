"""Fr-BRAIN from claim to report, on a store in memory and a pool without processes."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.brain.attempt import Rules
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.brain.ipool import (
    AnalysisBrokeError,
    IPool,
    ISlot,
    OverTimeError,
    PoolError,
    WorkerCrashedError,
)
from fr_twisted.brain.pool import AnalysisPool
from fr_twisted.brain.service import BrainService, idle_policy
from fr_twisted.brain.tenure import Surroundings
from fr_twisted.model import CHUNK_SIZE, PayloadFormat, ScanMeta, ScanState, make_report_id
from fr_twisted.ops.services import IReady, StartError
from fr_twisted.ops.workdir import WorkDir
from fr_twisted.store.interfaces import Claim, NewScan, StaleTokenError, StoreError
from tests.fakes_brain import InlinePool, InlineSlot
from tests.fakes_store import START, MemoryStore

LEASE = 30.0
PATIENT = "PATIENT-4711"


class BrainCase(SynchronousTestCase):
    """A BRAIN that is started by `begin`, with a scan or two."""

    analysis = "tests.analyses_for_tests:QUICK"

    def setUp(self) -> None:
        """Make the parts."""
        self.clock = Clock()
        self.store = MemoryStore(self.clock, unit="brain")
        self.pool = InlinePool(slots=1)
        self.base = Path(self.mktemp()).absolute()
        self.events = EventLoggingObserver.createWithCleanup(cast(Any, self), globalLogPublisher)
        self.store_ready: Deferred[None] = succeed(None)
        self.brain = self.make_brain("brain-1")

    def make_brain(self, owner: str, pool: InlinePool | None = None, **extra: Any) -> BrainService:
        """Return a service that is not yet started."""
        around = Surroundings(
            self.store,
            self.clock,
            lambda function, *arguments: maybeDeferred(function, *arguments),
            WorkDir(self.base, owner),
            policy=lambda attempt: min(30.0, 0.5 * 2.0**attempt),
        )
        rules = Rules(owner, self.analysis, LEASE, max_attempts=3)
        return BrainService(
            pool or self.pool,
            rules,
            around,
            stop_timeout=4.0,
            store_ready=lambda: self.store_ready,
            idle=idle_policy(jitter=lambda: 0.0),
        )

    def begin(self) -> None:
        """Start the service."""
        self.brain.startService()
        self.addCleanup(self.end)

    def end(self) -> None:
        """Stop the service, and see that nothing is left of it."""
        if self.brain.running:
            self.store.down = False
            stopping = self.brain.stopService()
            self.clock.pump([0.5] * 20)
            self.successResultOf(stopping)
        # What the store in memory had still to tell.
        self.clock.advance(0)
        self.assertEqual([p for p in self.base.glob("*") if p.is_dir()], [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def keep(
        self,
        scan_id: str = "scan-1",
        data: bytes = b"voxels" * 1000,
        priority: int = 5,
        analysis: str | None = None,
    ) -> bytes:
        """Have a scan in the store, To Do."""
        meta = ScanMeta(
            patient_id=PATIENT, format=PayloadFormat.NIFTI_GZ, priority=priority, analysis=analysis
        )
        scan = NewScan(scan_id, "pacs-1", len(data), hashlib.sha256(data).hexdigest(), meta)
        upload = self.successResultOf(self.store.scans().begin_upload(scan))
        assert upload is not None
        for n in range(-(-len(data) // CHUNK_SIZE)):
            chunk = data[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
            self.successResultOf(self.store.payloads().write_chunk(upload.payload_id, n, chunk))
        self.successResultOf(self.store.scans().commit(upload))
        return data

    def state(self, scan_id: str = "scan-1") -> ScanState:
        """Return a scan's state."""
        return self.store.scan_docs[scan_id].report_generated

    def slot(self) -> InlineSlot:
        """Return the one slot that works."""
        [slot] = self.pool.busy
        return slot

    def said(self, event: str) -> list[LogEvent]:
        """Return the log events of that name."""
        return [e for e in self.events if e.get("event") == event]

    def until(self, condition: Callable[[], bool], limit: float = 120.0) -> float:
        """Let time pass until ``condition`` holds; return how long it took."""
        began = self.clock.seconds()
        while not condition():
            self.assertLess(self.clock.seconds() - began, limit, "it never came to it")
            self.clock.advance(0.05)
        return self.clock.seconds() - began


class InterfaceTests(BrainCase):
    """The seams."""

    def test_interfaces(self) -> None:
        """The pool of processes and its stand-in provide the same interface, the service the unit's."""
        real = AnalysisPool(self.clock, self.analysis, slots=1, time_limit=1, limits=None)  # type: ignore[arg-type]
        for pool in (real, self.pool):
            self.assertTrue(verifyObject(IPool, pool))
        self.assertTrue(verifyObject(ISlot, InlineSlot(self.pool)))
        self.assertTrue(verifyObject(IReady, self.brain))


class WayTests(BrainCase):
    """A scan's ordinary way."""

    def test_report(self) -> None:
        """A scan becomes Done with a report of what was in it, addressed to where it came from."""
        data = self.keep(data=bytes(range(256)) * 4096 * 5)
        self.begin()
        self.assertEqual(self.state(), ScanState.DONE)
        [report] = self.store.report_docs.values()
        self.assertEqual(report.report_id, make_report_id("scan-1", "quick", "1"))
        self.assertEqual(report.findings["sha256"], hashlib.sha256(data).hexdigest())
        self.assertEqual(report.findings["file"], "payload.nii.gz")
        self.assertEqual((report.destination, report.patient_id), ("pacs-1", PATIENT))
        self.assertIn(b"overlay.png", self.store.read(report.payload))

    def test_logged(self) -> None:
        """Each step is one event with its figures, and no event names the patient."""
        self.keep()
        self.begin()
        [claimed], [fetched] = self.said("scan.claimed"), self.said("scan.fetched")
        [analysed], [done] = self.said("scan.analysed"), self.said("scan.done")
        self.assertEqual((claimed["scan_id"], claimed["attempt"]), ("scan-1", 1))
        self.assertEqual(fetched["bytes"], 6000)
        self.assertGreaterEqual(analysed["cpu"], 0)
        self.assertEqual(done["report_id"], make_report_id("scan-1", "quick", "1"))
        self.assertNotIn(PATIENT, repr(list(self.events)))

    def test_waitsForTheStore(self) -> None:
        """Nothing is claimed before the store is open; the service is ready after it is."""
        self.keep()
        self.store_ready = Deferred()
        self.begin()
        ready = self.brain.when_ready()
        self.assertNoResult(ready)
        self.assertNotIn("claim", self.store.calls)
        self.store_ready.callback(None)
        self.successResultOf(ready)
        self.assertEqual(self.state(), ScanState.DONE)

    def test_priority(self) -> None:
        """The most urgent scan is worked on first."""
        self.keep("scan-1", priority=1)
        self.keep("scan-2", priority=9)
        self.begin()
        self.assertEqual([e["scan_id"] for e in self.said("scan.done")], ["scan-2", "scan-1"])

    def test_neverMoreThanSlots(self) -> None:
        """No more is claimed than can be worked on; a slot that becomes free is used at once."""
        self.pool = InlinePool(slots=2)
        self.pool.holding = True
        self.brain = self.make_brain("brain-1")
        for n in range(5):
            self.keep(f"scan-{n}")
        self.begin()
        self.clock.pump([0.5] * 10)
        self.assertEqual(len(self.brain.working_on), 2)
        states = [scan.report_generated for scan in self.store.scan_docs.values()]
        self.assertEqual(states.count(ScanState.IN_PROGRESS), 2)
        self.assertEqual(states.count(ScanState.TO_DO), 3)
        next(iter(self.pool.busy)).go_on()
        states = [scan.report_generated for scan in self.store.scan_docs.values()]
        self.assertEqual(states.count(ScanState.DONE), 1)
        self.assertEqual(states.count(ScanState.IN_PROGRESS), 2)

    def test_filesRemoved(self) -> None:
        """Nothing of a scan stays on disk after it, however it ended."""
        for n, error in enumerate([None, UnusableScanError("no"), WorkerCrashedError("crash")]):
            self.keep(f"scan-{n}")
            self.pool.failures = [error] if error else []
            if not self.brain.running:
                self.begin()
            self.clock.advance(0)
            work = self.brain._around.work.path
            self.assertEqual([p.name for p in work.iterdir() if p.is_dir()], [], error)
            self.assertFalse(self.pool.jobs[-1].payload.exists())


class WakingTests(BrainCase):
    """How soon a new scan is seen."""

    def test_change(self) -> None:
        """Where the store tells of new scans, an idle BRAIN claims at once."""
        self.begin()
        self.clock.pump([0.5] * 20)
        self.keep()
        self.clock.advance(0)
        self.assertEqual(self.state(), ScanState.DONE)

    def test_poll(self) -> None:
        """Without that it looks by itself: soon at first, then every 2 s at most."""
        self.store.streams = False
        self.begin()
        self.clock.advance(0.11)
        self.assertEqual(self.store.calls.count("claim"), 2)
        self.clock.pump([0.05] * 1200)
        self.store.calls.clear()
        self.clock.pump([0.05] * 400)
        self.assertIn(self.store.calls.count("claim"), range(10, 13))
        self.keep()
        self.assertLessEqual(self.until(lambda: self.state() is ScanState.DONE), 2.0)

    def test_jitter(self) -> None:
        """Looks are spread between 0.1 and 2 s."""
        policy = idle_policy()
        for looks in range(40):
            self.assertGreaterEqual(policy(looks), 0.1)
            self.assertLessEqual(policy(looks), 2.0)
        self.assertGreater(len({policy(30) for _ in range(5)}), 1)

    def test_wokenWhileAsking(self) -> None:
        """A scan that arrives while the store is being asked is not left for the next look."""
        self.store.hold("claim")
        self.begin()
        self.brain._wake()
        claims = self.store.calls.count("claim")
        self.store.release(1)
        self.assertEqual(self.store.calls.count("claim"), claims + 1)
        self.store.release()

    def test_otherAnalysis(self) -> None:
        """A scan for another analysis is left alone; one that names ours is analysed."""
        self.keep("scan-other", analysis="another")
        self.keep("scan-ours", analysis=self.analysis)
        self.begin()
        self.assertEqual(self.state("scan-other"), ScanState.TO_DO)
        self.assertEqual(self.state("scan-ours"), ScanState.DONE)
        self.assertEqual(self.store.scan_docs["scan-other"].attempts, 0)

    def test_leaseThatEnded(self) -> None:
        """A scan of a BRAIN that fell silent is taken over after its lease."""
        self.keep()
        self.successResultOf(self.store.scans().claim("dead", LEASE))
        self.begin()
        self.clock.advance(LEASE - 1)
        self.assertEqual(self.state(), ScanState.IN_PROGRESS)
        self.until(lambda: self.state() is ScanState.DONE, 3.5)


class LeaseTests(BrainCase):
    """Leases while an analysis runs."""

    def setUp(self) -> None:
        """Have an analysis that takes its time."""
        super().setUp()
        self.keep()
        self.pool.holding = True

    def test_renewed(self) -> None:
        """The lease is renewed every third of it for as long as the work lasts."""
        self.begin()
        self.clock.pump([1.0] * 300)
        self.assertIn(self.store.calls.count("renew"), range(29, 31))
        self.assertIsNone(self.successResultOf(self.store.scans().claim("other", LEASE)))
        self.pool.go_on()
        self.assertEqual(self.state(), ScanState.DONE)

    def test_survivesLostRenewals(self) -> None:
        """Two renewals in a row may fail without harm, and without a word."""
        self.begin()
        self.store.fail_next(times=2, op="renew")
        self.clock.pump([1.0] * 29)
        self.assertEqual(self.brain.working_on, ["scan-1"])
        self.clock.pump([1.0] * 20)
        self.assertIsNone(self.successResultOf(self.store.scans().claim("other", LEASE)))
        self.pool.go_on()
        self.assertEqual(self.state(), ScanState.DONE)

    def test_takenOver(self) -> None:
        """Once the lease was taken over the job is killed and nothing is written."""
        self.begin()
        self.store.fail_next(times=20, op="renew")
        self.clock.pump([1.0] * 35)
        other = self.successResultOf(self.store.scans().claim("other", 1000.0))
        assert other is not None
        self.store._failures.clear()
        self.clock.pump([1.0] * 11)
        self.assertEqual(self.pool.events["killed"], 1)
        self.assertEqual(self.brain.working_on, [])
        self.assertEqual(len(self.said("scan.lost")), 1)
        self.assertEqual(self.store.report_docs, {})
        lease = self.store.scan_docs["scan-1"].lease
        assert lease is not None
        self.assertEqual(lease.owner, "other")

    def test_lateFinisher(self) -> None:
        """A result that comes after the lease was taken over is dropped."""
        self.begin()
        self.store.fail_next(times=20, op="renew")
        self.clock.pump([1.0] * 35)
        self.successResultOf(self.store.scans().claim("other", 1000.0))
        self.pool.go_on()
        self.assertEqual(self.store.report_docs, {})
        self.assertEqual(self.state(), ScanState.IN_PROGRESS)
        self.assertEqual(len(self.said("scan.lost")), 1)


class FailureTests(BrainCase):
    """What becomes of a scan that cannot be analysed."""

    def test_refused(self) -> None:
        """A scan that the analysis refuses is Failed at once, with the analysis' reason."""
        self.analysis = "tests.analyses_for_tests:REFUSING"
        self.brain = self.make_brain("brain-1")
        self.keep()
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertIn("3 slices", self.store.scan_docs["scan-1"].error or "")
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 1)
        self.assertIn("3 slices", self.said("scan.failed")[0]["reason"])

    def test_triedAgain(self) -> None:
        """A scan whose worker died is tried again and may well succeed."""
        self.pool.failures = [WorkerCrashedError("its process was killed by SIGSEGV", "last words")]
        self.keep()
        self.begin()
        self.clock.advance(0)
        self.assertEqual(self.state(), ScanState.DONE)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 2)
        [retry] = self.said("scan.retry")
        self.assertEqual((retry["attempt"], retry["scan_id"]), (1, "scan-1"))

    def test_givenUp(self) -> None:
        """After the last attempt it is Failed, with the reason and the last words; the log keeps the words out."""
        self.pool.failures = [
            WorkerCrashedError("its process was killed by SIGSEGV"),
            OverTimeError("the analysis ran past its time of 600 s"),
            AnalysisBrokeError("the analysis broke: ValueError in a.py:1 f", "the words of a header"),
        ]
        self.keep()
        self.begin()
        self.clock.pump([0] * 5)
        self.assertEqual(self.state(), ScanState.FAILED)
        error = self.store.scan_docs["scan-1"].error
        self.assertEqual(
            error, "after 3 attempts: the analysis broke: ValueError in a.py:1 f: the words of a header"
        )
        self.assertEqual(self.said("scan.failed")[0]["reason"], (error or "").rpartition(":")[0])
        self.assertEqual(len(self.said("scan.retry")), 2)
        self.assertNotIn("the words of a header", repr([e for e in self.events if "scan_id" in e]))

    def test_killedItsBrains(self) -> None:
        """A scan at which BRAIN after BRAIN died is Failed without another attempt."""
        self.keep()
        for n in range(3):
            self.successResultOf(self.store.scans().claim(f"dead-{n}", 1.0))
            self.clock.advance(2.0)
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertEqual(self.pool.jobs, [])
        self.assertRegex(self.store.scan_docs["scan-1"].error or "", "^after 3 attempts: each time the BRAIN")

    def test_killedItsLastBrain(self) -> None:
        """When the last attempts ended without a word, that is the reason, beside what is known of earlier ones."""
        self.keep()
        claim = self.successResultOf(self.store.scans().claim("brain-0", 60.0))
        assert claim is not None
        self.successResultOf(self.store.scans().release(claim, "the analysis broke: ValueError", True))
        for n in range(2):
            self.successResultOf(self.store.scans().claim(f"dead-{n}", 1.0))
            self.clock.advance(2.0)
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertRegex(
            self.store.scan_docs["scan-1"].error or "",
            "^after 3 attempts: the last time the BRAIN .*want of memory.*; before: the analysis broke: ValueError$",
        )

    def test_removedPayload(self) -> None:
        """A scan whose bytes were removed after its report was delivered is not analysed anew; the reason says so."""
        self.keep()
        scan = self.store.scan_docs["scan-1"]
        gone = scan.model_copy(update={"payload_removed_at": START})
        self.store.scan_docs["scan-1"] = gone
        self.begin()
        self.assertEqual((self.state(), self.pool.jobs), (ScanState.FAILED, []))
        self.assertRegex(
            self.store.scan_docs["scan-1"].error or "", "removed on 2026-01-01, as FR_KEEP_PAYLOAD_DAYS says"
        )

    def test_damagedPayload(self) -> None:
        """A scan whose bytes are not what was acknowledged is Failed and not analysed, until it is sent once more."""
        self.keep()
        payload_id = self.store.scan_docs["scan-1"].payload_id
        self.store.chunk_docs[payload_id, 0] = b"other!" * 1000
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        scan = self.store.scan_docs["scan-1"]
        self.assertIn("SHA-256", scan.error or "")
        self.assertIn("sent once more", scan.error or "")
        self.assertIsNotNone(scan.payload_broken_at)
        self.assertEqual(self.pool.jobs, [])
        # Whoever still has it sends it once more, and it is analysed.
        self.keep()
        self.clock.advance(0)
        self.assertEqual(self.state(), ScanState.DONE)

    def test_missingPayload(self) -> None:
        """A scan with a chunk missing is Failed, and the reason says so."""
        self.keep()
        self.store.chunk_docs.clear()
        self.begin()
        self.assertEqual(self.state(), ScanState.FAILED)
        self.assertIn("chunk 0", self.store.scan_docs["scan-1"].error or "")
        self.assertIsNotNone(self.store.scan_docs["scan-1"].payload_broken_at)

    def test_troubleOfOurOwn(self) -> None:
        """When this BRAIN cannot work, the scan is given back uncounted and nothing is claimed for a while."""
        self.pool.failures = [PoolError("no worker could be started")]
        self.keep()
        self.begin()
        self.clock.advance(0.9)
        self.assertEqual(self.state(), ScanState.TO_DO)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 0)
        self.assertEqual(len(self.said("outage.begin")), 1)
        self.until(lambda: self.state() is ScanState.DONE, 5.0)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 1)
        self.assertEqual(len(self.said("outage.over")), 1)

    def test_scanThatNeverFits(self) -> None:
        """A scan that is larger than the work folder's disk is tried as often as any, and is not in others' way."""
        usage = shutil.disk_usage
        self.patch(shutil, "disk_usage", lambda path: usage(path)._replace(total=4000))
        self.keep("scan-big", data=b"x" * 5000, priority=9)
        self.keep("scan-small", data=b"x" * 3000)
        self.begin()
        self.until(lambda: self.state("scan-small") is ScanState.DONE)
        self.until(lambda: self.state("scan-big") is ScanState.FAILED)
        error = self.store.scan_docs["scan-big"].error or ""
        self.assertIn("it has 5000 bytes, and the work folder", error)

    def no_room_for(self, scan_ids: list[str]) -> list[str]:
        """Let the work folder have no room now for some scans; return the scans that are tried, as they come."""
        tried: list[str] = []
        make = WorkDir.make

        def full(folder: WorkDir, name: str, size: int = 0) -> Path:
            tried.append(name)
            if name in scan_ids:
                raise OSError(errno.ENOSPC, "No space left on device")
            return make(folder, name, size)

        self.patch(WorkDir, "make", full)
        return tried

    def test_scanThatDoesNotFitNow(self) -> None:
        """A scan for which there is no room now holds up nothing behind it, and is tried again from time to time."""
        self.keep("scan-big", priority=9)
        for n in range(5):
            self.keep(f"scan-{n}")
        tried = self.no_room_for(["scan-big"])
        self.begin()
        took = self.until(lambda: all(self.state(f"scan-{n}") is ScanState.DONE for n in range(5)))
        self.assertLess(took, 2.0)
        self.assertEqual(tried[:6], ["scan-big", *(f"scan-{n}" for n in range(5))])
        for n in range(600):
            self.keep(f"scan-later-{n}")
            self.clock.pump([0.5, 0.5])
        self.assertIn(tried.count("scan-big"), range(20, 28))
        scan = self.store.scan_docs["scan-big"]
        self.assertEqual((scan.report_generated, scan.attempts), (ScanState.TO_DO, 0))

    def test_onlyThoseThatDoNotFit(self) -> None:
        """Where nothing else waits, they are tried in turn with growing pauses, and done soon after there is room."""
        self.keep("scan-1")
        self.keep("scan-2")
        blocked = ["scan-1", "scan-2"]
        tried = self.no_room_for(blocked)
        self.begin()
        self.clock.pump([0.5] * 1200)
        counts = [tried.count(scan_id) for scan_id in blocked]
        self.assertLessEqual(abs(counts[0] - counts[1]), 1)
        self.assertIn(sum(counts), range(22, 28))
        blocked_no_more = list(blocked)
        blocked.clear()
        self.until(lambda: all(self.state(scan_id) is ScanState.DONE for scan_id in blocked_no_more), 65.0)

    def test_manyThatDoNotFit(self) -> None:
        """However many of them come first, those behind are reached, and done between the tries of the others."""
        blocked = [f"scan-big-{n}" for n in range(20)]
        for scan_id in blocked:
            self.keep(scan_id, priority=9)
        for n in range(3):
            self.keep(f"scan-{n}")
        tried = self.no_room_for(blocked)
        self.begin()
        self.until(lambda: all(self.state(f"scan-{n}") is ScanState.DONE for n in range(3)), 600.0)
        self.assertEqual(tried[:21], [*blocked, "scan-0"])
        self.assertLess(len(tried), 27)

    def test_largerThanAFileMayBe(self) -> None:
        """So is one that a limit on the size of files forbids."""
        self.pool.failures = [OSError(errno.EFBIG, "File too large")] * 3
        self.keep()
        self.begin()
        self.until(lambda: self.state() is ScanState.FAILED)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 3)

    def test_unexpected(self) -> None:
        """An error nobody thought of is logged; the scan is left to its lease and the slot works on."""
        self.keep()
        self.pool.failures = [KeyError("a bug")]
        self.begin()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.state(), ScanState.IN_PROGRESS)
        self.until(lambda: self.state() is ScanState.DONE, LEASE + 3)


class StoreTroubleTests(BrainCase):
    """A store that does not answer."""

    def test_claiming(self) -> None:
        """Claiming goes on when the store is back; one line tells of the beginning and one of the end."""
        self.begin()
        self.store.down = True
        self.clock.pump([0.5] * 600)
        self.assertEqual(len(self.said("outage.begin")), 1)
        self.assertLess(self.store.calls.count("claim"), 20)
        self.store.down = False
        self.keep()
        self.until(lambda: self.state() is ScanState.DONE, 31.0)
        self.assertEqual(len(self.said("outage.over")), 1)

    def test_resultIsKept(self) -> None:
        """A finished result is not thrown away: it is written when the store is back, the scan not analysed twice."""
        self.keep()
        self.store.fail_next(times=5, op="complete")
        self.begin()
        self.assertEqual(self.state(), ScanState.IN_PROGRESS)
        self.until(lambda: self.state() is ScanState.DONE, 70.0)
        self.assertEqual(len(self.pool.jobs), 1)
        self.assertIn("renew", self.store.calls)

    def test_fetching(self) -> None:
        """A store that is away while a payload is read costs no attempt."""
        self.keep(data=bytes(6 * CHUNK_SIZE))
        self.store.fail_next(times=3, op="read_chunks")
        self.begin()
        self.until(lambda: self.state() is ScanState.DONE, 20.0)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 1)

    def test_failing(self) -> None:
        """A verdict too is written when the store is back."""
        self.keep()
        self.pool.failures = [UnusableScanError("no brain in it")]
        self.store.fail_next(times=3, op="fail")
        self.begin()
        self.until(lambda: self.state() is ScanState.FAILED, 20.0)

    def test_lostMeanwhile(self) -> None:
        """A result that waits for the store is dropped as soon as a renewal tells that the lease is gone."""
        self.keep()
        self.store.fail_next(times=1000, op="complete")
        self.begin()
        self.store.fail_next(times=3, op="renew")
        self.clock.advance(31.0)
        self.successResultOf(self.store.scans().claim("other", 1000.0))
        self.clock.pump([1.0] * 30)
        self.assertEqual(self.brain.working_on, [])
        self.assertEqual(self.store.report_docs, {})
        self.store._failures.clear()

    def test_oddDocument(self) -> None:
        """A claim that fails in an unforeseen way is logged and does not end the loop."""
        self.keep()
        self.store.fail_next(ValueError("a document that cannot be read"), op="claim")
        self.begin()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.until(lambda: self.state() is ScanState.DONE, 3.0)

    def test_repairs(self) -> None:
        """What a crash left open is mended at the start and with each lease; a store that is away does not end that."""
        self.begin()
        self.assertEqual(self.store.calls.count("repair"), 1)
        self.store.fail_next(op="repair")
        self.clock.pump([1.0] * 61)
        self.assertEqual(self.store.calls.count("repair"), 3)


class StartTests(BrainCase):
    """What keeps a BRAIN from starting."""

    def test_pool(self) -> None:
        """An analysis that cannot be loaded ends the unit with the reason, before anything is claimed."""
        self.keep()
        self.pool.start_error = PoolError("the analysis 'x' cannot be loaded: ImportError: no y")
        self.begin()
        error = self.failureResultOf(self.brain.when_ready(), StartError)
        self.assertEqual(str(error.value), str(self.pool.start_error))
        self.assertNotIn("claim", self.store.calls)

    def test_workDir(self) -> None:
        """So does a work folder that cannot be used."""
        self.base.write_text("a file")
        self.begin()
        error = self.failureResultOf(self.brain.when_ready(), StartError)
        self.assertIn(str(self.base), str(error.value))

    def test_sweepIsTold(self) -> None:
        """What a killed predecessor left is removed, with a line about it."""
        dead = WorkDir(self.base, "brain-1")
        dead.open()
        assert dead._lock is not None
        os.close(dead._lock)
        self.begin()
        self.assertFalse(dead.path.exists())
        self.assertEqual(self.said("brain.swept")[0]["count"], 1)


class StopTests(BrainCase):
    """A clean stop."""

    def stop(self) -> Deferred[None]:
        """Stop the service."""
        return self.brain.stopService()

    def test_idle(self) -> None:
        """An idle BRAIN stops at once and asks the store nothing more."""
        self.begin()
        self.successResultOf(self.stop())
        self.assertEqual(self.pool.events["stopped"], 1)
        self.store.calls.clear()
        self.keep()
        self.clock.pump([1.0] * 60)
        self.assertNotIn("claim", self.store.calls)

    def test_running(self) -> None:
        """A running job is killed and the scan given back at once, the attempt not counted."""
        self.keep()
        self.pool.holding = True
        self.begin()
        self.successResultOf(self.stop())
        self.assertEqual(self.pool.events["killed"], 1)
        scan = self.store.scan_docs["scan-1"]
        self.assertEqual((scan.report_generated, scan.attempts, scan.error), (ScanState.TO_DO, 0, None))
        self.assertEqual(len(self.said("scan.released")), 1)

    def test_whileClaiming(self) -> None:
        """A scan that was claimed while the stop began is given back, not left to its lease."""
        self.keep()
        self.store.hold("claim")
        self.begin()
        stopping = self.stop()
        self.assertNoResult(stopping)
        self.store.release()
        self.successResultOf(stopping)
        scan = self.store.scan_docs["scan-1"]
        self.assertEqual((scan.report_generated, scan.attempts), (ScanState.TO_DO, 0))

    def test_whileFetching(self) -> None:
        """A fetch is broken off."""
        self.keep()
        self.store.hold("read_chunks")
        self.begin()
        self.successResultOf(self.stop())
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 0)
        self.assertEqual(self.pool.jobs, [])

    def test_whileReporting(self) -> None:
        """A report that is being written is written to the end."""
        self.keep()
        self.store.hold("complete")
        self.begin()
        stopping = self.stop()
        self.assertNoResult(stopping)
        self.store.release()
        self.successResultOf(stopping)
        self.assertEqual(self.state(), ScanState.DONE)

    def test_storeIsAway(self) -> None:
        """Without the store it stops in time; the scan is left to its lease."""
        self.keep()
        self.store.fail_next(times=1000, op="complete")
        self.begin()
        self.clock.pump([0.5] * 10)
        self.store.down = True
        self.successResultOf(self.stop())
        self.assertEqual(len(self.said("scan.left")), 1)
        self.store._failures.clear()

    def test_storeHangs(self) -> None:
        """A store that never answers does not hold up the stop."""
        self.keep()
        self.store.hold("claim")
        self.begin()
        stopping = self.stop()
        self.clock.pump([0.1] * 39)
        self.successResultOf(stopping)
        self.assertEqual(self.pool.events["stopped"], 1)
        self.store.release()

    def test_whileWaitingForTheStore(self) -> None:
        """A BRAIN that was never able to begin stops as well."""
        self.store_ready = Deferred()
        self.begin()
        self.successResultOf(self.stop())
        self.assertNotIn("claim", self.store.calls)

    def test_twoBrains(self) -> None:
        """What one BRAIN gives back another takes at once."""
        self.keep()
        self.pool.holding = True
        self.begin()
        other = self.make_brain("brain-2", InlinePool())
        other.startService()
        self.successResultOf(self.stop())
        self.clock.advance(0)
        self.assertEqual(self.state(), ScanState.DONE)
        self.successResultOf(other.stopService())


class RaceTests(BrainCase):
    """Answers that cross."""

    def test_renewalAfterTheEnd(self) -> None:
        """A renewal that is answered after the report was written, when the lease is gone, says nothing."""
        self.keep()
        self.pool.holding = True
        self.begin()
        self.store.hold("renew")
        self.clock.advance(LEASE / 3)
        self.assertEqual(self.store.held, 1)
        self.pool.go_on()
        self.store.release()
        self.assertEqual(self.state(), ScanState.DONE)
        self.assertEqual(self.said("scan.lost"), [])
        self.assertEqual(len(self.said("scan.done")), 1)

    def complete_then(self, answer: Callable[[Deferred[Any]], Deferred[Any]]) -> None:
        """Have the store write each report, and answer as ``answer`` makes of its true answer."""
        scans = self.store.scans()
        real = scans.complete
        self.patch(scans, "complete", lambda claim, report: answer(real(claim, report)))

    def test_renewalMeetsDone(self) -> None:
        """A renewal that meets Done before the answer to that is here does not make it a scan taken over."""
        self.keep()
        late: Deferred[None] = Deferred()
        self.complete_then(lambda true: self.after(true, late))
        self.begin()
        self.clock.advance(LEASE / 3)
        self.assertIn("renew", self.store.calls)
        late.callback(None)
        self.assertEqual(self.said("scan.lost"), [])
        self.assertEqual(len(self.said("scan.done")), 1)
        self.assertEqual(self.brain.working_on, [])

    def test_renewalMeetsDoneUnknown(self) -> None:
        """Where that answer was lost the store is asked anew at once: it knows whose the result is."""
        self.keep()
        lost = [True] * 4
        self.complete_then(
            lambda true: true.addCallback(
                lambda kept: self.raise_(StoreError("no answer")) if lost and lost.pop() else kept
            )
        )
        self.begin()
        self.clock.pump([0.5] * 19)
        self.assertEqual(self.said("scan.done"), [])
        self.clock.pump([0.5])
        self.assertEqual(len(self.said("scan.done")), 1)
        self.assertEqual(self.said("scan.lost"), [])

    def test_renewalMeetsRelease(self) -> None:
        """Nor does a renewal that meets a scan given back."""
        self.keep()
        scans = self.store.scans()
        real = scans.release
        late: Deferred[None] = Deferred()
        self.patch(scans, "release", lambda *arguments: self.after(real(*arguments), late))
        self.pool.failures = [WorkerCrashedError("crash")]
        self.begin()
        self.clock.advance(LEASE / 3)
        late.callback(None)
        self.assertEqual(self.said("scan.lost"), [])
        self.assertEqual(len(self.said("scan.retry")), 1)

    def after(self, true: Deferred[Any], late: Deferred[None]) -> Deferred[Any]:
        """Return the true answer, but not before ``late`` fires."""
        return true.addCallback(lambda value: late.addCallback(lambda _: value))

    def test_releaseAnsweredTwice(self) -> None:
        """A release whose first answer was lost is over when the store says that the lease is gone."""
        self.keep()
        self.pool.failures = [WorkerCrashedError("crash")]
        scans = self.store.scans()
        real, lost = scans.release, [True]

        def release(claim: Claim, error: str | None, count_attempt: bool) -> Deferred[None]:
            done = real(claim, error, count_attempt)
            if lost and lost.pop():
                return done.addCallback(lambda _: self.raise_(StoreError("no answer")))
            return done

        self.patch(scans, "release", release)
        self.begin()
        self.until(lambda: self.state() is ScanState.DONE, 5.0)
        self.assertEqual(self.store.scan_docs["scan-1"].attempts, 2)

    def raise_(self, error: Exception) -> None:
        """Raise."""
        raise error

    def test_staleIsAnError(self) -> None:
        """The memory store refuses old tokens, or the tests above would prove nothing."""
        self.keep()
        old = self.successResultOf(self.store.scans().claim("one", 1.0))
        self.clock.advance(2)
        self.successResultOf(self.store.scans().claim("two", 1.0))
        assert old is not None
        self.failureResultOf(self.store.scans().fail(old, "x"), StaleTokenError)
