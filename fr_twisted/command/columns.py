"""What commands print for people: aligned columns, ages, sizes, times; colour on a terminal alone."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

GAP = "  "
MOST_CHARACTERS = 2000

_COLOURS = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}
_OF_STATES = {
    "To Do": "cyan",
    "In Progress": "yellow",
    "Done": "green",
    "Failed": "red",
    "delivered": "green",
    "waiting": "cyan",
    "refused": "red",
}


@dataclass(frozen=True)
class Screen:
    """Where it is printed."""

    stream: TextIO
    colour: bool = False
    width: int | None = None
    """Characters in a line; None: no terminal, nothing is cut."""

    @classmethod
    def of(cls, stream: TextIO) -> "Screen":
        """Return the screen that a stream is: plain unless it is a terminal."""
        from fr_twisted.ops.logs import wants_colour

        width = shutil.get_terminal_size().columns if stream.isatty() else None
        return cls(stream, wants_colour(stream), width)

    def say(self, *lines: str) -> None:
        """Print lines."""
        for line in lines:
            print(line, file=self.stream)

    def paint(self, text: str, colour: str | None) -> str:
        """Return ``text`` in a colour, where there are colours."""
        if not self.colour or colour is None or not text.strip():
            return text
        return f"\033[{_COLOURS[colour]}m{text}\033[0m"

    def state(self, text: str) -> str:
        """Return a state in its colour."""
        return self.paint(text, _OF_STATES.get(text.strip()))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], aligned: str) -> None:
        """Print rows under a header; ``aligned`` has < or > for each column. The last is cut to fit the terminal."""
        cells = [[clean(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in (header, *cells)) for column in range(len(header))]
        last = len(header) - 1
        if self.width is not None and aligned[last] == "<":
            room = self.width - sum(widths[:last]) - len(GAP) * last
            cells = [[*row[:last], cut(row[last], max(room, 8))] for row in cells]
            widths[last] = 0
        self.say(self.paint(GAP.join(_padded(header, widths, aligned)).rstrip(), "bold"))
        for row in cells:
            self.say(GAP.join(self.state(cell) for cell in _padded(row, widths, aligned)).rstrip())

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names with what belongs to each, in two columns; what is empty is left out."""
        width = max(len(name) for name, _ in pairs)
        for name, text in pairs:
            if text:
                self.say(f"{self.paint(f'{name:{width}}', 'dim')}{GAP}{clean(text)}")


def _padded(cells: Sequence[str], widths: Sequence[int], aligned: str) -> list[str]:
    return [f"{cell:{side}{width}}" for cell, width, side in zip(cells, widths, aligned, strict=True)]


def clean(text: str) -> str:
    """Return one line that does nothing to a terminal: what is no printable character becomes a question mark."""
    words = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in words)[:MOST_CHARACTERS]


def cut(text: str, width: int) -> str:
    """Return ``text``, or its beginning with dots behind it if it is longer than ``width``."""
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def moment(when: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return "-" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """Return how long that is: ``12 s``, ``4 min``, ``2 h 05 min``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: int) -> str:
    """Return bytes: ``512 B``, ``12.3 MB`` (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    steps = [(count / 1000**power, unit) for power, unit in enumerate(("kB", "MB", "GB", "TB"), start=1)]
    value, unit = next((step for step in steps if step[0] < 999.95), steps[-1])
    return f"{value:.1f} {unit}"


def number(count: int) -> str:
    """Return a number with commas between thousands."""
    return f"{count:,}"


def several(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 scan``, ``2 scans``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
