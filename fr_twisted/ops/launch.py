"""Run a command that does not outlive the process that asked for it: ``python launch.py SIGNAL PARENT command ...``.

Run by its path, as a script of its own, so that nothing but the standard library is loaded. The command gets the
place and process id of the launcher, a session of its own (Ctrl-C at a terminal does not reach it) and, on Linux,
SIGNAL when the thread that started it ends, even by SIGKILL: prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from signal import Signals

PR_SET_PDEATHSIG = 1


def command(executable: str, arguments: Sequence[str], signal: Signals) -> list[str]:
    """Return the command line that runs ``executable`` tied to the calling process."""
    return [sys.executable, "-I", "-S", __file__, str(int(signal)), str(os.getpid()), executable, *arguments]


def main(arguments: Sequence[str]) -> None:
    """Become the command; exit with 1 when the parent is gone already."""
    signal, parent, *run = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    # A parent that ended before the call above sends no signal any more.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.setsid()
    os.execv(run[0], run)


if __name__ == "__main__":
    main(sys.argv[1:])
