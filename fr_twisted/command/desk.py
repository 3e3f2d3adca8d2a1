"""What the commands at the store have in common: its settings, a connection for as long as they take, and errors.

A command is asked for in its module; its work is a coroutine that is given an `IOperators`, a screen and the options.
"""

import argparse
import contextlib
import getpass
import json
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fr_twisted.command.columns import Screen, clean
from fr_twisted.command.trouble import WRONG, CommandError

if TYPE_CHECKING:
    from fr_twisted.config import OperatorSettings

Work = Callable[["Desk"], Awaitable[int]]

STORE = """\
The store is the one of HUB and BRAIN: FR_MONGO_URI in the environment, or in a file .env in the current folder
(FR_ENV_FILE names another), and FR_MONGO_TLS_CA, FR_MONGO_TLS_CERT, FR_MONGO_TIMEOUT.
"""

MOST_MATCHES = 6


class Desk:
    """Where a command works."""

    def __init__(
        self, store: Any, given: argparse.Namespace, server: str, settings: "OperatorSettings"
    ) -> None:
        self.ask: Any = store.operators()
        """An `IOperators`."""
        self.now: Callable[[], Awaitable[datetime]] = store.now
        """The store's clock."""
        self.given = given
        self.server = server
        """One line about the store."""
        self.settings = settings
        self.out = Screen.of(sys.stdout)

    def say_json(self, value: Any) -> None:
        """Print a JSON document."""
        print(json_text(value))


def json_text(value: Any) -> str:
    """Return a JSON document of dataclasses, models, times and what JSON knows itself."""
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False, allow_nan=False)


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    work: Work,
    *,
    more: str = "",
    status: str = "  0  done\n  2  bad usage, or the store cannot be reached: the reason is on standard error\n",
) -> argparse.ArgumentParser:
    """Add the parser of a command at the store, and return it for what is its own."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{more}{STORE}\nexit status:\n{status}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs, and nothing else")
    parser.set_defaults(run=lambda given: run(given, work))
    return parser


def run(given: argparse.Namespace, work: Work) -> int:
    """Do the work at the store and return the exit status.

    Raises:
        CommandError: it cannot be done.
    """
    return perform(settings(os.environ, Path.cwd()), given, work)


def settings(environ: Any, folder: Path) -> "OperatorSettings":
    """Return the store's settings as the units read them.

    Raises:
        CommandError: one of them cannot be used.
    """
    from twisted.python.usage import UsageError

    from fr_twisted.config import OperatorSettings
    from fr_twisted.ops.options import read_settings
    from fr_twisted.store.options import check_store

    try:
        found = read_settings(OperatorSettings, {}, environ, folder)
        check_store(found)
    except UsageError as error:
        # The options that units have for them are not ours.
        raise CommandError(re.sub(r" or --[a-z-]+", "", str(error))) from None
    return found


def perform(settings: "OperatorSettings", given: argparse.Namespace, work: Work) -> int:
    """Run the reactor while the work lasts; return what it returned.

    Raises:
        CommandError: the store cannot do it.
        KeyboardInterrupt: somebody pressed Ctrl-C.
    """
    from fr_twisted.store.mongo import MongoStore  # isort: skip - installs the reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner

    # Units log; here the one line on standard error says it.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    ended: list[int | BaseException] = []

    def interrupted() -> None:
        if not ended:  # connections are about to be lost, which is not what is to be said
            ended.append(KeyboardInterrupt())

    async def whole(reactor: Any) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", interrupted)
        store = MongoStore.for_person(settings, clock=reactor, node=machine())
        try:
            ended.append(await at_store(store, settings, given, work))
        except BaseException as error:
            ended.append(error)
        finally:
            await store.close()

    with contextlib.suppress(SystemExit):  # its status is not ours
        react(lambda reactor: Deferred.fromCoroutine(whole(reactor)), ())
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


async def at_store(store: Any, settings: "OperatorSettings", given: argparse.Namespace, work: Work) -> int:
    """Open the store and do the work.

    Raises:
        CommandError: the store cannot do it.
    """
    from fr_twisted.store.interfaces import StoreError
    from fr_twisted.store.ioperators import NotPossibleError

    if not _is_text(vars(given)):
        raise CommandError("an argument is no text in UTF-8", WRONG)
    try:
        server = await store.open()
        return await work(Desk(store, given, server, settings))
    except (StoreError, NotPossibleError) as error:
        raise CommandError(str(error), WRONG) from None


def machine() -> str:
    """Return the name of this machine, as history has it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip("._-")
    return name[:64] or "localhost"


def person() -> str:
    """Return who runs the command, as history has it."""
    try:
        return f"by {getpass.getuser()}"
    except (KeyError, OSError):
        return f"by user {os.getuid()}"


async def one(text: str, kind: str, find: Callable[[str, int], Awaitable[list[str]]]) -> str | None:
    """Return the one id that begins so, with or without the word for its kind before it; None: there is none.

    Raises:
        CommandError: several begin so.
    """
    found: list[str] = []
    for start in dict.fromkeys((text, f"{kind}-{text}")):
        found = found or (await find(start, MOST_MATCHES) if text else [])
    if len(found) > 1:
        all_of_them = len(found) < MOST_MATCHES
        shown = ", ".join(found if all_of_them else [*found[:-1], "..."])
        count = len(found) if all_of_them else f"at least {len(found)}"
        raise CommandError(f"{count} {kind}s begin with {clean(text)!r}: {shown}; give more of the id")
    return found[0] if found else None


def _is_text(arguments: dict[str, Any]) -> bool:
    """Tell whether all arguments could be read: a byte that is no UTF-8 stands in them as a lone surrogate."""
    words = [word for value in arguments.values() for word in (value if isinstance(value, list) else [value])]
    try:
        "".join(word for word in words if isinstance(word, str)).encode()
    except UnicodeEncodeError:
        return False
    return True
