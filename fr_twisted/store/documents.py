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
        return {"history": {"$each": [self.entry(at, event, detail)], "$slice": -LONGEST_HISTORY}}


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
