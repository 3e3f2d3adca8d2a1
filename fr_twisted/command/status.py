"""``fr status``: the store at a glance."""

import argparse
from typing import TYPE_CHECKING, Any

from fr_twisted.command import desk
from fr_twisted.command.columns import Screen, moment, number, size, span

if TYPE_CHECKING:
    from fr_twisted.store.ioperators import StoreStatus

SUMMARY = "show how many scans are in which state, who works on what, and what waits"
MORE = """\
Node names are those of Fr-PACS; shown are nodes that sent or got something within the last hour, and those that reports
are kept for. A lease below 0 s has ended: another BRAIN takes the scan over. A scan that names an analysis waits
for a BRAIN that runs it (FR_BRAIN_ANALYSIS): when such a BRAIN was last seen is told to a minute.

"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    desk.add(commands, "status", SUMMARY, work, more=MORE)


async def work(at: desk.Desk) -> int:
    """Show the status."""
    status = await at.ask.status()
    if at.given.json:
        at.say_json(document(status, at.server))
    else:
        show(at.out, status, at.server)
    return 0


def document(status: "StoreStatus", server: str) -> dict[str, Any]:
    """Return the status as it is told to programs."""
    return {
        "at": status.at,
        "server": server,
        "states": [
            {
                "state": row.state,
                "count": row.count,
                "oldest": row.oldest,
                "oldest_seconds": None if row.oldest is None else (status.at - row.oldest).total_seconds(),
            }
            for row in status.states
        ],
        "last_hour": {
            "received": sum(row.received for row in status.nodes),
            "analysed": sum(row.analysed for row in status.nodes),
            "delivered": sum(row.delivered for row in status.nodes),
        },
        "nodes": status.nodes,
        "analyses": status.analyses,
        "leases": status.leases,
        "uploads": status.uploads,
        "uploads_in_all": status.uploads_in_all,
    }


def show(out: Screen, status: "StoreStatus", server: str) -> None:
    """Print the status for people."""
    out.say(f"{server}; {moment(status.at)} UTC", "")
    rows = [
        (
            row.state.value,
            number(row.count),
            "" if row.oldest is None else span((status.at - row.oldest).total_seconds()),
        )
        for row in status.states
    ]
    out.table(("State", "Scans", "Oldest"), rows, "<>>")
    _nodes(out, status)
    _analyses(out, status)
    _leases(out, status)
    _uploads(out, status)


def _nodes(out: Screen, status: "StoreStatus") -> None:
    nodes = status.nodes
    rows = [
        (
            row.node,
            number(row.received),
            number(row.analysed),
            number(row.delivered),
            (
                ""
                if row.last_received is None
                else f"{span((status.at - row.last_received).total_seconds())} ago"
            ),
            number(row.waiting),
            number(row.refused),
        )
        for row in nodes
    ]
    sums = [sum(getattr(row, name) for row in nodes) for name in ("received", "analysed", "delivered")]
    out.say("", f"Last hour: {sums[0]:,} received, {sums[1]:,} analysed, {sums[2]:,} delivered")
    header = ("Node", "Received", "Analysed", "Delivered", "Last scan", "Reports waiting", "Refused")
    if rows:
        out.say("")
        out.table(header, rows, "<>>>>>>")


def _analyses(out: Screen, status: "StoreStatus") -> None:
    if not status.analyses:
        return
    rows = [
        (
            row.analysis,
            number(row.waiting),
            "" if row.oldest is None else span((status.at - row.oldest).total_seconds()),
            "never" if row.seen is None else f"{span((status.at - row.seen).total_seconds())} ago",
        )
        for row in status.analyses
    ]
    out.say("")
    out.table(("Waiting for analysis", "Scans", "Oldest", "Such a BRAIN seen"), rows, "<>>>")


def _leases(out: Screen, status: "StoreStatus") -> None:
    if not status.leases:
        return
    rows = [
        (
            row.scan_id,
            row.owner or "none",
            str(row.attempts),
            "no lease" if row.seconds_left is None else f"{row.seconds_left:,.0f} s",
        )
        for row in status.leases
    ]
    out.say("")
    out.table(("In progress", "Lease of", "Attempt", "Left"), rows, "<<>>")
    in_all = next(row.count for row in status.states if row.state.value == "In Progress")
    _more(out, in_all - len(rows))


def _uploads(out: Screen, status: "StoreStatus") -> None:
    if not status.uploads:
        return
    rows = [
        (
            row.scan_id,
            row.source,
            size(row.kept),
            size(row.size),
            f"{span((status.at - row.touched_at).total_seconds())} ago",
        )
        for row in status.uploads
    ]
    out.say("")
    out.table(("Being received", "From", "At least", "Of", "Noted"), rows, "<<>>>")
    _more(out, status.uploads_in_all - len(rows))


def _more(out: Screen, count: int) -> None:
    if count > 0:
        out.say(f"and {number(count)} more")
