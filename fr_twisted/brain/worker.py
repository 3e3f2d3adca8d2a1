"""One worker process of the pool, as seen by its parent: blocking calls, for a thread. No Twisted here.

`multiprocessing.Process` with the forkserver start method rather than `concurrent.futures.ProcessPoolExecutor`: an
executor hides its processes, so neither killing one that runs past its time nor telling how one died (exit status,
signal, last words) is possible without its private members, and one dead worker ends the whole executor.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fr_twisted.brain.jobs import PRELOAD, Job, Limits, Outcome, receive, send, serve
from fr_twisted.brain.words import keep, last_words, values_of

START_SECONDS = 120.0
"""How long a worker may take to import its analysis; a cold disk and a large library take long."""

# Between a worker's closing of its pipe and its end; between SIGKILL and the end of a large process.
_GRACE_SECONDS = 1.0
_DEATH_SECONDS = 10.0
_MAX_READS = 64
# A socket's path has at most 107 bytes; "/pymp-xxxxxxxx/listener-xxxxxxxx" has 32.
_LONGEST_FOLDER = 107 - 32
# multiprocessing polls all children whenever it starts one, and the exit status can be read only once.
_CHILDREN = threading.Lock()


def keep_sockets_in(folder: Path) -> None:
    """Let the fork server have its socket in a new folder below ``folder``, to be removed with that by whoever made it.

    Only a regular end of the interpreter removes the one that multiprocessing makes by itself, and twistd ends by a
    signal. A path that is too long for a socket is let be. To be called before the first worker starts.
    """
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
        multiprocessing.current_process()._config["tempdir"] = tempfile.mkdtemp(prefix="pymp-", dir=folder)  # type: ignore[attr-defined]


class WorkerDiedError(Exception):
    """A worker process ended without an answer.

    The message tells how; ``exitcode`` is its status, negative for the number of a signal; ``last_words`` is the end
    of what it had written to standard error.
    """

    def __init__(self, message: str, exitcode: int | None = None, last_words: str = "") -> None:
        super().__init__(message)
        self.exitcode = exitcode
        self.last_words = last_words


class IdleWorkerDiedError(WorkerDiedError):
    """The worker was dead before it was given the job: the job has no part in it."""


class WorkerStartError(Exception):
    """A worker process cannot be started, or cannot load the analysis; one line that says why."""


class WorkerProcess:
    """A process that answers one `Job` at a time.

    `start` and `call` block and are never called at once; `kill` may be called from any thread at any time.
    """

    def __init__(self, warm: str, limits: Limits) -> None:
        """Take the analysis to have ready and what the process may take."""
        self._warm = warm
        self._limits = limits
        self._process: Any = None
        self._pipe: Connection | None = None
        self._errors: Connection | None = None
        self._words = b""
        self._hidden: frozenset[str] = frozenset()
        self._asked = False
        self._killed = False
        self._over = False
        self.jobs_done = 0

    @property
    def usable(self) -> bool:
        """Whether it can be given another job, as far as is known."""
        return self._process is not None and not (self._killed or self._over)

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process and wait until it has loaded the analysis.

        Raises:
            WorkerStartError: it could not.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOAD))
        try:
            self._launch(context)
            complaint = self._receive(START_SECONDS)
        except (WorkerDiedError, OSError, EOFError) as error:
            self.close()
            words = getattr(error, "last_words", "")
            raise WorkerStartError(f"no worker could be started: {error}{words and f': {words}'}") from error
        if complaint:
            self.close()
            raise WorkerStartError(complaint)

    def _launch(self, context: Any) -> None:
        self._pipe, theirs = context.Pipe()
        self._errors, writing = context.Pipe(duplex=False)
        arguments = (theirs, writing, self._warm, self._limits)
        try:
            with _CHILDREN:
                process = context.Process(target=serve, args=arguments, daemon=True, name="fr-brain-worker")
                process.start()
                self._process = process
        finally:
            theirs.close()
            writing.close()
        if self._killed:
            process.kill()

    def call(self, job: Job) -> Outcome:
        """Have ``job`` done.

        Raises:
            IdleWorkerDiedError: the process had ended before it took the job.
            WorkerDiedError: it ended at the job, by itself or by `kill`.
        """
        assert self._pipe is not None
        self._words = b""
        self._hidden = values_of(job.meta.model_dump(mode="json"))
        try:
            send(self._pipe, job)
            self._receive(None)
        except (OSError, WorkerDiedError):
            raise self._died(IdleWorkerDiedError) from None
        outcome: Outcome = self._receive(None)
        self.jobs_done += 1
        return outcome

    def kill(self) -> None:
        """End the process by SIGKILL, if it lives."""
        self._killed = True
        process = self._process
        if process is not None and not self._over:
            process.kill()

    def ask(self) -> None:
        """Have the process say on standard error where it is, and end: SIGABRT; follow it with `kill`.

        The handler that says so is native code, and needs nothing that a process which hangs may hold on to.
        """
        process = self._process
        if process is not None and not self._over:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGABRT)

    def close(self) -> None:
        """Kill the process, wait until it is gone and free everything."""
        self.kill()
        self._bury()
        for end in (self._pipe, self._errors):
            if end is not None:
                end.close()

    def _receive(self, seconds: float | None) -> Any:
        """Return what the worker sends; keep the end of what it says on standard error meanwhile."""
        assert self._pipe is not None
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            sources = [self._pipe, self._process.sentinel, *self._listening()]
            ready = wait(sources, None if end is None else max(0.0, end - time.monotonic()))
            if not ready:
                self.kill()
                raise self._died(WorkerDiedError, f"its process was not ready within {seconds:.0f} s")
            self._listen()
            if self._pipe in ready:
                try:
                    return receive(self._pipe)
                except (EOFError, OSError):
                    raise self._died(WorkerDiedError) from None
            if self._process.sentinel in ready:
                raise self._died(WorkerDiedError)

    def _listening(self) -> list[Connection]:
        return [] if self._errors is None or self._errors.closed else [self._errors]

    def _listen(self) -> None:
        """Take what stands in the pipe of standard error; keep only the end of it."""
        for errors in self._listening():
            if wait([errors], 0):
                text = os.read(errors.fileno(), 65536)
                self._words = keep(self._words + text)
                if not text:
                    errors.close()

    def _died(self, kind: type[WorkerDiedError], how: str | None = None) -> WorkerDiedError:
        exitcode = self._bury()
        # A process that the analysis had started may hold the pipe open and go on writing.
        for _ in range(_MAX_READS):
            if wait(self._listening(), 0):
                self._listen()
        words = last_words(self._words, self._hidden, self._asked)
        return kind(how or _describe(exitcode), exitcode, words)

    def _bury(self) -> int | None:
        """Make sure that the process is gone, and return its exit status."""
        if self._process is None:
            return None
        if not wait([self._process.sentinel], _GRACE_SECONDS):
            self._process.kill()
            wait([self._process.sentinel], _DEATH_SECONDS)
        self._over = True
        with _CHILDREN:
            self._process.join(0)
            exitcode: int | None = self._process.exitcode
            return exitcode


def _describe(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"its process ended with exit status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = ", as the kernel does when memory runs out" if exitcode == -signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
