"""Where a folder of Fr-PACS is: as a command is told, else as its settings say."""

import os
from pathlib import Path

from fr_twisted.command.trouble import CommandError


def find(given: Path | None, setting: str, field: str, part: str, refusal: str) -> Path:
    """Return the folder that has ``part`` in it.

    Args:
        given: what the command line names.
        setting: its environment variable, such as ``FR_SPOOL``.
        field: of `PacsSettings`, for its default.
        part: a folder that must be in it.
        refusal: what to say of a folder without.

    Raises:
        CommandError: it is no such folder, or the settings cannot be read.
    """
    from fr_twisted.config import PacsSettings, default_text

    folder = given or Path(_value(setting) or str(default_text(PacsSettings, field)))
    if not (folder / part).is_dir():
        raise CommandError(f"{folder} {refusal}")
    return folder


def archives() -> set[str] | None:
    """Return the archives of FR_DICOM_ARCHIVES, as AET@host:port; None: it is not set here.

    Raises:
        CommandError: the settings cannot be read.
    """
    from pydantic import TypeAdapter, ValidationError

    from fr_twisted.setting_dicom import Archives

    found = _value("FR_DICOM_ARCHIVES")
    try:
        return None if found is None else set(map(str, TypeAdapter(Archives).validate_python(found)))
    except ValidationError:
        raise CommandError("FR_DICOM_ARCHIVES is not AET@host:port with commas between") from None


def _value(setting: str) -> str | None:
    """Return a setting of the environment and ``.env``; None: it is not set."""
    from twisted.python import usage

    from fr_twisted.ops.options import read_environment

    try:
        found = read_environment(os.environ, Path.cwd()).get(setting)
    except usage.UsageError as error:
        raise CommandError(str(error)) from None
    return found[0] if found else None
