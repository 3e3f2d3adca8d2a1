"""What passes a proxy, in pieces: lines and raw bytes of the link, messages of the MongoDB protocol. Own readers."""

import json
import struct
from dataclasses import dataclass, field
from typing import Any, Protocol

OP_MSG = 2013
_CHECKSUM = 1
_DONE = b"\x02report_generated\x00\x05\x00\x00\x00Done\x00"


@dataclass(frozen=True)
class Frame:
    """A piece that is forwarded whole; ``verb`` is empty where it is only bytes of a larger one."""

    data: bytes
    verb: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


class Splitter(Protocol):
    """Turns the bytes of one direction into frames."""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now; no byte is lost or changed."""


class LinkSplitter:
    """Splits ``fr-link/1`` (docs/wire.md): a line is a frame, the raw bytes of a chunk are pieces without a verb."""

    def __init__(self) -> None:
        self._line = b""
        self._raw = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Return what is complete."""
        frames = []
        while data:
            if self._raw:
                piece, data = data[: self._raw], data[self._raw :]
                self._raw -= len(piece)
                frames.append(Frame(piece))
                continue
            line, end, data = data.partition(b"\n")
            self._line += line + end
            if end:
                frames.append(self._frame(self._line))
                self._line = b""
        return frames

    def _frame(self, line: bytes) -> Frame:
        verb, _, body = line.strip().partition(b" ")
        try:
            fields = json.loads(body)
        except ValueError:
            fields = {}
        if verb == b"DATA" and isinstance(fields.get("size"), int):
            self._raw = fields["size"]
        return Frame(line, verb.decode("ascii", "replace"), fields if isinstance(fields, dict) else {})


class MongoSplitter:
    """Splits the MongoDB protocol into messages, and tells of a command its name and collection."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return what is complete."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 16:
            (length,) = struct.unpack_from("<i", self._buffer)
            if length < 16 or len(self._buffer) < length:
                break
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            frames.append(_message(message))
        return frames


def _message(message: bytes) -> Frame:
    _, request, response_to, code = struct.unpack_from("<iiii", message)
    fields: dict[str, Any] = {"request": request, "response_to": response_to}
    if code != OP_MSG:
        return Frame(message, "other", fields)
    name, collection = _command(message)
    fields["collection"] = collection
    fields["done"] = name == "update" and _DONE in message
    return Frame(message, name, fields)


def _command(message: bytes) -> tuple[str, str]:
    """Return the first member's name and, where it is a text, its value: a command and its collection."""
    (flags,) = struct.unpack_from("<I", message, 16)
    at, end = 20, len(message) - (4 if flags & _CHECKSUM else 0)
    while at < end:
        kind, at = message[at], at + 1
        (size,) = struct.unpack_from("<i", message, at)
        if kind:
            at += size
            continue
        stop = message.find(b"\0", at + 5)
        name = message[at + 5 : stop].decode("utf-8", "replace")
        if message[at + 4] != 2:
            return name, ""
        (length,) = struct.unpack_from("<i", message, stop + 1)
        return name, message[stop + 5 : stop + 4 + length].decode("utf-8", "replace")
    return "", ""
