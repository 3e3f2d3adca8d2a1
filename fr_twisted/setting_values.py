"""What the value of a setting may be: sizes, endpoints, folders and so on, read from the texts of the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer
from twisted.internet.endpoints import clientFromString, serverFromString

from fr_twisted.model import NodeName

_SUFFIXES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SIZE = re.compile(r"(\d{1,15})([KMG]?)")
_PLAIN_ENDPOINT = re.compile(r"tcp6?:(?:[^:=]+:)?(\d+)(?::|$)")


@dataclass(frozen=True)
class Setting:
    """What people are told of a field: its environment variable, what it accepts, whether it is to be kept secret."""

    env: str
    accepts: str
    secret: bool = False
    many: bool = False
    """The command-line option may be given several times."""
    shown_default: str | None = None
    """Instead of the default's own text, where that depends on the machine."""


def parse_size(value: Any) -> Any:
    """Return the bytes that ``64M`` stands for (K, M, G: powers of 1024); leave what is no text to the caller.

    Raises:
        ValueError: the text is no size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip().upper())
    if found is None:
        raise ValueError("not a size")
    return int(found[1]) * _SUFFIXES[found[2]]


def size_text(value: int) -> str:
    """Return bytes as the shortest text that `parse_size` reads back as the same number."""
    for suffix in "GMK":
        if value and value % _SUFFIXES[suffix] == 0:
            return f"{value // _SUFFIXES[suffix]}{suffix}"
    return str(value)


def redact_uri(uri: str) -> str:
    """Return ``uri`` with whatever is secret in it replaced by ``***``: fit for a log line."""
    uri = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", uri)
    return re.sub(r"(?i)([?&][^=&]*(?:password|properties)[^=&]*=)[^&]*", r"\1***", uri)


def _yes_no(value: Any) -> Any:
    known = {
        "yes": True,
        "true": True,
        "on": True,
        "1": True,
        "no": False,
        "false": False,
        "off": False,
        "0": False,
    }
    return known.get(value.strip().lower(), value) if isinstance(value, str) else value


def _check_endpoint(value: str, parse: Any) -> str:
    """Let Twisted's parser read it; TLS and systemd strings are read whole only where they are used."""
    try:
        parse(None, value)
    except Exception as error:
        if value.partition(":")[0] in ("tls", "ssl", "systemd") and ":" in value:
            return value
        raise ValueError(re.sub(r"^\S+\(\) ", "", str(error))) from None
    port = _PLAIN_ENDPOINT.match(value)
    if port is not None and int(port[1]) > 65535:
        raise ValueError("a port is at most 65535")
    return value


def server_endpoint(value: str) -> str:
    """Return a server endpoint string that Twisted can read.

    Raises:
        ValueError: it cannot.
    """
    return _check_endpoint(value, serverFromString)


def _client_endpoint(value: str) -> str:
    return _check_endpoint(value, clientFromString)


def _nodes(value: Any) -> Any:
    """Read ``pacs=tcp:127.0.0.1:7802 other=tcp:10.0.0.2:7802``."""
    if isinstance(value, str):
        pairs = [word.partition("=")[::2] for word in value.split()]
        names = [name for name, _ in pairs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)} is named twice")
        value = dict(pairs)
    if isinstance(value, Mapping):
        for name, endpoint in value.items():
            try:
                _client_endpoint(endpoint)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return value


def _paths(value: Any) -> Any:
    """Read paths that `os.pathsep` separates, given once or several times."""
    texts = [value] if isinstance(value, str) else value
    return tuple(part for text in texts for part in str(text).split(os.pathsep) if part)


def mongodb_uri(value: str) -> str:
    """Return what may be the URI of a MongoDB; the store reads it whole.

    Raises:
        ValueError: it is none.
    """
    if not re.match(r"mongodb://[^/]", value):
        raise ValueError("it does not begin with mongodb://host")
    return value


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(size_text)]
YesNo = Annotated[bool, BeforeValidator(_yes_no), PlainSerializer(lambda value: "yes" if value else "no")]
ServerEndpoint = Annotated[str, BeforeValidator(server_endpoint)]
ClientEndpoint = Annotated[str, BeforeValidator(_client_endpoint)]
Nodes = Annotated[
    Mapping[NodeName, str],
    BeforeValidator(_nodes),
    PlainSerializer(lambda value: " ".join(f"{name}={endpoint}" for name, endpoint in value.items())),
]
Paths = Annotated[
    tuple[Path, ...],
    BeforeValidator(_paths),
    PlainSerializer(lambda value: os.pathsep.join(str(path) for path in value)),
]

NODE_TEXT = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
SECONDS_TEXT = "a number of seconds above 0"
SIZE_TEXT = "a number of bytes, with K, M or G behind it for powers of 1024"
SERVER_TEXT = "a Twisted server endpoint string such as tcp:7801:interface=127.0.0.1"
CLIENT_TEXT = "a Twisted client endpoint string such as tcp:127.0.0.1:7801"
FOLDER_TEXT = "the path of a folder"
