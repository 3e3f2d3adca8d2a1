"""The document: what the figures rest on, the summary, the sections."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from fr_twisted.brain.analysis.identity import NAME, VERSION
from tests.accuracy.cases import Plan
from tests.accuracy.runner import LIBRARIES
from tests.accuracy.section import Figure, Section, figures_table, wrapped
from tests.accuracy.seeds import FIRST_SET_ASIDE, STEP
from tests.accuracy.targets import TARGETS

COMMAND = "make accuracy"

RESTS_ON = """\
- **One real anatomy.** Every generated scan is made from the head of one man, Colin27: its labels are thinned,
  warped, scaled, posed and painted. Folding, vessels, bone marrow and fat are his in all of them. How the
  analysis does on other heads, these tables do not say.
- **Painted tissue.** Each tissue is nearly even, with a smooth texture, a smooth receive field, a point spread, a
  ghost and Rician noise. There is no motion, flow, Gibbs ringing, wrap or metal.
- **Whose labels.** The inside of the skull was found by deepbet's nets on their published grid, the tissues in it
  by ANTs (N4, SyN, Atropos); a generated scan's truth counts exactly those labels, moved. The analysis strips the
  skull with the same nets, so that what they do in common is not seen.
- **No patients.** Atrophy, wide ventricles and lesions are drawn, not ill. Lesions are ellipsoids of even
  brightness.
- **No second reader, no second scan.** Nothing here was compared with a person's outlines or with a scan of the
  next day."""


def render(plan: Plan, sections: Sequence[Section], complete: bool) -> str:
    """Return the document.

    Args:
        plan: of the run.
        sections: in order.
        complete: whether all experiments are there.
    """
    figures = [figure for section in sections for figure in section.figures]
    parts = [
        "# How true the numbers are",
        *(_warning(plan, complete)),
        f"Written by `{COMMAND}`, never by hand. Analysis `{NAME}` {VERSION}. Decision support only.",
        "## What the figures rest on",
        RESTS_ON,
        _seeds(),
        f"Measured with {_libraries()} and Python {platform.python_version()} on {processor()}. Another"
        " machine gives other seconds, and may give other last digits.",
        *_summary(figures),
        "Pool efficiency is measured apart, by `make bench ARGS=pool` ([benchmarks.md](benchmarks.md)).",
    ]
    return (
        "\n\n".join(wrapped(part) for part in parts)
        + "\n\n"
        + "\n".join(section.render() for section in sections)
    )


def _summary(figures: Sequence[Figure]) -> list[str]:
    said = (
        "What was to be reached was written down before. On 1 mm scans unless said. Dice was set on the label head with"
        " one tissue a voxel, and is judged there; drawn heads, whose border voxels hold parts of several, are lower:"
        " their Dice stands in the tables below, beside what partial volume alone allows."
    )
    return ["## Summary", said, figures_table(ordered(figures))] if figures else []


def ordered(figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures in the order of the targets; those of one target as they came."""
    places = {key: number for number, key in enumerate(TARGETS)}
    return sorted(figures, key=lambda figure: places[figure.key])


def _warning(plan: Plan, complete: bool) -> list[str]:
    words = []
    if plan.development or plan.short:
        words.append("**Development seeds: these are not the published figures.**")
    if not complete:
        words.append("**Only a part of the experiments.**")
    return words


def _seeds() -> str:
    return (
        f"Seeds below {FIRST_SET_ASIDE:,} are for development: constants and thresholds may be chosen on them."
        f" Those from {FIRST_SET_ASIDE:,} on are set aside: this command alone draws them. Whoever changes the"
        f" analysis after having seen these tables moves that number up by {STEP:,}"
        " (`tests/accuracy/seeds.py`), so that the next tables come from scans that nobody has looked at. All"
        " numbers of a scan follow from its seed."
    )


def _libraries() -> str:
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name and how many of its cores there are."""
    name = platform.machine()
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{os.cpu_count()} cores of {name}"
