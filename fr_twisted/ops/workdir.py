"""The private folder of one running unit, for scans on their way through it. Blocking calls, for a thread."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = ".fr-lock"


class WorkDirError(Exception):
    """The folder cannot be used; one line that says why."""


class TooLargeError(Exception):
    """Something can never be in the folder; one line that says why."""


def default_base(unit: str = "brain") -> Path:
    """Return the base folder that is used when none is configured: one a user, in the system's temporary folder."""
    return Path(tempfile.gettempdir()) / f"fr-{unit}-{os.getuid()}"


class WorkDir:
    """A private folder (mode 0700) in ``base``, held by a lock that ends with this process, however it ends.

    So a folder whose lock is free belonged to a unit that was killed, and its images of patients are removed.
    """

    def __init__(self, base: Path | None, node: str, unit: str = "brain") -> None:
        """Take the base folder, None for `default_base`, the node's name, and the unit's: brain or pacs."""
        self._default = default_base(unit)
        self._base = base or self._default
        self._prefix = f"fr-{unit}-"
        self._node = node
        self._path: Path | None = None
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """The folder; only while it is open."""
        if self._path is None:
            raise WorkDirError("the work folder is not open")
        return self._path

    def open(self) -> int:
        """Make the folder; return how many folders of killed predecessors were removed.

        Raises:
            WorkDirError: the base folder cannot be made, written to or trusted.
        """
        try:
            self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            with _locked(self._base / _LOCK):
                removed = sum(_remove_if_left(path) for path in self._base.glob(self._prefix + "*"))
                self._path = Path(
                    tempfile.mkdtemp(prefix=f"{self._prefix}{self._node}-", dir=self._base)
                ).absolute()
                self._lock = _take(self._path / _LOCK, os.O_CREAT)
        except OSError as error:
            raise WorkDirError(
                f"the work folder {self._base} cannot be used: {error.strerror or error}"
            ) from error
        return removed

    def make(self, name: str, size: int = 0) -> Path:
        """Return a new folder for one scan, of which ``size`` bytes are to be written there.

        Raises:
            TooLargeError: so many never fit.
            OSError: it cannot be made now.
        """
        room = shutil.disk_usage(self.path).total
        if size > room:
            raise TooLargeError(f"it has {size} bytes, and the work folder {self._base} holds {room} in all")
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))

    def remove(self, folder: Path) -> None:
        """Remove a folder that `make` made; one that resists goes with the work folder."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        path, self._path = self._path, None
        lock, self._lock = self._lock, None
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)

    def _check_owner(self) -> None:
        """Refuse a folder that another user could have prepared for us in a place that all may write to."""
        found = self._base.lstat() if self._base == self._default else self._base.stat()
        if not stat.S_ISDIR(found.st_mode) or (self._base == self._default and found.st_uid != os.getuid()):
            raise WorkDirError(f"the work folder {self._base} is not a folder of our own; name another one")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the lock that keeps units from sweeping each other's folders while these come into being."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _take(path: Path, flags: int = 0) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_if_left(path: Path) -> bool:
    # A folder without our lock file is not ours, whatever its name.
    with suppress(OSError):
        lock = _take(path / _LOCK)
        try:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
        return True
    return False
