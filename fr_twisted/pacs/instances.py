"""The spool of received DICOM instances: what `add` returned for is on disk, whatever is killed afterwards.

One folder a series, one Part 10 file an instance, both named by their UIDs::

    <spool>/series/<Series Instance UID>/<SOP Instance UID>.dcm
    <spool>/asked/<Series Instance UID>      a person says that the series is complete
    <spool>/part/                            what is being written
    <spool>/ledger.db                        what became of it: `fr_twisted.pacs.ledger`

All of it blocks and may be called from any thread.
"""

import errno
import fcntl
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from twisted.logger import Logger

from fr_twisted.pacs.files import Stamp, take_stamp
from fr_twisted.pacs.marks import changed, mark_of

UID = re.compile(r"[0-9][0-9.]{0,63}\Z")
"""What is taken for a UID, and is therefore safe as a file name."""

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_LOCK = ".received-lock"
_ENDING = ".dcm"


class SpoolError(Exception):
    """The spool cannot be used at all; says why."""


class FullError(Exception):
    """There is no room for an instance now."""


@dataclass(frozen=True)
class Instance:
    """One instance in the spool: its SOP Instance and Class UIDs, and its file."""

    sop: str
    kind: str
    stamp: Stamp


@dataclass(frozen=True)
class Added:
    """What `InstanceSpool.add` did: ``new`` or there already, how many the series has, in what the image differs."""

    new: bool
    count: int
    changed: tuple[str, ...] = ()


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fsync(handle: int) -> None:
    os.fsync(handle)


class InstanceSpool:
    """Keeps instances until somebody removes their series; bounded by bytes held and by the room on its disk.

    Args:
        root: the folder; made if it is missing.
        limit: bytes of instances that it may hold.
        reserve: bytes that are left free on its disk.
        free: returns the bytes that are free for us where ``root`` is.
        fsync: makes an open file durable.
    """

    _log = Logger()

    def __init__(
        self,
        root: Path,
        limit: int,
        reserve: int = 0,
        *,
        free: Callable[[Path], int] | None = None,
        fsync: Callable[[int], None] = _fsync,
    ) -> None:
        self.root = root
        self._limit, self._reserve, self._fsync = limit, reserve, fsync
        self._free = free or _free
        self._series, self._part, self._asked = root / "series", root / "part", root / "asked"
        self._index: dict[str, dict[str, Instance]] = {}
        self._of: dict[str, str] = {}
        self._mutex = threading.Lock()
        self._numbers = itertools.count()
        self._held: int | None = None
        self.used = 0
        """Bytes of instances."""

    # -- its life

    def open(self) -> None:
        """Take the folder for this process alone, remove what was half written, and see what there is.

        Raises:
            SpoolError: it cannot be written, or another process has it.
        """
        try:
            for folder in (self.root, self._series, self._part, self._asked):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SpoolError(f"{self.root} is in use by another Fr-PACS; give each its own") from None
            for left in self._part.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            for folder in sorted(self._series.iterdir()):
                if folder.is_dir() and UID.match(folder.name):
                    self._take_stock(folder)
            fsync_folder(self.root)
        except OSError as error:
            self.close()
            raise SpoolError(f"{self.root} cannot be used: {error.strerror or error}") from error
        except SpoolError:
            self.close()
            raise

    def _take_stock(self, folder: Path) -> None:
        found: dict[str, Instance] = {}
        for path in sorted(folder.glob(f"*{_ENDING}")):
            try:
                kind = str(read_file_meta_info(path).get("MediaStorageSOPClassUID", ""))
            except Exception:  # pydicom raises whatever a broken file leads it to
                self._log.warn("a file of the spool cannot be read and is left alone", event="spool.damaged")
                continue
            found[path.stem] = Instance(path.stem, kind, take_stamp(path))
        self._index[folder.name] = found
        self._of.update(dict.fromkeys(found, folder.name))
        self.used += sum(instance.stamp.size for instance in found.values())

    def close(self) -> None:
        """Let another process have the folder; what is in it stays."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    # -- instances

    def add(self, series: str, sop: str, kind: str, parts: Sequence[bytes]) -> Added:
        """Keep an instance; when this returns, its bytes and its name are synced to the disk.

        One that is there already is not written again, whatever its bytes are: the first is kept.

        Raises:
            FullError: the spool is over its limit, or the disk is full.
            OSError: it could not be written; nothing of it is kept.
        """
        if not UID.match(series) or not UID.match(sop):
            raise ValueError("no UID")
        with self._mutex:
            there = self._index.get(series, {}).get(sop)
        if there is None:
            there = self._write(series, sop, kind, parts)
        else:
            return self._again(series, there, parts)
        if there is not None:
            return self._again(series, there, parts)
        fsync_folder(self._series / series)
        with self._mutex:
            return Added(True, len(self._index[series]))

    def _write(self, series: str, sop: str, kind: str, parts: Sequence[bytes]) -> Instance | None:
        """Write an instance under its name; return that which another thread has put there meanwhile."""
        size = sum(map(len, parts))
        self._see_room(size)
        part = self._part / f"{next(self._numbers)}{_ENDING}"
        try:
            with part.open("xb", buffering=0) as stream:
                for data in parts:
                    _write_all(stream.fileno(), data)
                self._fsync(stream.fileno())
            return self._name(part, series, sop, kind)
        except OSError as error:
            if error.errno in _FULL:
                raise FullError("the disk of the spool is full") from error
            raise
        finally:
            part.unlink(missing_ok=True)

    def _name(self, part: Path, series: str, sop: str, kind: str) -> Instance | None:
        folder = self._series / series
        with self._mutex:
            found = self._index.get(series, {}).get(sop)
            if found is not None:
                return found
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                fsync_folder(self._series)
            target = folder / f"{sop}{_ENDING}"
            part.rename(target)
            stamp = take_stamp(target)
            self._index.setdefault(series, {})[sop] = Instance(sop, kind, stamp)
            self._of[sop] = series
            self.used += stamp.size
        return None

    def _again(self, series: str, there: Instance, parts: Sequence[bytes]) -> Added:
        # It may be the other thread's, which has not synced its name yet.
        fsync_folder(self._series / series)
        before, after = there.stamp.path.read_bytes(), b"".join(parts)
        what = () if before == after else changed(mark_of(before), mark_of(after))
        with self._mutex:
            return Added(False, len(self._index.get(series, {})), what)

    def _see_room(self, size: int) -> None:
        if self.used + size > self._limit:
            raise FullError("the spool is full")
        if self._free(self.root) - size < self._reserve:
            raise FullError("the disk of the spool is nearly full")

    # -- what there is

    def series(self) -> list[str]:
        """Return the series that have instances here."""
        with self._mutex:
            return [uid for uid, found in self._index.items() if found]

    def instances(self, series: str) -> list[Instance]:
        """Return the instances of a series, in the order of their UIDs."""
        with self._mutex:
            found = list(self._index.get(series, {}).values())
        return sorted(found, key=lambda instance: instance.sop)

    def find(self, sop: str) -> tuple[str, Instance] | None:
        """Return the series of an instance, and the instance; None: it is not here."""
        with self._mutex:
            series = self._of.get(sop)
            found = None if series is None else self._index[series].get(sop)
        return None if series is None or found is None else (series, found)

    def remove(self, series: str, expected: frozenset[str]) -> bool:
        """Remove a series if it has these instances and no others; return whether it was removed."""
        with self._mutex:
            if frozenset(self._index.get(series, {})) != expected:
                return False
            gone = self._part / f"gone-{next(self._numbers)}"
            (self._series / series).rename(gone)
            for sop, instance in self._index.pop(series).items():
                if self._of.get(sop) == series:
                    del self._of[sop]
                self.used -= instance.stamp.size
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def over(self, share: float) -> bool:
        """Return whether more than this share of the limit is used."""
        return self.used > share * self._limit

    # -- what people ask for

    def asked(self) -> Iterator[str]:
        """Yield the series that a person called complete since the last time."""
        for path in sorted(self._asked.iterdir()):
            path.unlink(missing_ok=True)
            if UID.match(path.name):
                yield path.name


def ask(root: Path, series: str) -> None:
    """Ask the Fr-PACS that has this spool to take a series as complete.

    Raises:
        OSError: it cannot be asked.
    """
    (root / "asked" / series).touch()


def _free(root: Path) -> int:
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
