"""One head and what may befall its scan: noise, coil, pose, storage, cuts, wrong headers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fr_twisted.pacs.generator.recipe import Recipe
from tests.accuracy.cases import PLAIN_BIAS, PLAIN_NOISE, Case, Change, Form, Plan, Table, plain
from tests.accuracy.experiments.not_brains import NO_T1_HEAD, Trap, caught_share, trap_table
from tests.accuracy.ideal import NAMES
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Figure, Section
from tests.accuracy.tables import mean, number, outcomes, table
from tests.accuracy.targets import AS_UNROTATED

HEADS = 2
PLAIN = "as it is: 3 % noise, 5 % field"
ROTATIONS = ("turned 15° about x", "turned 15° about y", "turned 15° about z", "turned 15° about all three")
OWN_GRID = (PLAIN, "1 % noise", "5 % noise", "9 % noise", "20 % field", "40 % field", *ROTATIONS)
"""Measured also of the label head at its own size, each voxel of one tissue: the figures to be reached are of such."""

MIXED = ", mixed"
"""Of the label head turned, added where voxels at a border hold parts of tissues."""

LABEL_HEAD = "label head"
IDEAL = (PLAIN, ROTATIONS[-1], "1x1x5 mm")
OWN_IDEAL = (PLAIN, ROTATIONS[-1], ROTATIONS[-1] + MIXED)
"""Of these, of drawn heads and of the label head, it is told how an ideal threshold does."""

DICE = {"skull": "skull", "gm": "grey", "wm": "white", "csf": "CSF", "ventricles": "ventr."}
VOLUMES = {"icv": "ICV", "gm": "grey", "wm": "white", "csf": "CSF", "ventricles": "ventr."}
CUT_MM = 15.0

Found = dict[str, list[Result]]
"""The results of each change, a head each."""


@dataclass(frozen=True)
class Rejected:
    """A change after which no number may be given, and the pattern of a right reason."""

    label: str
    change: Change
    right: str
    cut: bool = False


CUT = r"cuts the brain|inside the field of view"
REJECTED = (
    Rejected(f"cut {CUT_MM:.0f} mm below the vertex", Change("cut top", CUT_MM), CUT, True),
    Rejected(f"cut {CUT_MM:.0f} mm above the bottom", Change("cut bottom", CUT_MM), CUT, True),
    Rejected("header says metres, numbers are mm", Change("unit code", 1), r"voxels of .*units"),
    Rejected("header says micrometres, numbers are mm", Change("unit code", 3), r"voxels of .*units"),
    Rejected(
        "header says 2 mm, voxels are 1 mm", Change("told larger", 2.0), rf"field of view of|{NO_T1_HEAD}"
    ),
    Rejected("affine is upside down", Change("upside down"), NO_T1_HEAD),
)


def _noise(recipe: Recipe, share: float) -> Recipe:
    return replace(recipe, noise=share)


def measured(head: str, recipe: Recipe) -> list[Case]:
    """Return the scans of a head that are to be measured, the plain one first."""
    turns = ((15.0, 0.0, 0.0), (0.0, 15.0, 0.0), (0.0, 0.0, 15.0), (15.0, -15.0, 15.0))
    made = {
        PLAIN: recipe,
        **{f"{100 * share:.0f} % noise": _noise(recipe, share) for share in (0.01, 0.05, 0.09)},
        **{f"{100 * share:.0f} % field": replace(recipe, bias=share) for share in (0.20, 0.40)},
        **{label: replace(recipe, rotation=turn) for label, turn in zip(ROTATIONS, turns, strict=True)},
        "20 mm higher": replace(recipe, shift=(0.0, 0.0, 20.0)),
        "20 mm to the front": replace(recipe, shift=(0.0, 20.0, 0.0)),
        "1x1x5 mm": replace(recipe, spacing=(1.0, 1.0, 5.0)),
    }
    return [Case(label, head, variant, ideal=label in IDEAL) for label, variant in made.items()]


def stored(head: str, recipe: Recipe) -> list[Case]:
    """Return the same scan stored otherwise; but for 8 bits the findings must be the same."""
    ways = {
        "times 30, int32": Change("times, integer", 30),
        "times 30, float32": Change("times, float", 30),
        "LPS": Change("orientation", "LPS"),
        "sagittal slices (ASL)": Change("orientation", "ASL"),
    }
    found = [Case(label, head, recipe, (change,)) for label, change in ways.items()]
    found.append(Case("DICOM series", head, recipe, form=Form.DICOM))
    return found


def lossy(head: str, recipe: Recipe) -> Case:
    """Return the scan in 8 bits."""
    return Case("8 bits", head, recipe, (Change("8 bits"),))


def rejected(head: str, recipe: Recipe) -> list[Trap]:
    """Return the scans that must not be measured."""
    return [Trap(Case(each.label, head, recipe, (each.change,)), each.right) for each in REJECTED]


def heads(plan: Plan) -> list[tuple[str, Recipe]]:
    """Return the names and recipes of the heads."""
    seeds = plan.seeds(Table.CHANGES, HEADS)
    return [(f"head {number}", plain(seed)) for number, seed in enumerate(seeds, 1)]


def own_grid(plan: Plan) -> list[Case]:
    """Return the scans of the label head at its own size."""
    (seed,) = plan.seeds(Table.CHANGES, 1)
    recipe = Recipe(seed=seed, noise=PLAIN_NOISE, bias=PLAIN_BIAS, mixed=False)
    found = [case for case in measured(LABEL_HEAD, recipe) if case.label in OWN_GRID]
    mixed = measured(LABEL_HEAD, replace(recipe, mixed=True))
    return found + [replace(case, label=case.label + MIXED) for case in mixed if case.label in ROTATIONS]


def cases(plan: Plan) -> list[Case]:
    """Return all scans."""
    if plan.short:
        return []
    found = own_grid(plan)
    for head, recipe in heads(plan):
        found += [*measured(head, recipe), lossy(head, recipe), *stored(head, recipe)]
        found += [trap.case for trap in rejected(head, recipe)]
    return found


def report(plan: Plan, results: Results) -> Section:
    """Return the tables."""
    changed: Found = {}
    same: Found = {}
    traps = []
    for head, recipe in heads(plan):
        for case in (*measured(head, recipe), lossy(head, recipe)):
            changed.setdefault(case.label, []).append(results.of(case))
        for case in stored(head, recipe):
            same.setdefault(case.label, []).append(results.of(case))
        traps += [(trap, results.of(trap.case)) for trap in rejected(head, recipe)]
    own = {case.label: [results.of(case)] for case in own_grid(plan)}
    return section(changed, same, traps, own)


def section(changed: Found, same: Found, traps: list[tuple[Trap, Result]], own: Found) -> Section:
    """Return the section that is made of the results."""
    plainly = changed[PLAIN]
    blocks = (
        "The label head at its own size, which the figures to be reached were set on: each voxel holds one tissue,"
        f" the nearest one's when it is turned, but in the rows that say *{MIXED.strip(', ')}*: there voxels at a"
        " border hold parts of several, as in a patient. Dice of voxels with the truth:",
        table(("change", *DICE.values(), "verdicts"), [_dice_row(*item) for item in own.items()]),
        "The same for thresholds midway between the true brightness of the tissues, on the scan without noise, field"
        " and texture, inside the true mask:",
        table(
            ("change", *(DICE[name] for name in NAMES)),
            [_ideal_row(label, own[label]) for label in OWN_IDEAL],
        ),
        f"{len(plainly)} set-aside heads, straight and without lesions; each row changes one thing. Means over"
        " heads. Each voxel at a border holds two tissues, as in a patient.",
        "Dice of voxels with the truth:",
        table(("change", *DICE.values(), "verdicts"), [_dice_row(*item) for item in changed.items()]),
        "What partial volume alone allows: the same for thresholds midway between the true brightness of the"
        " tissues, on the head without noise, field, ghost and texture, inside the true mask. Knowing the"
        " neighbourhood one may do somewhat better.",
        table(
            ("change", *(DICE[name] for name in NAMES)),
            [_ideal_row(label, changed[label]) for label in IDEAL],
        ),
        "Volumes against those that were measured of the head as it is, per cent:",
        table(("change", *VOLUMES.values()), [_volume_row(*item, plainly) for item in changed.items()]),
        "What was said of these scans:",
        table(("change", "reasons"), [row for item in changed.items() if (row := _reason_row(*item))]),
        "The same voxels stored otherwise must give the same findings bit for bit, apart from the description"
        " of the storage:",
        table(("stored as", "identical findings"), [_same_row(*item, plainly) for item in same.items()]),
        "Cut heads and wrong headers must be refused or not usable, for a right reason:",
        trap_table(traps),
        "A header that mirrors left and right, or that is wrong by a few per cent, cannot be seen by any analysis.",
    )
    return Section("Changes to one head", blocks, tuple(figures(own, traps)))


def _dice_row(label: str, results: Sequence[Result]) -> list[str]:
    cells = [number(_dice(results, name), 3) for name in DICE]
    return [label, *cells, outcomes(result.outcome for result in results)]


def _ideal_row(label: str, results: Sequence[Result]) -> list[str]:
    found = [result.ideal for result in results if result.ideal]
    return [label, *(number(mean([each[name] for each in found]), 3) for name in NAMES)]


def _dice(results: Sequence[Result], name: str) -> float | None:
    return mean([result.dice[name] for result in results if name in result.dice])


def _volume_row(label: str, results: Sequence[Result], plainly: Sequence[Result]) -> list[str]:
    return [label, *(number(mean(_moved(results, plainly, name)), 1, True) for name in VOLUMES)]


def _moved(results: Sequence[Result], plainly: Sequence[Result], name: str) -> list[float]:
    pairs = zip((each.volumes() for each in results), (each.volumes() for each in plainly), strict=True)
    return [100 * (now[name] / before[name] - 1) for now, before in pairs if now and before]


def _reason_row(label: str, results: Sequence[Result]) -> tuple[str, str] | None:
    texts = list(dict.fromkeys(result.reasons for result in results if result.reasons))
    return (label, " // ".join(texts)) if texts else None


def _same_row(label: str, results: Sequence[Result], plainly: Sequence[Result]) -> tuple[str, str]:
    same = [one.digest() == other.digest() for one, other in zip(results, plainly, strict=True)]
    return label, "yes" if all(same) else f"**{same.count(False)} of {len(same)} differ**"


def figures(own: Found, traps: list[tuple[Trap, Result]]) -> list[Figure]:
    """Return the figures that have targets: Dice of the label head, and what was refused."""
    found = _dice_figures(own)
    cut_labels = {each.label for each in REJECTED if each.cut}
    cuts = [pair for pair in traps if pair[0].case.label in cut_labels]
    found.append(Figure("not brains", caught_share(cuts), "cut heads"))
    found.append(
        Figure("not brains", caught_share([pair for pair in traps if pair not in cuts]), "wrong headers")
    )
    return found


def _dice_figures(found: Found) -> list[Figure]:
    """Return the figures of Dice of the label head; of the rotations the lowest."""
    note = "label head, one tissue a voxel"
    figures = []
    names = ("skull", "gm", "wm")
    for what, label in (("3 % noise", PLAIN), ("9 % noise", "9 % noise")):
        figures += [Figure(f"dice {what} {name}", _dice(found[label], name), note) for name in names]
    for name in names:
        turned = [value for label in ROTATIONS if (value := _dice(found[label], name)) is not None]
        straight = _dice(found[PLAIN], name)
        aim = None if straight is None else straight - AS_UNROTATED
        figures.append(Figure(f"dice 15° rotations {name}", min(turned) if turned else None, note, aim))
    return figures


EXPERIMENT = Experiment("changes", cases, report)
