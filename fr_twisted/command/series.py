"""``fr series``: the series that came by DICOM, and a person's word that one of them is complete."""

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fr_twisted.command import folders
from fr_twisted.command.trouble import BROKEN, CommandError

if TYPE_CHECKING:
    from fr_twisted.pacs.ledger import Revision

HELP = "list the series that came by DICOM; say that one of them is complete"
LIST_HELP = "list the series in the spool, and what became of each"
COMPLETE_HELP = "have Fr-PACS take a series as complete, and send it, without waiting"
COMPLETE_MORE = """\
The Fr-PACS that has the spool does it within a second; if none runs, the next one will. One that was ignored or refused
before is judged again, by the rules of now.

exit status:
  0  asked
  1  it could not be asked
  2  bad usage, or no such series: the reason is on standard error
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = commands.add_parser("series", help=HELP, description=HELP[0].upper() + HELP[1:] + ".")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    some = actions.add_parser("list", help=LIST_HELP, description=LIST_HELP[0].upper() + LIST_HELP[1:] + ".")
    some.add_argument("--json", action="store_true", help="print JSON")
    some.set_defaults(run=run_list)
    one = actions.add_parser(
        "complete",
        help=COMPLETE_HELP,
        description=COMPLETE_HELP[0].upper() + COMPLETE_HELP[1:] + ".",
        epilog=COMPLETE_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("series", metavar="UID", help="a Series Instance UID")
    one.set_defaults(run=run_complete)
    for action in (some, one):
        action.add_argument(
            "--spool", metavar="DIR", type=Path, help="the spool [default: FR_SPOOL, or received]"
        )


def run_complete(given: argparse.Namespace) -> int:
    """Ask for it, and return the exit status."""
    from fr_twisted.pacs.instances import UID, ask

    root = _spool(given.spool)
    if not UID.match(given.series) or not (root / "series" / given.series).is_dir():
        raise CommandError(f"no series {given.series!r} is in {root}; fr series list shows those that are")
    try:
        ask(root, given.series)
    except OSError as error:
        raise CommandError(f"{root} cannot be written: {error.strerror}", BROKEN) from None
    print(f"{given.series}: asked for; the log of Fr-PACS says what became of it (series.complete)")
    return 0


def run_list(given: argparse.Namespace) -> int:
    """List them, and return the exit status."""
    root = _spool(given.spool)
    here = {folder.name: _sops(folder) for folder in sorted((root / "series").iterdir()) if folder.is_dir()}
    revisions, changed = _ledger(root, here)
    settled = {revision.series: revision for revision in revisions}
    rows = [
        _row(series, here.get(series), settled.get(series), changed.get(series))
        for series in {**settled, **here}
    ]
    if given.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        state = "complete, the HUB has it not yet" if row["state"] == "complete" else str(row["state"])
        told = [f"revision {row['revision']}", state] if row["revision"] else ["awaited"]
        told += [str(row[name]) for name in ("scan_id", "reason", "note") if row[name]]
        many = "" if row["instances"] == 1 else "s"
        where = f"{row['instances']} instance{many}" if row["instances"] else "no longer in the spool"
        print(f"{row['series']}  {where}{', some of them new' if row['new'] else ''}  {': '.join(told)}")
    if not rows:
        print(f"no series has come into {root} yet")
    return 0


def _row(
    series: str, sops: frozenset[str] | None, revision: "Revision | None", changed: tuple[int, str] | None
) -> dict[str, object]:
    notes = [revision.note] if revision and revision.note else []
    if changed is not None:
        count, what = changed
        notes.append(f"{count} came again with {what} changed; the first are kept")
    return {
        "series": series,
        "instances": len(sops or ()),
        "new": bool(sops and revision and sops - revision.sops),
        "revision": revision.number if revision else None,
        "state": revision.state.value if revision else None,
        "scan_id": revision.scan_id if revision else None,
        "reason": revision.reason if revision else None,
        "note": "; ".join(notes) or None,
    }


def _sops(folder: Path) -> frozenset[str]:
    return frozenset(path.stem for path in folder.glob("*.dcm"))


def _ledger(root: Path, here: Collection[str]) -> "tuple[list[Revision], dict[str, tuple[int, str]]]":
    """Return the last revision of each series, and the series of which images came again changed."""
    import sqlite3

    from fr_twisted.pacs.ledger import Ledger

    ledger = Ledger(root, read_only=True)
    try:
        ledger.open()
        return ledger.everything(here), ledger.all_changed()
    except sqlite3.Error as error:
        raise CommandError(f"the ledger in {root} cannot be read: {error}", BROKEN) from None
    finally:
        ledger.close()


def _spool(given: Path | None) -> Path:
    refusal = "is no spool of Fr-PACS; name it with --spool, or FR_SPOOL, as frpacs has it"
    return folders.find(given, "FR_SPOOL", "dicom_spool", "series", refusal)
