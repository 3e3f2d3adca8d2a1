"""Lesions: found by size and contrast, false candidates in clean scans, place and volume."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fr_twisted.brain.analysis.schema import LesionCandidate
from fr_twisted.pacs.generator.recipe import LesionKind, draw_recipe
from fr_twisted.pacs.generator.truth import LesionTruth
from tests.accuracy.cases import Case, Plan, Table
from tests.accuracy.lesion_design import BRIGHT, DARK, DEEP_RING, RADII, deal, with_lesions
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Figure, Section
from tests.accuracy.tables import NONE, number, outcomes, quantile, table

SCANS, DEEP_EACH, NEAR_EACH = 24, 6, 2
CLEAN_SCANS = 20
COARSE_MM, COARSE_SCANS = 2.0, 8
"""Of each kind at coarser voxels, of which no figure was set."""

TOLERANCE_MM = 2.0
"""A candidate belongs to a lesion of its kind whose centre is nearer than the lesion's radius and this."""

COUNTED_RADIUS, COUNTED_CONTRAST = 3.0, 0.20
"""From these on a lesion counts in the figures."""


@dataclass(frozen=True)
class Painted:
    """A lesion that was painted, and the candidate that is it, if it was found."""

    truth: LesionTruth
    found: LesionCandidate | None

    @property
    def deep(self) -> bool:
        """Whether it lies deep in white matter."""
        return self.truth.ring >= DEEP_RING

    @property
    def error_mm(self) -> float | None:
        """Return how far the candidate's centroid is off."""
        return (
            None if self.found is None else math.dist(self.found.centroid_patient_mm, self.truth.centroid_mm)
        )

    @property
    def ratio(self) -> float | None:
        """Measured over true volume."""
        return None if self.found is None else self.found.volume.value / self.truth.volume_mm3


def match(
    painted: Sequence[LesionTruth], found: Sequence[LesionCandidate]
) -> tuple[list[Painted], list[LesionCandidate]]:
    """Return each painted lesion with its candidate, and the candidates that are of none; the nearest pairs first."""
    pairs = []
    for i, lesion in enumerate(painted):
        for j, candidate in enumerate(found):
            far = math.dist(lesion.centroid_mm, candidate.centroid_patient_mm)
            if candidate.kind.value == lesion.kind.value and far <= lesion.radius + TOLERANCE_MM:
                pairs.append((far, i, j))
    taken: dict[int, int] = {}
    for _, i, j in sorted(pairs):
        if i not in taken and j not in taken.values():
            taken[i] = j
    of = [Painted(lesion, found[taken[i]] if i in taken else None) for i, lesion in enumerate(painted)]
    return of, [candidate for j, candidate in enumerate(found) if j not in taken.values()]


@functools.cache
def painted_cases(plan: Plan) -> list[Case]:
    """Return the scans with lesions."""
    hands = deal(SCANS, DEEP_EACH, NEAR_EACH)
    return [
        Case("lesions", f"head {number}", with_lesions(draw_recipe(seed), *hand))
        for number, (seed, hand) in enumerate(zip(plan.seeds(Table.LESIONS, SCANS), hands, strict=True), 1)
    ]


def clean_cases(plan: Plan) -> list[Case]:
    """Return the scans without any."""
    return [
        Case("clean", f"head {number}", replace(draw_recipe(seed), lesions=()))
        for number, seed in enumerate(plan.seeds(Table.CLEAN, CLEAN_SCANS), 1)
    ]


@functools.cache
def coarse_cases(plan: Plan) -> tuple[list[Case], list[Case]]:
    """Return scans of coarse voxels, with lesions and without."""
    spacing = (COARSE_MM,) * 3
    hands = deal(COARSE_SCANS, DEEP_EACH, 0)
    seeds = zip(plan.seeds(Table.COARSE_LESIONS, COARSE_SCANS), hands, strict=True)
    clean = plan.seeds(Table.COARSE_CLEAN, COARSE_SCANS)
    return (
        [
            Case("coarse, lesions", f"head {number}", with_lesions(draw_recipe(seed, spacing), *hand))
            for number, (seed, hand) in enumerate(seeds, 1)
        ],
        [
            Case("coarse, clean", f"head {number}", replace(draw_recipe(seed, spacing), lesions=()))
            for number, seed in enumerate(clean, 1)
        ],
    )


def cases(plan: Plan) -> list[Case]:
    """Return all scans."""
    if plan.short:
        return []
    painted, clean = coarse_cases(plan)
    return [*painted_cases(plan), *clean_cases(plan), *painted, *clean]


def report(plan: Plan, results: Results) -> Section:
    """Return the tables."""
    groups = (painted_cases(plan), clean_cases(plan), *coarse_cases(plan))
    return section(*([results.of(case) for case in group] for group in groups))


def candidates(result: Result) -> tuple[LesionCandidate, ...]:
    """Return the candidates of a scan; none where they are withheld."""
    return (result.findings.lesions if result.findings else None) or ()


def matched(results: Sequence[Result]) -> tuple[list[Painted], list[LesionCandidate]]:
    """Return what was painted in scans and the candidates that are none of it, as `match` does."""
    painted: list[Painted] = []
    strays: list[LesionCandidate] = []
    for result in results:
        ours, stray = match(result.known.lesions, candidates(result))
        painted += ours
        strays += stray
    return painted, strays


def section(
    with_lesions: Sequence[Result],
    clean: Sequence[Result],
    coarse: Sequence[Result],
    coarse_clean: Sequence[Result],
) -> Section:
    """Return the section that is made of the results."""
    painted, strays = matched(with_lesions)
    false = [candidate for result in clean for candidate in candidates(result)]
    deep = [each for each in painted if each.deep]
    near = [each for each in painted if not each.deep]
    blocks = (
        f"{len(with_lesions)} set-aside heads (everything else drawn) with {len(painted)} ellipsoids of even"
        f" brightness at designed radius and contrast to white matter; {len(deep)} are deep: white matter"
        f" makes {100 * DEEP_RING:.0f} % or more of a shell of 2 mm around. A lesion is found if the centroid"
        f" of a candidate of its kind is nearer than its radius and {TOLERANCE_MM:g} mm. Found of painted,"
        " deep ones:",
        _sensitivity(deep),
        f"The {len(near)} others, which touch cortex, nuclei or ventricles:",
        _sensitivity(near),
        _false(clean, false, with_lesions, strays),
        "Of the found lesions:",
        _precision({"deep, hypointense": _of(deep, LesionKind.HYPOINTENSE),
                    "deep, hyperintense": _of(deep, LesionKind.HYPERINTENSE),
                    "others": near}),
        f"Verdicts with lesions: {outcomes(result.outcome for result in with_lesions)}; clean:"
        f" {outcomes(result.outcome for result in clean)}. Lesions of a scan whose numbers are withheld count"
        " as missed.",
        *_coarse(coarse, coarse_clean),
    )  # fmt: skip
    looked = sum(result.findings is not None and result.findings.lesions is not None for result in clean)
    return Section("Lesions", blocks, tuple(figures(deep, false, looked)))


def _coarse(with_lesions: Sequence[Result], clean: Sequence[Result]) -> tuple[str, ...]:
    painted, strays = matched(with_lesions)
    false = [candidate for result in clean for candidate in candidates(result)]
    deep = [each for each in painted if each.deep]
    return (
        f"At {COARSE_MM:g} mm, where a lesion of 3 mm radius has 14 voxels and no figure was set; deep ones in"
        f" {len(with_lesions)} other set-aside heads:",
        _sensitivity(deep),
        _false(clean, false, with_lesions, strays),
    )


def _of(painted: Sequence[Painted], kind: LesionKind) -> list[Painted]:
    return [each for each in painted if each.truth.kind is kind]


def _sensitivity(painted: Sequence[Painted]) -> str:
    contrasts = (*DARK, *BRIGHT)
    rows = []
    for radius in RADII:
        row = [each for each in painted if each.truth.radius == radius]
        cells = [_share([each for each in row if each.truth.contrast == contrast]) for contrast in contrasts]
        rows.append([f"{radius:g} mm", *cells, _share(row)])
    totals = [_share([each for each in painted if each.truth.contrast == contrast]) for contrast in contrasts]
    rows.append(["all", *totals, _share(painted)])
    return table(("radius", *(f"{100 * contrast:+.0f} %" for contrast in contrasts), "all"), rows)


def _share(painted: Sequence[Painted]) -> str:
    return f"{sum(each.found is not None for each in painted)}/{len(painted)}" if painted else NONE


def _false(
    clean: Sequence[Result],
    false: Sequence[LesionCandidate],
    with_lesions: Sequence[Result],
    strays: Sequence[LesionCandidate],
) -> str:
    def counts(found: Sequence[LesionCandidate], scans: int) -> str:
        parts = [
            f"{sum(each.kind.value == kind.value for each in found)} {kind.value}" for kind in LesionKind
        ]
        return f"{' and '.join(parts)} in {scans} scans"

    return (
        f"Candidates that are no painted lesion: {counts(false, len(clean))} without any lesion,"
        f" {counts(strays, len(with_lesions))} with lesions."
    )


def _precision(groups: dict[str, list[Painted]]) -> str:
    def values(painted: Sequence[Painted], what: Callable[[Painted], float | None]) -> list[float]:
        return [value for each in painted if (value := what(each)) is not None]

    rows = []
    for label, painted in groups.items():
        far = values(painted, lambda each: each.error_mm)
        ratio = values(painted, lambda each: each.ratio)
        rows.append(
            (
                label,
                _share(painted),
                f"{number(quantile(far, 0.5))} ({number(quantile(far, 0.95))})",
                f"{number(quantile(ratio, 0.5), 2)} ({number(quantile(ratio, 0.05), 2)} to"
                f" {number(quantile(ratio, 0.95), 2)})",
            )
        )
    head = ("lesions", "found", "centroid off, mm: median (95 %)", "volume over truth: median (5 to 95 %)")
    return table(head, rows)


def figures(deep: Sequence[Painted], false: Sequence[LesionCandidate], scans: int) -> list[Figure]:
    """Return the figures that have targets."""
    found = []
    for key, kind in (("dark", LesionKind.HYPOINTENSE), ("bright", LesionKind.HYPERINTENSE)):
        counted = [
            each
            for each in _of(deep, kind)
            if each.truth.radius >= COUNTED_RADIUS and abs(each.truth.contrast) >= COUNTED_CONTRAST
        ]
        hits = sum(each.found is not None for each in counted)
        found.append(Figure(f"{key} found", 100 * hits / len(counted) if counted else None))
        wrong = sum(each.kind.value == kind.value for each in false)
        found.append(Figure(f"{key} false", wrong / scans if scans else None))
    return found


EXPERIMENT = Experiment("lesions", cases, report)
