"""One run of the embedded server: its lines, and how it ended."""

from collections import deque
from collections.abc import Callable

from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from fr_twisted.ops.logs import bounded


class ServerProcess(ProcessProtocol):
    """One run of the server: tells the lines it writes and its end."""

    def __init__(
        self, on_line: Callable[[str], None], on_end: Callable[[int | None, int | None], None]
    ) -> None:
        """Take ``on_end``, which is called with an exit code or else a signal number."""
        self._on_line = on_line
        self._on_end = on_end
        self._parts = {1: b"", 2: b""}
        self.last_lines: deque[str] = deque(maxlen=40)
        self.panicked = False
        """Whether its storage engine has given up."""
        self.late = False
        """Whether it was not ready within its time."""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Split what the server writes into lines; one without an end is cut at 64 KiB."""
        *lines, rest = (self._parts[childFD] + data).split(b"\n")
        self._parts[childFD] = rest[-65536:]
        for line in lines:
            text = bounded(line.decode("utf-8", "replace"))
            self.last_lines.append(text)
            self._on_line(text)

    def processEnded(self, reason: Failure) -> None:
        """Tell how it ended."""
        error = reason.value
        if isinstance(error, ProcessTerminated):
            self._on_end(error.exitCode, error.signal)
        else:
            self._on_end(0, None)

    def said(self, words: str) -> bool:
        """Return whether one of the last lines holds ``words``, in whatever case."""
        return any(words in line.lower() for line in self.last_lines)

    def last_word(self) -> str:
        """Return the last line it wrote."""
        return next((line for line in reversed(self.last_lines) if line.strip()), "it said nothing")
