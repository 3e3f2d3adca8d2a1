"""Reads back what ReportLab wrote, as far as tests need it: pages and shown text."""

import re
import zlib

_STREAM = re.compile(rb"stream\r?\n(.*?)endstream", re.DOTALL)
_SHOWN = re.compile(rb"\(((?:[^()\\]|\\.)*)\) Tj")
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)")


def pages(pdf: bytes) -> int:
    """Return how many pages there are."""
    return len(re.findall(rb"/Type /Page\b(?!s)", pdf))


def shown(pdf: bytes) -> str:
    """Return all text that is shown, runs parted by spaces."""
    runs: list[bytes] = []
    for thing in pdf.split(b"endobj"):
        stream = _STREAM.search(thing)
        if stream is not None and b"/Image" not in thing[: stream.start()]:
            content = zlib.decompress(stream[1])
            runs += [_ESCAPE.sub(_plain, run) for run in _SHOWN.findall(content)]
    return b" ".join(runs).decode("cp1252")


def _plain(found: "re.Match[bytes]") -> bytes:
    code = found[1]
    return bytes([int(code, 8)]) if len(code) == 3 else code
