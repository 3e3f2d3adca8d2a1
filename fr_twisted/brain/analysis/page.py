"""Writes the report's files: the findings as JSON, one self-contained page, the same on A4, and the overlay."""

import base64
import json
from html import escape
from string import Template
from typing import Any

from fr_twisted.brain.analysis import pdf
from fr_twisted.brain.analysis.bands import CAUTION
from fr_twisted.brain.analysis.content import SUPPORT, TITLE, Content, clean
from fr_twisted.brain.analysis.rows import Check, Number, Side, Spot
from fr_twisted.brain.analysis.schema import Findings, Usability
from fr_twisted.brain.analysis.template import DATA
from fr_twisted.bundle import OVERLAY_PNG, REPORT_HTML, REPORT_JSON, REPORT_PDF
from fr_twisted.model import ScanMeta

CLASSES = {Usability.USABLE: "good", Usability.WITH_CARE: "care", Usability.NOT_USABLE: "bad"}
"""How a usability is coloured by the page's style."""


def files(
    scan_id: str, meta: ScanMeta, found: Findings, overlay_png: bytes, lesion_pngs: tuple[bytes, ...] = ()
) -> dict[str, bytes]:
    """Return the report's files by name; the same arguments give the same bytes.

    Args:
        scan_id: the scan's id.
        meta: what came with the scan; its texts are shown escaped, and cleaned of control characters.
        found: the findings.
        overlay_png: the picture of the whole brain.
        lesion_pngs: pictures of the first lesion candidates, in the order of ``found.lesions``.
    """
    content = Content(scan_id, meta, found)
    return {
        REPORT_JSON: envelope(scan_id, meta, found),
        REPORT_HTML: html(content, overlay_png, lesion_pngs).encode(),
        REPORT_PDF: pdf.render(content, overlay_png, lesion_pngs),
        OVERLAY_PNG: overlay_png,
    }


def envelope(scan_id: str, meta: ScanMeta, found: Findings) -> bytes:
    """Return ``report.json``: whose findings these are, and the findings."""
    report: dict[str, Any] = {
        "scan_id": scan_id,
        "patient_id": meta.patient_id,
        "study_instance_uid": meta.study_instance_uid,
        "series_instance_uid": meta.series_instance_uid,
        "analysis": found.analysis.name,
        "analysis_version": found.analysis.version,
        "findings": found.model_dump(mode="json"),
    }
    # a lone surrogate, which no encoding has, is no reason to withhold a report
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"


def html(content: Content, overlay_png: bytes, lesion_pngs: tuple[bytes, ...] = ()) -> str:
    """Return the page. It loads nothing and runs nothing."""
    page = Template((DATA / "report.html").read_text(encoding="utf-8"))
    headline, sentence = content.headline
    return page.substitute(
        title=escape(TITLE),
        scan=escape(clean(content.scan_id)),
        support=escape(SUPPORT),
        verdict=CLASSES[content.found.verdict.usability],
        headline=escape(headline),
        sentence=escape(sentence),
        reasons=_reasons(content),
        facts="".join(
            f"<div><dt>{escape(n)}</dt><dd><bdi>{escape(v)}</bdi></dd></div>" for n, v in content.facts
        ),
        volumes=_volumes(content),
        sides=_sides(content.sides),
        quality="".join(map(_check, content.quality)),
        notes=_notes(content.notes),
        picture=_data_uri(overlay_png),
        lesions=_lesions(content, lesion_pngs),
        bands=_bands(content),
        analysis=escape(content.analysis),
        methods="".join(f"<div><dt>{escape(n)}</dt><dd>{escape(w)}</dd></div> " for n, w in content.methods),
        disclaimer=escape(content.found.decision_support_only),
    )


def _reasons(content: Content) -> str:
    rows = [
        f'<li><span class="dot {CLASSES[usability]}"></span>{escape(words)}</li>'
        for words, usability in content.reasons
    ]
    return f"<ul>{''.join(rows)}</ul>" if rows else ""


def _volumes(content: Content) -> str:
    if not content.volumes:
        return '<p class="withheld">Withheld: see above why, and what to do.</p>'
    care = content.found.verdict.usability is Usability.WITH_CARE
    caption = "<caption>To be used with care: see the limits above.</caption>" if care else ""
    return (
        f'<table class="volumes">{caption}<thead><tr><th scope="col">Volume</th><th scope="col">mL</th>'
        '<th scope="col">% of intracranial</th><th scope="col" class="text">Published range</th>'
        '<th scope="col" class="bar">Range and value</th></tr></thead><tbody>'
        + "".join(map(_number, content.volumes))
        + "</tbody></table>"
    )


def _number(row: Number) -> str:
    return (
        f'<tr><th scope="row"><i class="{row.colour}"></i>{escape(row.name)}</th><td>{row.value}</td>'
        f'<td>{row.share}</td><td class="text">{_range(row)}</td><td class="bar">{_bar(row)}</td></tr>'
    )


def _range(row: Number) -> str:
    if row.scale is None:
        return '<span class="none">none cited</span>'
    marked = f"{escape(row.band)}<sup>{row.marks}</sup>"
    return marked + (f' <b class="outside">{row.outside}</b>' if row.outside else "")


def _bar(row: Number) -> str:
    if row.scale is None:
        return ""
    low, high, value = (100 * place for place in (row.scale.low, row.scale.high, row.scale.value))
    outside = " out" if row.outside else ""
    return (
        f'<span class="track"><span class="band" style="left:{low:.1f}%;width:{high - low:.1f}%"></span>'
        f'<span class="mark {row.colour}{outside}" style="left:{value:.1f}%"></span></span>'
    )


def _sides(rows: list[Side]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(row.name)}</th><td>{row.left}</td><td>{row.right}</td><td>{row.index}</td></tr>'
        for row in rows
    )
    return (
        '<table class="sides"><thead><tr><th scope="col">Left and right</th><th scope="col">left mL</th>'
        f'<th scope="col">right mL</th><th scope="col">index</th></tr></thead><tbody>{body}</tbody></table>'
        '<p class="plain">Index: 200 (left - right) / (left + right); positive: more on the left.</p>'
    )


def _check(row: Check) -> str:
    return (
        f'<tr><th scope="row"><span class="dot {CLASSES[row.usability] if row.usability else ""}"></span>'
        f'{escape(row.name)}</th><td>{escape(row.value)}</td><td class="text">{escape(row.usual)}</td></tr>'
    )


def _notes(notes: list[str]) -> str:
    if not notes:
        return ""
    return "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _lesions(content: Content, pictures: tuple[bytes, ...]) -> str:
    words = f'<p class="plain">{escape(content.lesion_words)}</p>'
    if not content.spots:
        return words
    shown = "".join(
        f'<img src="{_data_uri(picture)}" alt="Lesion candidate {row.number}: axial, coronal and sagittal close-up">'
        for row, picture in zip(content.spots, pictures, strict=False)
    )
    return (
        '<div class="lesion-columns"><div class="wide"><table class="lesions"><thead><tr><th scope="col">No.</th>'
        '<th scope="col" class="text">Kind</th>'
        '<th scope="col">mm<sup>3</sup></th><th scope="col" class="text">Place, mm</th>'
        '<th scope="col" class="text">MNI152, mm</th><th scope="col">Contrast, %</th><th scope="col">Score</th></tr>'
        f"</thead><tbody>{''.join(map(_spot, content.spots))}</tbody></table>{words}</div>"
        f'<div class="gallery">{shown}</div></div>'
    )


def _spot(row: Spot) -> str:
    return (
        f'<tr><th scope="row">{row.number}</th><td class="text">{escape(row.kind)}</td><td>{row.volume}</td>'
        f'<td class="text">{row.place}</td><td class="text">{row.template}</td><td>{row.contrast}</td>'
        f"<td>{row.score}</td></tr>"
    )


def _bands(content: Content) -> str:
    if not content.sources:
        return '<p class="plain">No published range is cited for this scan.</p>'
    people = "".join(
        f"<li><b>{escape(names)}:</b> {escape(words)}.</li> " for names, words in content.populations
    )
    sources = "".join(
        f"<li><b>[{n}]</b> {escape(source)}.</li> " for n, source in enumerate(content.sources, start=1)
    )
    return f'<p class="plain">{escape(CAUTION)}</p><ul class="small">{people}{sources}</ul>'


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
