"""``fr archives``: what became of results at DICOM archives, and a person's wish to have them sent once more."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fr_twisted.command import folders
from fr_twisted.command.trouble import BROKEN, CommandError

if TYPE_CHECKING:
    from fr_twisted.pacs.dicom_out.jobs import Job

HELP = "list what DICOM archives got of the results; have results sent once more"
LIST_HELP = "list the reports of DICOM series, and what each archive said"
RESEND_HELP = "have Fr-PACS send results to archives that refused them, or were added later"
RESEND_MORE = """\
The Fr-PACS that has the folder does it within seconds; if none runs, the next one will. The objects are made as they
were, with the same UIDs, so that an archive that has them has them once.

exit status:
  0  asked
  1  it could not be asked
  2  bad usage, or no such report: the reason is on standard error
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = commands.add_parser("archives", help=HELP, description=HELP[0].upper() + HELP[1:] + ".")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    some = actions.add_parser("list", help=LIST_HELP, description=LIST_HELP[0].upper() + LIST_HELP[1:] + ".")
    some.add_argument("--refused", action="store_true", help="only reports that an archive refused for good")
    some.add_argument("--json", action="store_true", help="print JSON")
    some.set_defaults(run=run_list)
    anew = actions.add_parser(
        "resend",
        help=RESEND_HELP,
        description=RESEND_HELP[0].upper() + RESEND_HELP[1:] + ".",
        epilog=RESEND_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    anew.add_argument(
        "--archive", metavar="NAME", help="only to this archive: its AE title, or AET@host:port"
    )
    which = anew.add_mutually_exclusive_group(required=True)
    which.add_argument("reports", nargs="*", default=[], metavar="REPORT", help="the id of a report")
    which.add_argument("--refused", action="store_true", help="all that an archive refused for good")
    which.add_argument("--all", action="store_true", help="all there are: for an archive that was added")
    anew.add_argument("--again", action="store_true", help="also to archives that have them")
    anew.set_defaults(run=run_resend)
    for action in (some, anew):
        action.add_argument(
            "--state", metavar="DIR", type=Path, help="the folder [default: FR_DICOM_STATE, or .fr/dicom]"
        )


def run_list(given: argparse.Namespace) -> int:
    """List them, and return the exit status."""
    jobs = [job for job in _jobs(_state(given.state)) if not given.refused or _is_refused(job)]
    rows = [_row(job, name) for job in jobs for name in sorted(job.deliveries)]
    if given.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        told = (
            [str(row["fate"])]
            + ["committed"] * bool(row["committed"])
            + [row["reason"]] * bool(row["reason"])
            + [f"commitment awaited since {row['awaited_since']}"] * bool(row["awaited_since"])
            + [f"incomplete, no {kind} ({why})" for kind, why in row["missing"].items()]
        )
        print(f"{row['report_id']}  {row['scan_id']}  {row['archive']}  {': '.join(map(str, told))}")
    if not rows:
        print(
            "no report was refused"
            if given.refused
            else "no report of a DICOM series was sent to an archive yet"
        )
    return 0


def run_resend(given: argparse.Namespace) -> int:
    """Ask for it, and return the exit status."""
    from fr_twisted.pacs.dicom_out.asked import Asked, ask

    state = _state(given.state)
    jobs = {job.report_id: job for job in _jobs(state)}
    meant = _meant(given.archive, jobs.values())
    wanted = list(given.reports)
    if not wanted:
        wanted = [name for name, job in jobs.items() if given.all or _is_refused(job, meant)]
    for name in wanted:
        if name not in jobs:
            raise CommandError(f"no report {name!r} is in {state}; fr archives list shows those that are")
    try:
        for name in wanted:
            ask(state, Asked(name, given.again, given.archive))
    except OSError as error:
        raise CommandError(f"{state} cannot be written: {error.strerror}", BROKEN) from None
    many = "report" if len(wanted) == 1 else "reports"
    print(f"{len(wanted)} {many} asked for; the log of Fr-PACS says what becomes of each (dicom.asked)")
    return 0


def _row(job: "Job", archive: str) -> dict[str, Any]:
    from fr_twisted.pacs.dicom_out.words import since_words

    delivery = job.deliveries[archive]
    return {
        "report_id": job.report_id,
        "scan_id": job.scan_id,
        "archive": archive,
        "fate": delivery.fate.value,
        "objects": len(delivery.kept),
        "attempts": delivery.attempts,
        "committed": delivery.committed,
        "awaited_since": since_words(delivery) if delivery.is_awaited else None,
        "reason": delivery.reason,
        "missing": job.missing,
    }


def _is_refused(job: "Job", at: "set[str] | None" = None) -> bool:
    """Return whether an archive refused it; ``at``: one of these, as AET@host:port."""
    from fr_twisted.pacs.dicom_out.scu import Fate

    found = {name for name, delivery in job.deliveries.items() if delivery.fate is Fate.REFUSED}
    return bool(found if at is None else found & at)


def _meant(name: str | None, jobs: "Iterable[Job]") -> set[str] | None:
    """Return the archives that a name stands for: those of before, and of FR_DICOM_ARCHIVES as it is set here."""
    if name is None:
        return None
    configured = folders.archives()
    known = {archive for job in jobs for archive in job.deliveries} | (configured or set())
    meant = {archive for archive in known if name in (archive, archive.rpartition("@")[0])}
    if not meant and configured is not None:
        shown = ", ".join(sorted(known)) or "none"
        raise CommandError(f"there is no archive {name!r}; known are: {shown}")
    return meant


def _jobs(state: Path) -> "Iterable[Job]":
    from fr_twisted.pacs.dicom_out.jobs import every_job

    try:
        return every_job(state)
    except OSError as error:
        raise CommandError(f"{state} cannot be read: {error.strerror}", BROKEN) from None


def _state(given: Path | None) -> Path:
    refusal = "is no state folder of Fr-PACS; name it with --state, or FR_DICOM_STATE, as frpacs has it"
    return folders.find(given, "FR_DICOM_STATE", "dicom_state", "out", refusal)
