"""Tables of Markdown, numbers as text, and simple statistics."""

import statistics
from collections.abc import Iterable, Sequence

NONE = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell's bars are escaped."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """Return a number with fixed digits, or a dash for none; minus zero is zero."""
    if value is None:
        return NONE
    value = round(value, digits) + 0.0
    return f"{value:+.{digits}f}" if sign and value else f"{value:.{digits}f}"


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None for none."""
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample, or None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def largest(values: Sequence[float]) -> float | None:
    """Return the largest absolute value, or None for none."""
    return max((abs(value) for value in values), default=None)


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return a quantile by linear interpolation between the sorted values, or None for none."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return "mean ± standard deviation" of signed values."""
    if not values:
        return NONE
    return f"{number(mean(values), digits, True)} ± {number(deviation(values), digits)}"


def outcomes(found: Iterable[str]) -> str:
    """Return how often each outcome came, the most frequent first."""
    listed = list(found)
    names = sorted(set(listed), key=lambda name: (-listed.count(name), name))
    return ", ".join(f"{listed.count(name)} {name}" for name in names)
