"""A watched folder's ``sent/`` and ``refused/``: scans are moved there whole, after a crash too.

A series half moved would be a shorter series to the next start, and another scan. So the moves of a scan of several
files are first written down, in a hidden file that is removed when all are made. All of it blocks: for threads.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from twisted.logger import Logger

from fr_twisted.pacs.files import REFUSED, SENT, Stamp

_JOURNAL = ".moving-"
_log = Logger()


def put_away(
    root: Path, stamps: Sequence[Stamp], scan_id: str, where: str, reason: str | None = None
) -> None:
    """Move the files of a scan from the watched folder ``root`` to its folder ``where``, keeping their relative paths.

    A file that has changed since it was looked at stays. Loose slices get a folder named after the scan. Where the same
    names are there already, the scan goes beside them under its own name.

    Args:
        root: the watched folder.
        stamps: the files, as they were sent.
        scan_id: names the scan.
        where: `SENT` or `REFUSED`.
        reason: written to ``<name>.reason.txt`` beside them.

    Raises:
        OSError: a folder or file cannot be written.
    """
    here = [stamp.path for stamp in stamps if _same(stamp)]
    if not here:
        return
    moves = _plan(root, here, scan_id, where)
    if reason is not None:
        beside = _reason_path(root, [target for _, target in moves], scan_id, where)
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(reason + "\n", encoding="utf-8")
    journal = root / where / f"{_JOURNAL}{scan_id}.json"
    journal.parent.mkdir(parents=True, exist_ok=True)
    if len(moves) > 1:
        _write_journal(journal, [(str(a.relative_to(root)), str(b.relative_to(root))) for a, b in moves])
    _move(root, moves)
    journal.unlink(missing_ok=True)


def recover(root: Path) -> int:
    """Make the moves that were written down and not all made; return how many scans that were."""
    count = 0
    for where in (SENT, REFUSED):
        for journal in sorted((root / where).glob(f"{_JOURNAL}*.json")):
            try:
                pairs = json.loads(journal.read_text(encoding="utf-8"))
                moves = [(_below(root, source), _below(root, target)) for source, target in pairs]
            except (ValueError, TypeError):
                _log.warn(
                    "a note of moved files cannot be read: {path}", path=journal.name, event="file.journal"
                )
            else:
                _move(root, [(source, target) for source, target in moves if source.exists()])
                count += 1
            journal.unlink()
    return count


def _below(root: Path, relative: str) -> Path:
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("a path that leads out of the folder")
    return root / path


def _same(stamp: Stamp) -> bool:
    try:
        found = stamp.path.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (stamp.size, stamp.mtime_ns)


def _plan(root: Path, files: Iterable[Path], scan_id: str, where: str) -> list[tuple[Path, Path]]:
    """Return (from, to) of each file, where no target exists."""
    relative = [path.relative_to(root) for path in files]
    loose = len(relative) > 1 and all(len(path.parts) == 1 for path in relative) and not _one_stem(relative)
    base = Path(scan_id) if loose else Path()
    targets = [root / where / base / path for path in relative]
    number = 0
    while any(os.path.lexists(target) for target in targets):
        number += 1
        targets = [root / where / base / _renamed(path, number) for path in relative]
    return [(root / path, target) for path, target in zip(relative, targets, strict=True)]


def _one_stem(paths: Sequence[Path]) -> bool:
    """Return whether these are one file and its sidecars."""
    return len({path.name.partition(".")[0] for path in paths}) == 1


def _renamed(path: Path, number: int) -> Path:
    """Return the path with its first part changed: ``a.nii.gz`` to ``a~1.nii.gz``, ``folder/x`` to ``folder~1/x``."""
    first, *rest = path.parts
    stem, dot, ending = first.partition(".") if not rest else (first, "", "")
    return Path(f"{stem}~{number}{dot}{ending}", *rest)


def _reason_path(root: Path, targets: Sequence[Path], scan_id: str, where: str) -> Path:
    """Return where the reason of a refusal goes: beside the file, or beside the folder that the files are in."""
    named = targets[0] if len(targets) == 1 or _one_stem(targets) else Path(os.path.commonpath(targets))
    if named == root / where:
        named = root / where / scan_id
    beside = named.with_name(f"{named.name}.reason.txt")
    return beside if not beside.exists() else named.with_name(f"{named.name}.{scan_id}.reason.txt")


def _write_journal(journal: Path, moves: list[tuple[str, str]]) -> None:
    part = journal.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(moves, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(journal)


def _move(root: Path, moves: Iterable[tuple[Path, Path]]) -> None:
    emptied: set[Path] = set()
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        emptied.add(source.parent)
    for folder in sorted(emptied, key=lambda path: -len(path.parts)):
        _remove_empty(root, folder)


def _remove_empty(root: Path, folder: Path) -> None:
    """Remove a folder that is empty now, and those around it, but never ``root``."""
    while folder != root and folder.is_relative_to(root):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
