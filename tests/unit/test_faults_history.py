"""The check of histories after a fault round finds what it is for; on snapshots, without a process."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.history import LONGEST, Law, check_drained, check_histories
from tests.faults.problems import DOUBLED, OTHER
from tests.faults.reader import Snapshot

BEGIN = datetime(2026, 1, 2, 12, tzinfo=UTC)
LAW = Law(lease=4.0, slack=1.0)
RETIRING = Law(lease=4.0, slack=1.0, retires=True)

Lines = list[dict[str, Any]]
HOLDER, TAKER = "brain-1.aa", "brain-2.bb"


def line(seconds: float, event: str, node: str, detail: str | None = None) -> dict[str, Any]:
    """Return a line of a history, ``seconds`` after its beginning."""
    at, unit = BEGIN + timedelta(seconds=seconds), node.partition("-")[0]
    return {"at": at, "event": event, "unit": unit, "node": node, "detail": detail}


def taken_over() -> Lines:
    """Return the lines of a scan that one BRAIN gave back, another let go by its death, and the first then did."""
    return [
        line(0, "received", "hub-1"),
        line(1, "claimed", "brain-1", HOLDER),
        line(2, "released", "brain-1"),
        line(3, "claimed", "brain-2", TAKER),
        line(8, "claimed", "brain-1", f"{HOLDER}, after the lease of {TAKER} ended"),
        line(9, "done", "brain-1", "report-a"),
        line(10, "put back", "hub-1", "report-a, attempt 1: away"),
        line(11, "delivered", "hub-2", "report-a"),
    ]


def house(lines: Lines, **scan: Any) -> Snapshot:
    """Return a house with one scan, that is Done after two attempts unless told otherwise, and its report."""
    usual = {"_id": "scan-a", "report_generated": "Done", "attempts": 2, "history": lines}
    report = {"_id": "report-a", "scan_id": "scan-a", "status": True}
    snapshot = Snapshot(BEGIN + timedelta(minutes=1), scans={"scan-a": {**usual, **scan}})
    if snapshot.scans["scan-a"]["report_generated"] == "Done":
        snapshot.reports = [report]
    return snapshot


class HistoryTests(SynchronousTestCase):
    """`check_histories`."""

    def texts(self, snapshot: Snapshot, law: Law = LAW) -> list[str]:
        """Return what is found."""
        return [problem.text.removeprefix("history: ") for problem in check_histories(snapshot, law)]

    def tampered(self, change: Callable[[Lines], object], **scan: Any) -> str:
        """Return the one thing that is found when the usual lines are changed."""
        lines = taken_over()
        change(lines)
        found = self.texts(house(lines, **scan))
        self.assertEqual(len(found), 1, found)
        return found[0]

    def test_lawful(self) -> None:
        """Nothing is found where claims are given back, leases end, attempts fail or bytes come anew."""
        self.assertEqual(self.texts(house(taken_over())), [])
        failed = [
            line(0, "received", "hub-1"),
            line(1, "failed", "hub-1", "its bytes were gone"),
            line(2, "received anew", "hub-1"),
            line(3, "claimed", "brain-1", HOLDER),
            line(4, "released", "brain-1", "the worker died"),
            line(5, "claimed", "brain-2", TAKER),
            line(6, "failed", "brain-2", "the worker died"),
        ]
        self.assertEqual(self.texts(house(failed, report_generated="Failed")), [])

    def test_claimedTwice(self) -> None:
        """Two claims without a word of how the first ended are found as something doubled."""
        lines = taken_over()
        del lines[2]
        problems = check_histories(house(lines, attempts=3), LAW)
        self.assertEqual([(p.kind, p.what) for p in problems], [(DOUBLED, "scan-a")])
        self.assertIn("claimed twice", problems[0].text)

    def test_takenOverTooSoon(self) -> None:
        """A claim that says that a lease ended comes no sooner than that lease may have."""
        self.assertIn(
            "took it over 2.0 s after",
            self.tampered(
                lambda lines: lines[4].update(
                    line(5, "claimed", "brain-1", f"{HOLDER}, after the lease of {TAKER} ended")
                )
            ),
        )

    def test_takenOverFromAnother(self) -> None:
        """It names the one who held it, and is not said where nobody did."""
        detail = f"{HOLDER}, after the lease of brain-9.x ended"
        self.assertIn("a lease of brain-9.x", self.tampered(lambda lines: lines[4].update(detail=detail)))
        detail = f"{TAKER}, after the lease of {HOLDER} ended"
        self.assertIn("who held none", self.tampered(lambda lines: lines[3].update(detail=detail)))

    def test_endedByAnother(self) -> None:
        """How an attempt ended is told by the BRAIN that held the lease, and no other: the late finisher is refused."""
        self.assertIn(
            "while brain-1.aa held it", self.tampered(lambda lines: lines[5].update(node="brain-2"))
        )
        self.assertIn(
            "while brain-1.aa held it", self.tampered(lambda lines: lines[2].update(node="brain-2"))
        )
        self.assertIn("claimed for", self.tampered(lambda lines: lines[3].update(node="brain-3")))

    def test_wrongOrder(self) -> None:
        """No event comes in a state in which it cannot."""
        for index, what in ((0, "claimed when it was not received"), (1, "released when it was To Do")):
            lines = taken_over()
            del lines[index]
            self.assertIn(what, " ".join(self.texts(house(lines))))
        lines = taken_over()
        lines.insert(6, line(9.5, "claimed", "brain-2", TAKER))
        self.assertIn("claimed when it was Done", " ".join(self.texts(house(lines))))
        lines = taken_over()
        lines.insert(1, line(0.5, "received", "hub-2"))
        self.assertIn("received when it was To Do", " ".join(self.texts(house(lines))))

    def test_lastLine(self) -> None:
        """The last line agrees with the state that the scan is in."""
        lines = taken_over()[:5]
        found = self.texts(house(lines, report_generated="Failed"))
        self.assertEqual(found, ["ends with the scan In Progress, and it is Failed"])
        self.assertEqual(
            self.texts(house([], report_generated="To Do", attempts=0)),
            ["ends with the scan not received, and it is To Do"],
        )

    def test_attempts(self) -> None:
        """What is counted is what the lines tell, where they tell it."""
        for attempts, wrong in ((1, 1), (2, 0), (3, 1)):
            self.assertEqual(len(self.texts(house(taken_over(), attempts=attempts))), wrong, attempts)
        lines = taken_over()
        lines[2]["detail"] = "the worker died"
        self.assertEqual(self.texts(house(lines, attempts=3)), [])

    def test_times(self) -> None:
        """A line is not told after one that is later, by more than clocks are read apart; nor of what is to come."""
        self.assertIn(
            "is told before it",
            self.tampered(lambda lines: lines[1].update(line(-5, "claimed", "brain-1", HOLDER))),
        )
        self.assertIn(
            "no time that was", self.tampered(lambda lines: lines[7].update(at=BEGIN + timedelta(hours=1)))
        )
        self.assertIn("no time that was", self.tampered(lambda lines: lines[0].pop("at")))

    def test_unitAndNode(self) -> None:
        """Each line has the unit that may tell it and its node; no event is unknown."""
        self.assertIn("received by None", self.tampered(lambda lines: lines[0].pop("unit")))
        self.assertIn("done by brain on None", self.tampered(lambda lines: lines[5].pop("node")))
        self.assertIn("delivered by brain", self.tampered(lambda lines: lines[7].update(unit="brain")))
        self.assertIn("'retried' is no event", self.tampered(lambda lines: lines[2].update(event="retried")))

    def test_reportOnce(self) -> None:
        """The report's lines, that it was made and that it was delivered, are there once each."""
        for index in (5, 7):
            lines = taken_over()
            del lines[index]
            self.assertTrue(any("0 times" in text for text in self.texts(house(lines))))
        twice = self.tampered(lambda lines: lines.append(line(12, "delivered", "hub-1", "report-a")))
        self.assertIn("twice or more", twice)
        self.assertIn(
            "not there", self.tampered(lambda lines: lines.append(line(12, "delivered", "hub-1", "report-x")))
        )

    def test_untold(self) -> None:
        """A line that is still to be told counts, once, until nothing may be left to tell."""
        snapshot = house(taken_over())
        snapshot.reports[0]["untold"] = [taken_over()[7]]
        self.assertEqual(self.texts(snapshot), [])
        self.assertEqual(len(self.texts(snapshot, Law(4.0, 1.0, all_told=True))), 1)
        snapshot.scans["scan-a"]["history"].pop()
        self.assertEqual(self.texts(snapshot), [])
        snapshot.reports[0]["untold"] = []
        self.assertEqual(len(self.texts(snapshot)), 1)

    def test_payloadRemoved(self) -> None:
        """That the payload was removed is told where it was, once, and only where payloads are removed."""
        lines = [*taken_over(), line(20, "payload removed", "hub-1", "delivered")]
        removed = house(lines, payload_removed_at=BEGIN)
        self.assertEqual(self.texts(removed, RETIRING), [])
        self.assertEqual(len(self.texts(removed)), 1)
        self.assertEqual(len(self.texts(house(lines), RETIRING)), 1)
        self.assertEqual(len(self.texts(house(taken_over(), payload_removed_at=BEGIN), RETIRING)), 1)

    def test_cut(self) -> None:
        """A history as long as Fr keeps one is no whole history."""
        lines = [line(0, "received", "hub-1")]
        lines += [line(1, "claimed", "brain-1", HOLDER), line(1, "released", "brain-1")] * (LONGEST // 2)
        self.assertIn("the first may be gone", self.texts(house(lines[1:], report_generated="To Do"))[0])


class DrainedTests(SynchronousTestCase):
    """`check_drained`."""

    def test_attempts(self) -> None:
        """A scan that took a second counted attempt is found where every unit ended in order."""
        self.assertEqual(check_drained(house(taken_over(), attempts=1)), [])
        found = check_drained(house(taken_over(), attempts=2))
        self.assertEqual([(problem.kind, problem.what) for problem in found], [(OTHER, "scan-a")])

    def test_worn(self) -> None:
        """So is one that was given up."""
        self.assertEqual(len(check_drained(house(taken_over(), report_generated="Failed", attempts=1))), 1)
