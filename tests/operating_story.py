"""The store that docs/operating.md shows: two nodes and two BRAINs, on a morning when not everything went well."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.task import Clock

from fr_twisted.model import CHUNK_SIZE, BrainScan, ScanMeta, make_report_id, make_scan_id
from fr_twisted.store.interfaces import Claim, NewReport, NewScan
from tests.fakes_store import MemoryStore

SERVER = "MongoDB 8.0.4, replica set rs0, change streams"
ANALYSIS, VERSION = "t1-volumes", "2.0"
BRAIN_1, BRAIN_2 = "brain-1.9f3c2a7d41e0", "brain-2.51b0c6e8aa37"


class Story:
    """What happens, told on a store in memory."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = MemoryStore(clock)

    @contextmanager
    def by(self, unit: str, node: str) -> Iterator[None]:
        """Let a unit on a node do what is done within."""
        self.store.unit, self.store.node = unit, node
        yield

    def new(self, node: str, patient: str, size: int, priority: int = 5) -> tuple[NewScan, bytes]:
        """Return a scan and its bytes."""
        data = (patient.encode() * (size // len(patient) + 1))[:size]
        digest = hashlib.sha256(data).hexdigest()
        meta = ScanMeta.model_validate({"patient_id": patient, "format": "nifti-gz", "priority": priority})
        return NewScan(make_scan_id(node, patient, digest), node, size, digest, meta), data

    async def receive(self, node: str, patient: str, size: int, chunks: int | None = None) -> str:
        """Receive a scan, or its first ``chunks``; return its id."""
        new, data = self.new(node, patient, size)
        with self.by("hub", "hub"):
            upload = await self.store.scans().begin_upload(new)
            assert upload is not None
            count = -(-size // CHUNK_SIZE)
            for n in range(count if chunks is None else chunks):
                self.clock.advance(0.011)
                chunk = data[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
                await self.store.payloads().write_chunk(upload.payload_id, n, chunk)
            if chunks is None:
                await self.store.scans().commit(upload)
        return new.scan_id

    async def claim(self, owner: str) -> Claim:
        """Claim the scan that is due."""
        self.clock.advance(0.021)
        with self.by("brain", owner.partition(".")[0]):
            claim = await self.store.scans().claim(owner, 60.0)
        assert claim is not None
        return claim

    async def analyse(self, owner: str) -> BrainScan:
        """Analyse the scan that is due."""
        claim = await self.claim(owner)
        self.clock.advance(9.4)
        report_id = make_report_id(claim.scan.scan_id, ANALYSIS, VERSION)
        bundle = (report_id.encode() * 20000)[:412_300]
        with self.by("brain", owner.partition(".")[0]):
            report = NewReport(report_id, ANALYSIS, VERSION, {}, bundle)
            await self.store.scans().complete(claim, report)
        return claim.scan

    async def deliver(self, node: str) -> None:
        """Deliver the report that is due for a node."""
        reports = self.store.reports()
        with self.by("hub", "hub"):
            report = await reports.take(node, "hub.77d0", 120.0)
            assert report is not None
            self.clock.advance(0.034)
            await reports.delivered(report)

    async def tell(self) -> None:
        """Tell all of it."""
        scans, reports = self.store.scans(), self.store.reports()
        await self.receive("pacs-radiology", "R-10482", 11_480_311)
        await self.analyse(BRAIN_1)
        with self.by("hub", "hub"):
            report = await reports.take("pacs-radiology", "hub.77d0", 120.0)
            assert report is not None
            await reports.put_back(report, "busy: the report's folder is locked", 1.0)
        self.clock.advance(1.0)
        await self.deliver("pacs-radiology")
        self.clock.advance(300.0)
        await self.receive("ward-3", "W-0071", 9_120_804)
        for attempt in range(3):
            claim = await self.claim((BRAIN_2, BRAIN_1, BRAIN_2)[attempt])
            self.clock.advance(3.2)
            reason = "the worker died: killed by signal 11 (SIGSEGV)"
            with self.by("brain", claim.owner.partition(".")[0]):
                await (scans.release(claim, reason, True) if attempt < 2 else scans.fail(claim, reason))
        self.clock.advance(200.0)
        await self.receive("ward-3", "W-0080", 9_301_220)
        await self.analyse(BRAIN_2)
        with self.by("hub", "hub"):
            report = await reports.take("ward-3", "hub.77d0", 120.0)
            assert report is not None
            await reports.refused(report, "bad-report: report.json is not JSON")
        self.clock.advance(100.0)
        await self.receive("pacs-radiology", "R-10490", 12_004_118)
        await self.receive("pacs-radiology", "R-10491", 11_930_422)
        await self.claim(BRAIN_1)
        self.clock.advance(2.0)
        await self.receive("ward-3", "W-0093", 9_222_517, chunks=4)
        self.clock.advance(3.0)
        self.store.unit, self.store.node = "fr", "desk-1"
