"""Generated scans that nobody has looked at: volumes, sides, agreement of voxels, verdicts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fr_twisted.brain.analysis.schema import Usability
from fr_twisted.pacs.generator.recipe import Triple, draw_recipe
from tests.accuracy.anchors import SKULL_STRIP, VOLUMES
from tests.accuracy.cases import Case, Plan, Table
from tests.accuracy.ideal import NAMES
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Figure, Section
from tests.accuracy.tables import NONE, deviation, largest, mean, number, outcomes, spread, table


@dataclass(frozen=True)
class Set:
    """Scans of one voxel size."""

    name: str
    table: Table
    spacing: Triple
    count: int


SETS = (
    Set("1 mm", Table.FINE, (1.0, 1.0, 1.0), 24),
    Set("2 mm", Table.COARSE, (2.0, 2.0, 2.0), 12),
    Set("1x1x5 mm", Table.THICK, (1.0, 1.0, 5.0), 8),
    Set("0.7 mm", Table.FINER, (0.7, 0.7, 0.7), 4),
    Set("3 mm", Table.COARSER, (3.0, 3.0, 3.0), 6),
)
SHORT = (Set("2 mm", Table.COARSE, (2.0, 2.0, 2.0), 2),)

VOLUME_NAMES = {
    "icv": "intracranial",
    "brain": "brain (grey and white)",
    "gm": "grey matter",
    "wm": "white matter",
    "csf": "CSF",
    "ventricles": "ventricles",
    "bpf": "brain parenchymal fraction",
}
DICE_NAMES = {
    "skull": "inside of the skull",
    "brain": "brain (grey and white)",
    "gm": "grey matter",
    "wm": "white matter",
    "csf": "CSF",
    "ventricles": "ventricles",
}
INDEX_NAMES = {"gm": "grey matter", "ventricles": "ventricles"}

Found = dict[str, list[Result]]
"""The results of each set."""


def sets(plan: Plan) -> Sequence[Set]:
    """Return the sets of a plan."""
    return SHORT if plan.short else SETS


def cases_of(plan: Plan, which: Set) -> list[Case]:
    """Return the scans of one set."""
    return [
        Case(which.name, f"head {number}", draw_recipe(seed, which.spacing), ideal=True)
        for number, seed in enumerate(plan.seeds(which.table, which.count), 1)
    ]


def cases(plan: Plan) -> list[Case]:
    """Return all scans."""
    return [case for which in sets(plan) for case in cases_of(plan, which)]


def report(plan: Plan, results: Results) -> Section:
    """Return the tables."""
    found = {which.name: [results.of(case) for case in cases_of(plan, which)] for which in sets(plan)}
    return section(found)


def section(found: Found) -> Section:
    """Return the section that is made of the results of each set."""
    counts = ", ".join(f"{len(results)} at {name}" for name, results in found.items())
    blocks = (
        f"Scans of set-aside seeds, everything drawn: {counts}. Head size, pose up to 12° about each axis,"
        " warp, atrophy and ventricles (also of one side), lesions, contrast, texture, receive field, ghost"
        " and noise follow from the seed (`draw_recipe` in `fr_twisted/pacs/generator/recipe.py`).",
        "Volumes, error in per cent of the truth: mean ± standard deviation over scans, (largest absolute error).",
        _by_set(found, VOLUME_NAMES, _volume_cell),
        "Dice of voxels with the truth: mean (lowest). The inside of the skull is tissue and fluid together:"
        " what a skull strip leaves. The CSF is mostly a thin rim, where a voxel's breadth counts much.",
        _by_set(found, DICE_NAMES, _dice_cell),
        "How far partial volume alone lets voxels be told apart: the same for thresholds midway between the"
        " true brightness of the tissues, on each scan without noise, field, ghost, texture and lesions,"
        " inside the true mask. Knowing the neighbourhood one may do somewhat better.",
        _by_set(found, {name: DICE_NAMES[name] for name in NAMES}, _ideal_cell),
        "Left/right index, 200 (left - right) / (left + right), error in points: mean absolute (largest absolute).",
        _by_set(found, INDEX_NAMES, _index_cell),
        "Verdicts. Volumes are withheld of scans that are not usable; such scans are not in the tables above.",
        table(
            ("voxels", "scans", "verdicts", "scans with each reason"),
            [_verdict_row(*item) for item in found.items()],
        ),
    )
    return Section("Set-aside generated scans", blocks, tuple(figures(found)), SKULL_STRIP + VOLUMES)


def _by_set(found: Found, names: dict[str, str], cell: Callable[[list[Result], str], str]) -> str:
    rows = [[label, *(cell(results, name) for results in found.values())] for name, label in names.items()]
    return table(("", *found), rows)


def errors(results: Sequence[Result], name: str) -> list[float]:
    """Return the errors of one volume in the scans that have it, per cent of the truth."""
    return [found[name] for result in results if name in (found := result.errors())]


def index_errors(results: Sequence[Result], name: str) -> list[float]:
    """Return measured less true left/right index, points."""
    pairs = [found[name] for result in results if name in (found := result.indices())]
    return [measured - true for true, measured in pairs]


def _volume_cell(results: list[Result], name: str) -> str:
    values = errors(results, name)
    return f"{spread(values)} ({number(largest(values))})" if values else NONE


def _dice_cell(results: list[Result], name: str) -> str:
    values = [result.dice[name] for result in results if name in result.dice]
    return f"{number(mean(values), 3)} ({number(min(values), 3)})" if values else NONE


def _ideal_cell(results: list[Result], name: str) -> str:
    values = [result.ideal[name] for result in results if name in result.ideal]
    return f"{number(mean(values), 3)} ({number(min(values), 3)})" if values else NONE


def _index_cell(results: list[Result], name: str) -> str:
    values = index_errors(results, name)
    return f"{number(mean([abs(value) for value in values]))} ({number(largest(values))})" if values else NONE


def _verdict_row(name: str, results: list[Result]) -> tuple[str, str, str, str]:
    codes = [code for result in results for code in sorted(set(result.codes))]
    return name, str(len(results)), outcomes(result.outcome for result in results), outcomes(codes) or NONE


def figures(found: Found) -> list[Figure]:
    """Return the figures that have targets."""
    result = []
    fine, thick = found.get(SETS[0].name), found.get(SETS[2].name)
    if fine is not None:
        for name in ("icv", "gm", "wm", "ventricles"):
            values = errors(fine, name)
            bias = mean(values)
            result.append(Figure(f"bias {name}", None if bias is None else abs(bias)))
            result.append(Figure(f"sd {name}", deviation(values)))
        result.append(Figure("ventricle index", largest(index_errors(fine, "ventricles")), "drawn heads"))
    if thick is not None:
        flagged = sum(each.outcome != Usability.USABLE.value for each in thick)
        result.append(Figure("thick wm", largest(errors(thick, "wm"))))
        result.append(Figure("thick flagged", 100 * flagged / len(thick)))
    return result


EXPERIMENT = Experiment("generated", cases, report)
