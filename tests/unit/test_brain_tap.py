"""Tests of Fr-BRAIN's options."""

from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.tap import Options, make_owner


class OptionsTests(SynchronousTestCase):
    """The options of ``twistd frbrain``."""

    def parse(self, *arguments: str, **environ: str) -> Options:
        """Return parsed options."""
        folder = Path(self.mktemp())
        folder.mkdir()
        options = Options(environ, folder)
        options.parseOptions(list(arguments))
        return options

    def test_defaults(self) -> None:
        """Without any option the default analysis is meant, which is installed."""
        self.assertEqual(self.parse().settings.analysis, "t1-volumes")

    def test_unknownAnalysis(self) -> None:
        """An analysis that is not installed ends it with one line that names the setting and what is installed."""
        with self.assertRaises(UsageError) as caught:
            self.parse("--analysis", "t2")
        self.assertRegex(
            str(caught.exception), r"^FR_BRAIN_ANALYSIS or --analysis: no analysis named 't2' .*: t1-volumes"
        )
        with self.assertRaises(UsageError):
            self.parse(FR_BRAIN_ANALYSIS="t2")

    def test_analysisByPath(self) -> None:
        """An analysis under development may be named by its place."""
        self.assertEqual(self.parse("--analysis", "my.module:THING").settings.analysis, "my.module:THING")

    def test_help(self) -> None:
        """The help explains the settings with their variables."""
        text = str(Options({}, Path()))
        for word in ("--slots", "FR_BRAIN_SLOTS", "--time-limit", "--memory-limit", "--work-dir"):
            self.assertIn(word, text)

    def test_owners(self) -> None:
        """Two processes of one node have leases of their own."""
        self.assertNotEqual(make_owner("brain"), make_owner("brain"))
        self.assertTrue(make_owner("brain").startswith("brain."))
