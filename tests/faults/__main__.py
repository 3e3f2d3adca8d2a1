"""``python -m tests.faults``: rounds of faults under load, from a seed that is printed; what ``make faults`` runs."""

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from tests.faults import document
from tests.faults.kinds import KINDS, NOT_FULL
from tests.faults.plan import Layout, Plan, make_plan
from tests.faults.problems import Problem
from tests.faults.rounds import Result
from tests.faults.run import Run
from tests.faults.tally import Tally

FOLDER = Path(".fr/faults")

_SCANS, _FAULTS = 100, 12
_FULL_SCANS, _FULL_FAULTS = 2, 6

_SHOWN = 40
"""Problems that are printed; all are written."""

_HEAD = "    seed  scans  done poison faults  late  rest s      s  result"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how many rounds [10]")
    parser.add_argument("--seed", type=int, help="of the first round; the others follow it [a new one]")
    parser.add_argument("--scans", type=int, help=f"scans of a round [{_SCANS}; --full: {_FULL_SCANS}]")
    parser.add_argument("--faults", type=int, help=f"faults of a round [{_FAULTS}; --full: {_FULL_FAULTS}]")
    parser.add_argument("--full", action="store_true", help="whole heads and the default analysis")
    parser.add_argument("--world", type=int, default=10, help="rounds until everything is built anew [10]")
    parser.add_argument("--plan", type=Path, help="run the plan in this file, as a failing round has left it")
    parser.add_argument("--kinds", help="draw only these kinds of faults, with commas between")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"for everything written [{FOLDER}]")
    parser.add_argument("--list", action="store_true", help="list the kinds of faults, and end")
    parser.add_argument("--go-on", action="store_true", help="do not end with the first bad round")
    parser.add_argument("--seconds", type=float, help="begin no further round after so many seconds")
    parser.add_argument(
        "--document",
        action="store_true",
        help="write docs/reliability.md from the results in docs/reliability, and end",
    )
    options = parser.parse_args(arguments)
    unknown = set((options.kinds or "").split(",")) - set(KINDS) - {""}
    if unknown:
        parser.error(f"no such kind of fault: {', '.join(sorted(unknown))}; --list lists them")
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def plans_of(options: argparse.Namespace) -> list[Plan]:
    """Return the plans to run."""
    if options.plan is not None:
        return [Plan.from_json(options.plan.read_text(encoding="utf-8"))]
    scans = options.scans if options.scans is not None else (_FULL_SCANS if options.full else _SCANS)
    faults = options.faults if options.faults is not None else (_FULL_FAULTS if options.full else _FAULTS)
    kinds = options.kinds.split(",") if options.kinds else None
    if options.full and kinds is None:
        kinds = [name for name in KINDS if name not in NOT_FULL]
    layout = Layout(hubs=1, brains=2, nodes=2) if options.full else Layout()
    seeds = range(options.seed, options.seed + options.rounds)
    return [make_plan(seed, scans=scans, faults=faults, layout=layout, kinds=kinds) for seed in seeds]


def again(options: argparse.Namespace, seed: int, rounds: int) -> str:
    """Return the command that does the same: a run, or one round of it."""
    given = [
        f"--{name} {value}" for name in ("scans", "faults", "kinds") if (value := getattr(options, name))
    ]
    given += ["--go-on"] if options.go_on else []
    words = ["make faults", f"ROUNDS={rounds}", f"SEED={seed}", *(["FULL=1"] if options.full else [])]
    return " ".join(words) + (f' ARGS="{" ".join(given)}"' if given else "")


class Screen:
    """Prints a row for each round, and of a bad one why and how to see it again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def begin(self, plans: list[Plan]) -> None:
        """Print the seed and the head of the table."""
        command = again(self._options, plans[0].seed, len(plans))
        print(f"seed {plans[0].seed}, {len(plans)} rounds; the same again: {command}\n{_HEAD}", flush=True)

    def round(self, result: Result) -> None:
        """Print a row."""
        verdict = "ok" if not result.problems else f"{len(result.problems)} PROBLEMS"
        print(
            f"{result.plan.seed:>8} {result.scans:>6} {result.done:>5} {result.failed:>6} {result.injected:>6} "
            f"{result.late:>5} {result.settled:>7.1f} {result.seconds:>6.1f}  {verdict}",
            flush=True,
        )
        self._problems(result.problems)
        if result.problems:
            self._bad_round(result)

    def _bad_round(self, result: Result) -> None:
        folder = self._options.folder / f"round-{result.plan.seed}"
        print(f"  seed {result.plan.seed}; plan, timeline and problems: {folder}")
        print(f"  again: {again(self._options, result.plan.seed, 1)}")
        print("  what was done, in seconds from the beginning of the round:", flush=True)
        for line in (folder / "timeline.txt").read_text(encoding="utf-8").splitlines():
            if line[10:].startswith("harness ") or "PROBLEM" in line:
                print(f"  {line}")

    def world(self, problems: list[Problem]) -> None:
        """Print what was wrong at the end of a world."""
        if problems:
            print("  when everything was stopped:", flush=True)
        self._problems(problems)

    def _problems(self, problems: list[Problem]) -> None:
        for problem in problems[:_SHOWN]:
            print(f"  {problem}", flush=True)
        if len(problems) > _SHOWN:
            print(f"  and {len(problems) - _SHOWN} more", flush=True)


def main(arguments: list[str]) -> int:
    """Run, print, and return the exit status."""
    options = parse(arguments)
    if options.list:
        for kind in KINDS.values():
            print(f"{kind.name:<26} {kind.group:<8} {kind.how}")
        return 0
    if options.document:
        count = document.write()
        print(f"{document.PAGE}: the figures of {count} runs")
        return 0
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 1_000_000)
    return run(options, plans_of(options))


def run(options: argparse.Namespace, plans: list[Plan]) -> int:
    """Run the plans; print and write what came of it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing that we started is to stay
    began, screen = time.time(), Screen(options)
    screen.begin(plans)
    options.folder.mkdir(parents=True, exist_ok=True)
    running = Run(
        options.folder,
        plans,
        options.full,
        options.world,
        options.seconds,
        options.go_on,
        screen.round,
        screen.world,
    )
    good = False
    try:
        good = running.go()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    finally:
        tally = Tally.of(running, began, again(options, plans[0].seed, len(plans)))
        path = tally.write(options.folder)
        print(f"\n{tally.text()}\nwritten to {path}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
