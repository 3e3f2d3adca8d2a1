"""``fr rules test`` and ``fr series``."""

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from pydicom.uid import ImplicitVRLittleEndian

from fr_twisted.pacs.rules import load
from tests.pacs_builders import make_slice, write_series, write_slice
from tests.unit.test_command import CommandTestCase
from tests.unit.test_pacs_received import SourceCase

RULES = """\
[[rule]]
name = "3-D T1"
description = "t1"
three_d = true
priority = 8
analysis = "t1-volumes"
[[rule]]
name = "rest"
ignore = true
"""


class RulesTestTests(CommandTestCase):
    """``fr rules test``."""

    def setUp(self) -> None:
        """Write rules and two series."""
        super().setUp()
        self.rules = self.root / "rules.toml"
        self.rules.write_text(RULES)
        self.folder = self.root / "study"
        write_series(self.folder, 12, "1.2.3", "A", MRAcquisitionType="3D")
        write_series(self.folder, 12, "1.2.4", "B", SeriesDescription="AX FLAIR", MRAcquisitionType="2D")

    def test_whatAndWhy(self) -> None:
        """Each series has its outcome, the rule, and why the rules before did not match."""
        status, out, _ = self.fr("rules", "test", self.folder, "--rules", self.rules)
        self.assertEqual(status, 0)
        self.assertEqual(
            out.splitlines(),
            [
                "1.2.3  (T1 test, 12 slices, 3D)",
                "  SENT, priority 8, for t1-volumes: the rule '3-D T1' takes it",
                "1.2.4  (AX FLAIR, 12 slices, 2D)",
                "  not '3-D T1': description 'AX FLAIR' has no 't1'",
                "  IGNORED: the rule 'rest' ignores it",
            ],
        )

    def test_files(self) -> None:
        """What is no series that could be sent is counted with its reason; as JSON too."""
        write_slice(self.folder / "ct", make_slice(1, "1.9", Modality="CT"))
        (self.folder / "text").write_text("x")
        _, out, _ = self.fr("rules", "test", self.folder, "--rules", self.rules)
        self.assertIn("1 file: not sent: not an MR image (modality CT)", out)
        _, out, _ = self.fr("rules", "test", self.folder, "--rules", self.rules, "--json")
        found = json.loads(out)
        self.assertEqual(
            [(each["series"], each["send"], each["rule"], each["priority"]) for each in found["series"]],
            [("1.2.3", True, "3-D T1", 8), ("1.2.4", False, "rest", None)],
        )
        self.assertEqual(sum(found["not_sent"].values()), 2)

    def test_setting(self) -> None:
        """Without --rules those of FR_SERIES_RULES count, and without these all is sent."""
        with mock.patch.dict(os.environ, {"FR_SERIES_RULES": str(self.rules)}):
            self.assertIn("IGNORED", self.fr("rules", "test", self.folder)[1])
        self.assertNotIn("IGNORED", self.fr("rules", "test", self.folder)[1])

    def test_mistakes(self) -> None:
        """What is wrong is one line on standard error, with status 2."""
        (self.root / "empty").mkdir()
        (self.root / "bad.toml").write_text('[[rule]]\nname = "a"\ndescripton = "x"\n')
        for arguments, words in (
            ((self.root / "none",), "there is no file or folder"),
            ((self.root / "empty",), "there is no DICOM file in"),
            ((self.folder, "--rules", self.root / "no.toml"), "No such file"),
            ((self.folder, "--rules", self.root / "bad.toml"), "rule 1 (a): there is no 'descripton'"),
        ):
            status, out, err = self.fr("rules", "test", *arguments)
            self.assertEqual((status, out), (2, ""))
            self.assertIn(words, err)

    def test_shippedRules(self) -> None:
        """The rules that are shipped as an example can be used."""
        path = Path(__file__).parents[2] / "deploy" / "series-rules.toml"
        self.assertEqual(len(load(path).rule), 3)


class SeriesTests(SourceCase, CommandTestCase):
    """``fr series``, beside the source of a running Fr-PACS."""

    def setUp(self) -> None:
        """Make both."""
        CommandTestCase.setUp(self)
        SourceCase.setUp(self)

    def series(self, *arguments: Any) -> tuple[int, str, str]:
        """Run the command."""
        return self.fr("series", *arguments, "--spool", self.spool.root)

    def test_list(self) -> None:
        """Every series is listed: awaited, kept with its scan, with late instances, or gone from the spool."""
        self.assertIn("no series has come", self.series("list")[1])
        self.receive(range(1, 9))
        self.assertEqual(self.series("list")[1], "1.2.3  8 instances  awaited\n")
        self.clock.advance(5)
        self.assertIn("revision 1: complete, the HUB has it not yet", self.series("list")[1])
        item, _ = self.send()
        self.assertEqual(self.series("list")[1], f"1.2.3  8 instances  revision 1: kept: {item.id}\n")
        self.receive(range(9, 10), association=2)
        self.assertIn("9 instances, some of them new  revision 1: kept", self.series("list")[1])
        [row] = json.loads(self.series("list", "--json")[1])
        self.assertEqual((row["series"], row["instances"], row["new"]), ("1.2.3", 9, True))

    def test_cameAgain(self) -> None:
        """What came again under the UIDs of other images is told, and that a series came in another encoding."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        item, _ = self.send()
        self.receive_encoded(ImplicitVRLittleEndian, PixelData=bytes(128))
        kept = f"1.2.3  8 instances  revision 1: kept: {item.id}"
        changed = "8 came again with pixels changed; the first are kept"
        self.assertEqual(self.series("list")[1], f"{kept}: {changed}\n")
        self.let_go()
        self.receive_encoded(ImplicitVRLittleEndian)
        self.assertIn(f"{kept}: came again in another encoding; the HUB has", self.series("list")[1])
        [row] = json.loads(self.series("list", "--json")[1])
        self.assertIn(changed, row["note"])

    def test_complete(self) -> None:
        """A series that a person calls complete is sent at once."""
        self.receive(range(1, 9), released=None)
        status, out, _ = self.series("complete", "1.2.3")
        self.assertEqual((status, "1.2.3: asked for" in out), (0, True))
        self.clock.advance(1)
        self.assertEqual(len(self.send()[1]), 8)

    def test_mistakes(self) -> None:
        """A series that is not there, or no UID, and a folder that is no spool are told so."""
        for uid in ("1.2.99", "../../etc"):
            status, _, err = self.series("complete", uid)
            self.assertEqual((status, "fr series list shows" in err), (2, True))
        status, _, err = self.fr("series", "list", "--spool", self.base)
        self.assertEqual((status, "is no spool of Fr-PACS" in err), (2, True))
