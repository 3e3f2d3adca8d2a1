"""``fr scans``: a list of scans."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fr_twisted.command import desk
from fr_twisted.command.columns import Screen, moment, size
from fr_twisted.command.trouble import CommandError

if TYPE_CHECKING:
    from fr_twisted.store.ioperators import Page

SUMMARY = "list scans, those received last first"
LIMIT = 20
MOST = 10_000

_SPAN = re.compile(r"(\d{1,6})\s*(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
_STATES = {"to-do": "To Do", "in-progress": "In Progress", "done": "Done", "failed": "Failed"}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = desk.add(commands, "scans", SUMMARY, work)
    parser.add_argument(
        "--state", metavar="STATE", type=_state, help="only those in this state: " + ", ".join(_STATES)
    )
    parser.add_argument("--patient", metavar="ID", help="only those of the patient with this id")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=_since,
        help="only those received since: 90min, 2h, 7d, or a date or time in UTC such as 2026-01-31T08:00",
    )
    parser.add_argument(
        "--limit", metavar="N", type=_limit, default=LIMIT, help=f"at most so many [default: {LIMIT}]"
    )


def _state(text: str) -> str:
    name = "-".join(re.split(r"[\s_-]+", text.strip().lower()))
    if name not in _STATES:
        raise argparse.ArgumentTypeError(f"{text!r} is no state; there are {', '.join(_STATES)}")
    return _STATES[name]


def _since(text: str) -> datetime | timedelta:
    found = _SPAN.fullmatch(text.strip())
    if found is not None:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; give a span such as 90min, 2h or 7d, or a date such as 2026-01-31"
        ) from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST}")
    return int(text)


async def work(at: desk.Desk) -> int:
    """List."""
    from fr_twisted.model import ScanState
    from fr_twisted.store.ioperators import Wanted

    given = at.given
    since = given.since
    if isinstance(since, timedelta):
        # By the store's clock, which the times of arrival are of.
        try:
            since = await at.now() - since
        except OverflowError:
            raise CommandError("--since: so long ago there was no calendar") from None
    state = None if given.state is None else ScanState(given.state)
    page = await at.ask.scans(Wanted(state, given.patient, since, given.limit))
    if given.json:
        at.say_json({"scans": page.rows, "more": page.more})
    else:
        show(at.out, page)
    return 0


def show(out: Screen, page: "Page") -> None:
    """Print the list for people."""
    if not page.rows:
        out.say("no scans")
        return
    rows = [
        (
            moment(row.received_at),
            row.scan_id,
            row.patient_id,
            row.source,
            row.state,
            str(row.attempts),
            "removed" if row.payload_removed_at else size(row.size),
            row.error or "",
        )
        for row in page.rows
    ]
    header = ("Received (UTC)", "Scan", "Patient", "From", "State", "Attempts", "Size", "Reason")
    out.table(header, rows, "<<<<<>><")
    if page.more:
        out.say("", f"There are more than these {len(rows)}: see --limit, --state, --patient and --since.")
