"""The generated parts of docs/report.md: the schema of the findings, field by field, and the bands.

``python -m tests.report_doc`` writes them anew; a test sees that they are not stale.
"""

import re
from pathlib import Path
from typing import Any

from fr_twisted.brain.analysis import bands
from fr_twisted.brain.analysis.schema import Findings
from tests.daemons import ROOT

PAGE = ROOT / "docs" / "report.md"

MEANINGS = {
    ("Findings", "schema"): "the form of these findings; changes when a reader would have to",
    ("Findings", "decision_support_only"): "to be shown wherever the findings are",
    ("AnalysisInfo", "name"): "as `--analysis` takes it",
    ("AnalysisInfo", "version"): "changes whenever findings may change",
    ("Asymmetry", "index"): "200 (left - right) / (left + right)",
    ("Asymmetry", "left_ml"): "volume on the patient's left",
    ("Asymmetry", "right_ml"): "volume on the patient's right",
    ("Band", "low"): "below it, look at the pictures",
    ("Band", "high"): "above it, look at the pictures",
    ("Geometry", "shape"): "voxels along each stored axis",
    ("Geometry", "spacing_mm"): "distance of voxel centres along each stored axis",
    ("LesionCandidate", "centroid_patient_mm"): "its middle in the patient: to the right, front and top",
    ("QualityReading", "value"): "null: could not be measured in this scan",
    ("QualityReading", "unit"): "UCUM: %, 1",
    ("QualityReading", "usability"): "what the reading allows",
    ("Reading", "value"): "the number",
    ("Reading", "band"): "a published range; null: none is cited",
    ("Reason", "text"): "what is wrong, with its figures, and what to do",
    ("Verdict", "reasons"): "all that limits the use; empty: usable",
    ("VolumeReading", "value"): "the volume",
    ("VolumeReading", "unit"): "always mL",
    ("VolumeReading", "method"): "a key of `Findings.methods`",
    ("VolumeReading", "percent_of_intracranial"): "share of the intracranial volume",
    (
        "VolumeReading",
        "band",
    ): "a published range, of the volume or of its share, as its unit says; null: none is cited",
    ("Volumes", "intracranial"): "brain and fluid within the skull",
    ("Volumes", "brain"): "grey and white matter, cerebellum and brain stem included",
    ("Volumes", "grey_matter"): "cortex and deep grey matter",
    ("Volumes", "white_matter"): "white matter",
    ("Volumes", "csf"): "cerebrospinal fluid about the brain and in the ventricles",
}
"""Of fields that the schema does not describe, nor the type that they have."""

UNITS = {
    ("Reading", "value"): "`unit`",
    ("QualityReading", "value"): "`unit`",
    ("VolumeReading", "value"): "mL",
    ("VolumeReading", "percent_of_intracranial"): "%",
    ("Band", "low"): "`unit`",
    ("Band", "high"): "`unit`",
    ("Findings", "brain_parenchymal_fraction"): "1",
    ("Asymmetry", "index"): "%",
    ("LesionCandidate", "volume"): "mm3",
    ("LesionCandidate", "contrast"): "%",
    ("LesionCandidate", "score"): "1",
    ("Quality", "snr"): "1",
    ("Quality", "cnr"): "1",
    ("Quality", "ghosting"): "%",
    ("Quality", "non_uniformity"): "%",
    ("Quality", "coverage"): "%",
    ("Quality", "alignment"): "1",
}
"""Of fields whose name does not end with it."""

_SUFFIXES = {"_mm": "mm", "_ml": "mL"}


def fields() -> str:
    """Return a table for each model and each enumeration of the findings, the outermost first."""
    schema = Findings.model_json_schema(by_alias=True, mode="serialization")
    parts = {schema["title"]: schema, **schema["$defs"]}
    return "\n".join(_part(name, parts[name], parts) for name in _in_order(schema["title"], parts))


def _in_order(first: str, parts: dict[str, Any]) -> list[str]:
    found = [first]
    for name in found:
        refs = re.findall(r"'#/\$defs/(\w+)'", str(parts[name].get("properties", {})))
        found += [ref for ref in dict.fromkeys(refs) if ref not in found]
    return found


def _part(name: str, part: dict[str, Any], parts: dict[str, Any]) -> str:
    about = part["description"]
    if "enum" in part:
        return f"### `{name}`\n\n{about} One of {', '.join(f'`{value}`' for value in part['enum'])}.\n"
    rows = [f"### `{name}`", "", about, "", "| field | type | unit | meaning |", "| --- | --- | --- | --- |"]
    for field, told in part["properties"].items():
        unit = UNITS.get((name, field)) or next(
            (u for end, u in _SUFFIXES.items() if field.endswith(end)), ""
        )
        rows.append(f"| `{field}` | {_type(told)} | {unit} | {_meaning(name, field, told, parts)} |")
    return "\n".join(rows) + "\n"


def _type(told: dict[str, Any]) -> str:
    if "$ref" in told:
        return f"`{told['$ref'].rsplit('/', 1)[1]}`"
    if "anyOf" in told:
        return " or ".join(map(_type, told["anyOf"]))
    if "const" in told:
        return f'"{told["const"]}"'
    if told["type"] == "array":
        items = told.get("prefixItems")
        return f"{len(items)} of {_type(items[0])}" if items else f"list of {_type(told['items'])}"
    if told["type"] == "object":
        return f"text → {_type(told['additionalProperties'])}"
    return {"string": "text", "number": "number", "integer": "integer", "null": "null"}[str(told["type"])]


def _meaning(name: str, field: str, told: dict[str, Any], parts: dict[str, Any]) -> str:
    """Return what a field means: as the schema says, or `MEANINGS`, or the type that it alone has.

    Raises:
        KeyError: none of them says.
    """
    if "description" in told:
        return str(told["description"])
    if (name, field) in MEANINGS:
        return MEANINGS[name, field]
    options = [option["$ref"] for option in (told, *told.get("anyOf", ())) if "$ref" in option]
    if len(options) != 1:
        raise KeyError(f"{name}.{field} has no meaning: describe it in the schema, or in {__name__}.MEANINGS")
    return str(parts[options[0].rsplit("/", 1)[1]]["description"])


def published() -> str:
    """Return the bands of adults whose age is not known, by sex, and their sources."""
    rows = ["| number | women | men | not known | unit | from |", "| --- | --- | --- | --- | --- | --- |"]
    sources: dict[str, int] = {}
    for name in bands.GROUPS:
        found = [bands.of(name, sex, None) for sex in ("F", "M", None)]
        known = [band for band in found if band is not None]
        numbers = [sources.setdefault(source, len(sources) + 1) for source in known[-1].source.split("; ")]
        ranges = " | ".join(f"{band.low:g} to {band.high:g}" for band in known)
        rows.append(f"| `{name}` | {ranges} | {known[0].unit} | {', '.join(map(str, sorted(numbers)))} |")
    rows.append("")
    rows += [f"{number}. {source}" for source, number in sources.items()]
    return "\n".join(rows) + "\n"


GENERATED = {"fields": fields, "bands": published}


def refreshed(text: str) -> str:
    """Return the page with its generated parts made anew, between ``<!-- name -->`` and ``<!-- end of name -->``."""
    for name, make in GENERATED.items():
        first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(first)
        _, _, after = rest.partition(last)
        text = f"{before}{first}\n{make()}\n{last}{after}"
    return text


def main(page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
