"""The two real images that can be had: one man's head, and the average of 152 brains that the analysis was built on."""

from tests.accuracy.cases import Case, Plan
from tests.accuracy.experiments.generated import DICE_NAMES, VOLUME_NAMES
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Section
from tests.accuracy.tables import NONE, number, table

COLIN = Case("Colin27", "real", "colin27")
MNI = Case("MNI152", "real", "mni152")


def cases(plan: Plan) -> list[Case]:
    """Return both images."""
    return [] if plan.short else [COLIN, MNI]


def report(_: Plan, results: Results) -> Section:
    """Return the tables."""
    return section(results.of(COLIN), results.of(MNI))


def section(colin: Result, mni: Result) -> Section:
    """Return the section that is made of both results."""
    blocks = (
        "**Colin27**, the whole head of one man (27 scans averaged, 1 mm; `ch2.nii.gz` of Debian's"
        " `mricron-data`). Compared with the labels that the generator paints: they were made by ANTs (N4,"
        " SyN, Atropos) inside the mask of deepbet on its published grid, so that the mask is no independent"
        " one. `ch2bet` is the strip that comes with the image: ragged at the skull base and short of fluid,"
        " a weak reference.",
        _colin_volumes(colin),
        _dice(colin),
        _facts(colin),
        "**MNI152**, the symmetric average of 152 brains (2009a, 1 mm, skull-stripped; from the `nilearn`"
        " wheel). Circular: the analysis takes its prior from this very brain. Its labels here are the"
        " likeliest of its own maps at each voxel; averaging has made its tissue borders soft.",
        _dice(mni),
        _facts(mni),
    )
    return Section("Real images", blocks)


def _facts(result: Result) -> str:
    if result.absent is not None:
        return f"Not run: {result.absent}."
    if result.findings is None:
        return f"Refused: {result.reasons}."
    lesions = result.findings.lesions
    words = [f"Verdict: {result.outcome}" + (f" ({result.reasons})" if result.reasons else "")]
    if lesions is not None:
        words.append(f"lesion candidates: {len(lesions)} (there are none to find)")
    words += [f"Dice of the mask with `{name}`: {number(value, 3)}" for name, value in result.extra.items()]
    return "; ".join(words) + "."


def _colin_volumes(result: Result) -> str:
    measured, truth = result.volumes(), result.known.truth
    if not measured or truth is None:
        return ""
    errors = result.errors()
    rows = []
    for name, label in VOLUME_NAMES.items():
        digits = 3 if name == "bpf" else 1
        true = float(getattr(truth, name))
        rows.append(
            (
                label,
                number(measured[name], digits),
                number(true, digits),
                f"{number(errors[name], 1, True)} %",
            )
        )
    return table(("mL", "measured", "ANTs labels", "difference"), rows)


def _dice(result: Result) -> str:
    if not result.dice:
        return ""
    rows = [
        (label, number(result.dice[name], 3) if name in result.dice else NONE)
        for name, label in DICE_NAMES.items()
    ]
    return table(("", "Dice"), [row for row in rows if row[1] != NONE])


EXPERIMENT = Experiment("real", cases, report)
