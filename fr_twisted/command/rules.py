"""``fr rules test``: what the series rules would do with a folder of DICOM files, and why. Sends nothing."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fr_twisted.command.trouble import CommandError

if TYPE_CHECKING:
    from fr_twisted.pacs.rules import Decision, Rules
    from fr_twisted.pacs.scans import Drop

HELP = "try the rules that say which received series are sent"
TEST_HELP = "show what the rules would do with the series in a folder, and why; nothing is sent"
EPILOG = """\
Rules stand in a TOML file, the first that matches counts:

  [[rule]]
  name = "3-D T1"                      # what the log calls it
  description = "t1|mprage|bravo"      # regular expression, found in the Series Description in any case
  sequence = "tfl|spgr"                # the same, in Sequence Name, Pulse Sequence Name or Scanning Sequence
  modality = "MR"
  min_slices = 100
  max_slices = 400
  three_d = true                       # MR Acquisition Type is 3D
  analysis = "t1-volumes"              # told to Fr-BRAIN with the scan
  priority = 7                         # 0 to 9; 9 is analysed first; 5 unless given

  [[rule]]
  name = "everything else"
  ignore = true

Every condition that a rule names must hold. What no rule matches is not sent.

exit status:
  0  shown
  2  bad usage, rules that cannot be understood, or nothing to look at: the reason is on standard error
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = commands.add_parser("rules", help=HELP, description=HELP[0].upper() + HELP[1:] + ".")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    test = actions.add_parser(
        "test",
        help=TEST_HELP,
        description=TEST_HELP[0].upper() + TEST_HELP[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    test.add_argument("folder", metavar="FOLDER", type=Path, help="DICOM files, at any depth")
    test.add_argument("--rules", metavar="FILE", type=Path, help="the rules [default: FR_SERIES_RULES]")
    test.add_argument("--json", action="store_true", help="print JSON")
    test.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Show it, and return the exit status.

    Raises:
        CommandError: it cannot be done.
    """
    try:
        from fr_twisted.pacs.sources import look_through
    except ImportError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'fr-twisted[pacs]'") from None
    rules = _rules(given.rules)
    if not given.folder.exists():
        raise CommandError(f"there is no file or folder {given.folder}")
    found, skipped = look_through(given.folder, None)
    drops = [drop for drop in found if drop.meta.series_instance_uid is not None]
    if not drops and not skipped:
        raise CommandError(f"there is no DICOM file in {given.folder}")
    decided = [(drop, rules.decide(drop.meta)) for drop in drops]
    reasons: dict[str, int] = {}
    for item in skipped:
        reasons[item.reason] = reasons.get(item.reason, 0) + 1
    if given.json:
        print(json.dumps({"series": [_record(*pair) for pair in decided], "not_sent": reasons}, indent=2))
        return 0
    for drop, decision in decided:
        print("\n".join(_lines(drop, decision)))
    for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]):
        print(f"{count:,} {'file' if count == 1 else 'files'}: not sent: {reason}")
    return 0


def _rules(path: Path | None) -> "Rules":
    from twisted.python import usage

    from fr_twisted.ops.options import read_environment
    from fr_twisted.pacs.rules import EVERYTHING, RulesError, load

    if path is None:
        try:
            setting = read_environment(os.environ, Path.cwd()).get("FR_SERIES_RULES")
        except usage.UsageError as error:
            raise CommandError(str(error)) from None
        if setting is None:
            return EVERYTHING
        path = Path(setting[0])
    try:
        return load(path)
    except RulesError as error:
        raise CommandError(str(error)) from None


def _lines(drop: "Drop", decision: "Decision") -> list[str]:
    meta = drop.meta
    what = [meta.series_description or "no description", f"{meta.facts.get('slices')} slices"]
    what += [str(meta.facts[name]) for name in ("acquisition_type", "sequence") if meta.facts.get(name)]
    if decision.send:
        outcome = f"SENT, priority {decision.priority}"
        outcome += f", for {decision.analysis}" if decision.analysis else ""
    else:
        outcome = "IGNORED"
    rows = [f"{meta.series_instance_uid}  ({', '.join(what)})"]
    rows += [f"  not {name!r}: {why}" for name, why in decision.passed]
    return [*rows, f"  {outcome}: {decision.reason}"]


def _record(drop: "Drop", decision: "Decision") -> dict[str, Any]:
    return {
        "series": drop.meta.series_instance_uid,
        "description": drop.meta.series_description,
        "files": len(drop.files),
        "send": decision.send,
        "rule": decision.rule,
        "reason": decision.reason,
        "analysis": decision.analysis,
        "priority": decision.priority if decision.send else None,
        "passed": [{"rule": name, "because": why} for name, why in decision.passed],
    }
