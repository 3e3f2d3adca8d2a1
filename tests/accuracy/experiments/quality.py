"""Readings of quality against what was put into the scan."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fr_twisted.pacs.generator.recipe import Recipe
from tests.accuracy.cases import Case, Change, Plan, Table, plain
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Section
from tests.accuracy.tables import number, table

NOISE = (0.01, 0.02, 0.05, 0.07, 0.09, 0.12)
GHOST = (0.01, 0.02, 0.04, 0.08)
FIELD = (0.1, 0.2, 0.3, 0.5)
CUTS = (2.0, 5.0, 10.0, 20.0, 30.0)
TURNS = (5.0, 10.0, 20.0, 30.0)

Row = tuple[Case, Result]


def noisy(recipe: Recipe) -> list[Case]:
    """Return the head with more and more noise."""
    return [Case(f"{100 * n:.0f} % noise", "quality", replace(recipe, noise=n)) for n in NOISE]


def ghostly(recipe: Recipe) -> list[Case]:
    """Return the head without and with ghosts."""
    return [Case(f"{100 * g:.0f} % ghost", "quality", replace(recipe, ghost=g)) for g in (0.0, *GHOST)]


def uneven(recipe: Recipe) -> list[Case]:
    """Return the head in more and more uneven fields."""
    return [
        Case(f"± {100 * b:.0f} % field", "quality", replace(recipe, bias=b)) for b in (recipe.bias, *FIELD)
    ]


def cut(recipe: Recipe) -> list[Case]:
    """Return the head cut further and further below the vertex."""
    made = [Case("whole", "quality", recipe)]
    return made + [
        Case(f"cut {depth:.0f} mm below the vertex", "quality", recipe, (Change("cut top", depth),))
        for depth in CUTS
    ]


def turned(recipe: Recipe) -> list[Case]:
    """Return the head nodding further and further."""
    made = {f"nodding {turn:.0f}°": replace(recipe, rotation=(turn, 0.0, 0.0)) for turn in (0.0, *TURNS)}
    return [Case(label, "quality", variant) for label, variant in made.items()]


GROUPS: tuple[Callable[[Recipe], list[Case]], ...] = (noisy, ghostly, uneven, cut, turned)


def recipe_of(plan: Plan) -> Recipe:
    """Return the head that all this is done to."""
    return plain(plan.seeds(Table.QUALITY, 1)[0])


def cases(plan: Plan) -> list[Case]:
    """Return all scans."""
    return [] if plan.short else [case for group in GROUPS for case in group(recipe_of(plan))]


def report(plan: Plan, results: Results) -> Section:
    """Return the tables."""
    recipe = recipe_of(plan)
    return section([[(case, results.of(case)) for case in group(recipe)] for group in GROUPS])


def section(groups: Sequence[Sequence[Row]]) -> Section:
    """Return the section that is made of the results, by group."""
    noise, ghosts, fields, cuts, turns = groups
    blocks = (
        "One set-aside head, straight, 3 % noise, 5 % field, and what is said of it. Truth of SNR: white"
        " matter over the noise that was added to each channel; the receive field makes it vary over the brain.",
        _table(noise, "SNR", "snr", lambda case, _: 1 / case.recipe.noise, ("cnr", "CNR measured", 1)),
        "Ghosts along the second axis; truth: brightness of the ghost in per cent of what it is of. The reading is"
        " a mean over all air where a ghost may lie, dark parts of the head included, and noise hides what is fainter"
        " than itself:",
        _table(ghosts, "ghost, %", "ghosting", lambda case, _: 100 * case.recipe.ghost, digits=2),
        "Receive field; truth: its 98th over its 2nd percentile inside the skull, less one:",
        _table(fields, "non-uniformity, %", "non_uniformity", lambda _, result: result.known.non_uniformity),
        "Coverage; truth: the share of the inside of the skull that is in the field of view:",
        _table(
            cuts,
            "coverage, %",
            "coverage",
            lambda _, result: result.known.coverage,
            ("alignment", "alignment", 3),
        ),
        "Alignment of a nodding head; there is no truth of a correlation, it should stay as it is:",
        table(
            ("scan", "alignment", "verdict"),
            [(case.label, number(result.reading("alignment"), 3), result.outcome) for case, result in turns],
        ),
    )
    return Section("Quality readings", blocks)


def _table(
    rows: Sequence[Row],
    name: str,
    reading: str,
    truth: Callable[[Case, Result], float | None],
    beside: tuple[str, str, int] | None = None,
    digits: int = 1,
) -> str:
    """Return a table of one reading against its truth, with another beside it (its name, heading and digits)."""
    head = ["scan", f"{name}: true", "measured", *([beside[1]] if beside else []), "verdict"]
    lines = []
    for case, result in rows:
        line = [case.label, number(truth(case, result), digits), number(result.reading(reading), digits)]
        if beside:
            line.append(number(result.reading(beside[0]), beside[2]))
        lines.append([*line, result.outcome])
    return table(head, lines)


EXPERIMENT = Experiment("quality", cases, report)
