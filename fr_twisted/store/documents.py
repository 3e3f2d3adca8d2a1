"""Documents as they are written: times, lines of history, leases; and read back, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fr_twisted.store.interfaces import StoreError

M = TypeVar("M", bound=BaseModel)

LONGEST_HISTORY = 200
"""Lines of history that a scan keeps: the last ones."""

FIRST_ATTEMPTS = 8
"""Failed attempts to deliver a report, and releases of a scan that do not count, that are told one by one."""

LONGEST_ERROR = 2000
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Scribe:
    """Writes history in the name of one unit on one node."""

    unit: str
    node: str

    def entry(self, at: datetime, event: str, detail: str | None = None) -> dict[str, Any]:
        """Return one line of history."""
        return {"at": at, "event": event, "unit": self.unit, "node": self.node, "detail": shorten(detail)}

    def push(self, at: datetime, event: str, detail: str | None = None) -> dict[str, Any]:
        """Return the ``$push`` that appends one line, and lets the oldest go."""
        pushed: dict[str, Any] = history_push(self.entry(at, event, detail))["$push"]
        return pushed


def history_push(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change that appends a line to the history of a scan, and lets the oldest go."""
    return {"$push": {"history": {"$each": [entry], "$slice": -LONGEST_HISTORY}}}


def is_told(attempt: int) -> bool:
    """Tell whether this failed attempt to deliver a report, or uncounted release, is worth a line of history.

    A node may be away, or a BRAIN in trouble, for days: after the first ones only the 16th, 32nd, 64th ... is, so that
    the lines of what happened before stay.
    """
    return attempt <= FIRST_ATTEMPTS or attempt.bit_count() == 1


def given_back_detail(time: int, reason: str | None) -> str | None:
    """Return what the history says of the release that was the ``time``-th not to be counted."""
    if time <= FIRST_ATTEMPTS:
        return reason
    told = f"of these only the first {FIRST_ATTEMPTS} and the 16th, 32nd, 64th ... are told"
    return f"{reason or 'given back'} (uncounted release {time}: {told})"


def put_back_detail(report_id: str, attempt: int, error: str) -> str:
    """Return what the history says of a failed attempt to deliver a report."""
    return f"{report_id}, attempt {attempt}: {error}"


def shorten(text: str | None) -> str | None:
    """Return a reason, cut to what is kept, with ``?`` for lone surrogates, which UTF-8 and so BSON cannot hold."""
    return None if text is None else text[:LONGEST_ERROR].encode("utf-8", "replace").decode()


def lease(owner: str, token: int, now: datetime, seconds: float) -> dict[str, Any]:
    """Return the document of a lease."""
    return {"owner": owner, "token": token, "expires_at": now + timedelta(seconds=seconds)}


def read(model: type[M], document: Mapping[str, Any]) -> M:
    """Return ``document`` as a ``model``.

    Raises:
        StoreError: it is damaged; the message names the members, not their values.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise StoreError(f"{document.get('_id')} is damaged in the store: {faults(error)}") from None


def faults(error: ValidationError) -> str:
    """Return which members are wrong, and how."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['type']}"
        for fault in error.errors(include_url=False, include_input=False)
    )[:LONGEST_ERROR]
