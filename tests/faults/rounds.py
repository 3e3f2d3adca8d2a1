"""One round in a world: load and faults at once, then rest, then the checks."""

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from tests.faults import reader, verify
from tests.faults.history import Law, check_drained, check_histories
from tests.faults.inject import Injector
from tests.faults.load import Load, MakeScan, small_scan
from tests.faults.periods import Periods
from tests.faults.plan import Plan
from tests.faults.problems import DOUBLED, LEFT, OTHER, STUCK, Problem
from tests.faults.timeline import Done, Timeline, dump, write
from tests.faults.units import Unit
from tests.faults.world import LEASE, MONGO_TIMEOUT, World

REST_SECONDS = 90.0
REST_SECONDS_FULL = 900.0

SLACK = MONGO_TIMEOUT + 0.5
"""Seconds by which units' readings of the store's clock may differ: an answer that comes late is a reading of then."""

_FINAL = ("Done", "Failed")
_LEAVING_SECONDS = 10.0
_RESTART_SECONDS = 0.5
_FULL_SECONDS = 10.0
"""How long after the store's disk was last seen full a start may have failed of it."""


@dataclass
class Result:
    """What came of a round."""

    plan: Plan
    seconds: float = 0.0
    settled: float = 0.0
    """Seconds from the end of the last fault until everything was at rest."""
    scans: int = 0
    acknowledged: int = 0
    done: int = 0
    failed: int = 0
    """Poison that is Failed with its reason."""
    worn_out: int = 0
    """Good scans that are Failed since their BRAINs were killed too often."""
    late: int = 0
    """Times that a BRAIN with an old token was told that its scan had been taken over."""
    faults: list[Done] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def injected(self) -> int:
        """Return how many faults were."""
        return sum(fault.hit for fault in self.faults)


class Round:
    """Runs one plan in a world that is up."""

    def __init__(self, world: World, plan: Plan, known: set[str], make: MakeScan = small_scan) -> None:
        self.world, self.plan, self.known = world, plan, known
        self.acknowledged: dict[str, str] = {}
        """SHA-256 of the scans whose ACK was seen, by id; once it was looked."""
        self.timeline = Timeline()
        self.load = Load(world, plan, make)
        self.result = Result(plan)
        self._since = time.time()
        self._sightings_from = len(world.network.sightings)

    def run(self, db: Any, indexes: Mapping[str, set[str]]) -> Result:
        """Do it all."""
        began = time.monotonic()
        self._do(began)
        self._tidy()
        over = time.monotonic()
        if not self._come_to_rest(db):
            self._problem(STUCK, "the round", f"was not at rest within {self._patience():.0f} s")
        self.result.settled = time.monotonic() - over
        self._look(db, indexes)
        self.result.seconds = time.monotonic() - began
        self.known |= set(self.load.sent.scans)
        return self.result

    def _patience(self) -> float:
        return REST_SECONDS_FULL if self.world.options.full else REST_SECONDS

    def _problem(self, kind: str, what: str, text: str) -> None:
        self.result.problems.append(Problem(kind, what, text))

    def _do(self, began: float) -> None:
        injector = Injector(self.world, self.load, self.timeline)
        with ThreadPoolExecutor(len(self.plan.faults) + 1) as threads:
            running = [threads.submit(self.load.run, began)]
            running += [threads.submit(injector.inject, fault, began) for fault in self.plan.faults]
            while not all(each.done() for each in running):
                self._look_for_deaths()
                time.sleep(0.2)
            for each in running:
                each.result()
        self.result.faults = self.timeline.faults

    def _tidy(self) -> None:
        """Make sure that every fault is undone."""
        for wire in self.world.network.wires.values():
            if not wire.at_ease:
                wire.heal()
        for left in self.world.signals.glob("hold.*"):
            left.unlink(missing_ok=True)
        for unit in self.world.units.values():
            if not unit.alive():
                unit.start()

    def _look_for_deaths(self) -> None:
        """A unit that ended though nobody ended it is a problem, and is started again."""
        for unit in self.world.units.values():
            if unit.lock.acquire(blocking=False):
                try:
                    code = unit.ended()
                    if code is not None:
                        self._died(unit, code)
                finally:
                    unit.lock.release()

    def _died(self, unit: Unit, code: int) -> None:
        self.timeline.note(unit.name, "ended", f"status {code}")
        # Fr-STORE says so and ends when it is started on a full disk; whoever started it starts it again.
        if unit.name != "store" or time.time() - self.world.full_at > _FULL_SECONDS:
            self._problem(OTHER, unit.name, f"ended by itself with status {code}")
        time.sleep(_RESTART_SECONDS)
        unit.start()

    # -- coming to rest

    def _come_to_rest(self, db: Any) -> bool:
        end = time.monotonic() + self._patience()
        while time.monotonic() < end:
            self._look_for_deaths()
            try:
                if self._at_rest(db):
                    return True
            except PyMongoError:
                pass
            time.sleep(0.3)
        return False

    def _at_rest(self, db: Any) -> bool:
        if self.load.in_folders() or not all(unit.is_ready() for unit in self.world.units.values()):
            return False
        wanted = set(self.load.sent.scans)
        members = {"report_generated": 1, "pending_at": 1}
        scans = reader.by_ids(db[reader.SCANS], wanted, projection=members)
        if len(scans) < len(wanted) or any(scan["report_generated"] not in _FINAL for scan in scans):
            return False
        if any("pending_at" in scan for scan in scans):
            return False
        done = {scan["_id"] for scan in scans if scan["report_generated"] == "Done"}
        reports = reader.by_ids(db[reader.REPORTS], done, "scan_id", projection={"status": 1, "scan_id": 1})
        return {r["scan_id"] for r in reports if r["status"] is True} == done

    # -- looking

    def _look(self, db: Any, indexes: Mapping[str, set[str]]) -> None:
        sent = self.load.sent
        nodes = {node: self.world.reports(node) for node in self.world.layout.names("pacs")}
        try:
            snapshot = reader.take(db, set(sent.scans), self.known, nodes)
        except PyMongoError as error:
            self._problem(STUCK, "store", f"cannot be read: {type(error).__name__}: {str(error)[:200]}")
            return
        snapshot.waiting = [str(path) for path in self.load.in_folders()] + self._refused()
        periods = self.world.options.periods
        if periods is not None:
            self._wait_overdue(db, periods)
        sightings = self.world.network.sightings[self._sightings_from :]
        acknowledged = {**verify.acknowledged_on(sightings), **self._acknowledged_by_logs()}
        self.acknowledged = acknowledged
        problems = verify.check(snapshot, sent.scans, acknowledged, indexes, periods is not None)
        problems += check_histories(snapshot, Law(LEASE, SLACK, periods is not None))
        problems += check_drained(snapshot) if self.plan.in_order else []
        apart = frozenset(scan for scan in sent.scans if scan.startswith("raw-"))
        patience = math.inf if periods is None else periods.upload_ttl / 2
        problems += verify.check_resumes(sightings, apart, patience)
        problems += [Problem(OTHER, "the harness's client", text) for text in sent.unanswered]
        problems += [Problem(OTHER, "a fault", text) for text in self.timeline.problems]
        problems += self._doubly_written() + self._strays()
        self.result.problems += problems
        self._count(snapshot, acknowledged)

    def _wait_overdue(self, db: Any, periods: Periods) -> None:
        """See that what is to be removed by now is, by HUBs that were killed and frozen until a moment ago."""
        end = time.monotonic() + periods.overdue
        while left := reader.overdue(db, periods.upload_ttl + 5 * periods.round, periods.overdue):
            if time.monotonic() > end:
                self.result.problems += [Problem(LEFT, what, "is not removed in time") for what in left]
                return
            time.sleep(0.3)

    def _refused(self) -> list[str]:
        folders = [self.world.watched(node) / "refused" for node in self.world.layout.names("pacs")]
        return [f"{path}: refused" for folder in folders if folder.is_dir() for path in folder.iterdir()]

    def _events(self, event: str, unit: str) -> list[dict[str, Any]]:
        """Return the events of this name that units of a kind logged in this round."""
        found = []
        for each in self.world.units.values():
            each.read()
            if each.kind == unit:
                found += [line for line in each.events if line.get("event") == event]
        return found

    def _acknowledged_by_logs(self) -> dict[str, str]:
        sent = self.load.sent.scans
        ids = {event["scan_id"] for event in self._events("scan.acknowledged", "pacs")}
        return {scan_id: sent[scan_id].sha256 for scan_id in ids if scan_id in sent}

    def _doubly_written(self) -> list[Problem]:
        times: dict[str, int] = {}
        for event in self._events("report.written", "pacs"):
            times[event["report_id"]] = times.get(event["report_id"], 0) + 1
        return [
            Problem(DOUBLED, report_id, f"was written {count} times")
            for report_id, count in times.items()
            if count > 1
        ]

    def _strays(self) -> list[Problem]:
        """Return the processes that are no unit's."""
        end = time.monotonic() + _LEAVING_SECONDS
        while strays := stray_processes(self.world):
            if time.monotonic() > end:
                return [Problem(LEFT, f"process {pid}", line[:200]) for pid, line in strays.items()]
            time.sleep(0.3)
        return []

    def _count(self, snapshot: reader.Snapshot, acknowledged: Mapping[str, str]) -> None:
        result, sent = self.result, self.load.sent.scans
        result.scans, result.acknowledged = len(sent), len(set(acknowledged) & set(sent))
        for scan_id, scan in snapshot.scans.items():
            failed = scan["report_generated"] == "Failed"
            result.done += scan["report_generated"] == "Done"
            result.failed += failed and sent[scan_id].poison
            result.worn_out += failed and not sent[scan_id].poison
        lost = [e for e in self._events("scan.lost", "brain") if e["scan_id"] in sent]
        result.late = len(lost)
        delivered = {r["scan_id"]: r["delivered_at"] for r in snapshot.reports if r.get("delivered_at")}
        for fault in result.faults:
            ends = [
                moment.timestamp() - fault.ended
                for scan_id, moment in delivered.items()
                if snapshot.scans[scan_id]["received_at"].timestamp() <= fault.ended
            ]
            fault.resumed = round(max([0.0, *ends]), 2) if fault.hit and ends else None

    # -- what is kept of a round that failed

    def keep(self, folder: Path) -> None:
        """Write the plan, the timeline and the problems into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(self.plan.to_json(), encoding="utf-8")
        logs = [(unit.name, event) for unit in self.world.units.values() for event in unit.events]
        write(folder / "timeline.txt", self.timeline.lines(logs, self._since))
        write(folder / "problems.txt", [str(problem) for problem in self.result.problems])
        dump(
            folder / "sightings.json", [vars(s) for s in self.world.network.sightings[self._sightings_from :]]
        )


def stray_processes(world: World) -> dict[int, str]:
    """Return the processes of a world that no running unit is an ancestor of."""
    units = {unit.pid for unit in world.units.values() if unit.alive()}
    return {pid: line for pid, line in world.processes().items() if not units & set(_ancestry(pid))}


def _ancestry(pid: int) -> list[int]:
    chain = []
    while pid > 1:
        chain.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return chain
