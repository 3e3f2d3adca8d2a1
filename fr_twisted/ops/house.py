"""The whole of Fr in one terminal: ``python -m fr_twisted.ops.house``. Behind ``make all`` and ``make demo``.

Starts frstore, frhub, frbrain and frpacs as twistd processes on free ports of the loopback interface, shows their log
lines, sends generated scans and watches what becomes of them. With ``FR_MONGO_URI`` set, that store is used and
frstore is left out.
"""

import argparse
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError, gatherResults
from twisted.python import usage

from fr_twisted.ops.child import UnitProcess
from fr_twisted.ops.logs import bounded, wants_colour
from fr_twisted.ops.options import read_environment
from fr_twisted.ops.preparing import count, find_twistd, free_ports, read_report
from fr_twisted.ops.screen import Screen
from fr_twisted.ops.services import StartError
from fr_twisted.ops.steady import make_steady
from fr_twisted.ops.tally import Tally, volumes_of
from fr_twisted.setting_values import redact_uri

UNITS_BEFORE_STORE = ("pacs", "hub", "brain")
SETTLE_WITHIN = 2.0
STOP_UNITS_WITHIN = 2.8
STOP_WITHIN = 4.5
"""Seconds after which what is left is killed."""

_QUIET_EVENTS = ("scan.progress",)
_NODE = "pacs"


def parse(
    arguments: Sequence[str],
    prog: str = "python -m fr_twisted.ops.house",
    description: str = "Run the whole of Fr.",
    scans: int = 4,
) -> argparse.Namespace:
    """Return scans, until_done, data_dir and timeout."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--scans", type=count, default=scans, metavar="N", help=f"scans to generate and send [{scans}]"
    )
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--stay", action="store_true", help="stay up until Ctrl-C [default]")
    ending.add_argument(
        "--until-done", action="store_true", help="end with a table when all reports are there"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".fr"), metavar="DIR", help="store and reports [.fr]"
    )
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="of --until-done [180, and 90 for each scan]"
    )
    options = parser.parse_args(arguments)
    if options.timeout is None:
        options.timeout = 180.0 + 90.0 * options.scans
    return options


class House:
    """Runs the units, and decides when it is over."""

    def __init__(
        self,
        reactor: Any,
        options: argparse.Namespace,
        screen: Screen,
        twistd: str,
        settings: Mapping[str, str],
        make_unit: Callable[..., UnitProcess] = UnitProcess,
    ) -> None:
        """Take the options of `parse`, and ``settings``: the ``FR_*`` variables that are set anywhere."""
        self.reactor = reactor
        self.options = options
        self.screen = screen
        self._twistd = twistd
        self.settings = settings
        self._make_unit = make_unit
        self.data = options.data_dir.absolute()
        self.reports = self.data / "reports"
        self.tally = Tally(options.scans, self._find_report)
        self.units: dict[str, UnitProcess] = {}
        self._over: Deferred[None] = Deferred()
        self._status = 0
        self._announced = False
        self._interrupts = 0
        self._starting: Deferred[Any] | None = None
        self._settling: Any = None

    async def run(self) -> int:
        """Run until it is over, and return the exit status."""
        timer = None
        try:
            self._starting = Deferred.fromCoroutine(self.start())
            await self._starting
            if self.options.until_done:
                timer = self.reactor.callLater(self.options.timeout, self._too_late)
            self.look()
            await self._over
        except StartError as error:
            self.give_up(str(error))
        except CancelledError:
            pass
        finally:
            for each in (timer, self._settling):
                if each is not None and each.active():
                    each.cancel()
            await self.stop()
        if self.options.until_done and "pacs" in self.units:
            self._conclude()
        return self._status

    def interrupt(self) -> None:
        """Ctrl-C or SIGTERM: end cleanly; the second time, at once."""
        self._interrupts += 1
        if self._interrupts > 1:
            self.kill()
            return
        self.screen.line("fr", "ending")
        if self.options.until_done and not self.finished:
            self._status = 130
        self._end()

    def give_up(self, reason: str) -> None:
        """End with status 1 and say why."""
        self._status = 1
        self.screen.line("fr", reason, "error")
        self._end()

    def _end(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        if not self._over.called:
            self._over.callback(None)

    def _too_late(self) -> None:
        self.give_up(f"not all reports are there after {self.options.timeout:.0f} s")

    # -- starting and stopping

    async def start(self) -> None:
        """Start one unit after the other; raises `StartError`."""
        hub_port, pacs_port = free_ports(2)
        uri = self.settings.get("FR_MONGO_URI")
        if uri is None:
            await self._add("store", ["--dir", str(self.data / "store"), "--port", "0"])
            uri = str(self._store_url)
        else:
            self.screen.line("fr", f"the store is {redact_uri(uri)}, as FR_MONGO_URI says")
        # In the environment, not on the command line, which every user of the machine can read.
        store = {"FR_MONGO_URI": uri}
        here = "tcp:127.0.0.1:{}".format
        listen = "tcp:{}:interface=127.0.0.1".format
        both = [
            self._add("hub", ["--listen", listen(hub_port), "--nodes", f"{_NODE}={here(pacs_port)}"], store),
            self._add("brain", [], store),
        ]
        try:
            await gatherResults(both, consumeErrors=True)
        except FirstError as error:
            raise error.subFailure.value or error from None
        arguments = ["--node", _NODE, "--hub", here(hub_port), "--listen", listen(pacs_port)]
        arguments += ["--reports", str(self.reports), *self.sources()]
        await self._add("pacs", arguments)
        self.screen.line("fr", f"all units are up; reports are written to {self.reports}")

    def sources(self) -> list[str]:
        """Return Fr-PACS's options that say where its scans come from."""
        # A seed of this run alone: a PACS that is started again sends the same scans, which the HUB knows.
        seed = self.settings.get("FR_PACS_SEED") or str(random.SystemRandom().randrange(2**31))
        return ["--generate", str(self.options.scans), "--seed", seed]

    def _add(
        self, name: str, arguments: Sequence[str], settings: Mapping[str, str] | None = None
    ) -> Deferred[None]:
        environment = {**os.environ, "FR_LOG_FORMAT": "json", **(settings or {})}
        unit = self._make_unit(self.reactor, self._twistd, name, arguments, environment, self.heard)
        self.units[name] = unit
        return unit.start()

    async def stop(self) -> None:
        """SIGTERM to all but the store, then to the store; what is left after `STOP_WITHIN` is killed."""
        self.screen.progress("")
        kill = self.reactor.callLater(STOP_WITHIN, self.kill)
        ended = DeferredList([self.units[name].stop() for name in UNITS_BEFORE_STORE if name in self.units])
        patience: Deferred[None] = Deferred()
        enough = self.reactor.callLater(STOP_UNITS_WITHIN, patience.callback, None)
        either: list[Deferred[Any]] = [ended, patience]
        await DeferredList(either, fireOnOneCallback=True)
        if enough.active():
            enough.cancel()
        if "store" in self.units:
            await self.units["store"].stop()
        await ended
        if kill.active():
            kill.cancel()

    def kill(self) -> None:
        """End everything at once."""
        for unit in self.units.values():
            unit.kill()

    # -- what the units say

    def heard(self, name: str, line: Mapping[str, Any]) -> None:
        """Show a log line of a unit, and see what it changes."""
        event = line.get("event")
        if event == "store.ready":
            self._store_url = line.get("url")
        if line.get("level") != "debug" and event not in _QUIET_EVENTS:
            self.screen.line(name, bounded(str(line.get("msg", ""))), str(line.get("level", "info")))
            if "failure" in line:
                self.screen.line(name, bounded(str(line["failure"])), "error")
        self.tally.note(name, line, self.reactor.seconds())
        if self.options.scans and not self._over.called:
            self.screen.progress(self.tally.progress())
        self.look()

    def look(self) -> None:
        """See whether every scan has come to its end."""
        if not self.finished or self._over.called or not self._is_up():
            return
        if self.options.until_done:
            self._settle()
        elif self.options.scans and not self._announced:
            self._announced = True
            self.show_table()
            self.screen.line("fr", "all scans of this run are done; Ctrl-C ends it")

    def _settle(self) -> None:
        """End when the HUB has heard of every report too, or soon: it would only deliver it once more."""
        if self.tally.settled:
            self._end()
        elif not self._announced:
            self._announced = True
            self._settling = self.reactor.callLater(SETTLE_WITHIN, self._end)

    @property
    def finished(self) -> bool:
        """Whether every scan has come to its end."""
        return self.tally.finished

    def _is_up(self) -> bool:
        return self._starting is not None and self._starting.called

    def _find_report(self, scan_id: str) -> Path | None:
        folder = self.reports / scan_id
        return folder if read_report(folder) is not None else None

    # -- the end

    def show_table(self) -> None:
        """Print what became of each scan, and where the reports are."""
        for scan in self.tally.scans.values():
            report = read_report(scan.report) if scan.report is not None else None
            if report is not None:
                scan.volumes = volumes_of(report)
        self.screen.plain()
        for line in self.tally.table():
            self.screen.plain(line)
        self.screen.plain("seconds: from the scan sent (acknowledged) to its report on the PACS's disk")
        pages = [scan.report / "report.html" for scan in self.tally.scans.values() if scan.report is not None]
        self.screen.plain()
        for page in pages:
            self.screen.plain(f"open {page}")

    def _conclude(self) -> None:
        """Print the table and whatever is missing; status 1 when something is, unless it was stopped by hand."""
        self.show_table()
        problems = self.tally.problems()
        problems += [
            f"{scan.scan_id} is reported, but {scan.report} holds no whole report"
            for scan in self.tally.scans.values()
            if scan.report is not None and read_report(scan.report) is None
        ]
        for problem in problems:
            self.screen.line("fr", problem, "error")
        if problems and not self._status:
            self._status = 1


def main(arguments: Sequence[str]) -> int:
    """Run it, and return the exit status."""
    return run_house(parse(arguments), House)


def run_house(options: argparse.Namespace, make: Callable[..., House]) -> int:
    """Run the house that ``make`` makes of a reactor, options, screen, twistd and settings; return the exit status."""
    screen = Screen(sys.stdout, wants_colour(sys.stdout), sys.stdout.isatty())
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    try:
        settings = {name: value for name, (value, _) in read_environment(os.environ, Path.cwd()).items()}
        options.data_dir.mkdir(parents=True, exist_ok=True)
        house = make(reactor, options, screen, find_twistd(), settings)
    except (usage.UsageError, StartError, OSError) as error:
        screen.line("fr", str(error), "error")
        return 1
    make_steady(reactor)
    status: list[int] = [1]

    def begin() -> None:
        # After the reactor has put its own handlers in place: it would stop without waiting for the units.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: reactor.callFromThread(house.interrupt))
        running = Deferred.fromCoroutine(house.run())
        running.addCallbacks(status.append, lambda failure: failure.printTraceback())
        running.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    return status[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
