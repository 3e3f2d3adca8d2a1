"""What every store does, in memory and in MongoDB: each behaviour is a coroutine that takes a `Bench`."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fr_twisted.model import CHUNK_SIZE, BrainReport, BrainScan, ScanMeta, ScanState
from fr_twisted.store.interfaces import (
    Claim,
    ConflictError,
    IStore,
    NewReport,
    NewScan,
    PayloadMissingError,
    StaleTokenError,
    Upload,
)

SHORT = 0.2
"""Seconds of a lease that is to end."""

LONG = 60.0
"""Seconds of a lease that is not."""

NODE = "pacs-1"


@dataclass
class Bench:
    """A store to be tried, whose garbage has no grace period, and a way to let time pass."""

    store: IStore
    pass_time: Callable[[float], Awaitable[Any]]

    def new_scan(
        self,
        name: str = "a",
        size: int = 100,
        priority: int = 5,
        node: str = NODE,
        analysis: str | None = None,
    ) -> NewScan:
        """Return a scan to be offered; its bytes are `content`."""
        data = content(name, size)
        meta = ScanMeta.model_validate(
            {
                "patient_id": f"patient-{name}",
                "format": "nifti",
                "priority": priority,
                "analysis": analysis,
                "facts": {"tesla": 3.0},
            }
        )
        return NewScan(f"scan-{name}", node, size, hashlib.sha256(data).hexdigest(), meta)

    async def begin(self, scan: NewScan) -> Upload:
        """Begin an upload that is not a duplicate."""
        upload = await self.store.scans().begin_upload(scan)
        assert upload is not None
        return upload

    async def write(self, upload: Upload, name: str, *numbers: int) -> None:
        """Write chunks of the content ``name``: all, or those numbers."""
        data = content(name, upload.scan.size)
        for n in numbers or range(-(-len(data) // CHUNK_SIZE)):
            chunk = data[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
            await self.store.payloads().write_chunk(upload.payload_id, n, chunk)

    async def keep(
        self,
        name: str = "a",
        size: int = 100,
        priority: int = 5,
        node: str = NODE,
        analysis: str | None = None,
    ) -> BrainScan:
        """Upload a whole scan."""
        upload = await self.begin(self.new_scan(name, size, priority, node, analysis))
        await self.write(upload, name)
        await self.store.scans().commit(upload)
        # Scans are taken in the order of their milliseconds.
        await self.pass_time(0.005)
        return await self.scan(name)

    async def scan(self, name: str = "a") -> BrainScan:
        """Return a scan that is kept."""
        scan = await self.store.scans().get(f"scan-{name}")
        assert scan is not None
        return scan

    async def told(self, name: str = "a") -> BrainScan:
        """Return a scan that was told of its reports."""
        await self.pass_time(0.05)
        await self.store.scans().repair()
        return await self.scan(name)

    async def claim(
        self, seconds: float = LONG, owner: str = "brain-1", analysis: str | None = None
    ) -> Claim:
        """Claim a scan that is due."""
        claim = await self.store.scans().claim(owner, seconds, analysis)
        assert claim is not None
        return claim

    async def report(self, name: str = "a", node: str = NODE) -> BrainReport:
        """Upload and analyse a scan."""
        await self.keep(name, node=node)
        done = await self.store.scans().complete(await self.claim(), new_report(name))
        await self.pass_time(0.005)
        return done

    async def take(self, seconds: float = LONG, owner: str = "hub-1") -> BrainReport:
        """Take a report that is due."""
        report = await self.store.reports().take(NODE, owner, seconds)
        assert report is not None
        return report

    async def stored(self, report_id: str) -> BrainReport:
        """Return a report that is kept."""
        report = await self.store.reports().get(report_id)
        assert report is not None
        return report


def content(name: str, size: int) -> bytes:
    """Return ``size`` bytes that differ from those of another name, and from one chunk to the next."""
    block = hashlib.sha256(name.encode()).digest()
    return b"".join(block + n.to_bytes(8, "big") for n in range(size // 40 + 1))[:size]


def new_report(name: str = "a", size: int = 1000) -> NewReport:
    """Return a finished report."""
    findings = {"brain_ml": 1234.5, "regions": [{"name": "GM", "ml": 600}], "note": "prüfen"}
    return NewReport(f"report-{name}", "t1-volumes", "1", findings, content(f"report {name}", size))


async def raises(error: type[Exception], awaitable: Awaitable[Any]) -> None:
    """Assert that ``awaitable`` fails so."""
    try:
        await awaitable
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


Behaviour = Callable[[Bench], Awaitable[None]]
BEHAVIOURS: list[Behaviour] = []


def behaviour(function: Behaviour) -> Behaviour:
    """List a behaviour."""
    BEHAVIOURS.append(function)
    return function


# --- uploads


@behaviour
async def committed_scan_is_visible(bench: Bench) -> None:
    """A scan is To Do after its commit, with every fact of it, and not before."""
    new = bench.new_scan(size=CHUNK_SIZE + 7)
    upload = await bench.begin(new)
    assert (upload.token, upload.chunks) == (1, 0)
    await bench.write(upload, "a")
    assert await bench.store.scans().get("scan-a") is None
    await bench.store.scans().commit(upload)
    scan = await bench.scan()
    assert scan.report_generated is ScanState.TO_DO
    assert (scan.source, scan.patient_id, scan.meta) == (NODE, "patient-a", new.meta)
    assert (scan.size, scan.sha256, scan.payload_id) == (new.size, new.sha256, upload.payload_id)
    assert (scan.attempts, scan.lease, scan.error) == (0, None, None)
    assert [entry.event for entry in scan.history] == ["received"]
    chunks = await bench.store.payloads().read_chunks(scan.payload_id, 0, 2)
    assert b"".join(chunks) == content("a", new.size)


@behaviour
async def commit_needs_every_chunk(bench: Bench) -> None:
    """A commit fails, and nothing is visible, while a chunk is missing or has the wrong size."""
    upload = await bench.begin(bench.new_scan(size=3 * CHUNK_SIZE + 7))
    await bench.write(upload, "a", 0, 2)
    await raises(PayloadMissingError, bench.store.scans().commit(upload))
    await bench.write(upload, "a", 1)
    await raises(PayloadMissingError, bench.store.scans().commit(upload))
    await bench.store.payloads().write_chunk(upload.payload_id, 3, b"too short"[:6])
    await raises(PayloadMissingError, bench.store.scans().commit(upload))
    assert await bench.store.scans().get("scan-a") is None


@behaviour
async def upload_is_looked_at(bench: Bench) -> None:
    """What is kept of a scan can be told without touching its upload: nothing, some of it, or the scan itself."""
    new = bench.new_scan(size=3 * CHUNK_SIZE + 7)
    scans = bench.store.scans()
    assert await scans.peek_upload(new) == 0
    upload = await bench.begin(new)
    await bench.write(upload, "a", 0, 1, 3)
    assert await scans.peek_upload(new) == 2 * CHUNK_SIZE
    assert await scans.peek_upload(bench.new_scan(size=3 * CHUNK_SIZE)) == 0
    await bench.write(upload, "a", 2)
    assert await scans.peek_upload(new) == new.size
    await scans.commit(upload)
    assert await scans.peek_upload(new) is None
    await raises(ConflictError, scans.peek_upload(bench.new_scan(size=101)))


@behaviour
async def upload_is_resumed(bench: Bench) -> None:
    """A second receiver goes on after the last chunk before a gap, under the same payload and a higher token."""
    new = bench.new_scan(size=5 * CHUNK_SIZE)
    first = await bench.begin(new)
    await bench.write(first, "a", 0, 1, 3)
    second = await bench.begin(new)
    assert (second.payload_id, second.token, second.chunks) == (first.payload_id, 2, 2)
    await bench.write(second, "a", 2, 3, 4)
    third = await bench.begin(new)
    assert third.chunks == 5
    await bench.store.scans().commit(third)
    assert (await bench.scan()).payload_id == first.payload_id


@behaviour
async def older_receiver_may_commit(bench: Bench) -> None:
    """A receiver that was taken over but has every chunk may commit; the other's commit is done already."""
    new = bench.new_scan()
    first = await bench.begin(new)
    await bench.write(first, "a")
    second = await bench.begin(new)
    await bench.store.scans().commit(first)
    await bench.store.scans().commit(second)
    assert (await bench.scan()).history[0].event == "received"


@behaviour
async def kept_scan_is_duplicate(bench: Bench) -> None:
    """A scan that is kept is not received again; the same id with other content is refused."""
    assert await bench.store.scans().peek_upload(bench.new_scan()) is not None
    await bench.keep()
    assert await bench.store.scans().peek_upload(bench.new_scan()) is None
    await raises(ConflictError, bench.store.scans().peek_upload(bench.new_scan(size=101)))
    assert await bench.store.scans().begin_upload(bench.new_scan()) is None
    await raises(ConflictError, bench.store.scans().begin_upload(bench.new_scan(size=101)))


@behaviour
async def commit_twice(bench: Bench) -> None:
    """A second commit of the same upload changes nothing."""
    upload = await bench.begin(bench.new_scan())
    await bench.write(upload, "a")
    await bench.store.scans().commit(upload)
    before = await bench.scan()
    await bench.store.scans().commit(upload)
    assert await bench.scan() == before


@behaviour
async def other_content_supersedes(bench: Bench) -> None:
    """Other bytes under the id of an unfinished upload begin anew; the first commit is the scan, the other fails."""
    old = await bench.begin(bench.new_scan(size=100))
    await bench.write(old, "a")
    new = await bench.begin(bench.new_scan(size=200))
    assert (new.payload_id != old.payload_id, new.token, new.chunks) == (True, 2, 0)
    await bench.write(new, "a")
    await bench.store.scans().commit(old)
    await raises(ConflictError, bench.store.scans().commit(new))
    await bench.pass_time(0.05)
    await bench.store.scans().clean(0)
    scan = await bench.scan()
    assert scan.size == 100
    assert await bench.store.payloads().read_chunks(scan.payload_id, 0, 1) == [content("a", 100)]


@behaviour
async def discarded_upload_begins_anew(bench: Bench) -> None:
    """After a discard the next offer begins at the first chunk, under another payload."""
    new = bench.new_scan(size=2 * CHUNK_SIZE)
    upload = await bench.begin(new)
    await bench.write(upload, "a", 0)
    await bench.store.scans().discard_upload(upload)
    again = await bench.begin(new)
    assert (again.payload_id != upload.payload_id, again.chunks) == (True, 0)


@behaviour
async def older_receiver_discards_nothing(bench: Bench) -> None:
    """A receiver that was taken over cannot discard what the other goes on with."""
    new = bench.new_scan(size=2 * CHUNK_SIZE)
    first = await bench.begin(new)
    await bench.write(first, "a", 0)
    second = await bench.begin(new)
    await bench.store.scans().discard_upload(first)
    await bench.pass_time(0.05)
    await bench.store.scans().clean(LONG)
    await bench.write(second, "a", 1)
    await bench.store.scans().commit(second)
    assert len(await bench.store.payloads().read_chunks(second.payload_id, 0, 2)) == 2


@behaviour
async def chunk_twice(bench: Bench) -> None:
    """The same chunk may be written again; other bytes for it, too many or none are refused."""
    payloads = bench.store.payloads()
    await payloads.write_chunk("p", 0, b"abc")
    await payloads.write_chunk("p", 0, b"abc")
    await raises(ConflictError, payloads.write_chunk("p", 0, b"abd"))
    await raises(ConflictError, payloads.write_chunk("p", 0, b"abcd"))
    await raises(ValueError, payloads.write_chunk("p", 1, bytes(CHUNK_SIZE + 1)))
    await raises(ValueError, payloads.write_chunk("p", 1, b""))
    assert await payloads.read_chunks("p", 0, 1) == [b"abc"]


@behaviour
async def missing_chunk_is_not_read(bench: Bench) -> None:
    """Reading past what is there fails; reading nothing gives nothing."""
    payloads = bench.store.payloads()
    await payloads.write_chunk("p", 0, b"abc")
    await raises(PayloadMissingError, payloads.read_chunks("p", 0, 2))
    await raises(PayloadMissingError, payloads.read_chunks("q", 0, 1))
    assert await payloads.read_chunks("p", 0, 0) == []


@behaviour
async def empty_scan(bench: Bench) -> None:
    """A scan without bytes needs no chunk."""
    scan = await bench.keep(size=0)
    assert scan.size == 0


@behaviour
async def old_upload_is_cleaned(bench: Bench) -> None:
    """An upload that nobody touched is given up and its chunks are deleted; one that was touched stays."""
    old = await bench.begin(bench.new_scan("old"))
    await bench.write(old, "old")
    await bench.pass_time(2.0)
    fresh = await bench.begin(bench.new_scan("fresh"))
    await bench.write(fresh, "fresh")
    await bench.store.scans().clean(1.0)
    await bench.pass_time(0.05)
    await bench.store.scans().clean(LONG)
    await raises(PayloadMissingError, bench.store.payloads().read_chunks(old.payload_id, 0, 1))
    assert (await bench.begin(bench.new_scan("old"))).payload_id != old.payload_id
    await bench.store.scans().commit(fresh)


@behaviour
async def clean_spares_what_is_used(bench: Bench) -> None:
    """Cleaning deletes no chunk of a kept scan or report, and counts what it deletes."""
    discarded = await bench.begin(bench.new_scan("b", size=130 * 40))
    await bench.write(discarded, "b")
    await bench.store.scans().discard_upload(discarded)
    report = await bench.report()
    await bench.pass_time(0.05)
    assert await bench.store.scans().clean(0) == 1
    assert await bench.store.scans().clean(0) == 0
    scan = await bench.scan()
    assert await bench.store.payloads().read_chunks(scan.payload_id, 0, 1) == [content("a", 100)]
    kept = await bench.store.payloads().read_chunks(report.payload_id, 0, 1)
    assert kept == [new_report().bundle]
    await raises(PayloadMissingError, bench.store.payloads().read_chunks(discarded.payload_id, 0, 1))


@behaviour
async def room_is_told(bench: Bench) -> None:
    """What is used is told if it is asked for, if the store can tell at all; asking harms nothing."""
    await bench.keep(size=CHUNK_SIZE)
    assert (await bench.store.room(False)).free == (await bench.store.room(True)).free
    used = (await bench.store.room(True)).used
    assert used is None or used > CHUNK_SIZE


@behaviour
async def broken_scan_is_received_anew(bench: Bench) -> None:
    """A scan whose kept bytes were found broken is taken once more from who still has it, and is To Do again."""
    await bench.keep()
    old = await bench.claim()
    await bench.store.scans().fail(old, "the stored scan has another SHA-256", payload_broken=True)
    assert (await bench.scan()).payload_broken_at is not None
    assert await bench.store.scans().peek_upload(bench.new_scan()) is not None
    await raises(ConflictError, bench.store.scans().begin_upload(bench.new_scan(size=101)))
    upload = await bench.begin(bench.new_scan())
    assert (upload.payload_id != old.scan.payload_id, upload.chunks) == (True, 0)
    await bench.write(upload, "a")
    await bench.store.scans().commit(upload)
    await bench.store.scans().commit(upload)
    scan = await bench.scan()
    assert (scan.report_generated, scan.attempts, scan.error) == (ScanState.TO_DO, 0, None)
    assert (scan.payload_id, scan.payload_broken_at) == (upload.payload_id, None)
    assert [entry.event for entry in scan.history] == ["received", "claimed", "failed", "received anew"]
    assert await bench.store.scans().begin_upload(bench.new_scan()) is None
    await bench.pass_time(0.05)
    assert await bench.store.scans().clean(LONG) == 1
    await raises(PayloadMissingError, bench.store.payloads().read_chunks(old.scan.payload_id, 0, 1))
    again = await bench.claim()
    assert (again.token, again.attempt) == (2, 1)
    await raises(StaleTokenError, bench.store.scans().fail(old, "late", payload_broken=True))
    await bench.store.scans().complete(again, new_report())
    assert (await bench.scan()).report_generated is ScanState.DONE


# --- the queue


@behaviour
async def claims_by_priority_then_arrival(bench: Bench) -> None:
    """The most urgent scan is claimed first, of equals the first that came; each of them once."""
    for name, priority in (("a", 5), ("b", 5), ("c", 9), ("d", 0)):
        await bench.keep(name, priority=priority)
    claimed = [(await bench.claim()).scan.scan_id for _ in range(4)]
    assert claimed == ["scan-c", "scan-a", "scan-b", "scan-d"]
    assert await bench.store.scans().claim("brain-1", LONG) is None


@behaviour
async def urgent_newcomer(bench: Bench) -> None:
    """A scan that was kept through this store while others wait is claimed before them if it is more urgent."""
    for name in ("a", "b", "c"):
        await bench.keep(name)
    assert (await bench.claim()).scan.scan_id == "scan-a"
    await bench.keep("urgent", priority=9)
    assert (await bench.claim()).scan.scan_id == "scan-urgent"


@behaviour
async def named_analysis_waits_for_its_own(bench: Bench) -> None:
    """A scan that names an analysis is claimed for that one alone, in its place among those that name none."""
    await bench.keep("x-urgent", priority=9, analysis="x")
    await bench.keep("any")
    await bench.keep("x", analysis="x")
    await bench.keep("y", analysis="y")
    await bench.keep("any-late")
    scans = bench.store.scans()
    claimed = [(await bench.claim(analysis="y")).scan.scan_id for _ in range(3)]
    assert claimed == ["scan-any", "scan-y", "scan-any-late"]
    assert await scans.claim("brain-1", LONG, "y") is None
    assert await scans.claim("brain-1", LONG) is None
    claimed = [(await bench.claim(analysis="x")).scan.scan_id for _ in range(2)]
    assert claimed == ["scan-x-urgent", "scan-x"]
    waited = await bench.scan("x")
    assert (waited.attempts, waited.meta.analysis) == (1, "x")
    assert [entry.event for entry in waited.history] == ["received", "claimed"]


@behaviour
async def ended_lease_of_named_analysis(bench: Bench) -> None:
    """A scan whose BRAIN did not come back, or that was given back, waits for a BRAIN with its analysis again."""
    await bench.keep(analysis="x")
    await bench.claim(SHORT, analysis="x")
    await bench.pass_time(SHORT * 2)
    scans = bench.store.scans()
    assert await scans.claim("brain-2", LONG, "y") is None
    assert await scans.claim("brain-2", LONG) is None
    claim = await bench.claim(owner="brain-3", analysis="x")
    assert claim.attempt == 2
    await scans.release(claim, "busy", True)
    assert await scans.claim("brain-2", LONG, "y") is None
    assert (await bench.claim(analysis="x")).attempt == 3


@behaviour
async def brains_are_seen(bench: Bench) -> None:
    """A claim notes that a BRAIN runs the analysis; people see what waits for which, and when one was seen."""
    scans, ask = bench.store.scans(), bench.store.operators()
    assert await scans.claim("brain-1", LONG, "x") is None
    first = await bench.keep("x", analysis="x")
    await bench.keep("x2", analysis="x")
    await bench.keep("y", analysis="y")
    await bench.keep("any")
    await bench.pass_time(0.05)
    seen = await scans.last_seen(["x", "y"])
    assert set(seen) == {"x"}
    assert abs((await bench.store.now() - seen["x"]).total_seconds()) < 30
    rows = (await ask.status()).analyses
    assert [(row.analysis, row.waiting, row.seen) for row in rows] == [("x", 2, seen["x"]), ("y", 1, None)]
    assert rows[0].oldest == first.received_at
    for name, at in (("x", seen["x"]), ("y", None), ("any", None)):
        found = await ask.look(f"scan-{name}")
        assert found is not None
        assert found.brain_seen == at


@behaviour
async def claim_sets_in_progress(bench: Bench) -> None:
    """A claim leaves owner, token, lease and attempt in the scan."""
    await bench.keep()
    claim = await bench.claim(LONG, "brain-7")
    assert (claim.owner, claim.token, claim.attempt) == ("brain-7", 1, 1)
    scan = await bench.scan()
    assert scan.report_generated is ScanState.IN_PROGRESS
    assert scan.lease is not None
    assert (scan.lease.owner, scan.lease.token) == ("brain-7", 1)
    left = (scan.lease.expires_at - await bench.store.now()).total_seconds()
    assert LONG - 10 < left <= LONG
    assert [entry.event for entry in scan.history] == ["received", "claimed"]


@behaviour
async def lease_ends(bench: Bench) -> None:
    """A scan whose lease ended is claimed by another, with a higher token and one attempt more."""
    await bench.keep()
    await bench.claim(SHORT)
    assert await bench.store.scans().claim("brain-2", LONG) is None
    await bench.pass_time(2 * SHORT)
    again = await bench.claim(LONG, "brain-2")
    assert (again.scan.scan_id, again.token, again.attempt) == ("scan-a", 2, 2)
    assert await bench.store.scans().claim("brain-3", LONG) is None


@behaviour
async def renewed_lease(bench: Bench) -> None:
    """A lease that is renewed does not end at its first end."""
    await bench.keep()
    claim = await bench.claim(SHORT)
    await bench.store.scans().renew(claim, LONG)
    await bench.pass_time(2 * SHORT)
    assert await bench.store.scans().claim("brain-2", LONG) is None


@behaviour
async def stale_claim_changes_nothing(bench: Bench) -> None:
    """A worker that was taken over cannot renew, release, fail or complete, and leaves no report."""
    await bench.keep()
    stale = await bench.claim(SHORT)
    await bench.pass_time(2 * SHORT)
    await bench.claim(LONG, "brain-2")
    before = await bench.scan()
    scans = bench.store.scans()
    await raises(StaleTokenError, scans.renew(stale, LONG))
    await raises(StaleTokenError, scans.release(stale, "x", True))
    await raises(StaleTokenError, scans.fail(stale, "x"))
    await raises(StaleTokenError, scans.complete(stale, new_report()))
    assert await bench.scan() == before
    assert await bench.store.reports().of_scan("scan-a") == []


@behaviour
async def late_finisher_wins_if_not_taken_over(bench: Bench) -> None:
    """A worker whose lease ended, but whom nobody took over, may complete."""
    await bench.keep()
    claim = await bench.claim(SHORT)
    await bench.pass_time(2 * SHORT)
    await bench.store.scans().complete(claim, new_report())
    assert (await bench.scan()).report_generated is ScanState.DONE


@behaviour
async def released_scan(bench: Bench) -> None:
    """A released scan is To Do again with the reason; the attempt counts only if asked for."""
    await bench.keep()
    await bench.store.scans().release(await bench.claim(), "the worker died", True)
    scan = await bench.scan()
    assert (scan.report_generated, scan.lease, scan.attempts) == (ScanState.TO_DO, None, 1)
    assert scan.error == "the worker died"
    second = await bench.claim()
    assert (second.token, second.attempt) == (2, 2)
    await bench.store.scans().release(second, None, False)
    third = await bench.claim()
    assert (third.token, third.attempt) == (3, 2)


@behaviour
async def claim_besides(bench: Bench) -> None:
    """A claim passes over what its owner asks for, whatever comes next, and finds it there without."""
    scans = bench.store.scans()
    await bench.keep("a", priority=9)
    await bench.keep("b")
    await bench.keep("c", analysis="x")
    besides = ("scan-a", "scan-zzz")
    for expected in ("scan-b", "scan-c"):
        claim = await scans.claim("brain-1", LONG, "x", besides)
        assert claim is not None
        assert claim.scan.scan_id == expected
    assert await scans.claim("brain-1", LONG, "x", besides) is None
    assert (await bench.claim(SHORT)).scan.scan_id == "scan-a"
    await bench.pass_time(2 * SHORT)
    assert await scans.claim("brain-1", LONG, None, besides) is None
    assert (await bench.claim()).scan.scan_id == "scan-a"


@behaviour
async def scan_given_back_for_days(bench: Bench) -> None:
    """However often a scan is released uncounted, its history keeps what was before, and tells how often that was."""
    await bench.keep()
    await bench.store.scans().release(await bench.claim(), "the worker died", True)
    for _ in range(120):
        await bench.store.scans().release(await bench.claim(), "no room", False)
    scan = await bench.scan()
    assert (scan.report_generated, scan.attempts, scan.given_back, scan.error) == ("To Do", 1, 120, "no room")
    events = [entry.event for entry in scan.history]
    assert events == ["received", *["claimed", "released"] * (1 + 8 + 3)]
    assert [entry.detail for entry in scan.history][4:7] == ["no room", "brain-1", "no room"]
    assert (scan.history[-1].detail or "").startswith("no room (uncounted release 64: ")
    claim = await bench.claim()
    assert (claim.attempt, (await bench.scan()).history[-1].event) == (2, "claimed")
    await bench.store.scans().fail(claim, "no brain in it")
    assert [entry.event for entry in (await bench.scan()).history][-2:] == ["claimed", "failed"]
    await bench.store.operators().retry("scan-a", "by me")
    assert (await bench.scan()).given_back == 0


@behaviour
async def failed_scan(bench: Bench) -> None:
    """A failed scan keeps the reason and is not claimed again."""
    await bench.keep()
    await bench.store.scans().fail(await bench.claim(), "no brain in it")
    scan = await bench.scan()
    assert (scan.report_generated, scan.error) == (ScanState.FAILED, "no brain in it")
    assert scan.history[-1].detail == "no brain in it"
    assert await bench.store.scans().claim("brain-1", LONG) is None


@behaviour
async def completed_scan(bench: Bench) -> None:
    """A completed scan is Done and its report is due, with findings and bundle as they were given."""
    await bench.keep()
    claim = await bench.claim()
    new = new_report(size=CHUNK_SIZE + 5)
    report = await bench.store.scans().complete(claim, new)
    assert (await bench.scan()).report_generated is ScanState.DONE
    assert report == await bench.stored("report-a")
    assert (report.scan_id, report.patient_id, report.destination) == ("scan-a", "patient-a", NODE)
    assert (report.status, report.refused, report.attempts, report.lease) == (False, False, 0, None)
    assert (report.analysis, report.analysis_version, report.findings) == ("t1-volumes", "1", new.findings)
    assert report.sha256 == hashlib.sha256(new.bundle).hexdigest()
    assert b"".join(await bench.store.payloads().read_chunks(report.payload_id, 0, 2)) == new.bundle
    assert await bench.store.reports().of_scan("scan-a") == [report]
    assert await bench.store.scans().claim("brain-1", LONG) is None


@behaviour
async def complete_twice(bench: Bench) -> None:
    """A completion that is repeated, as after a lost answer, gives the same one report."""
    await bench.keep()
    claim = await bench.claim()
    first = await bench.store.scans().complete(claim, new_report())
    second = await bench.store.scans().complete(claim, new_report())
    assert first == second
    assert await bench.store.reports().of_scan("scan-a") == [first]
    assert await bench.store.scans().repair() == 0


@behaviour
async def long_history_is_cut(bench: Bench) -> None:
    """A scan that is claimed and released over and over keeps the last lines of its history."""
    await bench.keep()
    for n in range(105):
        await bench.store.scans().release(await bench.claim(), str(n), True)
    history = (await bench.scan()).history
    assert (len(history), history[-1].detail) == (200, "104")


@behaviour
async def reasons_of_any_text(bench: Bench) -> None:
    """A reason may hold any text: what cannot be kept of it is replaced, and what is too long is cut."""
    await bench.keep()
    await bench.store.scans().release(await bench.claim(), "a\ud800b\0" + "x" * 5000, True)
    scan = await bench.scan()
    assert scan.error == ("a?b\0" + "x" * 5000)[:2000]
    assert scan.history[-1].detail == scan.error
    await bench.store.scans().fail(await bench.claim(), "\udcff")
    assert (await bench.scan()).error == "?"
    await bench.report("b")
    await bench.store.reports().put_back(await bench.take(), "\ud800", 0)
    assert (await bench.stored("report-b")).error == "?"
    await bench.store.reports().refused(await bench.take(), "\udfff")
    assert (await bench.stored("report-b")).error == "?"


@behaviour
async def counts(bench: Bench) -> None:
    """Scans are counted by state, every state is named."""
    assert await bench.store.scans().count_by_state() == {
        "To Do": 0,
        "In Progress": 0,
        "Done": 0,
        "Failed": 0,
    }
    for name in ("a", "b", "c"):
        await bench.keep(name)
    await bench.store.scans().fail(await bench.claim(), "x")
    await bench.claim()
    assert await bench.store.scans().count_by_state() == {
        "To Do": 1,
        "In Progress": 1,
        "Done": 0,
        "Failed": 1,
    }


# --- reports


@behaviour
async def reports_in_order(bench: Bench) -> None:
    """The oldest report for a destination is taken first, each by one at a time, none of another destination."""
    await bench.report("other", node="pacs-2")
    await bench.report("a")
    await bench.report("b")
    assert (await bench.take()).report_id == "report-a"
    assert (await bench.take(owner="hub-2")).report_id == "report-b"
    assert await bench.store.reports().take(NODE, "hub-1", LONG) is None
    assert await bench.store.reports().waiting() == {NODE: 2, "pacs-2": 1}
    assert await bench.store.reports().waiting(besides=[NODE, "pacs-3"]) == {"pacs-2": 1}


@behaviour
async def report_lease_ends(bench: Bench) -> None:
    """A report whose holder does not come back is taken by another, with a higher token."""
    await bench.report()
    first = await bench.take(SHORT)
    assert first.lease is not None
    assert (first.lease.owner, first.lease.token) == ("hub-1", 1)
    assert await bench.store.reports().take(NODE, "hub-2", LONG) is None
    await bench.pass_time(2 * SHORT)
    second = await bench.take(owner="hub-2")
    assert second.lease is not None
    assert (second.report_id, second.lease.token) == ("report-a", 2)


@behaviour
async def delivered_report(bench: Bench) -> None:
    """A delivered report has its status set once and is not taken again, whoever delivered it."""
    await bench.report()
    stale = await bench.take(SHORT)
    await bench.pass_time(2 * SHORT)
    await bench.take(owner="hub-2")
    await bench.store.reports().delivered(stale)
    report = await bench.stored("report-a")
    assert (report.status, report.lease) == (True, None)
    assert report.delivered_at is not None
    await bench.pass_time(0.01)
    await bench.store.reports().delivered(stale)
    assert await bench.stored("report-a") == report
    assert await bench.store.reports().take(NODE, "hub-1", LONG) is None
    assert await bench.store.reports().waiting() == {}


@behaviour
async def report_put_back(bench: Bench) -> None:
    """A report that was put back is due after the delay, with one attempt more and the reason."""
    await bench.report()
    await bench.store.reports().put_back(await bench.take(), "no one there", SHORT)
    report = await bench.stored("report-a")
    assert (report.attempts, report.error, report.lease) == (1, "no one there", None)
    assert await bench.store.reports().take(NODE, "hub-1", LONG) is None
    await bench.pass_time(2 * SHORT)
    assert (await bench.take()).attempts == 1


@behaviour
async def stale_put_back(bench: Bench) -> None:
    """A holder that was taken over, or whose report was delivered, puts nothing back."""
    await bench.report()
    stale = await bench.take(SHORT)
    await bench.pass_time(2 * SHORT)
    holder = await bench.take(owner="hub-2")
    await bench.store.reports().put_back(stale, "late", 0)
    assert await bench.stored("report-a") == holder
    await bench.store.reports().delivered(holder)
    delivered = await bench.stored("report-a")
    await bench.store.reports().put_back(holder, "late", 0)
    assert await bench.stored("report-a") == delivered


@behaviour
async def refused_report(bench: Bench) -> None:
    """A refused report is kept with the reason and not offered again; a delivered one is not refused any more."""
    await bench.report()
    await bench.store.reports().refused(await bench.take(), "unknown patient")
    report = await bench.stored("report-a")
    assert (report.status, report.refused, report.error) == (False, True, "unknown patient")
    assert await bench.store.reports().take(NODE, "hub-1", LONG) is None
    assert await bench.store.reports().next_due(NODE) is None
    assert await bench.store.reports().waiting() == {}
    await bench.report("b")
    second = await bench.take()
    await bench.store.reports().delivered(second)
    await bench.store.reports().refused(second, "late")
    assert (await bench.stored("report-b")).refused is False


@behaviour
async def stale_refusal(bench: Bench) -> None:
    """What a holder that was taken over is told by the destination refuses nothing: the present holder will be told."""
    await bench.report()
    stale = await bench.take(SHORT)
    await bench.pass_time(2 * SHORT)
    holder = await bench.take(owner="hub-2")
    await bench.store.reports().refused(stale, "late")
    assert await bench.stored("report-a") == holder
    await bench.store.reports().put_back(holder, "no one there", 0)
    again = await bench.stored("report-a")
    await bench.store.reports().refused(stale, "late")
    assert await bench.stored("report-a") == again
    await bench.store.reports().refused(holder, "unknown patient")
    assert (await bench.stored("report-a")).refused is True


@behaviour
async def report_in_history(bench: Bench) -> None:
    """The history of a scan tells what became of its report: put back, refused or delivered, when and by whom."""
    reports = bench.store.reports()
    await bench.report()
    await reports.put_back(await bench.take(), "busy: later", 0)
    await bench.pass_time(0.05)
    await reports.delivered(await bench.take())
    await bench.report("b")
    await reports.refused(await bench.take(), "damaged: no bundle")
    a, b = await bench.told("a"), await bench.told("b")
    assert [entry.event for entry in a.history] == ["received", "claimed", "done", "put back", "delivered"]
    assert [entry.event for entry in b.history] == ["received", "claimed", "done", "refused"]
    assert [entry.detail for entry in a.history[-2:]] == ["report-a, attempt 1: busy: later", "report-a"]
    assert b.history[-1].detail == "report-b: damaged: no bundle"
    assert {(entry.unit, entry.node) for entry in (*a.history, *b.history)} == {("test", "node")}
    assert a.history[-1].at == (await bench.stored("report-a")).delivered_at


@behaviour
async def long_absence_in_history(bench: Bench) -> None:
    """A node that is away for long does not fill the history: after the first attempts fewer and fewer are told."""
    await bench.report()
    for _ in range(40):
        await bench.store.reports().put_back(await bench.take(), "busy", 0)
    history = (await bench.told()).history
    told = [entry.detail for entry in history if entry.event == "put back"]
    assert told == [f"report-a, attempt {n}: busy" for n in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)]
    assert (await bench.stored("report-a")).attempts == 40


@behaviour
async def next_due_report(bench: Bench) -> None:
    """It is told when a report will be due: now, at the end of a lease, after a delay, or never."""
    reports = bench.store.reports()
    assert await reports.next_due(NODE) is None
    await bench.report()
    assert await reports.next_due(NODE) == 0
    taken = await bench.take(LONG)
    due = await reports.next_due(NODE)
    assert due is not None
    assert LONG - 10 < due <= LONG
    await reports.put_back(taken, "x", LONG / 2)
    due = await reports.next_due(NODE)
    assert due is not None
    assert LONG / 2 - 10 < due <= LONG / 2


# --- retention


async def delivered(bench: Bench, name: str = "a") -> BrainReport:
    """Upload, analyse and deliver."""
    await bench.report(name)
    report = await bench.take()
    await bench.store.reports().delivered(report)
    return report


@behaviour
async def old_payload_is_removed(bench: Bench) -> None:
    """Long after its report was delivered the payload of a scan goes; scan and report stay, and say so."""
    report = await delivered(bench)
    assert await bench.store.scans().retire(LONG) == 0
    before = await bench.scan()
    await bench.pass_time(2 * SHORT)
    assert await bench.store.scans().retire(SHORT) == 1
    assert await bench.store.scans().retire(SHORT) == 0
    scan = await bench.scan()
    assert scan.payload_removed_at is not None
    assert [entry.event for entry in scan.history][-1] == "payload removed"
    same = {"history": before.history, "payload_removed_at": None}
    assert scan.model_copy(update=same) == before
    await bench.pass_time(0.05)
    assert await bench.store.scans().clean(LONG) == 1
    assert await bench.store.scans().clean(LONG) == 0
    await raises(PayloadMissingError, bench.store.payloads().read_chunks(scan.payload_id, 0, 1))
    kept = await bench.stored(report.report_id)
    assert await bench.store.payloads().read_chunks(kept.payload_id, 0, 1) == [new_report().bundle]


@behaviour
async def removed_payload_is_kept_already(bench: Bench) -> None:
    """A scan whose payload was removed is not received again, nor by a receiver that was at it before."""
    late = await bench.begin(bench.new_scan())
    await bench.write(late, "a")
    await delivered(bench)
    await bench.pass_time(2 * SHORT)
    assert await bench.store.scans().retire(SHORT) == 1
    await bench.pass_time(0.05)
    await bench.store.scans().clean(LONG)
    assert await bench.store.scans().begin_upload(bench.new_scan()) is None
    assert await bench.store.scans().peek_upload(bench.new_scan()) is None
    await raises(ConflictError, bench.store.scans().begin_upload(bench.new_scan(size=101)))
    await bench.store.scans().commit(late)
    scan = await bench.scan()
    assert (scan.report_generated, scan.payload_removed_at is None) == (ScanState.DONE, False)
    assert len(await bench.store.reports().of_scan("scan-a")) == 1


@behaviour
async def needed_payload_stays(bench: Bench) -> None:
    """The payload of a scan that waits, is worked on, has failed, or has a report undelivered or refused, stays."""
    await bench.report("undelivered")
    await bench.report("refused")
    for _ in range(2):
        report = await bench.take()
        if report.report_id == "report-refused":
            await bench.store.reports().refused(report, "unknown patient")
    await bench.keep("failed")
    await bench.store.scans().fail(await bench.claim(), "x")
    await bench.keep("worked-on")
    await bench.claim()
    await bench.keep("waiting")
    await bench.pass_time(2 * SHORT)
    assert await bench.store.scans().retire(SHORT) == 0
    await bench.store.scans().clean(LONG)
    for name in ("undelivered", "refused", "failed", "worked-on", "waiting"):
        scan = await bench.scan(name)
        assert scan.payload_removed_at is None
        assert len(await bench.store.payloads().read_chunks(scan.payload_id, 0, 1)) == 1


@behaviour
async def late_delivery_counts_anew(bench: Bench) -> None:
    """A payload that was looked at too early is removed so long after the delivery, and not before."""
    await bench.report()
    await bench.pass_time(2 * SHORT)
    assert await bench.store.scans().retire(SHORT) == 0
    await bench.store.reports().delivered(await bench.take())
    await bench.pass_time(3 * SHORT)
    assert await bench.store.scans().retire(LONG) == 0
    assert await bench.store.scans().retire(SHORT) == 1


@behaviour
async def unknown_ids(bench: Bench) -> None:
    """What is not there is None, or an empty list."""
    assert await bench.store.scans().get("scan-x") is None
    assert await bench.store.reports().get("report-x") is None
    assert await bench.store.reports().of_scan("scan-x") == []
