"""Where scans come from: paths named on the command line, the generator; what files have in common."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from fr_twisted.pacs import moves
from fr_twisted.pacs.files import REFUSED, SENT, Skipped, Stamp, walk
from fr_twisted.pacs.interfaces import Candidate
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.scans import Drop, Payload, Prepared, classify, prepare
from fr_twisted.pacs.trouble import log_trouble

_MANY = 3
"""Files with one reason, beside the first, from which on they are counted rather than named (at debug they are)."""

SETTLE = 2.0
"""Seconds for which a file must not change before it is taken to be complete."""


class FileSource(Protocol):
    """What a `FileCandidate` tells its source."""

    def ended(self, candidate: "FileCandidate") -> None:
        """It was kept or refused."""

    def changed(self, candidate: "FileCandidate") -> None:
        """Its files have changed."""

    def skipped(self, candidate: "FileCandidate", reason: str) -> None:
        """It is not sent."""


class FileCandidate:
    """A scan on disk. With ``watched``, a folder, its files are moved to ``sent`` or ``refused`` below that."""

    def __init__(
        self, drop: Drop, node: str, spool: Path, source: FileSource, watched: Path | None = None
    ) -> None:
        self.drop = drop
        self._node, self._spool, self._source, self._watched = node, spool, source, watched

    def prepare(self) -> Prepared:
        """Look at the files again, and hash them or write the tar."""
        return prepare(self.drop, self._node, self._spool)

    def open(self, prepared: Prepared) -> Payload:
        """Open the payload; a tar is what it was, whatever becomes of the files."""
        return Payload(prepared, () if prepared.spooled else self.drop.files)

    def kept(self, prepared: Prepared) -> None:
        """Move the files away."""
        if self._watched is not None:
            moves.put_away(self._watched, self.drop.all_files, prepared.item.id, SENT)

    def refused(self, prepared: Prepared, code: str, reason: str) -> None:
        """Move the files away, with the reason."""
        if self._watched is not None:
            text = f"The HUB refused this scan ({prepared.item.id}).\n{code}: {reason}"
            moves.put_away(self._watched, self.drop.all_files, prepared.item.id, REFUSED, text)

    def ended(self) -> None:
        """Tell the source."""
        self._source.ended(self)

    def changed(self) -> None:
        """Tell the source."""
        self._source.changed(self)

    def skipped(self, reason: str) -> None:
        """Tell the source."""
        self._source.skipped(self, reason)


class Queue:
    """Candidates that wait to be asked for, and at most one that is asked for."""

    def __init__(self) -> None:
        self._waiting: deque[Candidate | None] = deque()
        self._asked: Deferred[Candidate | None] | None = None

    def put(self, candidate: Candidate | None) -> None:
        """Add one; None: no more."""
        self._waiting.append(candidate)
        self._serve()

    def get(self) -> Deferred[Candidate | None]:
        """Fire with the next."""
        self._asked = Deferred(self._forget)
        asked = self._asked
        self._serve()
        return asked

    def _forget(self, _: Deferred[Candidate | None]) -> None:
        self._asked = None

    def _serve(self) -> None:
        if self._asked is not None and self._waiting:
            asked, self._asked = self._asked, None
            asked.callback(self._waiting.popleft())


class SkipLog:
    """Says of each file that is not sent, once, why: by base name, which is what a person looks for."""

    _log = Logger()

    def __init__(self) -> None:
        self._said: dict[Path, str] = {}

    def say(self, skipped: Iterable[Skipped]) -> None:
        """Report what was not reported with that reason before; the files of a whole series in one line."""
        fresh: dict[str, list[Skipped]] = {}
        for item in skipped:
            if self._said.get(item.path) != item.reason:
                self._said[item.path] = item.reason
                fresh.setdefault(item.reason, []).append(item)
        for first, *rest in fresh.values():
            many = len(rest) >= _MANY
            text = "not sent: {path} and {count} more: {reason}" if many else "not sent: {path}: {reason}"
            self._tell(self._log.warn, text, first, **({"count": len(rest)} if many else {}))
            for item in rest:
                self._tell(self._log.debug if many else self._log.warn, "not sent: {path}: {reason}", item)

    def _tell(self, log: Callable[..., None], text: str, item: Skipped, **fields: object) -> None:
        log(text, path=item.path.name, reason=item.reason, event="file.skipped", **fields)

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Forget the files that are no more; should they come again, they are reported again."""
        present = set(paths)
        self._said = {path: reason for path, reason in self._said.items() if path in present}


def look_through(path: Path, patient_id: str | None) -> tuple[list[Drop], list[Skipped]]:
    """Return the scans in and below ``path`` and what is not sent; blocks."""
    try:
        found = list(walk(path))
    except FileNotFoundError:
        return [], [Skipped(path, "there is no such file or folder")]
    drops, skipped = classify((item for item in found if isinstance(item, Stamp)), patient_id)
    return drops, [item for item in found if isinstance(item, Skipped)] + skipped


class PathSource:
    """Sends the scans in some files and folders, each once, and leaves the files where they are."""

    _log = Logger()

    def __init__(
        self,
        paths: Sequence[Path],
        node: str,
        spool: Callable[[], Path],
        clock: IReactorTime,
        *,
        patient_id: str | None = None,
        run: Run = deferToThread,
    ) -> None:
        """Take ``spool``, which is asked for the spool folder when that is made."""
        self._paths, self._node, self._spool, self._clock = paths, node, spool, clock
        self._patient_id, self._run = patient_id, run
        self._queue = Queue()
        self._skips = SkipLog()
        self._open = 0
        self._again: dict[Path, IDelayedCall] = {}

    def start(self) -> None:
        """Look through the paths, one after another."""
        self._open = 1
        Deferred.fromCoroutine(self._look_at_all()).addErrback(
            lambda failure: log_trouble(self._log, "the files could not be looked at", failure, "file.defect")
        )

    def stop(self) -> None:
        """Look no more."""
        for call in self._again.values():
            call.cancel()
        self._again.clear()

    def next_candidate(self) -> Deferred[Candidate | None]:
        """Fire with the next scan."""
        return self._queue.get()

    async def _look_at_all(self) -> None:
        for path in self._paths:
            await self._look_at(path)
        self._close()

    async def _look_at(self, path: Path, only: frozenset[Path] | None = None) -> None:
        """Queue the scans below ``path``; with ``only``, those that have one of these files."""
        drops, skipped = await self._run(look_through, path, self._patient_id)
        self._skips.say(skipped)
        chosen = [d for d in drops if only is None or only & {stamp.path for stamp in d.all_files}]
        if not chosen and (only is not None or not skipped):
            self._skips.say(
                [Skipped(path, "there is nothing in it to send" if only is None else "its files are gone")]
            )
        for drop in chosen:
            self._open += 1
            self._queue.put(FileCandidate(drop, self._node, self._spool(), self))

    def _close(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._queue.put(None)

    def ended(self, candidate: FileCandidate) -> None:
        """One less."""
        self._close()

    def skipped(self, candidate: FileCandidate, reason: str) -> None:
        """Report it."""
        self._skips.say([Skipped(candidate.drop.files[0].path, reason)])
        self._close()

    def changed(self, candidate: FileCandidate) -> None:
        """Look at what is there in a while, when whoever writes it may be done."""
        files = frozenset(stamp.path for stamp in candidate.drop.files)
        first = candidate.drop.files[0].path

        def look() -> None:
            del self._again[first]
            looking = Deferred.fromCoroutine(self._look_at(self._root_of(first), files))
            looking.addErrback(
                lambda failure: log_trouble(
                    self._log, "a file could not be looked at", failure, "file.defect"
                )
            )
            looking.addCallback(lambda _: self._close())

        self._again[first] = self._clock.callLater(SETTLE, look)

    def _root_of(self, file: Path) -> Path:
        return next(path for path in self._paths if file == path or path in file.parents)
