"""What an experiment is, and the part of the document that it makes."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.accuracy.anchors import NO_COMPARISON, Anchor
from tests.accuracy.cases import Case, Plan
from tests.accuracy.runner import Results
from tests.accuracy.tables import number, table
from tests.accuracy.targets import TARGETS, Target

WIDTH = 118
"""Characters of a line of the document."""


@dataclass(frozen=True)
class Figure:
    """A measured value of a target. ``note``: of what, if there are several. ``aim``: in place of the target's."""

    key: str
    value: float | None
    note: str = ""
    aim: float | None = None

    @property
    def target(self) -> Target:
        """What it is to reach."""
        return TARGETS[self.key]

    def row(self) -> tuple[str, str, str, str, str]:
        """Return what, measured, at least, aim, reached."""
        target = self.target
        aim = target.aim if self.aim is None else self.aim

        def shown(value: float | None) -> str:
            return number(value, target.digits) + (
                f" {target.unit}" if target.unit and value is not None else ""
            )

        what = f"{target.what} ({self.note})" if self.note else target.what
        return what, shown(self.value), shown(target.floor), shown(aim), target.judge(self.value, self.aim)


FIGURE_HEAD = ("what", "measured", "at least / at most", "aim", "")


def figures_table(figures: Sequence[Figure]) -> str:
    """Return the table of figures against targets."""
    return table(FIGURE_HEAD, [figure.row() for figure in figures])


def wrapped(block: str) -> str:
    """Return a paragraph in lines of `WIDTH`; tables, headings and lists as they are."""
    return (
        block if block.startswith(("|", "#", "- ")) else textwrap.fill(block, WIDTH, break_long_words=False)
    )


@dataclass(frozen=True)
class Section:
    """A part of the document: paragraphs and tables in order, the figures that have targets, published anchors."""

    title: str
    blocks: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    anchors: tuple[Anchor, ...] = ()

    def render(self) -> str:
        """Return the section as Markdown."""
        parts = [f"## {self.title}", *self.blocks]
        if self.figures:
            parts += ["Against what was to be reached:", figures_table(self.figures)]
        if self.anchors:
            rows = [(anchor.tool, anchor.figure, anchor.source) for anchor in self.anchors]
            parts += [NO_COMPARISON, table(("tool", "figure", "source"), rows)]
        return "\n\n".join(wrapped(part) for part in parts if part) + "\n"


@dataclass(frozen=True)
class Experiment:
    """``cases``: the scans of a plan. ``report``: what came of them, for the document."""

    name: str
    cases: Callable[[Plan], Sequence[Case]]
    report: Callable[[Plan, Results], Section]
