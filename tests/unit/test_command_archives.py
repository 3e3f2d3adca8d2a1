"""``fr archives``."""

import json
import os
from typing import Any
from unittest import mock

from fr_twisted.pacs.dicom_out import asked, objects
from fr_twisted.pacs.dicom_out.common import Kind
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.objects import Made
from fr_twisted.pacs.dicom_out.report import Report
from tests.unit.test_command import CommandTestCase
from tests.unit.test_dicom_out_service import ONE, TWO, ServiceCase, small_objects


class ArchivesTests(ServiceCase, CommandTestCase):
    """Beside the sending of a running Fr-PACS."""

    def setUp(self) -> None:
        """Make both; one report is delivered, one was refused by one archive."""
        CommandTestCase.setUp(self)
        ServiceCase.setUp(self)
        self.remember("scan-1")
        self.good = self.report("scan-1").report_id
        self.fakes[TWO].statuses = [0x0122] * 4
        self.remember("scan-2")
        self.bad = self.report("scan-2").report_id

    def run_it(self, *arguments: Any) -> tuple[int, str, str]:
        """Run the command."""
        return self.fr("archives", *arguments, "--state", self.root / "state")

    def wanted(self) -> list[asked.Asked]:
        """Return what was asked."""
        return list(asked.waiting(self.root / "state"))

    def test_list(self) -> None:
        """Each report is listed with what each archive said; or the refused ones alone; or as JSON."""
        status, out, _ = self.run_it("list")
        self.assertEqual((status, len(out.splitlines())), (0, 4))
        self.assertIn(f"{self.good}  scan-1  {ONE}  delivered\n", out)
        self.assertIn(f"{self.bad}  scan-2  {TWO}  refused: 0122H: it does not support this SOP class", out)
        refused = self.run_it("list", "--refused")[1]
        self.assertNotIn(self.good, refused)
        rows = json.loads(self.run_it("list", "--json")[1])
        self.assertEqual({(row["fate"], row["objects"]) for row in rows}, {("delivered", 4), ("refused", 0)})

    def test_incomplete(self) -> None:
        """A delivered report of which an object could not be made is listed as incomplete, with the reason."""

        def without(report: Report, source: SourceSeries) -> Made:
            made = dict(small_objects(report, source).files)
            del made[Kind.SR]
            return Made(made, {Kind.SR: "ValueError in check"})

        self.patch(objects, "make", without)
        self.remember("scan-3")
        self.report("scan-3")
        line = f"scan-3  {ONE}  delivered: incomplete, no SR (ValueError in check)\n"
        self.assertIn(line, self.run_it("list")[1])
        self.assertIn("incomplete: no SR", self.said("dicom.delivered")[-1]["detail"])
        self.restart()
        self.assertIn(line, self.run_it("list")[1])

    def test_resend(self) -> None:
        """One report, those that were refused, or all are asked for, again or not."""
        for arguments, reports in (
            ((self.good, "--again"), [self.good]),
            (("--refused",), [self.bad]),
            (("--all",), sorted((self.good, self.bad))),
        ):
            status, out, err = self.run_it("resend", *arguments)
            self.assertEqual((status, err), (0, ""))
            self.assertIn(f"{len(reports)} report", out)
            self.assertEqual([one.report_id for one in self.wanted()], reports)
            self.assertEqual({one.again for one in self.wanted()}, {"--again" in arguments})
            for one in self.wanted():
                asked.answered(self.root / "state", one)

    def test_oneArchive(self) -> None:
        """An archive is named by its title or its address; with --refused only what that one refused is asked for."""
        for name in ("TWO", str(TWO)):
            self.assertEqual(self.run_it("resend", "--refused", "--archive", name)[0], 0)
        self.assertEqual(self.wanted(), [asked.Asked(self.bad, False, name) for name in (str(TWO), "TWO")])
        self.assertIn("0 reports", self.run_it("resend", "--refused", "--archive", "ONE")[1])
        with mock.patch.dict(os.environ, {"FR_DICOM_ARCHIVES": "NEW@10.0.0.5:104"}):
            self.assertEqual(self.run_it("resend", "--all", "--archive", "NEW")[0], 0)
            status, _, err = self.run_it("resend", "--all", "--archive", "NONE")
        self.assertEqual(status, 2)
        self.assertIn(f"known are: NEW@10.0.0.5:104, {ONE}, {TWO}", err)

    def test_awaited(self) -> None:
        """Until an archive has said whether it keeps them, the list says since when that is awaited."""
        self.service._commitment = True
        self.fakes[ONE].calls_back = True
        self.remember("scan-3")
        self.report("scan-3")
        out = self.run_it("list")[1]
        self.assertIn(f"scan-3  {ONE}  delivered: commitment awaited since 2026-01-02 10:00 UTC\n", out)
        self.assertIn(f"scan-3  {TWO}  delivered: committed\n", out)

    def test_mistakes(self) -> None:
        """A report that is not there, none named, and a folder that is none of Fr-PACS's are told so."""
        status, out, err = self.run_it("resend", "../../etc/passwd")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("fr archives list shows those that are", err)
        self.assertEqual(self.run_it("resend")[0], 2)
        with mock.patch.dict(os.environ, {"FR_DICOM_STATE": str(self.root / "none")}):
            status, _, err = self.fr("archives", "list")
        self.assertEqual(status, 2)
        self.assertIn("is no state folder of Fr-PACS", err)
