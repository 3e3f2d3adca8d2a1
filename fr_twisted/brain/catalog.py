"""The analyses that are installed: entry points of `fr_twisted.brain.interfaces.ENTRY_POINTS`. No Twisted here."""

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from fr_twisted.brain.interfaces import ENTRY_POINTS, Analysis


class AnalysisUnavailableError(Exception):
    """There is no such analysis, or it cannot be loaded; one line that says what to do."""


def installed() -> dict[str, EntryPoint]:
    """Return the installed analyses by name, without loading any.

    Raises:
        AnalysisUnavailableError: two packages bring different analyses of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise AnalysisUnavailableError(
                f"two packages bring an analysis named {point.name!r}: {other.value} and {point.value}; remove one"
            )
    return found


def check(name: str) -> None:
    """Make sure that ``name`` is installed, or has the form ``module:attribute``; nothing is loaded.

    Raises:
        AnalysisUnavailableError: it is not; the message lists what is.
    """
    if ":" not in name:
        _find(name)


@lru_cache
def load(name: str) -> Analysis:
    """Return the analysis: an entry point's name, or ``module:attribute`` for one that no package declares.

    Raises:
        AnalysisUnavailableError: it is not installed, importing it failed, or it is no analysis.
    """
    module, colon, attribute = name.partition(":")
    target: Any
    try:
        if colon:
            target = import_module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
        else:
            target = _find(name).load()
    except AnalysisUnavailableError:
        raise
    except Exception as error:
        raise AnalysisUnavailableError(
            f"the analysis {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return _checked(name, target)


def _find(name: str) -> EntryPoint:
    points = installed()
    if name not in points:
        known = ", ".join(sorted(points)) or "none; install fr-twisted[brain]"
        raise AnalysisUnavailableError(f"no analysis named {name!r} is installed; installed: {known}")
    return points[name]


def _checked(name: str, target: Any) -> Analysis:
    described = all(
        isinstance(getattr(target, part, None), str) and getattr(target, part) for part in ("name", "version")
    )
    if not (described and callable(target)):
        raise AnalysisUnavailableError(
            f"{name!r} is no analysis: it must be callable and have the texts name and version"
        )
    return cast(Analysis, target)
