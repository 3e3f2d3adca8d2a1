"""Writes the report's files: the findings as JSON, the picture, and one page that shows both on its own."""

import base64
import json
from html import escape
from string import Template

from fr_twisted.brain.analysis.findings import Findings
from fr_twisted.brain.analysis.template import DATA
from fr_twisted.bundle import OVERLAY_PNG, REPORT_HTML, REPORT_JSON
from fr_twisted.model import ScanMeta

ROWS = (
    ("intracranial", "Intracranial", "total"),
    ("brain", "Brain (grey + white matter)", "brain"),
    ("grey_matter", "Grey matter", "grey"),
    ("white_matter", "White matter", "white"),
    ("csf", "Cerebrospinal fluid", "fluid"),
)
"""Member of `Volumes`, its name for people, and its colour in the page's style."""


def files(scan_id: str, meta: ScanMeta, found: Findings, picture: bytes) -> dict[str, bytes]:
    """Return the report's files by name."""
    report = {
        "scan_id": scan_id,
        "patient_id": meta.patient_id,
        "analysis": found.analysis.name,
        "analysis_version": found.analysis.version,
        "findings": found.model_dump(mode="json"),
    }
    return {
        REPORT_JSON: json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        REPORT_HTML: html(scan_id, meta, found, picture).encode(),
        OVERLAY_PNG: picture,
    }


def html(scan_id: str, meta: ScanMeta, found: Findings, picture: bytes) -> str:
    """Return the page; every text that came with the scan is escaped."""
    stored = found.geometry
    facts = {
        "Scan": scan_id,
        "Patient": meta.patient_id,
        "Acquired": meta.acquired_at.strftime("%Y-%m-%d %H:%M %Z") if meta.acquired_at else "not stated",
        "Series": meta.series_description or "not stated",
        "Image": " x ".join(map(str, stored.shape)) + f" voxels, stored {stored.orientation}",
        "Voxel": " x ".join(f"{size:.3g}" for size in stored.spacing_mm) + " mm",
    }
    page = Template((DATA / "report.html").read_text(encoding="utf-8"))
    return page.substitute(
        scan=escape(scan_id),
        facts=_pairs(facts),
        volumes=_volumes(found),
        fraction=f"{found.brain_parenchymal_fraction:.3f}",
        quality=_pairs(_quality(found)),
        notes=_notes(found.notes),
        picture=base64.b64encode(picture).decode(),
        analysis=escape(f"{found.analysis.name} {found.analysis.version}"),
        method=escape(found.analysis.method),
        support=escape(found.decision_support_only),
    )


def _pairs(facts: dict[str, str]) -> str:
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()
    )


def _volumes(found: Findings) -> str:
    total = found.volumes_ml.intracranial
    rows = []
    for member, name, colour in ROWS:
        volume = float(getattr(found.volumes_ml, member))
        share = 100 * volume / total
        rows.append(
            f'<tr><th scope="row"><i class="{colour}"></i>{escape(name)}</th><td>{volume:.1f}</td><td>{share:.1f}</td>'
            f'<td class="bar"><span class="{colour}" style="width:{share:.1f}%"></span></td></tr>'
        )
    return "\n".join(rows)


def _quality(found: Findings) -> dict[str, str]:
    quality = found.quality
    return {
        "Match with the template": f"{quality.alignment_score:.3f} (usual: above 0.92)",
        "Brain inside the field of view": f"{quality.coverage:.1%}",
        "Grey/white contrast to noise": f"{quality.grey_white_cnr:.1f}",
        "Coil brightness range": f"{quality.non_uniformity:.0%} (corrected)",
    }


def _notes(notes: list[str]) -> str:
    if not notes:
        return '<p class="plain">Nothing out of the ordinary was seen in geometry, match and contrast.</p>'
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
