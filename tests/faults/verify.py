"""The checks after a round, on a `Snapshot` alone: nothing lost, nothing doubled, nothing stuck, nothing left over."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tests.faults.problems import BYTES, DOUBLED, LEFT, LOST, ORPHAN, OTHER, STUCK, Problem
from tests.faults.reader import Snapshot
from tests.faults.scans import Expected
from tests.faults.wire import Sighting

_FINAL = ("Done", "Failed")


def check(
    snapshot: Snapshot,
    expected: Mapping[str, Expected],
    acknowledged: Mapping[str, str],
    indexes: Mapping[str, set[str]],
    retires: bool = False,
) -> list[Problem]:
    """Return everything that is wrong with a house at rest.

    Args:
        snapshot: what was seen.
        expected: what was given to Fr, by scan id.
        acknowledged: scans for which an ACK was seen, by id, with the SHA-256 that it named.
        indexes: those that there were when the house was new.
        retires: the payloads of scans whose reports were delivered may be gone, on purpose.
    """
    return [
        *_check_scans(snapshot, expected, acknowledged, retires),
        *_check_reports(snapshot, expected),
        *_check_disk(snapshot),
        *_check_rest(snapshot, indexes),
    ]


def _check_scans(
    snapshot: Snapshot, expected: Mapping[str, Expected], acknowledged: Mapping[str, str], retires: bool
) -> Iterable[Problem]:
    for scan_id, sha256 in acknowledged.items():
        if scan_id not in snapshot.scans:
            yield Problem(LOST, scan_id, "was acknowledged, and is not in the store")
        elif snapshot.scans[scan_id]["sha256"] != sha256:
            yield Problem(BYTES, scan_id, "was acknowledged with another sha256 than it is kept with")
    for scan_id, wanted in expected.items():
        scan = snapshot.scans.get(scan_id)
        if scan is None:
            if scan_id not in acknowledged:
                yield Problem(STUCK, scan_id, f"was never taken from {wanted.node}")
            continue
        yield from _check_scan(scan, wanted)
        yield from _check_payload(scan, wanted, snapshot, retires)
    for stranger in snapshot.strangers:
        yield Problem(DOUBLED, stranger, "a scan that nobody sent")


def _check_scan(scan: Mapping[str, Any], wanted: Expected) -> Iterable[Problem]:
    scan_id, state = wanted.scan_id, scan["report_generated"]
    if scan["source"] != wanted.node or scan["patient_id"] != wanted.patient_id:
        yield Problem(BYTES, scan_id, "is kept for another node or patient")
    if state not in _FINAL:
        yield Problem(STUCK, scan_id, f"is {state} after {scan['attempts']} attempts")
    elif state == "Failed" and not scan.get("error"):
        yield Problem(OTHER, scan_id, "is Failed without a reason")
    elif wanted.poison and state == "Done":
        yield Problem(OTHER, scan_id, "cannot be analysed, and is Done")
    elif state == "Failed" and not wanted.poison and "attempts" not in scan["error"]:
        yield Problem(LOST, scan_id, f"can be analysed, and is Failed: {scan['error'][:200]}")
    if scan.get("pending_report"):
        yield Problem(STUCK, scan_id, "its report is still in its own document")


def _check_payload(
    scan: Mapping[str, Any], wanted: Expected, snapshot: Snapshot, retires: bool
) -> Iterable[Problem]:
    kept = snapshot.payloads.get(scan["payload_id"])
    if scan.get("payload_removed_at") is None:
        if kept is None or not kept.whole or (kept.sha256, kept.size) != (wanted.sha256, wanted.size):
            text = f"its chunks hold {kept and kept.size} bytes that are not those sent"
            yield Problem(BYTES, wanted.scan_id, text)
        return
    # Its chunks may be there for a while yet. What must be there for ever is its report, which others look at.
    if not retires:
        yield Problem(LOST, wanted.scan_id, "its payload was removed, in a house that keeps them all")
    reports = [report for report in snapshot.reports if report["scan_id"] == wanted.scan_id]
    if scan["report_generated"] != "Done" or not reports or any(r["status"] is not True for r in reports):
        text = f"its payload was removed though it is {scan['report_generated']}, or a report not delivered"
        yield Problem(LOST, wanted.scan_id, text)


def _check_reports(snapshot: Snapshot, expected: Mapping[str, Expected]) -> Iterable[Problem]:
    of_scan: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for report in snapshot.reports:
        of_scan[report["scan_id"]].append(report)
        node = expected[report["scan_id"]].node if report["scan_id"] in expected else None
        if node is not None and report["destination"] != node:
            yield Problem(OTHER, report["_id"], f"is for {report['destination']}, its scan came from {node}")
        if report["status"] is not True:
            yield Problem(STUCK, report["_id"], f"is not delivered: {report.get('error')}")
        kept = snapshot.payloads.get(report["payload_id"])
        if kept is None or not kept.whole or kept.sha256 != report["sha256"]:
            yield Problem(BYTES, report["_id"], "its chunks do not hold its bytes")
    for scan_id, scan in snapshot.scans.items():
        each = Counter((r["analysis"], r["analysis_version"]) for r in of_scan[scan_id])
        wanted = 1 if scan["report_generated"] == "Done" else 0
        if not each and wanted:
            yield Problem(LOST, scan_id, "is Done, and has no report")
        if each and not wanted:
            yield Problem(OTHER, scan_id, f"is {scan['report_generated']}, and has a report")
        for analysis, count in each.items():
            if count > 1:
                yield Problem(DOUBLED, scan_id, f"has {count} reports of {' '.join(analysis)}")


def _check_disk(snapshot: Snapshot) -> Iterable[Problem]:
    folders = defaultdict(list)
    for found in snapshot.disk:
        folders[found.report_id].append(found)
    for found in folders.pop("", []):
        yield Problem(OTHER, f"{found.node}/{found.folder}", "a folder of reports without its marker")
    for report in snapshot.reports:
        there = folders.pop(report["_id"], [])
        right = [found for found in there if found.node == report["destination"]]
        if report["status"] is True and not right:
            yield Problem(
                LOST, report["_id"], f"is delivered, and not on the disk of {report['destination']}"
            )
        if len(there) > 1:
            where = ", ".join(f"{found.node}/{found.folder}" for found in there)
            yield Problem(DOUBLED, report["_id"], f"is on disk {len(there)} times: {where}")
        kept = snapshot.payloads.get(report["payload_id"])
        for found in right:
            if kept is not None and dict(found.files) != dict(kept.files):
                yield Problem(
                    BYTES, report["_id"], f"{found.node}/{found.folder} has other files than the store"
                )
    for report_id, there in folders.items():
        yield Problem(DOUBLED, report_id, f"is on the disk of {there[0].node}, and not in the store")


def _check_rest(snapshot: Snapshot, indexes: Mapping[str, set[str]]) -> Iterable[Problem]:
    for scan in snapshot.in_progress:
        lease = scan.get("lease")
        if lease is None or lease["expires_at"] < snapshot.now:
            yield Problem(STUCK, scan["_id"], "is In Progress without a live lease")
    for payload_id in sorted(snapshot.chunk_owners - snapshot.used - snapshot.listed):
        yield Problem(ORPHAN, payload_id, "its chunks belong to nothing, and are on no list of the cleaner")
    for collection, names in indexes.items():
        if missing := names - snapshot.indexes.get(collection, set()):
            yield Problem(OTHER, collection, f"index missing: {', '.join(sorted(missing))}")
    for path in snapshot.waiting:
        yield Problem(STUCK, path, "was not taken from its folder")


def check_cleaned(snapshot: Snapshot) -> list[Problem]:
    """Return what the cleaner has left, when nobody works and its grace period is over."""
    orphans = [
        Problem(ORPHAN, payload_id, "its chunks belong to nothing")
        for payload_id in sorted(snapshot.chunk_owners - snapshot.used)
    ]
    return orphans + [
        Problem(LEFT, upload["_id"], "an upload that nobody continues") for upload in snapshot.uploads
    ]


def check_retired(snapshot: Snapshot) -> list[Problem]:
    """Return which payloads a house that removes those of delivered scans has not removed, after its periods."""
    found = []
    for scan_id, scan in sorted(snapshot.scans.items()):
        if scan["report_generated"] != "Done":
            continue
        if scan.get("payload_removed_at") is None:
            found.append(Problem(LEFT, scan_id, "was delivered long ago, and its payload is kept"))
        elif scan["payload_id"] in snapshot.chunk_owners:
            found.append(Problem(LEFT, scan_id, "its payload was removed, and its chunks are there"))
    return found


def acknowledged_on(sightings: Iterable[Sighting]) -> dict[str, str]:
    """Return the scans for which a HUB said ACK, by id, with the sha256."""
    return {
        sighting.fields["id"]: sighting.fields["sha256"]
        for sighting in sightings
        if sighting.verb == "ACK" and sighting.direction == "down" and ">hub" in sighting.wire
    }


def check_resumes(
    sightings: Iterable[Sighting], apart: frozenset[str] = frozenset(), patience: float = math.inf
) -> list[Problem]:
    """Return where bytes had to be sent again that a receiver had said to be durable.

    Args:
        sightings: in the order in which they were seen.
        apart: ids that were sent with several contents.
        patience: seconds after its last word that a receiver may have given an upload up.
    """
    kept: dict[tuple[str, str], int] = {}
    heard: dict[tuple[str, str], float] = {}
    acked: dict[str, float] = {}
    problems = []
    for sighting in sightings:
        if ">hub" not in sighting.wire or sighting.direction != "down":
            continue
        item = str(sighting.fields.get("id", ""))
        key = (sighting.wire, item)
        if item in apart:
            continue
        if sighting.verb == "KEPT":
            kept[key] = max(kept.get(key, 0), sighting.fields["offset"])
        elif sighting.verb == "ACK":
            acked.setdefault(item, sighting.at)
        elif sighting.verb == "NACK" and not sighting.fields.get("retry", True):
            kept.pop(key, None)
        elif sighting.verb == "GO":
            given_up = sighting.at - heard.get(key, sighting.at) > patience
            if sighting.fields["offset"] < kept.get(key, 0) and not given_up:
                text = f"had {kept[key]} bytes durable, and was asked from {sighting.fields['offset']}"
                problems.append(Problem(OTHER, item, text))
            if item in acked:
                problems.append(Problem(DOUBLED, item, "was asked for after its ACK"))
            if given_up:
                kept.pop(key, None)
        if sighting.verb in ("GO", "KEPT"):
            heard[key] = sighting.at
    return problems
