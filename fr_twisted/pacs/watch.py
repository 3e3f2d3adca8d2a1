"""A watched folder: its files are sent when nothing has changed about them for a while.

The folder is looked through about once a second, which works on every file system, network shares included, where
notifications do not. What arrives together is judged together: a folder directly below the watched one with all that is
in it is one unit, and so are the loose files of each kind. A unit is looked into once no file of it has changed for
`SETTLE` seconds. Whoever fills the folder slower than that should fill a hidden one (``.name``) and rename it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from fr_twisted.pacs import moves, nifti
from fr_twisted.pacs.files import Skipped, Stamp, walk
from fr_twisted.pacs.interfaces import Candidate
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.scans import classify
from fr_twisted.pacs.sources import SETTLE, FileCandidate, Queue, SkipLog
from fr_twisted.pacs.trouble import log_trouble

INTERVAL = 1.0
"""Seconds between two looks; more where a look takes long."""

Unit = tuple[str, str]
"""``("folder", name)`` or, of loose files, ``("nifti", stem)`` or ``("dicom", "")``."""


class WatchSource:
    """Sends what appears in ``root``, and has it moved to ``sent/`` or ``refused/`` in it."""

    _log = Logger()

    def __init__(
        self,
        root: Path,
        node: str,
        spool: Callable[[], Path],
        clock: IReactorTime,
        *,
        patient_id: str | None = None,
        run: Run = deferToThread,
        interval: float = INTERVAL,
        settle: float = SETTLE,
    ) -> None:
        self._root, self._node, self._spool, self._clock = root, node, spool, clock
        self._patient_id, self._run = patient_id, run
        self._interval, self._settle = interval, settle
        self._queue = Queue()
        self._skips = SkipLog()
        self._since: dict[Stamp, float] = {}
        self._judged: dict[Path, Stamp] = {}
        self._busy: set[Path] = set()
        self._call: IDelayedCall | None = None
        self._running = self._failing = False

    def start(self) -> None:
        """Finish the moves that a crash interrupted, then look, again and again."""
        self._running = True
        recovering = self._run(moves.recover, self._root)
        recovering.addErrback(
            lambda failure: log_trouble(self._log, "files could not be put away", failure, "file.journal")
        )
        recovering.addCallback(lambda _: self._look())

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        if self._call is not None and self._call.active():
            self._call.cancel()

    def next_candidate(self) -> Deferred[Candidate | None]:
        """Fire with the next scan; never with None."""
        return self._queue.get()

    def _look(self) -> None:
        if not self._running:
            return
        began = self._clock.seconds()

        def over(_: object) -> None:
            if self._running:
                taken = self._clock.seconds() - began
                self._call = self._clock.callLater(max(self._interval, 4 * taken), self._look)

        looking = Deferred.fromCoroutine(self._look_once())
        looking.addErrback(
            lambda failure: log_trouble(
                self._log, "the watched folder could not be read", failure, "file.defect"
            )
        )
        looking.addCallback(over)

    async def _look_once(self) -> None:
        found: list[Stamp | Skipped] = await self._run(_list, self._root)
        self._say_reachable(found)
        stamps = [item for item in found if isinstance(item, Stamp)]
        self._skips.keep_only(item.path for item in found)
        self._skips.say(item for item in found if isinstance(item, Skipped) and item.path != self._root)
        now = self._clock.seconds()
        self._since = {stamp: self._since.get(stamp, now) for stamp in stamps}
        present = {stamp.path for stamp in stamps}
        self._judged = {path: stamp for path, stamp in self._judged.items() if path in present}
        for unit in self._units(stamps):
            settled = all(now - self._since[stamp] >= self._settle for stamp in unit)
            if settled and any(self._is_new(stamp) for stamp in unit):
                # With all that lies there: a slice that was completed or came late makes its series whole.
                await self._judge([stamp for stamp in unit if stamp.path not in self._busy])

    def _say_reachable(self, found: Sequence[Stamp | Skipped]) -> None:
        """Say once that the folder cannot be read, and once that it can again."""
        failing = next((i.reason for i in found if isinstance(i, Skipped) and i.path == self._root), None)
        if failing is not None and not self._failing:
            self._log.error("the watched folder: {reason}", reason=failing, event="watch.failing")
        elif failing is None and self._failing:
            self._log.info("the watched folder can be read again", event="watch.recovered")
        self._failing = failing is not None

    def _units(self, stamps: Sequence[Stamp]) -> list[list[Stamp]]:
        units: dict[Unit, list[Stamp]] = defaultdict(list)
        stems = {_stem(s.path) for s in stamps if s.path.parent == self._root and nifti.is_nifti_name(s.path)}
        for stamp in stamps:
            first, *rest = stamp.path.relative_to(self._root).parts
            if rest:
                units["folder", first].append(stamp)
            elif _stem(stamp.path) in stems:
                units["nifti", _stem(stamp.path)].append(stamp)
            else:
                units["dicom", ""].append(stamp)
        return list(units.values())

    def _is_new(self, stamp: Stamp) -> bool:
        return stamp.path not in self._busy and self._judged.get(stamp.path) != stamp

    async def _judge(self, stamps: list[Stamp]) -> None:
        """Queue the scans among files that are complete."""
        drops, skipped = await self._run(classify, stamps, self._patient_id)
        self._skips.say(skipped)
        self._judged.update((stamp.path, stamp) for stamp in stamps)
        for drop in drops:
            self._busy.update(stamp.path for stamp in drop.all_files)
            self._queue.put(FileCandidate(drop, self._node, self._spool(), self, self._root))

    # -- what became of them

    def ended(self, candidate: FileCandidate) -> None:
        """Its files are moved away; those that could not be are not looked at until they change."""
        self._busy.difference_update(stamp.path for stamp in candidate.drop.all_files)

    def changed(self, candidate: FileCandidate) -> None:
        """Judge its files anew, when they have settled."""
        self.ended(candidate)
        for stamp in candidate.drop.all_files:
            self._judged.pop(stamp.path, None)

    def skipped(self, candidate: FileCandidate, reason: str) -> None:
        """Report it."""
        self.ended(candidate)
        self._skips.say([Skipped(candidate.drop.files[0].path, reason)])


def _list(root: Path) -> list[Stamp | Skipped]:
    if not root.is_dir():
        return [Skipped(root, "it is not there, or no folder")]
    return list(walk(root, watched=True))


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]
