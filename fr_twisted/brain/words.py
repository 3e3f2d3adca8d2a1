"""The last words of a worker process: the end of what it wrote to standard error, without what is a patient's.

Libraries quote the values that they stumble over: what stands in quotation marks, what is written as a DICOM name, long
rows of digits, and what the scan's own facts say are left out. Where a crash or a hang was is kept.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

KEPT = 4096
"""Bytes of them that are kept,"""

SHOWN = 600
"""and characters of them that are shown."""

_CRASH = b"Fatal Python error"
_BEFORE = 400
_SHOWN_BEFORE = 160
_ABORTED = "Fatal Python error: Aborted"
_PLACE = re.compile(r'File "(?:[^"]*/)?([^"/]+)", line (\d+)')
_THREAD = re.compile(
    r"\s*\(?(?:Current thread|Thread) 0x[0-9a-f]+ (?:\[[^\]]*\] )?\(most recent call first\):"
)
_NOISE = ("Extension modules:", "Stack (most recent", "Garbage-collecting", "C stack trace", "  Binary file")
# Names of C++ are no values: std::bad_alloc.
_QUOTED = re.compile(r"'(?!\w+::)[^']*'|\"(?!\w+::)[^\"]*\"")
_NAME = re.compile(r"[^\s^|=]+\^[^\s|]*")
_NUMBER = re.compile(r"\d{6,}")
_SHORTEST = 3


def keep(words: bytes) -> bytes:
    """Return the part of ``words`` that tells most: from a little before a crash's traceback on, or the end."""
    crash = words.rfind(_CRASH)
    return words[max(0, crash - _BEFORE) :][:KEPT] if crash >= 0 else words[-KEPT:]


def values_of(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the texts in the facts of a scan, at any depth."""
    found: set[str] = set()

    def gather(value: Any) -> None:
        if isinstance(value, Mapping):
            for part in value.values():
                gather(part)
        elif isinstance(value, (list, tuple)):
            for part in value:
                gather(part)
        elif value is not None and not isinstance(value, bool):
            found.add(str(value))

    gather(facts)
    return frozenset(text for text in found if len(text) >= _SHORTEST)


def last_words(words: bytes, hidden: Iterable[str] = (), asked: bool = False) -> str:
    """Return ``words`` as one line for the document of a scan.

    Args:
        words: as `keep` returns them.
        hidden: what must not be told.
        asked: whether the process was told to say where it was, and so ended.
    """
    lines = (" ".join(_line(line, hidden).split()) for line in words.decode(errors="replace").splitlines())
    text = " | ".join(line for line in lines if line)
    crash = text.find(_CRASH.decode())
    if crash < 0:
        return text[-SHOWN:]
    told = text[crash:]
    if asked and told.startswith(_ABORTED):
        told = "it was at" + told[len(_ABORTED) :].replace(" | ", " ", 1)
    return text[max(0, crash - _SHOWN_BEFORE) : crash] + told[:SHOWN]


def _line(line: str, hidden: Iterable[str]) -> str:
    if line.startswith(_NOISE) or _THREAD.match(line):
        return ""
    line, places = _PLACE.subn(r"\1:\2", line)
    if places:
        return line
    for text in hidden:
        line = line.replace(text, "…")
    return _NUMBER.sub("…", _NAME.sub("…", _QUOTED.sub("…", line)))
