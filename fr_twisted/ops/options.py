"""Command-line options made from a model of `fr_twisted.config`, over the environment, over ``.env``."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from twisted.python import usage

from fr_twisted import __version__
from fr_twisted.config import (
    ENV_FILE,
    Settings,
    default_text,
    setting_of,
    unknown_variables,
)
from fr_twisted.setting_values import Setting

S = TypeVar("S", bound=Settings)

_COMMAND_LINE = "on the command line"


def read_environment(environ: Mapping[str, str], folder: Path) -> dict[str, tuple[str, str]]:
    """Return every ``FR_*`` variable as name to (value, where it stands): the environment over the ``.env`` file.

    The file is ``environ["FR_ENV_FILE"]`` or ``.env`` in ``folder``; other variables in it are left alone. A variable
    that is set to nothing counts as not set.

    Raises:
        usage.UsageError: the file cannot be read, or a variable begins with ``FR_`` and means nothing to any unit.
    """
    named = environ.get(ENV_FILE)
    path = folder / (named or ".env")
    found = {name: (value, str(path)) for name, value in _read_file(path, bool(named)).items() if value}
    found |= {name: (value, "the environment") for name, value in environ.items() if value}
    found = {name: entry for name, entry in found.items() if name.startswith("FR_")}
    problems = [
        f"{name} (in {found[name][1]}) is no setting of Fr" + (f"; did you mean {near}?" if near else "")
        for name, near in unknown_variables(found).items()
    ]
    if problems:
        raise usage.UsageError("\n".join(problems))
    return found


def _read_file(path: Path, must_exist: bool) -> dict[str, str | None]:
    if not path.is_file() and not must_exist:
        return {}
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise usage.UsageError(f"the file of settings {path} cannot be read: {reason}") from None
    for binding in bindings:
        if binding.error or (binding.value is None and (binding.key or "").startswith("FR_")):
            # Not shown: it may hold a password.
            line = f"line {binding.original.line} of the file of settings {path}"
            raise usage.UsageError(f"{line} cannot be understood; accepted: NAME=value, quotes closed")
    return dotenv_values(path, encoding="utf-8")


def read_settings(
    model: type[S], given: Mapping[str, list[str]], environ: Mapping[str, str], folder: Path
) -> S:
    """Return the settings: what is ``given`` on the command line, by field, over the environment, over ``.env``.

    Raises:
        usage.UsageError: one line for each setting that is unknown or invalid.
    """
    environment = read_environment(environ, folder)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field in model.model_fields:
        setting = setting_of(model, field)
        if field in given:
            values[field] = given[field] if setting.many else given[field][-1]
            origins[field] = _COMMAND_LINE
        elif setting.env in environment:
            values[field], where = environment[setting.env]
            origins[field] = f"in {where}"
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, item, values, origins) for item in error.errors(include_url=False)]
        raise usage.UsageError("\n".join(lines)) from None


class SettingsOptions(usage.Options, Generic[S]):
    """The options of one unit; made by `settings_options`. After parsing, ``settings`` is the validated model."""

    model: type[S]
    settings: S
    log_path: str | None = None
    """Where to log; None is standard output. As twistd's own ``--logfile`` and ``--nodaemon`` say."""

    def __init__(self, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._folder = folder
        self._given: dict[str, list[str]] = {}
        super().__init__()

    def opt_version(self) -> None:
        """Display the version of Fr and exit."""
        print(f"fr-twisted {__version__}")
        sys.exit(0)

    def give(self, field: str, value: str) -> None:
        """Note that ``field`` was given on the command line."""
        self._given.setdefault(field, []).append(value)

    def postOptions(self) -> None:
        """Put the sources together and validate them.

        Raises:
            usage.UsageError: one line for each setting that is unknown or invalid.
        """
        self.settings = read_settings(self.model, self._given, self._environ, self._folder or Path.cwd())
        self.log_path = self._log_path()

    def _log_path(self) -> str | None:
        """Return the log file that twistd was told of; a daemon that was told of none writes ``twistd.log``."""
        parent = cast("usage.Options | None", getattr(self, "parent", None))
        if parent is None:
            return None
        given = parent.get("logfile")
        if given == "-" or (not given and parent.get("nodaemon", True)):
            return None
        return str(given or "twistd.log")


def _explain(
    model: type[Settings], error: ErrorDetails, values: Mapping[str, Any], origins: Mapping[str, str]
) -> str:
    """Return one line: the setting, where it stands, its value unless secret, what is accepted."""
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    field = str(error["loc"][0])
    setting = setting_of(model, field)
    value = values[field][-1] if isinstance(values[field], list) else values[field]
    shown = (
        "has a value (not shown here)" if setting.secret else f"is {json.dumps(value, ensure_ascii=False)}"
    )
    reason = f": {error['msg'].removeprefix('Value error, ')}" if error["type"] == "value_error" else ""
    name = setting.env if origins[field] != _COMMAND_LINE else f"--{_option(field)}"
    return f"{name} {shown} {origins[field]}, which cannot be used{reason}; accepted: {setting.accepts}"


def _option(field: str) -> str:
    return field.replace("_", "-")


def _method(
    model: type[Settings], field: str, setting: Setting
) -> Callable[[SettingsOptions[Any], str], None]:
    """Return the ``opt_...`` method of one field; usage shows its docstring as the help."""

    def method(self: SettingsOptions[Any], value: str) -> None:
        self.give(field, value)

    default = default_text(model, field) or "none"
    secret = "; secret, so rather not on the command line" if setting.secret else ""
    method.__doc__ = (
        f"{model.model_fields[field].description} [default: {default}; env: {setting.env}{secret}]"
    )
    return method


def settings_options(model: type[S], synopsis: str) -> type[SettingsOptions[S]]:
    """Return the ``usage.Options`` of a unit: one long option a field, ``--mongo-uri`` for ``mongo_uri``.

    Nothing is read before the command line is parsed, so ``--help`` works whatever the environment holds.
    """
    body: dict[str, Any] = {
        f"opt_{field}": _method(model, field, setting_of(model, field)) for field in model.model_fields
    }
    body["__doc__"] = model.__doc__
    body["model"] = model
    body["synopsis"] = "[options]"
    body["longdesc"] = synopsis
    return cast(type[SettingsOptions[S]], type(f"{model.__name__}Options", (SettingsOptions,), body))
