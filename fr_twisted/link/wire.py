"""The frames of ``fr-link/1`` (docs/wire.md): `parse` and `Frame.line`, the limits and the words. No Twisted here.

A frame is one line: ``VERB SP JSON-object LF``, UTF-8, at most `MAX_LINE` bytes without the LF. The line of a DATA
frame is followed by exactly ``size`` raw bytes.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
)

from fr_twisted.model import ItemId, NodeName, Sha256

PROTO = "fr-link/1"

MAX_LINE = 16 * 1024
"""Bytes of a line, without its LF."""

MAX_REASON = 500
"""Characters of a reason."""

Count = Annotated[
    int, Field(ge=0, le=2**53 - 1)
]  # the integers that every JSON reader keeps exact (RFC 8259, 6)
Positive = Annotated[int, Field(ge=1, le=2**53 - 1)]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON)]
Proto = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,20}/[0-9]{1,4}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Bye(StrEnum):
    """The codes of BYE. A peer may use others; they are read as a clean end that has a reason."""

    DONE = "done"
    """Nothing more to send; a clean end."""
    SHUTDOWN = "shutdown"
    """The unit stops; come again later."""
    ITEM_GONE = "item-gone"
    """The sender can no longer read the item that it offered."""
    PROTOCOL_VERSION = "protocol-version"
    NODE_REFUSED = "node-refused"
    LINE_TOO_LONG = "line-too-long"
    BAD_FRAME = "bad-frame"
    """Not ``VERB SP JSON-object``, or members that are missing or of the wrong type or range."""
    UNKNOWN_VERB = "unknown-verb"
    OUT_OF_ORDER = "out-of-order"
    """A frame of this protocol that may not come now or not from this side."""
    BAD_OFFSET = "bad-offset"
    BAD_SIZE = "bad-size"
    """A chunk of another size than the rules give, or more bytes than were offered."""
    WINDOW_EXCEEDED = "window-exceeded"
    SHA256_MISMATCH = "sha256-mismatch"
    SILENCE = "silence"
    """Nothing heard, or a chunk not completed, for too long."""
    INTERNAL = "internal"
    """A defect of the side that says it."""


class WireError(ValueError):
    """A line is no frame, or a frame cannot be written as a line; ``code`` is the one to say in BYE."""

    def __init__(self, code: Bye, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason[:MAX_REASON]


class Frame(BaseModel):
    """One frame. Unknown members are ignored, so that a later version may add some."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")
    verb: ClassVar[str]

    def line(self) -> bytes:
        """Return the frame as a line, with its LF.

        Raises:
            WireError: it would be too long, or holds what JSON or UTF-8 cannot.
        """
        try:
            text = json.dumps(
                self.model_dump(), ensure_ascii=False, separators=(",", ":"), sort_keys=False, allow_nan=False
            )
            line = f"{self.verb} {text}".encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise WireError(Bye.BAD_FRAME, f"{self.verb}: cannot be written as JSON: {error}") from None
        if len(line) > MAX_LINE:
            raise WireError(
                Bye.LINE_TOO_LONG, f"{self.verb} of {len(line)} bytes; a line has at most {MAX_LINE}"
            )
        return line + b"\n"


class ReceiverHello(Frame):
    """The first word of every connection, once the peer is authenticated: who receives, and its limits in bytes."""

    verb = "HELLO"
    proto: Proto
    node: NodeName
    window: Positive
    chunk: Positive
    max_item: Positive


class SenderHello(Frame):
    """The sender's answer: who it is."""

    verb = "HELLO"
    proto: Proto
    node: NodeName


class Offer(Frame):
    """I have this item; may I send it?"""

    verb = "OFFER"
    id: ItemId
    kind: Kind
    size: Count
    sha256: Sha256
    meta: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("meta")
    @classmethod
    def _finite(cls, meta: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(
            meta, allow_nan=False
        )  # NaN and Infinity are no JSON (RFC 8259, 6), though parsers take them
        return meta


class Go(Frame):
    """Send the item, from this byte on."""

    verb = "GO"
    id: ItemId
    offset: Count


class Data(Frame):
    """``size`` raw bytes of the item follow, which begin at ``offset``."""

    verb = "DATA"
    id: ItemId
    offset: Count
    size: Positive


class Kept(Frame):
    """Every byte before ``offset`` is durable."""

    verb = "KEPT"
    id: ItemId
    offset: Count


class Ack(Frame):
    """The whole item is durable and visible; ``duplicate``: it was so before this offer."""

    verb = "ACK"
    id: ItemId
    sha256: Sha256
    duplicate: bool = False


class Nack(Frame):
    """The item is refused, for good or (``retry``) for now."""

    verb = "NACK"
    id: ItemId
    code: Code
    retry: bool
    reason: Reason = ""


class Ping(Frame):
    """Are you there?"""

    verb = "PING"


class Pong(Frame):
    """I am."""

    verb = "PONG"


class Goodbye(Frame):
    """The last word of a connection."""

    verb = "BYE"
    code: Code
    reason: Reason = ""


_BOTH: tuple[type[Frame], ...] = (Ping, Pong, Goodbye)
_SENDER: tuple[type[Frame], ...] = (SenderHello, Offer, Data)
_RECEIVER: tuple[type[Frame], ...] = (ReceiverHello, Go, Kept, Ack, Nack)
FROM_SENDER: Mapping[str, type[Frame]] = {frame.verb: frame for frame in _SENDER + _BOTH}
FROM_RECEIVER: Mapping[str, type[Frame]] = {frame.verb: frame for frame in _RECEIVER + _BOTH}


def parse(line: bytes, frames: Mapping[str, type[Frame]]) -> Frame:
    """Return the frame of a line (without its LF) from the side whose ``frames`` are given.

    Raises:
        WireError: and nothing else, whatever the bytes are.
    """
    if len(line) > MAX_LINE:
        raise WireError(Bye.LINE_TOO_LONG, f"a line has at most {MAX_LINE} bytes")
    verb, space, body = line.partition(b" ")
    name = verb.decode("ascii", "replace")
    if name not in frames:
        if name in FROM_SENDER or name in FROM_RECEIVER:
            raise WireError(Bye.OUT_OF_ORDER, f"{name} is not yours to say")
        shown = name[:20] if name.isascii() and name.isprintable() else "not readable"
        raise WireError(Bye.UNKNOWN_VERB, f"unknown verb: {shown}")
    if not space or not body.startswith(b"{"):
        raise WireError(Bye.BAD_FRAME, f"{name}: one space and a JSON object must follow")
    try:
        return frames[name].model_validate_json(body)
    except ValidationError as error:
        raise WireError(Bye.BAD_FRAME, f"{name}: {_first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise WireError(Bye.BAD_FRAME, f"{name}: {error}") from None


def _first_problem(error: ValidationError) -> str:
    """Return one line about what is wrong, without the value: it may hold anything."""
    problem: dict[str, Any] = dict(
        error.errors(include_url=False, include_input=False, include_context=False)[0]
    )
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


def shorten(reason: str) -> str:
    """Return ``reason`` as it may stand in a frame: one line, not too long, no lone surrogates."""
    line = " ".join(reason.encode("utf-8", "replace").decode().split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
