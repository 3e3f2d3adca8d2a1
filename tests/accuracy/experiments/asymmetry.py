"""Left against right: heads whose one half has lost cortex, or has a wider ventricle."""

from collections.abc import Sequence
from dataclasses import replace

from fr_twisted.pacs.generator.recipe import Recipe, draw_recipe
from tests.accuracy.cases import Case, Plan, Table
from tests.accuracy.experiments.generated import INDEX_NAMES, index_errors
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Figure, Section
from tests.accuracy.tables import NONE, largest, mean, number, table

HEADS = 2
SIDES = {-1: "left", 1: "right"}


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return a drawn head even on both sides, and with one-sided loss and growth."""
    even = replace(
        recipe, atrophy=0.0, atrophy_side=0, ventricles=0.0, ventricle_side=0, lesions=(), lesion_count=0
    )
    found = {"as the head is": even}
    for thickness, side in ((0.8, -1), (1.6, -1), (1.6, 1)):
        label = f"{SIDES[side]} cortex thinner by {thickness:g} mm"
        found[label] = replace(even, atrophy=thickness, atrophy_side=side)
    for growth, side in ((2.0, -1), (4.0, -1), (4.0, 1)):
        label = f"{SIDES[side]} ventricle wider by {growth:g} mm"
        found[label] = replace(even, ventricles=growth, ventricle_side=side)
    return found


def cases(plan: Plan) -> list[Case]:
    """Return all scans."""
    if plan.short:
        return []
    return [
        Case(label, f"head {number}", recipe)
        for number, seed in enumerate(plan.seeds(Table.ASYMMETRY, HEADS), 1)
        for label, recipe in variants(draw_recipe(seed)).items()
    ]


def report(plan: Plan, results: Results) -> Section:
    """Return the table."""
    return section([(case.head, case.label, results.of(case)) for case in cases(plan)])


def section(found: Sequence[tuple[str, str, Result]]) -> Section:
    """Return the section that is made of the results."""
    results = [result for _, _, result in found]
    rows = [(head, label, *_cells(result)) for head, label, result in found]
    summary = [
        (
            label,
            number(mean([abs(value) for value in index_errors(results, name)])),
            number(largest(index_errors(results, name))),
        )
        for name, label in INDEX_NAMES.items()
    ]
    blocks = (
        "Drawn heads (pose, warp, field, noise), changed on one side. Index: 200 (left - right) / (left +"
        " right), per cent; the real head is not symmetric either.",
        table(("head", "change", "grey: true", "measured", "ventricles: true", "measured"), rows),
        "Error in points:",
        table(("", "mean absolute", "largest"), summary),
    )
    figure = Figure("ventricle index", largest(index_errors(results, "ventricles")), "one-sided changes")
    return Section("Left and right", blocks, (figure,))


def _cells(result: Result) -> list[str]:
    found = result.indices()
    if not found:
        return [NONE] * 4
    return [number(value, 1, True) for name in INDEX_NAMES for value in found[name]]


EXPERIMENT = Experiment("asymmetry", cases, report)
