"""A plugin of coverage.py: twistd ends itself with the signal that stopped it, and no exit function runs then."""

import os

import coverage


def coverage_init(reg: object, options: object) -> None:  # noqa: ARG001
    """Save what was measured before this process sends itself a signal."""
    kill = os.kill

    def save_and_kill(pid: int, sig: int) -> None:
        current = coverage.Coverage.current()
        if pid == os.getpid() and current is not None:
            current.stop()
            current.save()
        kill(pid, sig)

    os.kill = save_and_kill
