"""The checks after a fault round find what they are for; on snapshots, without a process."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.endings import verdict
from tests.faults.problems import BYTES, DOUBLED, LEFT, LOST, ORPHAN, OTHER, STUCK
from tests.faults.reader import OnDisk, Payload, Snapshot
from tests.faults.scans import Expected
from tests.faults.verify import (
    acknowledged_on,
    check,
    check_cleaned,
    check_resumes,
    check_retired,
)
from tests.faults.wire import Sighting

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHA, REPORT_SHA = "a" * 64, "b" * 64
FILES = {"report.json": "c" * 64}
INDEXES = {"brain_scans": {"_id_", "x_1"}}


def good() -> Snapshot:
    """Return a house at rest in which one scan was reported, and one that cannot be analysed is Failed."""
    done: dict[str, Any] = {
        "_id": "scan-a",
        "report_generated": "Done",
        "sha256": SHA,
        "source": "pacs-1",
        "patient_id": "P1",
        "payload_id": "pa",
        "attempts": 1,
        "error": None,
    }
    failed = done | {
        "_id": "scan-b",
        "report_generated": "Failed",
        "payload_id": "pb",
        "error": "after 3 attempts",
    }
    report = {
        "_id": "report-a",
        "scan_id": "scan-a",
        "destination": "pacs-1",
        "status": True,
        "sha256": REPORT_SHA,
        "payload_id": "pr",
        "analysis": "t1",
        "analysis_version": "1",
    }
    return Snapshot(
        NOW,
        scans={"scan-a": done, "scan-b": failed},
        reports=[report],
        payloads={
            "pa": Payload(SHA, 10, True),
            "pb": Payload(SHA, 10, True),
            "pr": Payload(REPORT_SHA, 20, True, FILES),
        },
        chunk_owners={"pa", "pb", "pr"},
        used={"pa", "pb", "pr"},
        indexes=deepcopy(INDEXES),
        disk=[OnDisk("pacs-1", "scan-a", "report-a", "scan-a", FILES)],
    )


EXPECTED = {
    "scan-a": Expected("scan-a", "pacs-1", "P1", SHA, 10),
    "scan-b": Expected("scan-b", "pacs-1", "P1", SHA, 10, poison=True),
}
ACKNOWLEDGED = {"scan-a": SHA, "scan-b": SHA}


def _add(folder: OnDisk, snapshot: Snapshot) -> None:
    snapshot.disk.append(folder)


def _lease(lease: dict[str, Any] | None, snapshot: Snapshot) -> None:
    snapshot.in_progress.append({"_id": "scan-z", "lease": lease})


class CheckTests(SynchronousTestCase):
    """`check`."""

    def found(self, tamper: Callable[[Snapshot], object], **more: Any) -> list[tuple[str, str]]:
        """Return kind and what of the problems after ``tamper``."""
        snapshot = good()
        tamper(snapshot)
        arguments: dict[str, Any] = {"expected": EXPECTED, "acknowledged": ACKNOWLEDGED, "indexes": INDEXES}
        return [(problem.kind, problem.what) for problem in check(snapshot, **(arguments | more))]

    def test_nothing(self) -> None:
        """Where nothing is wrong nothing is found."""
        self.assertEqual(self.found(lambda _: None), [])

    def test_lostScan(self) -> None:
        """A scan that was acknowledged and is gone."""
        self.assertIn((LOST, "scan-b"), self.found(lambda s: s.scans.pop("scan-b")))

    def test_neverTaken(self) -> None:
        """A scan that was given to a node and not even acknowledged."""
        found = self.found(lambda s: s.scans.pop("scan-b"), acknowledged={"scan-a": SHA})
        self.assertIn((STUCK, "scan-b"), found)

    def test_lostReport(self) -> None:
        """A scan that is Done without a report."""
        self.assertIn((LOST, "scan-a"), self.found(lambda s: s.reports.clear()))

    def test_lostOnDisk(self) -> None:
        """A report that counts as delivered and is not on the node's disk."""
        self.assertEqual(self.found(lambda s: s.disk.clear()), [(LOST, "report-a")])

    def test_doubledReport(self) -> None:
        """Two reports of one analysis."""
        found = self.found(lambda s: s.reports.append(s.reports[0] | {"_id": "report-x"}))
        self.assertIn((DOUBLED, "scan-a"), found)

    def test_doubledOnDisk(self) -> None:
        """One report in two folders, of one node or of two."""
        for node in ("pacs-1", "pacs-2"):
            second = OnDisk(node, "x", "report-a", "scan-a", FILES)
            self.assertEqual(self.found(partial(_add, second)), [(DOUBLED, "report-a")])

    def test_onlyOnDisk(self) -> None:
        """A report on a disk that the store does not know."""
        found = self.found(lambda s: s.disk.append(replace(s.disk[0], report_id="report-x", folder="x")))
        self.assertEqual(found, [(DOUBLED, "report-x")])

    def test_scanOfNobody(self) -> None:
        """A scan that nobody sent."""
        self.assertEqual(self.found(lambda s: s.strangers.append("scan-x")), [(DOUBLED, "scan-x")])

    def test_stuckScan(self) -> None:
        """A scan that waits, or is worked on by nobody."""
        self.assertIn(
            (STUCK, "scan-b"), self.found(lambda s: s.scans["scan-b"].update(report_generated="To Do"))
        )
        found = self.found(lambda s: s.scans["scan-b"].update(report_generated="In Progress"))
        self.assertIn((STUCK, "scan-b"), found)

    def test_lease(self) -> None:
        """In Progress without a lease, or with one that is over; a living one is right."""
        self.assertEqual(self.found(partial(_lease, None)), [(STUCK, "scan-z")])
        over, living = ({"expires_at": NOW + timedelta(seconds=n)} for n in (-1, 1))
        self.assertEqual(self.found(partial(_lease, over)), [(STUCK, "scan-z")])
        self.assertEqual(self.found(partial(_lease, living)), [])

    def test_stuckReport(self) -> None:
        """A report that was not delivered, or not even put in its place."""
        self.assertIn((STUCK, "report-a"), self.found(lambda s: s.reports[0].update(status=False)))
        pending = {"payload_id": "pr"}
        self.assertIn(
            (STUCK, "scan-a"), self.found(lambda s: s.scans["scan-a"].update(pending_report=pending))
        )

    def test_wrongBytes(self) -> None:
        """Chunks with other bytes, a missing chunk, another digest in the document, other files on the disk."""
        other = Payload("f" * 64, 10, True)
        self.assertIn((BYTES, "scan-a"), self.found(lambda s: s.payloads.update(pa=other)))
        self.assertIn((BYTES, "scan-a"), self.found(lambda s: s.payloads.update(pa=Payload(SHA, 10, False))))
        self.assertIn((BYTES, "scan-a"), self.found(lambda s: s.payloads.pop("pa")))
        self.assertIn((BYTES, "scan-a"), self.found(lambda s: s.scans["scan-a"].update(sha256="f" * 64)))
        self.assertIn((BYTES, "report-a"), self.found(lambda s: s.payloads.update(pr=other)))
        wrong = OnDisk("pacs-1", "scan-a", "report-a", "scan-a", {"report.json": "e" * 64})
        self.assertEqual(self.found(lambda s: s.disk.__setitem__(0, wrong)), [(BYTES, "report-a")])

    def test_orphan(self) -> None:
        """Chunks of nothing; those that the cleaner has listed are not yet one."""
        self.assertEqual(self.found(lambda s: s.chunk_owners.add("px")), [(ORPHAN, "px")])

        def list_it(snapshot: Snapshot) -> None:
            snapshot.chunk_owners.add("px")
            snapshot.listed.add("px")

        self.assertEqual(self.found(list_it), [])

    def test_failedWithoutReason(self) -> None:
        """Failed, and nobody says why; or a good scan Failed for another reason than worn out attempts."""
        self.assertIn((OTHER, "scan-b"), self.found(lambda s: s.scans["scan-b"].update(error=None)))
        expected = EXPECTED | {"scan-b": replace(EXPECTED["scan-b"], poison=False)}
        self.assertEqual(self.found(lambda _: None, expected=expected), [])
        found = self.found(
            lambda s: s.scans["scan-b"].update(error="the stored scan has 3 bytes"), expected=expected
        )
        self.assertEqual(found, [(LOST, "scan-b")])

    def test_poisonDone(self) -> None:
        """A scan that cannot be analysed has a result."""
        expected = EXPECTED | {"scan-a": replace(EXPECTED["scan-a"], poison=True)}
        self.assertIn((OTHER, "scan-a"), self.found(lambda _: None, expected=expected))

    def test_wrongNode(self) -> None:
        """A report for another node than the scan came from."""
        self.assertIn((OTHER, "report-a"), self.found(lambda s: s.reports[0].update(destination="pacs-2")))

    def test_rest(self) -> None:
        """An index that is gone; a file that was not taken."""
        self.assertEqual(
            self.found(lambda s: s.indexes["brain_scans"].discard("x_1")), [(OTHER, "brain_scans")]
        )
        self.assertEqual(self.found(lambda s: s.waiting.append("a.nii")), [(STUCK, "a.nii")])

    def test_cleaned(self) -> None:
        """After the cleaner, a list is no excuse any more."""
        snapshot = good()
        self.assertEqual(check_cleaned(snapshot), [])
        snapshot.chunk_owners.add("px")
        snapshot.listed.add("px")
        snapshot.uploads.append({"_id": "scan-u"})
        self.assertEqual(
            [(p.kind, p.what) for p in check_cleaned(snapshot)], [(ORPHAN, "px"), (LEFT, "scan-u")]
        )

    def test_retired(self) -> None:
        """A payload may be gone where that was said, its scan reported, and payloads are given up; else it is lost."""

        def retire(snapshot: Snapshot, scan_id: str = "scan-a") -> None:
            snapshot.scans[scan_id]["payload_removed_at"] = NOW
            snapshot.payloads[snapshot.scans[scan_id]["payload_id"]] = Payload("0" * 64, 0, True)

        self.assertEqual(self.found(retire, retires=True), [])
        self.assertEqual(self.found(retire), [(LOST, "scan-a")])
        self.assertEqual(self.found(partial(retire, scan_id="scan-b"), retires=True), [(LOST, "scan-b")])

        def undelivered(snapshot: Snapshot) -> None:
            retire(snapshot)
            snapshot.reports[0]["status"] = False

        self.assertIn((LOST, "scan-a"), self.found(undelivered, retires=True))
        gone = self.found(lambda s: s.payloads.pop("pa"), retires=True)
        self.assertEqual(gone, [(BYTES, "scan-a")])

    def test_notRetired(self) -> None:
        """After its periods, a payload that was not given up is found, and one whose chunks stayed."""
        snapshot = good()
        self.assertEqual([(p.kind, p.what) for p in check_retired(snapshot)], [(LEFT, "scan-a")])
        snapshot.scans["scan-a"]["payload_removed_at"] = NOW
        self.assertEqual([(p.kind, p.what) for p in check_retired(snapshot)], [(LEFT, "scan-a")])
        snapshot.chunk_owners.discard("pa")
        self.assertEqual(check_retired(snapshot), [])


class VerdictTests(SynchronousTestCase):
    """`verdict`."""

    def test_clean(self) -> None:
        """A clean end is no problem."""
        self.assertEqual(verdict(0, '{"findings": [], "clean": true}', ""), [])

    def test_findings(self) -> None:
        """Each finding is one, with its words."""
        finding = {"kind": "orphan", "id": "p1", "detail": "2 chunks belong to nothing"}
        found = verdict(1, json.dumps({"findings": [finding, finding], "clean": False}), "")
        self.assertEqual(
            [str(p) for p in found], ["other: p1: fr verify: orphan: 2 chunks belong to nothing"] * 2
        )

    def test_otherEnds(self) -> None:
        """A command that fails, dies or does not end is no clean end, whatever it printed."""
        for status, out in (
            (2, ""),
            (1, '{"findings": [], "clean": true}'),
            (0, ""),
            (None, ""),
            (-9, '{"find'),
        ):
            found = verdict(status, out, "no store")
            self.assertEqual([(p.kind, p.what) for p in found], [(OTHER, "fr verify")], (status, out))
            self.assertIn("no store", found[0].text)


def said(verb: str, at: float = 0.0, wire: str = "pacs-1>hub-1", **fields: Any) -> Sighting:
    """Return a frame that a HUB said."""
    return Sighting(at, wire, 1, "down", verb, {"id": "scan-a"} | fields)


class SightingTests(SynchronousTestCase):
    """What is made of the frames that passed."""

    def test_acknowledged(self) -> None:
        """Only what a HUB says of scans is an acknowledgement of a scan."""
        report = said("ACK", wire="hub-1>pacs-1", sha256=REPORT_SHA)
        self.assertEqual(
            acknowledged_on([said("ACK", sha256=SHA), said("KEPT", offset=3), report]), {"scan-a": SHA}
        )

    def test_sentAgain(self) -> None:
        """Bytes that were durable are asked for again; or all of them, after the ACK."""
        resumed = [said("GO", offset=0), said("KEPT", offset=2), said("KEPT", offset=4), said("GO", offset=4)]
        self.assertEqual(check_resumes(resumed), [])
        self.assertEqual([p.kind for p in check_resumes([*resumed, said("GO", offset=2)])], [OTHER])
        acked = [*resumed, said("ACK", sha256=SHA), said("ACK", sha256=SHA, duplicate=True)]
        self.assertEqual(check_resumes(acked), [])
        self.assertEqual([p.kind for p in check_resumes([*acked, said("GO", offset=4)])], [DOUBLED])
        self.assertEqual(check_resumes([*acked, said("GO", offset=4)], frozenset(("scan-a",))), [])

    def test_givenUp(self) -> None:
        """Where uploads are given up, bytes may be asked for again when nothing was heard for so long; no sooner."""
        before = [said("GO", 0.0, offset=0), said("KEPT", 1.0, offset=2)]
        for moment, patience, wrong in ((5.9, 5.0, 1), (6.1, 5.0, 0), (99.0, math.inf, 1)):
            found = check_resumes([*before, said("GO", moment, offset=0)], patience=patience)
            self.assertEqual(len(found), wrong, moment)
        again = [said("GO", 10.0, offset=0), said("KEPT", 10.5, offset=1), said("GO", 11.0, offset=0)]
        self.assertEqual(len(check_resumes([*before, *again], patience=5.0)), 1)
