"""docs/reliability.md says what the published results say, and nothing of its figures is typed."""

import re
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.document import PAGE, SUMMARY, published, replaced, summary, written
from tests.faults.tally import OfKind, Tally


def tally(**more: object) -> Tally:
    """Return the counts of a small run."""
    made = Tally("make faults", 1, 10, False, "2026-01-01 00:00", 60.0, "2 cores", scans=1234, code="abc")
    made.kinds = {"hub-kill": OfKind(injected=1567)}
    return replace(made, **more)  # type: ignore[arg-type]


class DocumentTests(SynchronousTestCase):
    """The page."""

    def setUp(self) -> None:
        """Read it."""
        self.text = PAGE.read_text(encoding="utf-8")

    def test_written(self) -> None:
        """Everything between marks is what ``--document`` writes from the published results."""
        runs = published()
        self.assertTrue(runs)
        self.assertEqual(written(self.text, runs), self.text)

    def test_typed(self) -> None:
        """What is typed has no figures of runs: no count with a comma, and none of faults, rounds or scans."""
        typed = re.sub(r"<!-- (\w+): begin.*?<!-- \1: end -->", "", self.text, flags=re.DOTALL)
        self.assertEqual(re.findall(r"\d,\d{3}|\d+ (?:faults|scans|whole heads)\b", typed), [])

    def test_badRoundsAreExplained(self) -> None:
        """Of every round that was bad the page says what was wrong."""
        typed = re.sub(r"<!-- (\w+): begin.*?<!-- \1: end -->", "", self.text, flags=re.DOTALL)
        for seed in (seed for run in published() for seed in run.bad):
            self.assertIn(str(seed), typed)

    def test_commands(self) -> None:
        """The command of each run goes on after a bad round, as the run did, with its rounds and its seed."""
        for run in published():
            for part in (f"ROUNDS={run.rounds} ", f"SEED={run.seed} ", "--go-on"):
                self.assertIn(part, run.command)
            self.assertEqual("FULL=1" in run.command, run.full)


class SummaryTests(SynchronousTestCase):
    """`summary` and `replaced`."""

    def test_good(self) -> None:
        """Where nothing was wrong it says so, with the sums."""
        text = summary([tally(), tally(in_order=3, short=5)])
        self.assertIn("3,134 faults over 2,468 small scans, in 20 rounds", text)
        self.assertIn("lost: none; doubled: none; stuck: none", text)
        self.assertIn("no round in which anything", text)
        self.assertIn("In 3 rounds units were only ended in order; 5 were", text)

    def test_bad(self) -> None:
        """What was lost is not hidden, and bad rounds are named."""
        text = summary([tally(problems={"lost": 2, "other": 1}, bad=[8, 7]), tally(full=True, scans=9)])
        self.assertIn("1,567 faults over 9 whole heads", text)
        self.assertIn("lost: 2; doubled: none", text)
        self.assertIn("wrong: 2, with the seeds 7, 8", text)

    def test_noMarks(self) -> None:
        """A page without the marks is not written."""
        self.assertRaises(ValueError, replaced, "no marks", SUMMARY, "x")
