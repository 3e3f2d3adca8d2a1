"""The check of each scan's history: its lines follow each other lawfully, and end where the scan is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.faults.problems import DOUBLED, OTHER, Problem
from tests.faults.reader import Snapshot

Line = Mapping[str, Any]

LONGEST = 200
"""Lines that Fr keeps: a history of so many may have lost its first ones."""

TO_DO, IN_PROGRESS, DONE, FAILED = "To Do", "In Progress", "Done", "Failed"

_MOVES: Mapping[str, tuple[str, frozenset[str], str]] = {
    "received": ("hub", frozenset(("",)), TO_DO),
    "claimed": ("brain", frozenset((TO_DO, IN_PROGRESS)), IN_PROGRESS),
    "released": ("brain", frozenset((IN_PROGRESS,)), TO_DO),
    "failed": ("brain hub", frozenset((IN_PROGRESS, TO_DO)), FAILED),
    "done": ("brain", frozenset((IN_PROGRESS,)), DONE),
    "received anew": ("hub", frozenset((FAILED, TO_DO)), TO_DO),
    "payload removed": ("hub", frozenset((DONE,)), DONE),
}
"""Of each event of a scan: the units that may tell it, the states it may come in, and the state after it."""

_OF_REPORTS = frozenset(("delivered", "put back", "refused"))

_UNCOUNTED = (None, "the answer to the claim was lost")
"""What is said of a claim that was given back and never counts."""

_AFTER = ", after the lease of "


@dataclass(frozen=True)
class Law:
    """What a house allows."""

    lease: float
    """Seconds of a claim's lease,"""
    slack: float
    """and by how many two units' readings of the store's clock may differ."""
    retires: bool = False
    """The payloads of delivered scans are removed."""
    all_told: bool = False
    """Nothing may be left that is still to be told to a history."""


@dataclass
class _Walk:
    """Where a scan is after some of its lines."""

    state: str = ""
    holder: str = ""
    """Owner of the present lease."""
    claimed_at: datetime | None = None
    least: int = 0
    """Attempts that were counted, at least,"""
    most: int = 0
    """and at most: not every line says whether it was."""
    wrong: list[str] = field(default_factory=list)


def check_histories(snapshot: Snapshot, law: Law) -> list[Problem]:
    """Return what is wrong with the histories of a house at rest."""
    reports: dict[str, list[Mapping[str, Any]]] = {}
    for report in snapshot.reports:
        reports.setdefault(report["scan_id"], []).append(report)
    return [
        Problem(DOUBLED if "twice" in text else OTHER, scan_id, f"history: {text}")
        for scan_id, scan in sorted(snapshot.scans.items())
        for text in _faults(scan, reports.get(scan_id, []), law, snapshot.now)
    ]


def _faults(
    scan: Mapping[str, Any], reports: Sequence[Mapping[str, Any]], law: Law, now: datetime
) -> Iterable[str]:
    lines: Sequence[Line] = scan.get("history") or []
    if len(lines) >= LONGEST:
        yield f"has {len(lines)} lines: the first may be gone"
        return
    malformed = [text for line in lines for text in _malformed(line, law, now)]
    if malformed:
        yield from malformed
        return
    walk = _walked([line for line in lines if line["event"] not in _OF_REPORTS], law)
    yield from walk.wrong
    if walk.state != scan["report_generated"]:
        yield f"ends with the scan {walk.state or 'not received'}, and it is {scan['report_generated']}"
    if not walk.least <= scan["attempts"] <= walk.most:
        yield f"tells of {walk.least} to {walk.most} attempts, and {scan['attempts']} are counted"
    removed = sum(line["event"] == "payload removed" for line in lines)
    if removed != (scan.get("payload_removed_at") is not None) or (removed and not law.retires):
        yield f"tells {removed} times that the payload was removed; it was: {scan.get('payload_removed_at')}"
    yield from _of_reports(lines, reports, law)


def _malformed(line: Line, law: Law, now: datetime) -> Iterable[str]:
    at, event, unit, node = (line.get(name) for name in ("at", "event", "unit", "node"))
    units = "hub" if event in _OF_REPORTS else _MOVES.get(str(event), ("", None, None))[0]
    if not isinstance(at, datetime) or at > now + timedelta(seconds=law.slack):
        yield f"{event} at {at}, which is no time that was"
    elif not units:
        yield f"{event!r} is no event of this house"
    elif unit not in units.split() or not str(node).startswith(f"{unit}-"):
        yield f"{event} by {unit} on {node}"


def _walked(lines: Sequence[Line], law: Law) -> _Walk:
    walk, before = _Walk(), None
    for line in lines:
        if before is not None and line["at"] < before - timedelta(seconds=law.slack):
            walk.wrong.append(f"{line['event']} at {line['at']}, though {before} is told before it")
        _step(walk, line, law)
        before = line["at"]
    return walk


def _step(walk: _Walk, line: Line, law: Law) -> None:
    event, held = line["event"], walk.state == IN_PROGRESS
    _, states, after = _MOVES[event]
    if walk.state not in states:
        walk.wrong.append(f"{event} when it was {walk.state or 'not received'}")
    elif event == "claimed":
        _claim(walk, line, law)
    elif held and line["node"] != walk.holder.partition(".")[0]:
        # The fencing token is there so that nobody but who holds the lease can say how it ended.
        walk.wrong.append(f"{event} by {line['node']}, while {walk.holder} held it")
    elif event == "failed" and line["unit"] != ("brain" if held else "hub"):
        walk.wrong.append(f"failed by {line['unit']} when it was {walk.state}")
    if event == "claimed":
        walk.least, walk.most = walk.least + 1, walk.most + 1
    elif event == "released":
        walk.least -= 1
        walk.most -= line["detail"] in _UNCOUNTED
    elif event == "received anew":
        walk.least = walk.most = 0
    walk.state = after


def _claim(walk: _Walk, line: Line, law: Law) -> None:
    owner, took_over, before = str(line["detail"]).partition(_AFTER)
    held = walk.state == IN_PROGRESS
    if held and not took_over:
        walk.wrong.append(
            f"claimed twice, by {walk.holder} and {owner}, without a word of how the first ended"
        )
    elif took_over and (not held or before.removesuffix(" ended") != walk.holder):
        walk.wrong.append(
            f"claimed by {owner} after a lease of {before.removesuffix(' ended')}, who held none"
        )
    elif held and walk.claimed_at is not None:
        lasted = (line["at"] - walk.claimed_at).total_seconds()
        if lasted < law.lease - law.slack:
            walk.wrong.append(
                f"claimed twice: {owner} took it over {lasted:.1f} s after {walk.holder}'s claim"
            )
    if owner.partition(".")[0] != line["node"]:
        walk.wrong.append(f"claimed for {owner} by {line['node']}")
    walk.holder, walk.claimed_at = owner, line["at"]


def _of_reports(lines: Sequence[Line], reports: Sequence[Mapping[str, Any]], law: Law) -> Iterable[str]:
    done = Counter(line["detail"] for line in lines if line["event"] == "done")
    told = Counter(line["detail"] for line in lines if line["event"] == "delivered")
    for report in reports:
        report_id, untold = report["_id"], list(report.get("untold") or [])
        if done[report_id] != 1:
            yield f"tells {done[report_id]} times that {report_id} was made"
        if untold and law.all_told:
            yield f"was not told: {', '.join(str(line.get('event')) for line in untold)}"
        # A line that is told, and still to be told, is one that a crash left in between.
        waiting = sum(line["event"] == "delivered" and line not in lines for line in untold)
        if told[report_id] + waiting != (report["status"] is True):
            many = "twice or more" if told[report_id] + waiting > 1 else f"{told[report_id] + waiting} times"
            yield f"tells {many} that {report_id} was delivered; its status is {report['status']}"
    ids = {report["_id"] for report in reports}
    for report_id in sorted(set(map(str, [*done, *told])) - ids):
        yield f"tells of {report_id}, which is not there"


def check_drained(snapshot: Snapshot) -> list[Problem]:
    """Return where something was tried again though units were only ended in order, and no scan is a bad one."""
    return [
        Problem(
            OTHER,
            scan_id,
            f"is {scan['report_generated']}, {scan['attempts']} attempts are counted; every unit ended in order",
        )
        for scan_id, scan in sorted(snapshot.scans.items())
        if scan["report_generated"] != DONE or scan["attempts"] != 1
    ]
