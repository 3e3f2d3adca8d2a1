"""What people ask of the sending of results: small files in the state folder, which the running Fr-PACS takes up."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fr_twisted.setting_dicom import Archive

FOLDER = "asked"


@dataclass(frozen=True)
class Asked:
    """That a report be sent; ``again``: also to archives that have it; ``archive``: to this one alone."""

    report_id: str
    again: bool
    archive: str | None = None

    def meant(self, archives: Iterable[Archive]) -> list[Archive]:
        """Return the archives that are meant, by AE title or ``AET@host:port``."""
        return [one for one in archives if self.archive in (None, one.title, str(one))]

    @property
    def _name(self) -> str:
        """The name of its file: a report may be asked for at two archives before anybody looks."""
        where = "" if self.archive is None else "+" + hashlib.sha256(self.archive.encode()).hexdigest()[:12]
        return self.report_id + where


def ask(state: Path, asked: Asked) -> None:
    """Ask the Fr-PACS that has this state folder.

    Raises:
        OSError: it cannot be asked.
    """
    folder = state / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    part = folder / f".part-{asked._name}"
    part.write_text(json.dumps(asdict(asked)), encoding="ascii")
    part.rename(folder / asked._name)


def waiting(state: Path) -> Iterator[Asked]:
    """Yield what was asked and not answered; blocks."""
    folder = state / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        try:
            yield Asked(**json.loads(path.read_text(encoding="ascii")))
        except (ValueError, TypeError):  # nobody asks like that: it would stay for ever
            path.unlink(missing_ok=True)


def answered(state: Path, asked: Asked) -> None:
    """Forget it: it is noted in the report's own file by now; blocks."""
    (state / FOLDER / asked._name).unlink(missing_ok=True)
