"""One terminal for several units: prefixed lines, in colour where that is wanted, over a line of progress."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

_UNIT_COLOURS: Mapping[str, str] = {"store": "35", "hub": "36", "brain": "32", "pacs": "34", "fr": "1"}
_LEVEL_COLOURS: Mapping[str, str] = {"warn": "33", "error": "31", "critical": "1;31"}
_PREFIX = 6


class Screen:
    """Writes whole lines; the progress line, on a terminal only, is always the last one."""

    def __init__(self, stream: TextIO, colour: bool, terminal: bool) -> None:
        self._stream = stream
        self._colour = colour
        self.terminal = terminal
        self._progress = self._drawn = ""

    def line(self, unit: str, text: str, level: str = "info") -> None:
        """Write a line of ``unit``."""
        prefix = self._paint(f"{unit:<{_PREFIX}}|", _UNIT_COLOURS.get(unit))
        self._write(f"{prefix} {self._paint(text, _LEVEL_COLOURS.get(level))}\n")

    def plain(self, text: str = "") -> None:
        """Write a line as it is."""
        self._write(text + "\n")

    def progress(self, text: str) -> None:
        """Show ``text`` under everything, in place of what stood there; nothing removes it."""
        if self.terminal and text != self._progress:
            self._progress = text
            self._write("")

    def _write(self, text: str) -> None:
        erase = "\r\x1b[K" if self._drawn else ""
        width = shutil.get_terminal_size().columns - 1
        self._drawn = self._progress[:width]
        # Whoever read this may be gone (a closed terminal, a pipe into head): the units must be ended all the same.
        with suppress(OSError):
            self._stream.write(erase + text + self._drawn)
            self._stream.flush()

    def _paint(self, text: str, code: str | None) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text
