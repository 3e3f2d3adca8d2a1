"""What a measurement returns, and how it is printed."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, how it came out, what it should reach, and whether it did."""

    what: str
    measured: str
    target: str = ""
    reached: bool | None = None


def render(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown."""
    cells = [("what", "measured", "at least", "reached")]
    cells += [(r.what, r.measured, r.target, {True: "yes", False: "NO", None: ""}[r.reached]) for r in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
