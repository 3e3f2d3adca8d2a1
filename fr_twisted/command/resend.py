"""``fr resend``: a report is delivered once more."""

import argparse

from fr_twisted.command import desk
from fr_twisted.command.columns import clean
from fr_twisted.command.trouble import CommandError

SUMMARY = "have a report delivered again that was delivered, or refused by its node"
MORE = """\
A HUB sends it as soon as the node is there. A node that still has the report says so, and keeps the one it has.
A report that waits to be sent is refused here: it is on its way already.

"""
STATUS = """\
  0  done
  2  bad usage, a report that cannot be resent, or the store cannot be reached: the reason is on standard error
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = desk.add(commands, "resend", SUMMARY, work, more=MORE, status=STATUS)
    parser.add_argument("report", metavar="REPORT", help="the id of a report, or its beginning (see fr show)")


async def work(at: desk.Desk) -> int:
    """Resend."""
    report_id = await desk.one(at.given.report, "report", at.ask.find_reports)
    if report_id is None:
        raise CommandError(f"there is no report that begins with {clean(at.given.report)!r}")
    await at.ask.resend(report_id, desk.person())
    row = await at.ask.report(report_id)
    if at.given.json:
        at.say_json({"resent": report_id, "scan_id": row.scan_id, "destination": row.destination})
    else:
        at.out.say(f"{report_id} is due again for {clean(row.destination)}")
    return 0
