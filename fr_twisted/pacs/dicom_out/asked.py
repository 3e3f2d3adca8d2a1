"""What people ask of the sending of results: small files in the state folder, which the running Fr-PACS takes up.

``<state>/asked/<report id>`` says `AGAIN`, or nothing: then only archives that have not got the report are meant.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "asked"
AGAIN = "again"


@dataclass(frozen=True)
class Asked:
    """That a report be sent; ``again``: also to archives that have it."""

    report_id: str
    again: bool


def ask(state: Path, asked: Asked) -> None:
    """Ask the Fr-PACS that has this state folder.

    Raises:
        OSError: it cannot be asked.
    """
    folder = state / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    part = folder / f".part-{asked.report_id}"
    part.write_text(AGAIN if asked.again else "", encoding="ascii")
    part.rename(folder / asked.report_id)


def waiting(state: Path) -> Iterator[Asked]:
    """Yield what was asked and not answered; blocks."""
    folder = state / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith("."):
            yield Asked(path.name, path.read_text(encoding="ascii", errors="replace") == AGAIN)


def answered(state: Path, asked: Asked) -> None:
    """Forget it: it is noted in the report's own file by now; blocks."""
    (state / FOLDER / asked.report_id).unlink(missing_ok=True)
