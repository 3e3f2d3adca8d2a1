"""Where ``fr analyse`` writes a report: a folder of the person's choice, in which nothing of others is overwritten."""

import json
import os
from pathlib import Path

from fr_twisted import bundle
from fr_twisted.command.trouble import BROKEN, CommandError

NAMES = (
    bundle.REPORT_JSON,
    bundle.REPORT_HTML,
    bundle.REPORT_PDF,
    bundle.OVERLAY_PNG,
    bundle.LABELS_NII,
    bundle.LESIONS_NII,
)


def check(folder: Path, scan_id: str) -> None:
    """Make the folder, and see that a report of this scan may be written into it.

    Raises:
        CommandError: it cannot be made, or holds something else by a name that the report needs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise CommandError(f"--out: {folder} is a file; name a folder") from None
    except OSError as error:
        raise CommandError(f"--out: the folder {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"--out: nothing can be written into {folder}; name another folder")
    _refuse_others(folder, scan_id, NAMES)


def _refuse_others(folder: Path, scan_id: str, names: tuple[str, ...]) -> None:
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and _owner(folder / bundle.REPORT_JSON) != scan_id:
        raise CommandError(
            f"--out: {folder / there[0]} is there already and is not of this scan's report; name another folder"
        )


def _owner(report: Path) -> str | None:
    """Return the scan whose report this is; None if it is none."""
    try:
        found = json.loads(report.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return str(found.get("scan_id")) if isinstance(found, dict) else None


def write(folder: Path, packed: bytes, scan_id: str) -> list[str]:
    """Write the files of a report bundle; return their names. Each is there whole or not at all, the JSON last.

    Files of an earlier report of the scan that this one has not are removed.

    Raises:
        CommandError: the bundle is none, or the files cannot be written.
    """
    try:
        files = bundle.unpack(packed)
    except bundle.BundleError as error:
        raise CommandError(f"the analysis broke: {error}", BROKEN) from None
    names = sorted(files, key=lambda name: (name == bundle.REPORT_JSON, name))
    _refuse_others(folder, scan_id, tuple(names))
    stale = set(NAMES) - set(names) if _owner(folder / bundle.REPORT_JSON) == scan_id else set()
    # A label map of an earlier report of the scan would pass for one of this report, which may withhold its own.
    for name in stale:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise CommandError(
                f"--out: {folder / name} is of an earlier report and cannot be removed: {error.strerror}",
                BROKEN,
            ) from None
    for name in names:
        part = folder / f".{name}.part"
        try:
            part.write_bytes(files[name])
            part.replace(folder / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CommandError(
                f"--out: {folder / name} cannot be written: {error.strerror}", BROKEN
            ) from None
    return names
