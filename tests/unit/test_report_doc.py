"""docs/report.md says what the findings are."""

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import schema
from fr_twisted.brain.analysis.schema import Findings
from tests import report_doc


class ReportDocTests(SynchronousTestCase):
    """The published schema."""

    def test_isNotStale(self) -> None:
        """The page's generated parts are what `python -m tests.report_doc` writes now."""
        text = report_doc.PAGE.read_text(encoding="utf-8")
        self.assertEqual(text, report_doc.refreshed(text))
        self.assertIn(f"`{schema.SCHEMA}`", text)

    def test_everyFieldIsThere(self) -> None:
        """Each field of each model has a row, with a type and a meaning."""
        text = report_doc.fields()
        models = Findings.model_json_schema(by_alias=True, mode="serialization")
        for name, model in {"Findings": models, **models["$defs"]}.items():
            self.assertIn(f"### `{name}`\n", text)
            section = text.split(f"### `{name}`\n")[1].split("###")[0]
            for field in model.get("properties", {}):
                (row,) = [line for line in section.splitlines() if line.startswith(f"| `{field}` |")]
                _, _, kind, _, meaning, _ = (cell.strip() for cell in row.split("|"))
                self.assertTrue(kind and meaning, row)

    def test_meaningsAreOfFieldsThatExist(self) -> None:
        """Nothing is explained or measured that is not in the schema any more."""
        models = Findings.model_json_schema(by_alias=True, mode="serialization")
        known = {"Findings": models, **models["$defs"]}
        for name, field in (*report_doc.MEANINGS, *report_doc.UNITS):
            self.assertIn(field, known[name]["properties"])
