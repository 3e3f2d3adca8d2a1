"""Log observers that can only write what is on an allow-list: no patient's name, birth date or id, by construction."""

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

FIELDS = frozenset(
    {
        "address",
        "analysis",
        "attempt",
        "attempts",
        "bytes",
        "chunks",
        "code",
        "collection",
        "count",
        "cpu",
        "delay",
        "destination",
        "detail",
        "duplicate",
        "endpoint",
        "error",
        "file",
        "files",
        "format",
        "host",
        "item_id",
        "kind",
        "limit",
        "line",
        "memory",
        "modality",
        "name",
        "node",
        "offset",
        "path",
        "payload_id",
        "peer",
        "pid",
        "port",
        "priority",
        "reason",
        "report_id",
        "retry",
        "scan_id",
        "seconds",
        "series",
        "server",
        "setting",
        "signal",
        "size",
        "slots",
        "source",
        "state",
        "status",
        "token",
        "unit",
        "url",
        "verb",
        "version",
        "waiting",
        "what",
        "window",
    }
)
"""Fields of an event that may be written."""

MAX_TEXT = 500
"""Characters of one field or message."""

_MAX_FRAMES = 12
_OURS = "fr_twisted"
_HIDDEN = "(not logged)"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Messages of other exceptions may quote what was being worked on, such as a header of an image.
_TRUSTED = (OSError, ImportError, NameError, AttributeError, TypeError, RuntimeError, MemoryError)
_FORMATTING = frozenset(("log_format", "log_text", "format", "message"))
_OF_MESSAGES = frozenset(("event", "category", "filename", "lineno", "log_namespace", "log_system"))
_SKELETON = re.compile(r"Traceback \(most .*|  File \"[^\"]*\", line .*|[\w.]+(?:Error|Exception|Warning)\b")
_TRUSTED_MODULES = ("fr_twisted", "twisted", "txmongo")
_COLOURS = {LogLevel.warn: "33", LogLevel.error: "31", LogLevel.critical: "1;31", LogLevel.debug: "2"}


class _Hidden:
    """Stands for a value that is not on the list, whatever a format string asks of it."""

    def __getattr__(self, name: str) -> "_Hidden":
        return self

    def __getitem__(self, key: object) -> "_Hidden":
        return self

    def __call__(self) -> "_Hidden":
        return self

    def __format__(self, spec: str) -> str:
        return _HIDDEN

    def __repr__(self) -> str:
        return _HIDDEN


def bounded(text: str, limit: int = MAX_TEXT) -> str:
    """Return ``text`` as one line of at most ``limit`` characters, without control characters."""
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, (bool, int, float)) else bounded(str(value))


def describe_exception(error: BaseException | None) -> str:
    """Return the exception's type, and its message where that cannot quote a patient's data."""
    name = type(error).__name__
    trusted = isinstance(error, _TRUSTED) or type(error).__module__.partition(".")[0] in _TRUSTED_MODULES
    if trusted and str(error):
        return f"{name}: {bounded(str(error), 300)}"
    code = getattr(error, "code", None)
    return f"{name} (code {code})" if isinstance(code, int) else name


def describe_failure(failure: Failure) -> str:
    """Return one line: the exception and the places it came through, the innermost last."""
    frames = [f"{_short(path)}:{line} {function}" for function, path, line, _, _ in failure.frames]
    places = " < ".join(frames[-_MAX_FRAMES:])
    return describe_exception(failure.value) + (f" [{places}]" if places else "")


def _short(path: str) -> str:
    return "/".join(path.split("/")[-3:])


def event_fields(event: LogEvent) -> dict[str, Any]:
    """Return the fields of ``event`` that may be written, each of them plain and bounded."""
    return {key: _plain(event[key]) for key in sorted(event) if key in FIELDS}


def event_message(event: LogEvent) -> str:
    """Return the formatted message; a field that is not on the list is not in it.

    What libraries print is kept only as far as it is the skeleton of a traceback; a legacy event that carries a
    failure has the failure's own text for a message, which is left out for the same reason.
    """
    if event.get("log_namespace") in ("stdout", "stderr"):
        found = _SKELETON.match(str(event.get("log_io", "")))
        return bounded(found[0] if found else f"(text on {event['log_namespace']}, not logged)")
    if event.get("log_format") == "{log_text}" and _failure_of(event) is not None:
        return bounded(str(event.get("why") or "Unhandled Error"))
    visible: LogEvent = {key: _visible(key, value) for key, value in event.items()}
    return bounded(formatEvent(visible))


def _failure_of(event: LogEvent) -> Failure | None:
    found = event.get("log_failure") or event.get("failure")  # the second: as `twisted.python.log.err` has it
    return found if isinstance(found, Failure) else None


def _visible(key: str, value: object) -> object:
    if key in _FORMATTING:
        return value
    return _plain(value) if key in FIELDS or key in _OF_MESSAGES else _Hidden()


def event_as_json(event: LogEvent) -> str:
    """Return ``event`` as one line of JSON: t, level, ns, msg, event, failure and the allowed fields."""
    level = event.get("log_level") or LogLevel.info
    line: dict[str, Any] = {
        "t": _moment(event).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name,
        "ns": str(event.get("log_namespace", "-")),
        "msg": event_message(event),
    }
    if isinstance(event.get("event"), str):
        line["event"] = event["event"]
    line |= event_fields(event)
    failure = _failure_of(event)
    if failure is not None:
        line["failure"] = describe_failure(failure)
    return json.dumps(line, ensure_ascii=False) + "\n"


def event_as_text(event: LogEvent, colour: bool = False) -> str:
    """Return ``event`` as a line for people; a failure follows on a line of its own."""
    level = event.get("log_level") or LogLevel.info
    moment = _moment(event).astimezone().strftime("%H:%M:%S")
    text = f"{moment} {level.name:<8} {event_message(event)}"
    failure = _failure_of(event)
    if failure is not None:
        text += f"\n{'':17} {describe_failure(failure)}"
    code = _COLOURS.get(level)
    return f"\x1b[{code}m{text}\x1b[0m\n" if colour and code else text + "\n"


def _moment(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def wants_colour(stream: Any, environ: Mapping[str, str] | None = None) -> bool:
    """Return whether ``stream`` is a terminal whose owner did not ask for plain text (no-color.org)."""
    environ = os.environ if environ is None else environ
    return (
        bool(getattr(stream, "isatty", bool)())
        and not environ.get("NO_COLOR")
        and environ.get("TERM") != "dumb"
    )


@implementer(ILogFilterPredicate)
class LevelPredicate:
    """Lets our events of at least one level pass, and of other packages only what is a warning or worse."""

    def __init__(self, level: LogLevel) -> None:
        self._level = level

    def __call__(self, event: LogEvent) -> Any:
        """Return a `PredicateResult` constant."""
        level = event.get("log_level") or LogLevel.info
        ours = str(event.get("log_namespace", "")).startswith(_OURS)
        least = self._level if ours or self._level is LogLevel.debug else max(self._level, LogLevel.warn)
        return PredicateResult.no if level < least else PredicateResult.maybe


def make_observer(
    stream: TextIO, log_format: str = "text", log_level: str = "info", colour: bool | None = None
) -> ILogObserver:
    """Return an observer that writes to ``stream`` (anything with ``write`` and ``flush``), a line an event.

    Args:
        stream: a text file.
        log_format: ``json`` or ``text``.
        log_level: ``debug``, ``info``, ``warn`` or ``error``.
        colour: whether text is coloured; None: where ``stream`` is a terminal.
    """
    coloured = wants_colour(stream) if colour is None else colour
    as_text: Callable[[LogEvent], str] = lambda event: event_as_text(event, coloured)  # noqa: E731
    render = event_as_json if log_format == "json" else as_text

    @implementer(ILogObserver)
    class Writer:
        def __call__(self, event: LogEvent) -> None:
            stream.write(render(event))
            stream.flush()

    level = LogLevel.levelWithName(log_level)
    return FilteringLogObserver(Writer(), [LevelPredicate(level)])
