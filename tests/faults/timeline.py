"""What was done and what was seen, in one order of time."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass
class Entry:
    """One line: the harness's own doing, or an event of a unit's log."""

    at: float
    who: str
    event: str
    text: str = ""


@dataclass
class Done:
    """A fault as it was injected."""

    kind: str
    target: str
    began: float
    ended: float = 0.0
    hit: bool = False
    """Whether the moment that it was for came; what was not hit is not counted."""
    skipped: str = ""
    """Why it cannot be done here."""
    resumed: float | None = None
    """Seconds from its end until a unit that it hit did something of use again."""


@dataclass
class Timeline:
    """Filled from several threads."""

    entries: list[Entry] = field(default_factory=list)
    faults: list[Done] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What the faults' own checks found wrong."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, who: str, event: str, text: str = "") -> None:
        """Add a line now."""
        with self.lock:
            self.entries.append(Entry(time.time(), who, event, text))

    def problem(self, who: str, text: str) -> None:
        """Add a problem."""
        with self.lock:
            self.problems.append(f"{who}: {text}")
            self.entries.append(Entry(time.time(), who, "PROBLEM", text))

    def lines(self, logs: Iterable[tuple[str, dict[str, Any]]], since: float) -> Iterator[str]:
        """Yield everything since then as lines of text, the units' log events between our own."""
        merged = [entry for entry in self.entries if entry.at >= since]
        for who, event in logs:
            at = moment(event)
            if at >= since:
                merged.append(Entry(at, who, str(event.get("event", "-")), str(event.get("msg", ""))))
        for entry in sorted(merged, key=lambda entry: entry.at):
            yield f"{entry.at - since:8.3f}  {entry.who:<10} {entry.event:<18} {entry.text}"


def moment(event: dict[str, Any]) -> float:
    """Return the time of a log event, in seconds since 1970."""
    try:
        return datetime.fromisoformat(str(event["t"]).replace("Z", "+00:00")).astimezone(UTC).timestamp()
    except (KeyError, ValueError):
        return 0.0


def write(path: Path, lines: Iterable[str]) -> None:
    """Write lines to a file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def dump(path: Path, value: Any) -> None:
    """Write JSON to a file."""
    path.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
