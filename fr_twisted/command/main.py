"""``fr``: its subcommands, and what every one of them has in common.

A subcommand is a module with ``add`` (its parser, whose default ``run`` does the work). What takes long to import is
imported there, when it is asked for.
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

from fr_twisted import __version__
from fr_twisted.command import analyse, archives, resend, retry, rules, scans, series, show, status, verify
from fr_twisted.command.trouble import WRONG, CommandError

COMMANDS = (analyse, status, scans, show, retry, resend, verify, rules, series, archives)

INTERRUPTED = 130
"""As shells have it: 128 and the number of SIGINT."""

NOBODY_READS = 141
"""And of SIGPIPE: whoever read the output went away, as ``head`` does; nothing is said of what was looked for."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="fr",
        description="Fr measures the brain in T1-weighted MRI. Its daemons are started by twistd: see the README.\n"
        "analyse and rules work on files, series and archives on what an Fr-PACS takes and sends by DICOM; the other\n"
        "commands look at the daemons' store, and mend it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="fr COMMAND --help explains a command. Decision support only; Fr is no medical device.",
    )
    whole.add_argument("--version", action="version", version=f"fr-twisted {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add(commands)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv``'s, unless others are given) and return the exit status."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        # let nothing more be written to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS


def _run(arguments: Sequence[str] | None) -> int:
    whole = parser()
    try:
        given = whole.parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()  # a help text
        raise
    if given.command is None:
        whole.print_help(sys.stderr)
        return WRONG
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a series may be described in letters that a terminal lacks
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries say of odd files is none of the person's business
    try:
        status: int = given.run(given)
        sys.stdout.flush()
        return status
    except CommandError as error:
        print(f"fr {given.command}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"fr {given.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
