"""The plan of each query of a claim, of a delivery and of ``fr status``, as the server explains it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fr_twisted.store.connection import Mongo, find_command
from fr_twisted.store.indexes import (
    ARRIVAL,
    EPOCH,
    QUEUE_ORDER,
    REPORT_ORDER,
    REPORTS,
    SCANS,
    due,
    due_undated,
    lease_ended,
    to_do,
    to_do_before,
)
from fr_twisted.store.overview import overview
from tests.benchmarks.table import Row
from tests.benchmarks.taker import NODE

Doc = dict[str, Any]

ANALYSIS = "bench"
"""What a claim asks for beside the scans for any analysis; nothing waits for it."""

LIMIT = 100

_STAGES_WITHOUT_INDEX = ("COLLSCAN", "EOF")


@dataclass(frozen=True)
class Plan:
    """What the server did for one query."""

    name: str
    index: str
    """Its name; or the stage that reads without one."""
    met: int
    """Documents that were looked at,"""
    returned: int
    """and those that matched."""


class Recorder:
    """Stands for the connection to a store with nothing in it, and keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Doc]] = []

    async def now(self, max_age: float = 0.0) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    async def find(self, what: str, collection: str, query: Mapping[str, Any], **more: Any) -> list[Doc]:
        """Find nothing."""
        more.pop("timeout", None)
        self.asked.append((f"{what}: {collection}", find_command(collection, query, **more)))
        return []

    async def command(self, what: str, command: Mapping[str, Any], **_: Any) -> Doc:
        """Count nothing."""
        name = next(iter(command))
        stages = [stage for stage in command.get("pipeline", ()) if "$match" in stage or "$group" in stage]
        told = [f"{_told(stage['$match'])} by" for stage in stages if "$match" in stage]
        told += [str(stage["$group"]["_id"]).lstrip("$") for stage in stages if "$group" in stage]
        self.asked.append((" ".join((f"{what}: {command[name]}", *told)), dict(command)))
        return {"n": 0, "cursor": {"firstBatch": []}}


def _told(query: Mapping[str, Any]) -> str:
    """Return which members a query compares, with the values where those tell."""
    plain = {name: "" if isinstance(value, dict) else f"={value}" for name, value in query.items()}
    return ", ".join(f"{name}{value}" for name, value in plain.items())


def of_status() -> list[tuple[str, Doc]]:
    """Return the commands that ``fr status`` sends, each with a name: they are taken from its own code."""
    recorder = Recorder()
    results: list[Any] = []
    Deferred.fromCoroutine(overview(cast(Mongo, recorder))).addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return [(f"`fr status`, {name}", command) for name, command in recorder.asked]


def of_queues(soon: datetime) -> list[tuple[str, Doc]]:
    """Return the commands of a claim, for any analysis and for one, and of a delivery; the oldest part ends `soon`."""
    asked: list[tuple[str, str, Doc, Sequence[tuple[str, int]]]] = []
    for whom, analysis in (("any analysis", None), ("one analysis", ANALYSIS)):
        asked += [
            (f"claim for {whom}, all that wait (once)", SCANS, to_do(analysis), QUEUE_ORDER),
            (f"claim for {whom}, the oldest part", SCANS, to_do_before(analysis, 5, soon), ARRIVAL),
            (f"claim for {whom}, a priority without any", SCANS, to_do_before(analysis, 9, None), ARRIVAL),
            (
                f"claim for {whom}, leases that ended",
                SCANS,
                lease_ended(analysis, EPOCH),
                (("lease.expires_at", 1),),
            ),
        ]
    asked += [
        ("delivery, all that are due (once)", REPORTS, due(NODE, datetime.now(UTC)), REPORT_ORDER),
        ("delivery, the oldest part", REPORTS, due(NODE, soon), REPORT_ORDER),
        ("delivery, without a date", REPORTS, due_undated(NODE), ()),
    ]
    return [(name, find_command(coll, query, limit=LIMIT, sort=sort)) for name, coll, query, sort in asked]


def plans(db: Any, soon: datetime) -> list[Plan]:
    """Return the plan of each query in this database."""
    return [explained(db, name, command) for name, command in (*of_queues(soon), *of_status())]


def explained(db: Any, name: str, command: Doc) -> Plan:
    """Let the server explain a command, and run it.

    Raises:
        RuntimeError: it tells of no index and no stage that does without one.
    """
    told = db.command({"explain": command, "verbosity": "executionStats"})
    if "executionStats" not in told:
        told = told["stages"][0]["$cursor"]
    stage, stats = told["queryPlanner"]["winningPlan"], told["executionStats"]
    while "indexName" not in stage and "inputStage" in stage:
        stage = stage["inputStage"]
    index = stage.get("indexName", stage["stage"])
    if "indexName" not in stage and index not in _STAGES_WITHOUT_INDEX:
        raise RuntimeError(f"{name}: {stage}")
    return Plan(name, str(index), int(stats["totalDocsExamined"]), int(stats["nReturned"]))


def rows(by_size: Mapping[int, Sequence[Plan]]) -> list[Row]:
    """Return a row for each query: the index that it reads, and how many documents it meets with how many waiting."""
    table = []
    for same in zip(*by_size.values(), strict=True):
        indexes = dict.fromkeys(plan.index for plan in same)
        met = ", ".join(f"{plan.met:,} at {size:,}" for size, plan in zip(by_size, same, strict=True))
        table.append(Row(same[0].name, f"{' or '.join(indexes)}: {met}"))
    return table
