"""The counts of a run: written as JSON, printed, and collected for docs/reliability.md."""

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.daemons import ROOT
from tests.faults.kinds import KINDS
from tests.faults.problems import KINDS as PROBLEMS
from tests.faults.run import Run


def commit() -> str:
    """Return the commit of the code that runs, with a plus sign where it was changed since; empty: it is not known."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=8", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass
class OfKind:
    """The faults of one kind."""

    injected: int = 0
    missed: int = 0
    skipped: str = ""
    longest: float = 0.0
    """Seconds, at most, until what was acknowledged by its end was delivered."""


@dataclass
class Tally:
    """The counts of a run."""

    command: str
    seed: int
    rounds: int
    full: bool
    began: str
    seconds: float
    machine: str
    scans: int = 0
    acknowledged: int = 0
    done: int = 0
    failed: int = 0
    worn_out: int = 0
    late: int = 0
    longest_rest: float = 0.0
    in_order: int = 0
    """Rounds in which units were only ended in order,"""
    short: int = 0
    """and those in worlds with short periods."""
    code: str = ""
    """The commit of the code, with a plus sign where something was changed."""
    bad: list[int] = field(default_factory=list)
    """Seeds of the rounds that had a problem."""
    problems: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, OfKind] = field(default_factory=dict)

    @property
    def injected(self) -> int:
        """Return how many faults were injected."""
        return sum(kind.injected for kind in self.kinds.values())

    @classmethod
    def of(cls, run: Run, began: float, command: str) -> "Tally":
        """Count a run."""
        tally = cls(
            command,
            run.plans[0].seed,
            len(run.results),
            run.full,
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(began)),
            round(time.time() - began, 1),
            f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}",
            in_order=sum(result.plan.in_order for result in run.results),
            short=sum(result.plan.short_periods for result in run.results),
            code=commit(),
            bad=[result.plan.seed for result in run.results if result.problems],
        )
        for result in run.results:
            tally.scans += result.scans
            tally.acknowledged += result.acknowledged
            tally.done += result.done
            tally.failed += result.failed
            tally.worn_out += result.worn_out
            tally.late += result.late
            tally.longest_rest = max(tally.longest_rest, round(result.settled, 1))
            for fault in result.faults:
                kind = tally.kinds.setdefault(fault.kind, OfKind())
                kind.injected += fault.hit
                kind.missed += not fault.hit and not fault.skipped
                kind.skipped = fault.skipped or kind.skipped
                kind.longest = max(kind.longest, fault.resumed or 0.0)
        every = [p for result in run.results for p in result.problems] + run.world_problems
        for name in PROBLEMS:
            tally.problems[name] = sum(problem.kind == name for problem in every)
        return tally

    def write(self, folder: Path) -> Path:
        """Write it to a file of its own."""
        kind = "full" if self.full else "small"
        path = folder / f"run-{kind}-{self.seed}-{int(time.time())}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> "Tally":
        """Return what `write` wrote."""
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kinds = {name: OfKind(**value) for name, value in raw.pop("kinds").items()}
        return cls(**raw, kinds=kinds)

    def text(self) -> str:
        """Return it for people."""
        lines = [f"{'fault':<26} {'injected':>8} {'missed':>7} {'longest s':>10}"]
        for name in KINDS:
            if name in self.kinds:
                kind = self.kinds[name]
                note = f"  skipped: {kind.skipped}" if kind.skipped else ""
                lines.append(f"{name:<26} {kind.injected:>8} {kind.missed:>7} {kind.longest:>10.1f}{note}")
        lines.append("")
        lines.append(
            f"{self.injected} faults in {self.rounds} rounds of {self.seconds / max(1, self.rounds):.0f} s, "
            f"{self.scans} scans, {self.acknowledged} acknowledged: {self.done} Done and delivered, "
            f"{self.failed} poison Failed, {self.worn_out} good ones Failed"
        )
        wrong = ", ".join(f"{name} {count}" for name, count in self.problems.items())
        lines.append(
            f"{wrong}; longest until all was at rest {self.longest_rest:.1f} s; late finishers refused {self.late}"
        )
        return "\n".join(lines)
