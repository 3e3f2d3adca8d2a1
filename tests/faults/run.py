"""A run of many rounds: worlds are built, rounds are run in them, worlds are ended and looked at once more."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from tests.faults import endings, reader, verify
from tests.faults.fullscans import FullScans
from tests.faults.history import Law, check_histories
from tests.faults.inject_base import direct_client
from tests.faults.load import small_scan
from tests.faults.periods import SHORT
from tests.faults.plan import Plan
from tests.faults.problems import LEFT, OTHER, Problem
from tests.faults.rounds import SLACK, Result, Round, stray_processes
from tests.faults.scans import Expected
from tests.faults.world import LEASE, Options, World, can_mount

_TEMPORARY_KEPT = frozenset((".fr-lock",))


@dataclass
class Run:
    """Rounds, in worlds of so many."""

    folder: Path
    plans: list[Plan]
    full: bool = False
    world_rounds: int = 10
    seconds: float | None = None
    """After which no round is begun."""
    go_on: bool = False
    """After a bad round, with a world built anew."""
    on_round: Callable[[Result], None] = lambda _: None
    on_world: Callable[[list[Problem]], None] = lambda _: None
    results: list[Result] = field(default_factory=list)
    world_problems: list[Problem] = field(default_factory=list)
    worlds: int = 0
    _sent: dict[str, Expected] = field(default_factory=dict)
    """All scans of the present world,"""
    _acknowledged: dict[str, str] = field(default_factory=dict)
    """and the SHA-256 of those whose ACK was seen."""
    _indexes: Mapping[str, set[str]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def go(self) -> bool:
        """Run everything; return whether nothing was wrong. A bad round ends its world, and the run unless `go_on`."""
        good = True
        while (done := len(self.results)) < len(self.plans) and not self._late():
            plans = self.plans[done : done + self.world_rounds]
            alike = takewhile(lambda plan, first=plans[0]: plan.short_periods == first.short_periods, plans)  # type: ignore[misc]
            if not self._one_world(list(alike)):
                good = False
                if not self.go_on:
                    break
        return good

    def _late(self) -> bool:
        return self.seconds is not None and time.monotonic() - self._began > self.seconds

    def _one_world(self, plans: list[Plan]) -> bool:
        self.worlds += 1
        self._sent, self._acknowledged = {}, {}
        small = any(fault.kind == "store-full" for plan in plans for fault in plan.faults)
        small_disk = small and can_mount(self.folder)
        periods = SHORT if plans[0].short_periods else None
        options = Options(plans[0].layout, self.full, small_disk, periods)
        folder = self.folder / f"world-{os.getpid()}-{self.worlds}"
        world = World(folder, options)
        good = False
        try:
            world.start()
            good = self._rounds(world, plans)
            good = self._end(world) and good
        finally:
            world.kill_all()
            if good:
                shutil.rmtree(folder, ignore_errors=True)
        return good

    def _rounds(self, world: World, plans: list[Plan]) -> bool:
        known: set[str] = set()
        make = FullScans(world.folder) if self.full else small_scan
        with direct_client(world.direct_uri) as client:
            db = client.get_default_database()
            self._indexes = reader.indexes(db)
            for plan in plans:
                if self._late():
                    break
                one = Round(world, plan, known, make)
                result = one.run(db, self._indexes)
                self.results.append(result)
                self._sent |= one.load.sent.scans
                self._acknowledged |= one.acknowledged
                if result.problems:
                    one.keep(self.folder / f"round-{plan.seed}")
                self.on_round(result)
                if result.problems:
                    return False
        return True

    def _end(self, world: World) -> bool:
        """Stop everything and see that nothing is left."""
        problems = self._wait_removed(world)
        ends = world.stop(lambda: problems.extend(self._clean(world)))
        for name, (seconds, code) in ends.items():
            if code is None:
                problems.append(Problem(OTHER, name, f"did not end within {seconds:.1f} s of SIGTERM"))
        problems += self._leftovers(world)
        self.world_problems += problems
        self.on_world(problems)
        return not problems

    def _wait_removed(self, world: World) -> list[Problem]:
        periods = world.options.periods
        if periods is None or any(result.problems for result in self.results[-1:]):
            return []
        with direct_client(world.direct_uri) as client:
            return endings.wait_removed(client.get_default_database(), periods)

    def _clean(self, world: World) -> list[Problem]:
        """With no unit at work: clean as a HUB would after its grace period, and see what is left."""
        problems = endings.clean(world.direct_uri)
        if problems:
            return problems
        with direct_client(world.direct_uri) as client:
            db = client.get_default_database()
            problems = self._look_once_more(world, db)
            problems += endings.verify(world.direct_uri, world.folder)
            if world.given_uri is not None:
                client.drop_database(db.name)
        return problems

    def _look_once_more(self, world: World, db: Any) -> list[Problem]:
        """What was done in later rounds, and what was cleaned, must not have touched the scans of earlier ones."""
        nodes = {node: world.reports(node) for node in world.layout.names("pacs")}
        snapshot = reader.take(db, set(self._sent), set(), nodes)
        problems = verify.check_cleaned(snapshot)
        if any(result.problems for result in self.results[-1:]):
            return problems  # it was not even at rest, or will be told of twice
        retires = world.options.periods is not None
        problems += verify.check(snapshot, self._sent, self._acknowledged, self._indexes, retires)
        problems += check_histories(snapshot, Law(LEASE, SLACK, retires, all_told=True))
        return problems + (verify.check_retired(snapshot) if retires else [])

    def _leftovers(self, world: World) -> list[Problem]:
        time.sleep(0.5)
        problems = [
            Problem(LEFT, f"process {pid}", line[:200]) for pid, line in stray_processes(world).items()
        ]
        for path in sorted(world.temporary.rglob("*")):
            if not path.is_dir() and path.name not in _TEMPORARY_KEPT:
                problems.append(Problem(LEFT, str(path.relative_to(world.temporary)), "a temporary file"))
        for node in world.layout.names("pacs"):
            if world.reports(node).is_dir():
                hidden = [path.name for path in world.reports(node).glob(".*")]
                problems += [Problem(LEFT, f"{node}/{name}", "an unfinished report") for name in hidden]
        return problems + _shared_memory(world)


def _shared_memory(world: World) -> list[Problem]:
    """Return what appeared in the shared memory and is open in no process: those of others hold theirs."""
    fresh = set(os.listdir("/dev/shm")) - world.shared_before
    held = _held_shared() if fresh else set()
    return [Problem(LEFT, f"/dev/shm/{name}", "shared memory") for name in sorted(fresh - held)]


def _held_shared() -> set[str]:
    held = set()
    for path in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = path.read_text()
        except OSError:
            continue
        held |= {
            line.rpartition("/dev/shm/")[2].split()[0] for line in text.splitlines() if "/dev/shm/" in line
        }
    return held
