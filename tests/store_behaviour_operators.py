"""What every store answers to people, in memory and in MongoDB: behaviours as those of `tests.store_behaviour`."""

from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from fr_twisted.model import CHUNK_SIZE, ScanState
from fr_twisted.store.ioperators import (
    Check,
    Checked,
    Finding,
    FindingKind,
    IOperators,
    NodeRow,
    NotPossibleError,
    ReportState,
    StoreStatus,
    UploadRow,
    Wanted,
)
from tests.store_behaviour import LONG, NODE, SHORT, Behaviour, Bench, new_report

OPERATOR_BEHAVIOURS: list[Behaviour] = []

NOBODYS = "no scan, report or upload has this payload"

NOW = Check(grace_seconds=0.0, upload_ttl_seconds=0.0)
"""Nothing may be under way."""


def behaviour(function: Behaviour) -> Behaviour:
    """List a behaviour."""
    OPERATOR_BEHAVIOURS.append(function)
    return function


def operators(bench: Bench) -> IOperators:
    """Return what people may ask of the store."""
    return bench.store.operators()


async def verified(bench: Bench, check: Check = NOW) -> tuple[Checked, list[Finding]]:
    """Verify."""
    found: list[Finding] = []
    checked = await operators(bench).verify(check, found.append, lambda *_: None)
    assert sum(checked.findings.values()) == len(found)
    return checked, found


async def refusal(asked: Awaitable[Any]) -> str:
    """Return why something is not possible."""
    try:
        await asked
    except NotPossibleError as error:
        return str(error)
    raise AssertionError("it was possible")


async def fail(bench: Bench, name: str, reason: str = "no brain in it") -> None:
    """Upload a scan that fails at its first attempt."""
    await bench.keep(name)
    await bench.store.scans().fail(await bench.claim(), reason)


async def deliver(bench: Bench, name: str) -> None:
    """Upload a scan, analyse it, deliver the report."""
    await bench.report(name)
    await bench.store.reports().delivered(await bench.take())
    await bench.told(name)


# --- status


@behaviour
async def status_of_nothing(bench: Bench) -> None:
    """An empty store has no scans in each state, and nothing else."""
    status: StoreStatus = await operators(bench).status()
    assert [(row.state, row.count, row.oldest) for row in status.states] == [(s, 0, None) for s in ScanState]
    assert (status.nodes, status.leases, status.uploads, status.uploads_in_all) == ((), (), (), 0)
    assert abs((status.at - await bench.store.now()).total_seconds()) < 10


@behaviour
async def status_counts(bench: Bench) -> None:
    """The status counts scans by state with the arrival of the oldest, and tells who works on what for how long."""
    await fail(bench, "a")
    first = await bench.keep("b")
    await bench.keep("c", priority=9)
    claim = await bench.claim(LONG, "brain-7")
    assert claim.scan.scan_id == "scan-c"
    await bench.keep("d")
    status: StoreStatus = await operators(bench).status()
    counts = {row.state.value: row.count for row in status.states}
    assert counts == {"To Do": 2, "In Progress": 1, "Done": 0, "Failed": 1}
    assert status.states[0].oldest == first.received_at
    [lease] = status.leases
    assert (lease.scan_id, lease.owner, lease.attempts) == ("scan-c", "brain-7", 1)
    assert lease.seconds_left is not None
    assert LONG - 20 < lease.seconds_left <= LONG


@behaviour
async def status_of_nodes(bench: Bench) -> None:
    """The status says of each node what it sent and got in the last hour, and which reports are kept for it."""
    await deliver(bench, "a")
    await bench.report("b")
    await bench.store.reports().refused(await bench.take(), "no")
    last = await bench.keep("c")
    await bench.store.scans().fail(await bench.claim(), "x")
    other = await bench.keep("d", node="pacs-2")
    await bench.store.scans().complete(await bench.claim(), new_report("d"))
    status: StoreStatus = await operators(bench).status()
    assert status.nodes == (
        NodeRow(NODE, 3, last.received_at, analysed=2, delivered=1, waiting=0, refused=1),
        NodeRow("pacs-2", 1, other.received_at, analysed=1, delivered=0, waiting=1, refused=0),
    )


@behaviour
async def status_of_uploads(bench: Bench) -> None:
    """The status shows what is being received, the last touched first, and how much of it is known to be kept."""
    first = await bench.begin(bench.new_scan("a", size=3 * CHUNK_SIZE))
    await bench.write(first, "a", 0)
    await bench.pass_time(0.05)
    await bench.begin(bench.new_scan("b", size=7))
    status: StoreStatus = await operators(bench).status()
    assert [row.scan_id for row in status.uploads] == ["scan-b", "scan-a"]
    assert status.uploads_in_all == 2
    row: UploadRow = status.uploads[1]
    assert (row.source, row.size) == (NODE, 3 * CHUNK_SIZE)
    assert row.kept in (0, CHUNK_SIZE)  # noted now and then


# --- lists


@behaviour
async def listed_newest_first(bench: Bench) -> None:
    """Scans are listed the last received first, no more than asked for, and it is told whether there are more."""
    for name in ("a", "b", "c"):
        await bench.keep(name)
    page = await operators(bench).scans(Wanted(limit=2))
    assert ([row.scan_id for row in page.rows], page.more) == (["scan-c", "scan-b"], True)
    page = await operators(bench).scans(Wanted(limit=3))
    assert ([row.scan_id for row in page.rows], page.more) == (["scan-c", "scan-b", "scan-a"], False)
    row = page.rows[2]
    scan = await bench.scan()
    assert (row.patient_id, row.source, row.state, row.size) == ("patient-a", NODE, "To Do", 100)
    assert (row.received_at, row.attempts, row.error, row.priority) == (scan.received_at, 0, None, 5)


@behaviour
async def listed_by_condition(bench: Bench) -> None:
    """Scans are listed by state, patient and arrival, and by all of them together."""
    await fail(bench, "a")
    b = await bench.keep("b", priority=9)
    await bench.keep("c", priority=0)

    async def ids(wanted: Wanted) -> list[str]:
        return [row.scan_id for row in (await operators(bench).scans(wanted)).rows]

    assert await ids(Wanted(state=ScanState.TO_DO)) == ["scan-c", "scan-b"]
    assert await ids(Wanted(state=ScanState.FAILED)) == ["scan-a"]
    assert await ids(Wanted(patient_id="patient-b")) == ["scan-b"]
    assert await ids(Wanted(patient_id="patient")) == []
    assert await ids(Wanted(since=b.received_at)) == ["scan-c", "scan-b"]
    assert await ids(Wanted(since=b.received_at, state=ScanState.FAILED)) == []
    assert await ids(Wanted(ScanState.TO_DO, "patient-b", b.received_at - timedelta(days=99))) == ["scan-b"]
    assert await ids(Wanted(since=b.received_at + timedelta(days=1))) == []


@behaviour
async def found_by_beginning(bench: Bench) -> None:
    """Scans and reports are found by how their ids begin; a whole id is found alone."""
    for name in ("a", "ab", "b"):
        await bench.report(name)
    await bench.begin(bench.new_scan("abc"))
    ask = operators(bench)
    assert await ask.find_scans("scan-ab", 9) == ["scan-ab"]
    assert await ask.find_scans("scan-", 9) == ["scan-a", "scan-ab", "scan-abc", "scan-b"]
    assert await ask.find_scans("scan-", 2) == ["scan-a", "scan-ab"]
    assert await ask.find_scans("scan-abc", 9) == ["scan-abc"]
    assert await ask.find_scans("report-a", 9) == []
    assert await ask.find_reports("report-", 9) == ["report-a", "report-ab", "report-b"]
    assert await ask.find_reports("report-a", 9) == ["report-a"]


# --- one scan


@behaviour
async def whole_story(bench: Bench) -> None:
    """Everything about a scan is told: its document, its history, and what became of its report."""
    await deliver(bench, "a")
    found = await operators(bench).look("scan-a")
    assert found is not None
    assert found.scan == await bench.scan()
    events = [entry.event for entry in found.scan.history]
    assert events == ["received", "claimed", "done", "delivered"]
    [report] = found.reports
    stored = await bench.stored("report-a")
    assert (report.report_id, report.scan_id, report.destination) == ("report-a", "scan-a", NODE)
    assert (report.state, report.delivered_at) == (ReportState.DELIVERED, stored.delivered_at)
    assert (report.size, report.sha256, report.attempts) == (stored.size, stored.sha256, 0)
    assert (found.report_pending, found.upload) == (False, None)
    assert await operators(bench).report("report-a") == report
    assert await operators(bench).report("report-x") is None
    assert await operators(bench).look("scan-x") is None


@behaviour
async def story_of_an_upload(bench: Bench) -> None:
    """Of a scan that is being received, the upload is told."""
    upload = await bench.begin(bench.new_scan(size=2 * CHUNK_SIZE))
    await bench.write(upload, "a", 0)
    found = await operators(bench).look("scan-a")
    assert found is not None
    assert found.scan is None
    assert found.upload is not None
    row = found.upload
    assert (row.scan_id, row.source, row.size, row.kept) == ("scan-a", NODE, 2 * CHUNK_SIZE, CHUNK_SIZE)


# --- mending


@behaviour
async def retried_scan(bench: Bench) -> None:
    """A Failed scan that is retried is To Do as if it were new, says who did it, and is claimed again."""
    await fail(bench, "a")
    await operators(bench).retry("scan-a", "by alice")
    scan = await bench.scan()
    assert (scan.report_generated, scan.attempts, scan.error, scan.lease) == (ScanState.TO_DO, 0, None, None)
    last = scan.history[-1]
    assert (last.event, last.detail, last.unit, last.node) == ("retried", "by alice", "test", "node")
    await bench.pass_time(1.1)
    claim = await bench.claim()
    assert (claim.token, claim.attempt) == (2, 1)


@behaviour
async def retry_refused(bench: Bench) -> None:
    """What is not Failed is not retried, and stays as it is."""
    await bench.keep("a")
    before = await bench.scan()
    assert await refusal(operators(bench).retry("scan-a", "x")) == (
        "scan-a is To Do, not Failed: there is nothing to retry"
    )
    assert await bench.scan() == before
    await bench.claim()
    assert "is In Progress, not Failed" in await refusal(operators(bench).retry("scan-a", "x"))
    assert await refusal(operators(bench).retry("scan-x", "x")) == "there is no scan scan-x"


@behaviour
async def failed_in_order(bench: Bench) -> None:
    """The ids of Failed scans are given in order, some at a time."""
    for name in ("b", "c", "a"):
        await fail(bench, name)
    await bench.keep("d")
    assert await operators(bench).failed("", 2) == ["scan-a", "scan-b"]
    assert await operators(bench).failed("scan-b", 2) == ["scan-c"]


@behaviour
async def resent_report(bench: Bench) -> None:
    """A delivered or refused report that is resent is due at once, as if it were new, and its scan is told."""
    await deliver(bench, "a")
    await operators(bench).resend("report-a", "by alice")
    report = await bench.stored("report-a")
    assert (report.status, report.refused, report.attempts, report.error) == (False, False, 0, None)
    assert (report.delivered_at, report.lease) == (None, None)
    await bench.pass_time(1.1)
    taken = await bench.take()
    assert taken.report_id == "report-a"
    await bench.store.reports().refused(taken, "no")
    await bench.told()
    await operators(bench).resend("report-a", "by bob")
    await bench.pass_time(1.1)
    await bench.store.reports().delivered(await bench.take())
    scan = await bench.told()
    told = [(entry.event, entry.detail) for entry in scan.history[3:]]
    assert told == [
        ("delivered", "report-a"),
        ("resent", "report-a, by alice"),
        ("refused", "report-a: no"),
        ("resent", "report-a, by bob"),
        ("delivered", "report-a"),
    ]


@behaviour
async def late_delivery_before_a_resend(bench: Bench) -> None:
    """A HUB that was stopped, and tells late of a delivery, does not undo what a person asked for since."""
    await bench.report("a")
    late = await bench.take(SHORT)
    await bench.pass_time(SHORT + 0.1)
    await bench.store.reports().delivered(await bench.take(LONG, "hub-2"))
    await operators(bench).resend("report-a", "by alice")
    await bench.store.reports().delivered(late)
    assert (await bench.stored("report-a")).status is False
    await bench.store.reports().delivered(await bench.take(LONG, "hub-2"))
    assert (await bench.stored("report-a")).status is True


@behaviour
async def resend_refused(bench: Bench) -> None:
    """A report that waits is not resent."""
    await bench.report()
    assert await refusal(operators(bench).resend("report-a", "x")) == (
        "report-a was neither delivered nor refused: it waits for pacs-1 already"
    )
    await bench.store.reports().put_back(await bench.take(), "busy", 0)
    assert "attempts so far: 1" in await refusal(operators(bench).resend("report-a", "x"))
    assert await refusal(operators(bench).resend("report-x", "x")) == "there is no report report-x"


# --- verify


@behaviour
async def clean_store(bench: Bench) -> None:
    """Where everything is as it should be nothing is found, and it is told how much was looked at."""
    await deliver(bench, "a")
    await bench.report("b")
    await fail(bench, "c")
    await bench.keep("big", size=5 * CHUNK_SIZE + 3)
    await bench.claim(LONG)
    await bench.pass_time(0.05)
    checked, found = await verified(bench)
    assert found == []
    assert (checked.scans, checked.reports, checked.uploads, checked.payloads) == (4, 2, 0, 6)
    assert checked.bytes_hashed == 3 * 100 + 2 * 1000 + 5 * CHUNK_SIZE + 3


@behaviour
async def without_bytes(bench: Bench) -> None:
    """Chunks can be looked at without being read."""
    await bench.keep("a")
    checked, found = await verified(bench, replace(NOW, payloads=False))
    assert (found, checked.payloads, checked.bytes_hashed) == ([], 1, 0)


@behaviour
async def progress_is_told(bench: Bench) -> None:
    """While it looks it tells how far it is, and at each end that it is there."""
    for name in ("a", "b", "c", "d", "e"):
        await bench.report(name)
    told: list[tuple[str, int, int]] = []
    await operators(bench).verify(NOW, lambda _: None, lambda *step: told.append(step))
    assert next(step for step in told if step[0] == "scans") == ("scans", 0, 5)
    assert [step for step in told if step[1] == step[2]][-1] == ("chunks", 10, 10)
    assert {("scans", 5, 5), ("reports", 5, 5), ("uploads", 0, 0)} <= set(told)


@behaviour
async def extra_and_orphan_chunks(bench: Bench) -> None:
    """Chunks behind the end of a payload, and those that belong to nothing, are found."""
    scan = await bench.keep("a")
    await bench.store.payloads().write_chunk(scan.payload_id, 1, b"xyz")
    await bench.store.payloads().write_chunk("0" * 32, 0, b"abc")
    await bench.store.payloads().write_chunk("0" * 32, 1, b"de")
    await bench.store.payloads().write_chunk("not hexadecimal", 7, b"f")
    _, found = await verified(bench)
    assert sorted(found, key=lambda finding: finding.id) == [
        Finding(FindingKind.ORPHAN, "0" * 32, f"{NOBODYS}: chunks 2, bytes 5"),
        Finding(FindingKind.ORPHAN, "not hexadecimal", f"{NOBODYS}: chunks 1, bytes 1"),
        Finding(FindingKind.CHUNK_EXTRA, "scan-a", "chunk 1: behind the end, of 1"),
    ]


@behaviour
async def what_is_given_up_is_no_orphan(bench: Bench) -> None:
    """Chunks that are being received, or given up and not removed yet, are fine; a stale upload is not."""
    upload = await bench.begin(bench.new_scan("a"))
    await bench.write(upload, "a")
    discarded = await bench.begin(bench.new_scan("b"))
    await bench.write(discarded, "b")
    await bench.store.scans().discard_upload(discarded)
    _, found = await verified(bench, Check())
    assert found == []
    await bench.pass_time(0.05)
    _, found = await verified(bench)
    assert [(finding.kind, finding.id) for finding in found] == [(FindingKind.UPLOAD_STALE, "scan-a")]


@behaviour
async def stuck_scan(bench: Bench) -> None:
    """A scan In Progress whose lease ended is found once the grace is over."""
    await bench.keep()
    await bench.claim(SHORT, "brain-7")
    await bench.pass_time(2 * SHORT)
    _, found = await verified(bench, replace(NOW, grace_seconds=LONG))
    assert found == []
    _, [finding] = await verified(bench)
    assert (finding.kind, finding.id) == (FindingKind.STUCK, "scan-a")
    assert finding.detail.startswith("In Progress, but the lease of brain-7 ended at 20")
