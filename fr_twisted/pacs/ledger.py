"""What became of received series, and which commitments were asked for: a SQLite database in the spool.

Each time a series counts as complete it gets a revision: the instances that were there then, and what became of them.
What a method returned for is on disk. All of it blocks, for threads; one connection, one lock.
"""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fr_twisted.pacs.marks import Mark

FILE = "ledger.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS revisions (
    series TEXT, revision INTEGER, state TEXT NOT NULL, why TEXT, scan_id TEXT, reason TEXT, at REAL, settled_at REAL,
    note TEXT, PRIMARY KEY (series, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS settled ON revisions (settled_at);
CREATE TABLE IF NOT EXISTS members (
    sop TEXT, series TEXT, revision INTEGER, kind TEXT NOT NULL, sent INTEGER NOT NULL, mark BLOB,
    PRIMARY KEY (sop, series, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_of ON members (series, revision);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, uid TEXT, peer TEXT, at REAL, items TEXT, result TEXT, attempts INTEGER DEFAULT 0,
    UNIQUE (uid, peer));
CREATE TABLE IF NOT EXISTS changed (series TEXT, sop TEXT, what TEXT, PRIMARY KEY (series, sop)) WITHOUT ROWID;
"""

_COLUMNS = "series, revision, state, scan_id, reason, at, settled_at, note"


class State(StrEnum):
    """What became of a revision."""

    COMPLETE = "complete"
    """To be sent."""
    KEPT = "kept"
    """The HUB has it."""
    IGNORED = "ignored"
    """The rules say so."""
    UNUSABLE = "unusable"
    """It is nothing that can be sent."""
    REFUSED = "refused"
    """The HUB refused it for good."""
    SUPERSEDED = "superseded"
    """Another revision was complete before this one was on its way."""


@dataclass(frozen=True)
class Revision:
    """A series as it was when it counted as complete."""

    series: str
    number: int
    state: State
    scan_id: str | None
    reason: str | None
    at: float
    settled_at: float | None
    note: str | None
    """What was odd about it, for people."""
    sops: frozenset[str]


@dataclass(frozen=True)
class Membership:
    """That an instance was part of a revision; ``sent``: of the scan that was made of it, too."""

    kind: str
    sent: bool
    state: State
    reason: str | None


@dataclass(frozen=True)
class Request:
    """A request for storage commitment; ``items`` are SOP Class and Instance UIDs, ``result`` what was decided."""

    id: int
    uid: str
    peer: str
    at: float
    items: Sequence[tuple[str, str]]
    result: Mapping[str, int] | None = field(default=None)
    """Of each instance that failed, by its UID, the reason; None: not decided yet."""
    attempts: int = 0


class Ledger:
    """The database ``ledger.db`` in ``root``; ``read_only``: for a look beside the process that has it."""

    def __init__(self, root: Path, read_only: bool = False) -> None:
        self._root, self._read_only = root, read_only
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            raise sqlite3.ProgrammingError("the ledger is not open")
        return self._opened

    def open(self) -> None:
        """Open it, and make it if it is not there.

        Raises:
            sqlite3.Error: it cannot be used.
        """
        path = (self._root / FILE).absolute()
        uri = path.as_uri() + ("?mode=ro" if self._read_only else "")
        self._opened = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        if not self._read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
            self._add_columns()
            self._db.executescript(_SCHEMA)

    def _add_columns(self) -> None:
        """Give a table of before the columns that it has not got."""
        for table, column, kind in (("revisions", "note", "TEXT"), ("members", "mark", "BLOB")):
            there = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            if there and column not in there:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    def close(self) -> None:
        """Close it."""
        with self._lock:
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.close()

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._db.execute(sql, values)) as found:
            return found.fetchall()

    def _do(self, sql: str, *values: Any) -> None:
        self._all(sql, *values)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Have all changes of a block, or none."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    # -- revisions

    def add(
        self,
        series: str,
        members: Iterable[tuple[str, str]],
        sent: frozenset[str],
        why: str,
        now: float,
        note: str | None = None,
    ) -> int:
        """Note a new revision of a series: its instances (SOP Instance and Class UID), ``sent``: those in its scan."""
        with self._changing() as db:
            last = db.execute("SELECT max(revision) FROM revisions WHERE series = ?", (series,))
            number: int = (last.fetchone()[0] or 0) + 1
            db.execute(
                "INSERT INTO revisions (series, revision, state, why, at, note) VALUES (?, ?, ?, ?, ?, ?)",
                (series, number, State.COMPLETE, why, now, note),
            )
            db.executemany(
                "INSERT INTO members (sop, series, revision, kind, sent) VALUES (?, ?, ?, ?, ?)",
                [(sop, series, number, kind, int(sop in sent)) for sop, kind in members],
            )
        return number

    def named(self, series: str, number: int, scan_id: str, marks: Mapping[str, Mark]) -> None:
        """Note the scan that is made of a revision, and the marks of its images."""
        which = "WHERE series = ? AND revision = ?"
        rows = [(mark.packed, series, number, sop) for sop, mark in marks.items()]
        with self._changing() as db:
            db.execute(f"UPDATE revisions SET scan_id = ? {which}", (scan_id, series, number))
            db.executemany(f"UPDATE members SET mark = ? {which} AND sop = ?", rows)

    def marks(self, series: str, number: int) -> dict[str, Mark]:
        """Return the marks of the images in the scan of a revision."""
        sql = "SELECT sop, mark FROM members WHERE series = ? AND revision = ? AND mark IS NOT NULL"
        return {sop: Mark.unpacked(mark) for sop, mark in self._all(sql, series, number)}

    def came_again(self, series: str, number: int, note: str, now: float) -> None:
        """Note that all instances of a revision that the HUB has came again."""
        self._do(
            "UPDATE revisions SET note = ?, settled_at = ? WHERE series = ? AND revision = ?",
            *(note, now, series, number),
        )

    def settle(self, series: str, number: int, state: State, reason: str | None, now: float | None) -> None:
        """Note what became of a revision."""
        self._do(
            "UPDATE revisions SET state = ?, reason = ?, settled_at = ? WHERE series = ? AND revision = ?",
            *(state, reason, now, series, number),
        )

    def latest(self, series: str) -> Revision | None:
        """Return the last revision of a series."""
        return self._one("WHERE series = ? ORDER BY revision DESC LIMIT 1", series)

    def awaited(self, series: str) -> Revision | None:
        """Return the last revision that is on its way to the HUB: not always the last of all."""
        where = "WHERE series = ? AND state = ? ORDER BY revision DESC LIMIT 1"
        return self._one(where, series, State.COMPLETE)

    def settled(self, series: str) -> float | None:
        """Return when something became of the last revision; None: of it, or of one before, nothing did yet."""
        found = self._all(
            "SELECT state, settled_at FROM revisions WHERE series = ? ORDER BY revision", series
        )
        on_its_way = any(state == State.COMPLETE for state, _ in found)
        return None if not found or on_its_way else found[-1][1]

    def everything(self, whole: Collection[str] = ()) -> list[Revision]:
        """Return the last revision of every series, the newest last; ``whole``: the series whose ``sops`` are told."""
        found = self._all(
            f"SELECT {_COLUMNS} FROM revisions r"
            " WHERE r.revision = (SELECT max(revision) FROM revisions WHERE series = r.series) ORDER BY r.at"
        )
        return [self._revision(row, row[0] in whole) for row in found]

    def _one(self, where: str, *values: Any) -> Revision | None:
        found = self._all(f"SELECT {_COLUMNS} FROM revisions {where}", *values)
        return self._revision(found[0], True) if found else None

    def _revision(self, row: tuple[Any, ...], whole: bool) -> Revision:
        series, number, state, scan_id, reason, at, settled_at, note = row
        sql = "SELECT sop FROM members WHERE series = ? AND revision = ?"
        sops = frozenset(sop for (sop,) in self._all(sql, series, number)) if whole else frozenset()
        return Revision(series, number, State(state), scan_id, reason, at, settled_at, note, sops)

    def before(self, series: str, number: int) -> str | None:
        """Return the scan of an earlier revision of the series that the HUB has, or may have; the last of them."""
        found = self._all(
            "SELECT scan_id FROM revisions WHERE series = ? AND revision < ? AND scan_id IS NOT NULL"
            " AND state IN (?, ?) ORDER BY revision DESC LIMIT 1",
            *(series, number, State.KEPT, State.COMPLETE),
        )
        return found[0][0] if found else None

    def memberships(self, sop: str) -> list[Membership]:
        """Return the revisions that an instance was part of, the last one first."""
        found = self._all(
            "SELECT m.kind, m.sent, r.state, r.reason FROM members m JOIN revisions r"
            " ON r.series = m.series AND r.revision = m.revision WHERE m.sop = ? ORDER BY r.at DESC, r.revision DESC",
            sop,
        )
        return [Membership(kind, bool(sent), State(state), reason) for kind, sent, state, reason in found]

    def forget(self, before: float) -> None:
        """Forget revisions that were settled before this time."""
        old = self._all("SELECT series, revision FROM revisions WHERE settled_at < ?", before)
        with self._changing() as db:
            for table in ("members", "revisions"):
                db.executemany(f"DELETE FROM {table} WHERE series = ? AND revision = ?", old)
            gone = "DELETE FROM changed WHERE series = ? AND series NOT IN (SELECT series FROM revisions)"
            db.executemany(gone, [(series,) for series, _ in old])

    # -- instances that changed

    def came_changed(self, series: str, sop: str, what: str) -> int:
        """Note that an instance came again and was another image; return of how many of its series that is known."""
        self._do("INSERT OR REPLACE INTO changed (series, sop, what) VALUES (?, ?, ?)", series, sop, what)
        return int(self._all("SELECT count(*) FROM changed WHERE series = ?", series)[0][0])

    def all_changed(self) -> dict[str, tuple[int, str]]:
        """Return of each series how many instances came again and were another image, and in what they differ."""
        sql = "SELECT series, count(*), group_concat(DISTINCT what) FROM changed GROUP BY series"
        return {series: (count, what) for series, count, what in self._all(sql)}

    # -- commitments

    def request(self, uid: str, peer: str, items: Sequence[tuple[str, str]], now: float) -> Request | None:
        """Note a request; the same one again is the one that is there. None: another one has its transaction UID."""
        text = json.dumps(items)
        self._do(
            "INSERT OR IGNORE INTO requests (uid, peer, at, items) VALUES (?, ?, ?, ?)", uid, peer, now, text
        )
        found = self._requests("WHERE uid = ? AND peer = ?", uid, peer)[0]
        return found if [list(pair) for pair in found.items] == [list(pair) for pair in items] else None

    def requests(self) -> list[Request]:
        """Return the requests whose result was not delivered yet."""
        return self._requests("")

    def _requests(self, where: str, *values: Any) -> list[Request]:
        rows = self._all(
            f"SELECT id, uid, peer, at, items, result, attempts FROM requests {where} ORDER BY id", *values
        )
        return [
            Request(
                *(number, uid, peer, at, [(kind, sop) for kind, sop in json.loads(items)]),
                None if result is None else json.loads(result),
                attempts,
            )
            for number, uid, peer, at, items, result, attempts in rows
        ]

    def decide(self, request: int, result: Mapping[str, int]) -> None:
        """Note what is to be answered."""
        self._do("UPDATE requests SET result = ? WHERE id = ?", json.dumps(dict(result)), request)

    def tried(self, request: int) -> None:
        """Note that the answer could not be delivered."""
        self._do("UPDATE requests SET attempts = attempts + 1 WHERE id = ?", request)

    def answered(self, request: int) -> None:
        """Forget a request: its answer was delivered, or never can be."""
        self._do("DELETE FROM requests WHERE id = ?", request)
