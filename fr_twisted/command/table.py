"""What ``fr analyse`` prints for people."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from fr_twisted import bundle
from fr_twisted.brain.analysis.content import Content
from fr_twisted.brain.analysis.schema import Findings
from fr_twisted.brain.jobs import JobResult
from fr_twisted.model import ScanMeta

INDENT = "  "


def lines(scan_id: str, meta: ScanMeta, result: JobResult, folder: Path, files: list[str]) -> list[str]:
    """Return a short report: verdict, volumes, lesions, quality, and where the report is."""
    try:
        found = Findings.model_validate(result.findings)
    except ValidationError:
        # another package's analysis, whose findings are its own
        body = [
            f"{scan_id}: measured by {result.analysis} {result.analysis_version}; --json shows the findings"
        ]
    else:
        body = _body(Content(scan_id, meta, found))
    page = bundle.REPORT_HTML if bundle.REPORT_HTML in files else bundle.REPORT_JSON
    others = ", ".join(name for name in files if name != page)
    return [*body, f"Report: {folder / page}" + (f" (and {others})" if others else "")]


def _body(content: Content) -> list[str]:
    facts = dict(content.facts)
    told = [facts[name] for name in ("Patient id", "Sex, age", "Series") if facts[name] != "not stated"]
    headline, sentence = content.headline
    rows = [" | ".join([content.scan_id, *told]), f"{headline}. {sentence}"]
    rows += [f"{INDENT}- {words}" for words, _ in content.reasons]
    for part in (_volumes(content), _sides(content), _lesions(content), _quality(content)):
        rows += ["", *part] if part else []
    rows += ["", *(f"Note: {note}" for note in content.notes)] if content.notes else []
    return [*rows, "", content.found.decision_support_only]


def _volumes(content: Content) -> list[str]:
    if not content.volumes:
        return []
    rows = [("Volume", "mL", "% of intracranial", "published range")]
    rows += [
        (row.name, row.value, row.share, f"{row.band or 'none cited'} {row.outside}")
        for row in content.volumes
    ]
    return _table(rows, "<>><")


def _sides(content: Content) -> list[str]:
    rows = [("Left and right", "left mL", "right mL", "index")]
    rows += [(row.name, row.left, row.right, row.index) for row in content.sides]
    return _table(rows, "<>>>") if content.sides else []


def _lesions(content: Content) -> list[str]:
    if not content.spots:
        return [f"Lesion candidates: {content.lesion_words}"]
    rows = [("Lesion candidate", "mm3", "place, mm", "contrast, %", "score")]
    rows += [(f"{s.number} {s.kind}", s.volume, s.place, s.contrast, s.score) for s in content.spots]
    return _table(rows, "<><>>")


def _quality(content: Content) -> list[str]:
    rows = [("Quality", "value", "usual", "")]
    rows += [
        (row.name, row.value, row.usual, row.usability.value if row.usability else "")
        for row in content.quality
    ]
    return _table(rows, "<><<")


def _table(rows: Sequence[tuple[str, ...]], aligned: str) -> list[str]:
    """Return rows in columns; ``aligned`` has < or > for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(aligned))]
    parts = zip(aligned, widths, strict=True)
    form = INDENT.join(f"{{:{side}{width}}}" for side, width in parts)
    return [form.format(*row).rstrip() for row in rows]
