"""What has to be found before the units of a house can be started."""

import argparse
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fr_twisted.ops.services import StartError


def count(text: str) -> int:
    """Read an option that counts something."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("a whole number, 0 or more")
    return int(text)


def free_ports(count: int) -> list[int]:
    """Return so many ports of the loopback interface that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def find_twistd() -> str:
    """Return the twistd command beside our Python, or on the PATH.

    Raises:
        StartError: there is none.
    """
    beside = Path(sys.executable).with_name("twistd")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("twistd")
    if found is None:
        raise StartError("the twistd command is missing: pip install 'fr-twisted[all]'")
    return found


def read_report(folder: Path) -> Mapping[str, Any] | None:
    """Return the report.json in ``folder``; None when the report is not all there."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and (folder / "report.html").is_file() else None
