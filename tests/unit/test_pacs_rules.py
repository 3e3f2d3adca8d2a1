"""Series rules: what matches, what is said of it, and of files that cannot be understood."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.rules import EVERYTHING, Rule, Rules, RulesError, load
from tests.pacs_builders import new_folder

T1: dict[str, Any] = {
    "slices": 176,
    "acquisition_type": "3D",
    "sequence": "*tfl3d1_16ns",
    "scanning_sequence": "GR\\IR",
}


def meta(description: str | None = "Sag T1 MPRAGE", **facts: Any) -> ScanMeta:
    """Return what is known of a series."""
    return ScanMeta(
        patient_id="P", format=PayloadFormat.DICOM_TAR, series_description=description, facts={**T1, **facts}
    )


class RulesTests(SynchronousTestCase):
    """`Rules` and `load`."""

    def setUp(self) -> None:
        """Make a folder for a file."""
        self.file = new_folder(self) / "rules.toml"

    def load(self, text: str) -> Rules:
        """Return the rules of a file with this text."""
        self.file.write_text(text)
        return load(self.file)

    def refused(self, text: str) -> str:
        """Return why a file is refused."""
        self.file.write_text(text)
        return str(self.assertRaises(RulesError, load, self.file))

    def test_eachCondition(self) -> None:
        """Every condition is met by what it is for, and says what is wrong with what it is not for."""
        other = meta("AX FLAIR", slices=20, acquisition_type="2D", sequence="tse2d1", scanning_sequence="SE")
        for condition, words in (
            ({"description": "t1.*rage"}, "description 'AX FLAIR' has no 't1.*rage'"),
            ({"sequence": "^gr"}, "sequence 'tse2d1 / SE' has no '^gr'"),
            ({"sequence": "TFL"}, "sequence 'tse2d1 / SE' has no 'TFL'"),
            ({"min_slices": 176}, "20 slices are too few"),
            ({"three_d": True}, "acquisition type is 2D"),
        ):
            rule = Rule.model_validate({"name": "x", **condition})
            self.assertIsNone(rule.objection(meta()), condition)
            self.assertEqual(rule.objection(other), words)
        self.assertEqual(Rule(name="x", max_slices=175).objection(meta()), "176 slices are too many")
        self.assertEqual(Rule(name="x", modality="CT").objection(meta()), "modality is MR")
        self.assertEqual(Rule(name="x", three_d=False).objection(meta()), "acquisition type is 3D")
        self.assertIsNone(Rule(name="x", three_d=False).objection(meta(acquisition_type=None)))
        self.assertEqual(Rule(name="x", description="t1").objection(meta(None)), "no description is given")

    def test_firstMatchWins(self) -> None:
        """The first rule that matches decides; why those before it did not is told."""
        rules = self.load(
            '[[rule]]\nname = "small"\nmax_slices = 99\nignore = true\n'
            '[[rule]]\nname = "T1"\ndescription = "t1"\npriority = 8\nanalysis = "t1-volumes"\n'
            '[[rule]]\nname = "rest"\nignore = true\n'
        )
        decision = rules.decide(meta())
        self.assertEqual(
            (decision.send, decision.rule, decision.priority, decision.analysis),
            (True, "T1", 8, "t1-volumes"),
        )
        self.assertEqual(decision.passed, (("small", "176 slices are too many"),))
        self.assertEqual(rules.decide(meta(slices=50)).rule, "small")
        self.assertEqual(rules.decide(meta("flair")).reason, "the rule 'rest' ignores it")

    def test_noMatch(self) -> None:
        """What no rule matches is not sent."""
        decision = Rules(rule=(Rule(name="T1", description="t1"),)).decide(meta("flair"))
        self.assertEqual((decision.send, decision.rule, decision.reason), (False, None, "no rule matches"))

    def test_withoutFile(self) -> None:
        """Without rules everything is sent."""
        self.assertTrue(EVERYTHING.decide(meta(None)).send)

    def test_mistakes(self) -> None:
        """A mistake is told with the file, the rule and the key."""
        rule = '[[rule]]\nname = "a"\n'
        for text, words in (
            ("rule = [", "is no TOML"),
            ("", "rules are [[rule]]"),
            ("rules = 1\n" + rule, "there is no 'rules' at the top"),
            (
                rule + 'descripton = "x"\n',
                "rule 1 (a): there is no 'descripton'; there are name, description,",
            ),
            (rule + 'description = "("\n', "rule 1 (a): description: '(' is no regular expression"),
            (rule + "priority = 10\n", "rule 1 (a): priority: "),
            (rule + 'priority = "5"\n', "rule 1 (a): priority: "),
            (rule + "ignore = true\npriority = 3\n", "what is ignored has neither"),
            (rule + "min_slices = 3\nmax_slices = 2\n", "min_slices is more than max_slices"),
            (rule + rule, "two rules are called 'a'"),
            ("[[rule]]\nignore = true\n", "rule 1 (None): name: "),
            ("rule = [1]\n", "rule 1 (None)"),
        ):
            message = self.refused(text)
            self.assertIn(str(self.file), message)
            self.assertIn(words, message)

    def test_noFile(self) -> None:
        """A file that cannot be read is named."""
        missing = Path(self.file.parent / "none.toml")
        self.assertIn("No such file", str(self.assertRaises(RulesError, load, missing)))
        self.file.write_bytes(b"\xff\xfe")
        self.assertIn("no TOML", str(self.assertRaises(RulesError, load, self.file)))

    def test_noRules(self) -> None:
        """Rules without any rule would ignore everything, and are refused."""
        self.assertRaises(ValidationError, Rules, rule=())
