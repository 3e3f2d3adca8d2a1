"""What must not be measured: things that are no T1-weighted head."""

import re
from dataclasses import dataclass

from tests.accuracy.cases import Case, Change, Form, Plan, Table, plain
from tests.accuracy.results import Result
from tests.accuracy.runner import Results
from tests.accuracy.section import Experiment, Figure, Section
from tests.accuracy.tables import table

NO_T1_HEAD = (
    r"no brain was found|contrast is not that of a T1|what looks like the brain|matches the template poorly"
)
"""Reasons that say: this is no T1-weighted head."""


@dataclass(frozen=True)
class Trap:
    """A scan that must be refused or be not usable, with a reason that the pattern ``right`` finds."""

    case: Case
    right: str = NO_T1_HEAD

    def caught(self, result: Result) -> bool:
        """Return whether no number was given away, and for a right reason."""
        return result.rejected and re.search(self.right, result.blocking) is not None


def traps(plan: Plan) -> list[Trap]:
    """Return all of them."""
    head = plain(plan.seeds(Table.NOT_BRAINS, 1)[0])

    def of_head(label: str, *names: str, form: Form = Form.NIFTI, value: float = 0) -> Case:
        return Case(label, "not a brain", head, tuple(Change(name, value) for name in names), form)

    def thing(label: str, name: str) -> Case:
        return Case(label, "not a brain", name)

    return [
        Trap(thing("phantom: a sphere of water", "sphere")),
        Trap(thing("noise alone", "noise")),
        Trap(thing("random blocks", "blocks")),
        Trap(thing("an ellipsoid of the size of a brain, with a rind and a ring of fat", "ellipsoid")),
        Trap(of_head("a head without a brain", "no brain")),
        Trap(of_head("CT-like head, NIfTI", "CT")),
        Trap(
            of_head("CT-like head, DICOM of modality CT", "CT", form=Form.DICOM), r"modality is CT|CT Image"
        ),
        Trap(of_head("T2-like contrast", "T2 contrast")),
        Trap(thing("an empty volume", "empty"), r"empty"),
        Trap(of_head("two time points in one file", "time points", value=2), r"4-D.*time point"),
    ]


def cases(plan: Plan) -> list[Case]:
    """Return all scans."""
    return [] if plan.short else [trap.case for trap in traps(plan)]


def report(plan: Plan, results: Results) -> Section:
    """Return the table."""
    return section([(trap, results.of(trap.case)) for trap in traps(plan)])


def trap_table(found: list[tuple[Trap, Result]]) -> str:
    """Return the table of traps and what came of them."""
    rows = [
        (
            trap.case.label,
            result.outcome,
            "yes" if trap.caught(result) else "**no**",
            result.blocking or result.reasons,
        )
        for trap, result in found
    ]
    return table(("scan", "outcome", "right reason", "what a technician is told"), rows)


def caught_share(found: list[tuple[Trap, Result]]) -> float:
    """Return the share of traps that were caught, per cent."""
    return 100 * sum(trap.caught(result) for trap, result in found) / len(found)


def section(found: list[tuple[Trap, Result]]) -> Section:
    """Return the section that is made of the results."""
    caught = sum(trap.caught(result) for trap, result in found)
    blocks = (
        "Each of these must end as `Failed` with a reason (refused), or `not usable` with its numbers withheld.",
        trap_table(found),
        f"{caught} of {len(found)} were caught for a right reason.",
    )
    return Section("What is no brain", blocks, (Figure("not brains", caught_share(found), "not-brains"),))


EXPERIMENT = Experiment("not_brains", cases, report)
