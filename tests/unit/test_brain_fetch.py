"""Tests of bringing a payload to a file, and of the work folder."""

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.fetch import CHUNKS_AT_ONCE, PayloadBrokenError, fetch, payload_name
from fr_twisted.model import CHUNK_SIZE, PayloadFormat, PayloadRef
from fr_twisted.ops.workdir import WorkDir, WorkDirError
from fr_twisted.store.interfaces import PayloadMissingError
from tests.fakes_store import MemoryStore


class FetchTests(SynchronousTestCase):
    """`fetch`."""

    def setUp(self) -> None:
        """Make a store."""
        self.store = MemoryStore(Clock())
        self.asked: list[int] = []

    async def read(self, payload_id: str, first: int, count: int) -> list[bytes]:
        """Read from the store."""
        self.asked.append(count)
        return await self.store.payloads().read_chunks(payload_id, first, count)

    def keep(self, data: bytes, payload_id: str = "p") -> PayloadRef:
        """Put a payload into the store."""
        for n in range(-(-len(data) // CHUNK_SIZE)):
            self.store.chunk_docs[payload_id, n] = data[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
        return PayloadRef(payload_id=payload_id, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def fetch(self, payload: PayloadRef) -> tuple[Deferred[int], Path]:
        """Fetch to a new file."""
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "payload.nii"
        return Deferred.fromCoroutine(fetch(self.read, payload, path, maybeDeferred)), path

    @settings(deadline=None, max_examples=12)
    @given(
        st.sampled_from(
            [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 4 * CHUNK_SIZE, 4 * CHUNK_SIZE + 1, 9 * CHUNK_SIZE + 7]
        )
    )
    def test_whole(self, size: int) -> None:
        """A payload of any size arrives as it was kept, a few chunks at a time."""
        self.asked.clear()
        data = os.urandom(1024) * (size // 1024) + bytes(size % 1024)
        done, path = self.fetch(self.keep(data))
        self.assertEqual(self.successResultOf(done), size)
        self.assertTrue(path.read_bytes() == data)
        self.assertLessEqual(max(self.asked, default=0), CHUNKS_AT_ONCE)

    def test_missing(self) -> None:
        """A chunk that is not there is the store's PayloadMissingError."""
        payload = self.keep(bytes(3 * CHUNK_SIZE))
        del self.store.chunk_docs["p", 1]
        self.failureResultOf(self.fetch(payload)[0], PayloadMissingError)

    def test_damaged(self) -> None:
        """Bytes of another digest or size are not analysed."""
        payload = self.keep(b"x" * 1000)
        self.store.chunk_docs["p", 0] = b"y" * 1000
        error = self.failureResultOf(self.fetch(payload)[0], PayloadBrokenError)
        self.assertIn("SHA-256", str(error.value))
        self.store.chunk_docs["p", 0] = b"x" * 999
        error = self.failureResultOf(self.fetch(payload)[0], PayloadBrokenError)
        self.assertIn("999 bytes instead of 1000", str(error.value))

    def test_names(self) -> None:
        """The file's suffix tells imaging libraries its format."""
        self.assertEqual(
            [payload_name(format) for format in PayloadFormat],
            ["payload.nii", "payload.nii.gz", "payload.tar"],
        )


class WorkDirTests(SynchronousTestCase):
    """`WorkDir`."""

    def setUp(self) -> None:
        """Name a base folder."""
        self.base = Path(self.mktemp()).absolute()

    def opened(self) -> WorkDir:
        """Return an open one."""
        work = WorkDir(self.base, "brain-1")
        work.open()
        self.addCleanup(work.close)
        return work

    def test_private(self) -> None:
        """Nobody else may read what is in it."""
        work = self.opened()
        self.assertEqual(work.path.stat().st_mode & 0o777, 0o700)
        self.assertEqual(work.make("scan-1").stat().st_mode & 0o777, 0o700)

    def test_closeLeavesNothing(self) -> None:
        """After the end nothing of it is left."""
        work = self.opened()
        (work.make("scan-1") / "payload.nii").write_bytes(b"x")
        path = work.path
        work.close()
        self.assertFalse(path.exists())
        with self.assertRaises(WorkDirError):
            _ = work.path

    def test_remove(self) -> None:
        """The folder of a scan goes with all that is in it."""
        folder = self.opened().make("scan-1")
        (folder / "payload.nii").write_bytes(b"x")
        self.opened().remove(folder)
        self.assertFalse(folder.exists())

    def test_sweepsTheDead(self) -> None:
        """What a killed predecessor left is removed; what a living neighbour works on is not."""
        dead, alive = WorkDir(self.base, "brain-1"), self.opened()
        dead.open()
        (dead.make("scan-1") / "payload.nii").write_bytes(b"x")
        left, neighbour = dead.path, alive.make("scan-2")
        assert dead._lock is not None
        os.close(dead._lock)  # as the kernel does when the process is killed
        dead._lock = None
        successor = WorkDir(self.base, "brain-1")
        self.addCleanup(successor.close)
        self.assertEqual(successor.open(), 1)
        self.assertFalse(left.exists())
        self.assertTrue(neighbour.exists())

    def test_sparesTheUsersFiles(self) -> None:
        """A folder that is not one of ours stays, whatever its name."""
        (self.base / "fr-brain-images").mkdir(parents=True)
        (self.base / "other").mkdir()
        self.opened()
        self.assertTrue((self.base / "fr-brain-images").exists())
        self.assertTrue((self.base / "other").exists())

    def test_unusable(self) -> None:
        """A base folder that cannot be one is told of in a line that names it."""
        self.base.write_text("a file")
        with self.assertRaisesRegex(WorkDirError, f"the work folder {self.base} cannot be used: .+"):
            WorkDir(self.base, "brain-1").open()

    def test_defaultBase(self) -> None:
        """Where none is configured it is in the system's temporary folder, and not one that another user made."""
        self.base.mkdir()
        self.patch(tempfile, "gettempdir", lambda: str(self.base))
        work = WorkDir(None, "brain-1")
        self.addCleanup(work.close)
        work.open()
        self.assertEqual(work.path.parent, self.base / f"fr-brain-{os.getuid()}")
        work.close()
        self.patch(os, "getuid", lambda: 4711)
        (self.base / "fr-brain-4711").mkdir()
        with self.assertRaisesRegex(WorkDirError, "not a folder of our own"):
            WorkDir(None, "brain-1").open()

    def test_locked(self) -> None:
        """The folder is locked as long as it is open."""
        work = self.opened()
        with (work.path / ".fr-lock").open("r+") as file, self.assertRaises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
