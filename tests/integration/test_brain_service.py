"""Fr-BRAIN with real worker processes, threads and files, on a store in memory."""

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from fr_twisted.brain.attempt import Rules
from fr_twisted.brain.jobs import Limits
from fr_twisted.brain.pool import AnalysisPool
from fr_twisted.brain.service import BrainService
from fr_twisted.brain.tenure import Surroundings
from fr_twisted.model import CHUNK_SIZE, BrainScan, PayloadFormat, ScanMeta, ScanState
from fr_twisted.ops.workdir import WorkDir
from fr_twisted.store.interfaces import NewScan
from fr_twisted.store.service import StoreService
from tests.analyses_for_tests import MODULE, REFUSAL
from tests.fakes_store import MemoryStore

reactor: Any = global_reactor
PATIENCE = 30.0


class House:
    """A store and a BRAIN whose stand-in analysis does what each scan says."""

    def __init__(self, folder: Path, slots: int = 2) -> None:
        self.folder = folder
        self.store = MemoryStore(reactor, unit="brain")
        self.opener = StoreService(self.store, reactor)
        self.pool = AnalysisPool(
            reactor, f"{MODULE}:TOLD", slots=slots, time_limit=3.0, limits=Limits(memory=512 * 1024 * 1024)
        )
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        around = Surroundings(self.store, reactor, in_thread, WorkDir(folder, "brain"))
        rules = Rules("brain.1", f"{MODULE}:TOLD", lease=5.0, max_attempts=2)
        self.brain = BrainService(
            self.pool, rules, around, stop_timeout=4.0, store_ready=self.opener.when_ready
        )

    async def start(self) -> None:
        """Start, and wait until scans are claimed."""
        self.opener.startService()
        self.brain.startService()
        await self.brain.when_ready().addTimeout(PATIENCE, reactor)

    async def stop(self) -> float:
        """Stop; return the seconds that it took."""
        began = time.monotonic()
        await self.brain.stopService()
        await self.opener.stopService()
        return time.monotonic() - began

    async def keep(self, behaviour: str, size: int = 1000) -> str:
        """Have a scan in the store; return its id."""
        data = bytes(range(250)) * (size // 250)
        meta = ScanMeta(patient_id="P1", format=PayloadFormat.NIFTI, facts={"behaviour": behaviour})
        scan = NewScan(f"scan-{behaviour}", "pacs-1", len(data), hashlib.sha256(data).hexdigest(), meta)
        upload = await self.store.scans().begin_upload(scan)
        assert upload is not None
        for n in range(-(-len(data) // CHUNK_SIZE)):
            await self.store.payloads().write_chunk(
                upload.payload_id, n, data[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
            )
        await self.store.scans().commit(upload)
        return scan.scan_id

    def scan(self, behaviour: str) -> BrainScan:
        """Return a scan."""
        return self.store.scan_docs[f"scan-{behaviour}"]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, {s.scan_id: (s.report_generated, s.error) for s in self.scans()}
            await deferLater(reactor, 0.01)

    def scans(self) -> list[BrainScan]:
        """Return all scans."""
        return list(self.store.scan_docs.values())


async def test_each_scan_has_its_end(tmp_path: Path) -> None:
    """Scans that crash, hang, eat memory or are refused end as Failed with their reason, and the others get reports."""
    house = House(tmp_path)
    names = ["QUICK", "CRASHING", "HANGING", "LOUD", "HUNGRY", "REFUSING", "RAISING", "KILLED", "DYING"]
    for name in names:
        await house.keep(name, size=9_000_000)
    await house.start()
    try:
        final = {ScanState.DONE, ScanState.FAILED}
        await house.until(lambda: all(scan.report_generated in final for scan in house.scans()))
        assert [p.name for p in house.brain._around.work.path.glob("scan-*")] == []
    finally:
        await house.stop()
    done = [name for name in names if house.scan(name).report_generated is ScanState.DONE]
    assert done == ["QUICK", "LOUD"]
    assert house.scan("REFUSING").error == REFUSAL
    assert house.scan("REFUSING").attempts == 1
    for name, reason in {
        "CRASHING": "after 2 attempts: its process was killed by SIGSEGV: Fatal Python error",
        "HANGING": "after 2 attempts: the analysis ran past its time of 3 s: still at it",
        "HUNGRY": "after 2 attempts: the analysis ran out of memory",
        "RAISING": "after 2 attempts: the analysis broke: ValueError in analyses_for_tests.py",
        "KILLED": "after 2 attempts: its process was killed by SIGKILL",
        "DYING": "after 2 attempts: its process ended with exit status 3: these are the last words",
    }.items():
        assert (house.scan(name).error or "").startswith(reason), house.scan(name).error
        assert house.scan(name).attempts == 2
    assert len(house.store.report_docs) == 2
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


async def test_wakes_and_works_at_once(tmp_path: Path) -> None:
    """An idle BRAIN has the report of a small scan within a fraction of a second of its arrival."""
    house = House(tmp_path, slots=1)
    await house.start()
    try:
        await deferLater(reactor, 0.5)
        began = time.monotonic()
        await house.keep("QUICK")
        await house.until(lambda: house.scan("QUICK").report_generated is ScanState.DONE)
        took = time.monotonic() - began
    finally:
        await house.stop()
    assert took < 1.0


async def test_stop_gives_back(tmp_path: Path) -> None:
    """Stopped in the middle of analyses, it kills them, gives their scans back uncounted and leaves no file."""
    house = House(tmp_path)
    await house.keep("HANGING")
    await house.start()
    await house.until(lambda: any(house.brain._around.work.path.glob("scan-*/pid")))
    took = await house.stop()
    assert took < 2.0
    scan = house.scan("HANGING")
    assert (scan.report_generated, scan.attempts, scan.error) == (ScanState.TO_DO, 0, None)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
