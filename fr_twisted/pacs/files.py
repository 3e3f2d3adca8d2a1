"""Files as they lie on a disk that others write to: their state, walks through folders, and what is not sent."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SENT = "sent"
REFUSED = "refused"
"""Folders within a watched folder that what was sent or refused is moved to."""


class NotUsableError(Exception):
    """A file is not sent; the message says why, to people, without quoting what is in the file."""


class ChangedError(Exception):
    """A file is no longer what it was when it was looked at."""


@dataclass(frozen=True)
class Stamp:
    """A file at one moment: size in bytes, time of its last change in nanoseconds since 1970."""

    path: Path
    size: int
    mtime_ns: int

    def check(self) -> None:
        """See that the file is still the same.

        Raises:
            ChangedError: it is not.
        """
        try:
            now = take_stamp(self.path)
        except OSError:
            raise ChangedError(f"{self.path.name} is gone") from None
        if now != self:
            raise ChangedError(f"{self.path.name} has changed")


@dataclass(frozen=True)
class Skipped:
    """A file or folder that is not sent, and why."""

    path: Path
    reason: str


def take_stamp(path: Path) -> Stamp:
    """Return the state of a file; of what a link points to.

    Raises:
        OSError: there is none.
    """
    found = path.stat()
    return Stamp(path, found.st_size, found.st_mtime_ns)


def walk(root: Path, watched: bool = False) -> Iterator[Stamp | Skipped]:
    """Yield the files in and below ``root`` (or ``root`` itself, a file), by name; blocks.

    Hidden names are passed over without a word (copying tools give them to what is not complete yet), and in a watched
    folder those that Fr moved away. A link to a file is followed when it stays below ``root``; no link to a folder is.
    """
    if not root.is_dir():
        yield _look(root, None)
        return
    yield from _walk(root, root.resolve(), frozenset((SENT, REFUSED)) if watched else frozenset())


def _walk(folder: Path, top: Path, excluded: frozenset[str]) -> Iterator[Stamp | Skipped]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Skipped(folder, f"the folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in excluded:
            continue
        path = Path(entry.path)
        try:
            is_folder = entry.is_dir()
        except OSError as error:
            yield Skipped(path, f"it cannot be read: {error.strerror}")
            continue
        if is_folder and entry.is_symlink():
            yield Skipped(path, "a link to a folder; such links are not followed")
        elif is_folder:
            yield from _walk(path, top, frozenset())
        else:
            try:
                yield _look(path, top)
            except FileNotFoundError:
                if entry.is_symlink():
                    yield Skipped(path, "a link to a file that is not there")


def _look(path: Path, top: Path | None) -> Stamp | Skipped:
    """Return the file's state, if it is a regular file below ``top`` (None: wherever it is)."""
    try:
        found = path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        return Skipped(path, f"it cannot be read: {error.strerror}")
    if not stat.S_ISREG(found.st_mode):
        return Skipped(path, "not a regular file")
    if top is not None and path.is_symlink() and not path.resolve().is_relative_to(top):
        return Skipped(path, "a link that leads out of the folder; such links are not followed")
    return Stamp(path, found.st_size, found.st_mtime_ns)
