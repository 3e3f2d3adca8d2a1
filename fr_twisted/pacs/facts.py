"""Modality facts as they travel with a scan: bounded plain values, times with their zone."""

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from pydicom.valuerep import DA, DT, TM

Fact = str | int | float | None

MAX_TEXT = 64
"""Characters of one fact."""

_UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def plain(value: Any) -> Fact:
    """Return a number or a short text; None for what is neither, empty or not finite."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return int(value) if abs(value) < 2**53 else None
    if isinstance(value, float):
        return round(float(value), 6) if math.isfinite(value) else None
    if isinstance(value, str):
        return text(value)
    return text("\\".join(str(part) for part in value)) if isinstance(value, (list, tuple)) else None


def text(value: str | None, limit: int = MAX_TEXT) -> str | None:
    """Return ``value`` on one line and within ``limit``; None if nothing is left."""
    return _UNWANTED.sub(" ", value or "").strip()[:limit] or None


def known(facts: Mapping[str, Any]) -> dict[str, Fact]:
    """Return the facts that have a value."""
    return {name: value for name, raw in facts.items() if (value := plain(raw)) is not None}


def spacing_text(edges: tuple[float, ...]) -> str | None:
    """Return edges of a voxel in mm as ``1 x 1 x 1.2``."""
    return " x ".join(f"{edge:.4g}" for edge in edges) if edges and all(map(math.isfinite, edges)) else None


def dicom_zone(offset: str | None) -> tzinfo | None:
    """Return the zone of a Timezone Offset From UTC (0008,0201) such as ``+0100``; None: no valid one."""
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", (offset or "").strip())
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    if minutes > 14 * 60:
        return None
    return timezone(timedelta(minutes=minutes if found[1] == "+" else -minutes))


def dicom_moment(moment: str | None, zone: tzinfo | None) -> datetime | None:
    """Return a DICOM DT as an aware time: its own offset, else ``zone``, else this machine's zone."""
    try:
        parsed = DT(moment) if moment else None
    except (ValueError, OverflowError):
        return None
    return None if parsed is None else _aware(parsed, zone)


def dicom_date_time(date: str | None, time: str | None, zone: tzinfo | None) -> datetime | None:
    """Return a DICOM DA and TM as an aware time; None if either is missing or wrong."""
    try:
        day, clock = DA(date or ""), TM(time or "")
    except (ValueError, OverflowError):
        return None
    return None if day is None or clock is None else _aware(datetime.combine(day, clock), zone)


def iso_moment(moment: Any) -> datetime | None:
    """Return an ISO 8601 time as an aware one; this machine's zone unless it says another."""
    try:
        return _aware(datetime.fromisoformat(moment), None)
    except (ValueError, TypeError):
        return None


def _aware(moment: datetime, zone: tzinfo | None) -> datetime | None:
    bare = datetime(
        moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond
    )
    zone = moment.tzinfo or zone
    try:
        return bare.replace(tzinfo=zone) if zone is not None else bare.astimezone()
    except (ValueError, OverflowError, OSError):  # years that this machine's clock cannot hold
        return None
