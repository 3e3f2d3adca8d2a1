"""``fr verify``: everything that is kept is looked at."""

import argparse
import json
import sys
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from fr_twisted.command import desk
from fr_twisted.command.columns import GAP, Screen, clean, number, several, size, span

if TYPE_CHECKING:
    from fr_twisted.store.ioperators import Checked, Finding

SUMMARY = "check everything that is kept: bytes against their digests, scans and reports against each other"
GRACE = 600.0
MORE = """\
Units may go on working meanwhile. Each finding is one line as soon as it is found: its kind, what it is about, and why.

  scan-damaged, report-damaged   a document that is none
  chunk-missing, chunk-size, chunk-extra   chunks of a payload
  digest                         bytes that have another SHA-256 than when they were received or made
  stuck                          In Progress, but the lease ended long ago, or there is none
  done-without-report, report-without-scan
  report-pending                 a report that nobody puts in its place
  upload-stale, garbage-overdue  what a HUB should have cleaned up
  orphan                         chunks that belong to nothing
  index-missing                  an index of the database

Warnings, of what is whole but waits for somebody to do something:

  unserved                       To Do, and no BRAIN that runs its analysis was seen in the last hour
  given-back                     To Do, and BRAINs gave it back again and again, for troubles of their own
  report-waiting                 a report that its node did not get for a day

"""
STATUS = """\
  0  everything is as it should be; there may be warnings
  1  something is not
  2  bad usage, or the store cannot be reached, or not to the end: the reason is on standard error
"""

PROGRESS_SECONDS = 0.2
WIDE = 20
"""Characters of a finding's kind."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = desk.add(commands, "verify", SUMMARY, work, more=MORE, status=STATUS)
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=_seconds,
        default=GRACE,
        help=f"how long something may be under way before it counts as left behind [default: {GRACE:.0f}]",
    )
    parser.add_argument(
        "--no-payloads",
        action="store_true",
        help="do not read the payloads: their chunks are counted and measured alone",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return seconds


async def work(at: desk.Desk) -> int:
    """Verify."""
    from fr_twisted.store.ioperators import Check

    check = Check(at.given.grace, at.settings.upload_ttl, not at.given.no_payloads)
    progress = Progress(sys.stderr)
    printed = JsonFindings(at.out.stream) if at.given.json else TextFindings(at.out)

    def found(finding: "Finding") -> None:
        progress.clear()
        printed.add(finding)

    begun = monotonic()
    try:
        checked = await at.ask.verify(check, found, progress.show)
    finally:
        progress.clear()
    printed.end(checked, monotonic() - begun)
    return 0 if checked.is_clean else 1


class Progress:
    """One line on a terminal that says how far it is; nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on = stream.isatty()
        self._next = 0.0
        self._length = 0

    def show(self, what: str, done: int, total: int) -> None:
        """Say how far it is, now and then."""
        now = monotonic()
        if not self._on or now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        line = f"{what}: {number(done)}" + (f" of {number(total)}" if total > done else "")
        self._stream.write(f"\r{line:{self._length}}")
        self._stream.flush()
        self._length = len(line)

    def clear(self) -> None:
        """Take the line away."""
        if self._length:
            self._stream.write(f"\r{'':{self._length}}\r")
            self._stream.flush()
            self._length = 0


class TextFindings:
    """A line for each finding, and one at the end."""

    def __init__(self, out: Screen) -> None:
        self._out = out

    def add(self, finding: "Finding") -> None:
        """Print one."""
        from fr_twisted.store.ioperators import WARNINGS

        warns = finding.kind in WARNINGS
        kind = self._out.paint(f"{finding.kind:{WIDE}}", "yellow" if warns else "red")
        detail = ("warning: " if warns else "") + clean(finding.detail)
        self._out.say(GAP.join((kind, clean(finding.id), detail)))
        self._out.stream.flush()

    def end(self, checked: "Checked", seconds: float) -> None:
        """Print how much was looked at, and what was found."""
        from fr_twisted.store.ioperators import counts_of

        out = self._out
        kinds = ", ".join(f"{number(count)} {kind}" for kind, count in counts_of(checked).items())
        in_all = sum(counts_of(checked).values())
        warned = counts_of(checked, warnings=True)
        warnings = ", ".join(f"{number(count)} {kind}" for kind, count in warned.items())
        result = (
            out.paint(f"{several(in_all, 'finding')}: {kinds}", "red")
            if in_all
            else out.paint("clean", "green")
        )
        removed = f" ({number(checked.removed)} removed by retention)" if checked.removed else ""
        took = f"{seconds:.1f} s" if seconds < 10 else span(seconds)
        out.say(
            f"{several(checked.scans, 'scan')}, {several(checked.reports, 'report')}, "
            f"{several(checked.uploads, 'upload')}; {several(checked.payloads, 'payload')}{removed}, "
            f"{size(checked.bytes_hashed)} hashed, in {took}: {result}"
            + (f"; {several(sum(warned.values()), 'warning')}: {warnings}" if warned else "")
        )


class JsonFindings:
    """One JSON document, written as it comes: there may be more findings than memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stream.write('{\n  "findings": [')
        self._first = True

    def add(self, finding: "Finding") -> None:
        """Write one."""
        from fr_twisted.store.ioperators import WARNINGS

        members: dict[str, object] = {"kind": finding.kind, "id": finding.id, "detail": finding.detail}
        members["warning"] = finding.kind in WARNINGS
        self._stream.write(("" if self._first else ",") + "\n    " + json.dumps(members, ensure_ascii=False))
        self._first = False

    def end(self, checked: "Checked", seconds: float) -> None:
        """Write the rest."""
        from fr_twisted.store.ioperators import counts_of

        counts = {
            "scans": checked.scans,
            "reports": checked.reports,
            "uploads": checked.uploads,
            "payloads": checked.payloads,
            "payloads_removed": checked.removed,
            "bytes_hashed": checked.bytes_hashed,
        }
        rest = {
            "clean": checked.is_clean,
            "counts": counts_of(checked),
            "warnings": counts_of(checked, warnings=True),
            "checked": counts,
            "seconds": round(seconds, 3),
        }
        written = desk.json_text(rest).removeprefix("{\n")
        self._stream.write(("" if self._first else "\n  ") + "],\n" + written + "\n")
