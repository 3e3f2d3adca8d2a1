"""``fr retry``: Failed scans are tried again."""

import argparse

from fr_twisted.command import desk
from fr_twisted.command.columns import clean, several
from fr_twisted.command.trouble import CommandError

SUMMARY = "have a Failed scan analysed again, or all of them"
MORE = """\
The scan is To Do again as if it had never been tried; its history says who asked for it. A scan that is not Failed is
refused, and so is one whose payload was removed.

"""
STATUS = """\
  0  done
  2  bad usage, a scan that cannot be retried, or the store cannot be reached: the reason is on standard error
"""

BATCH = 200


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = desk.add(commands, "retry", SUMMARY, work, more=MORE, status=STATUS)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("scan", metavar="SCAN", nargs="?", help="the id of a scan, or its beginning")
    which.add_argument("--failed", action="store_true", help="every scan that is Failed")


async def work(at: desk.Desk) -> int:
    """Retry."""
    if at.given.failed:
        retried, refused = await _all(at)
        if at.given.json:
            at.say_json({"retried": retried, "refused": refused})
        else:
            at.out.say(*(f"not retried: {item['reason']}" for item in refused))
            at.out.say(
                f"{several(len(retried), 'scan')} To Do again" if retried or refused else "no scan is Failed"
            )
        return 0
    scan_id = await desk.one(at.given.scan, "scan", at.ask.find_scans)
    if scan_id is None:
        raise CommandError(f"there is no scan that begins with {clean(at.given.scan)!r}")
    await at.ask.retry(scan_id, desk.person())
    if at.given.json:
        at.say_json({"retried": [scan_id], "refused": []})
    else:
        at.out.say(f"{scan_id} is To Do again")
    return 0


async def _all(at: desk.Desk) -> tuple[list[str], list[dict[str, str]]]:
    """Retry each scan that is Failed once, even if it fails again meanwhile; return those, and those refused."""
    from fr_twisted.store.ioperators import NotPossibleError

    retried: list[str] = []
    refused: list[dict[str, str]] = []
    last = ""
    while some := await at.ask.failed(last, BATCH):
        for scan_id in some:
            try:
                await at.ask.retry(scan_id, desk.person())
                retried.append(scan_id)
            except NotPossibleError as error:
                refused.append({"scan_id": scan_id, "reason": str(error)})
        last = some[-1]
    return retried, refused
