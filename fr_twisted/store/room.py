"""How much room the store has left, as far as its server tells."""

from collections.abc import Mapping
from typing import Any

from fr_twisted.store.connection import Mongo
from fr_twisted.store.interfaces import Room

Doc = dict[str, Any]

TIMEOUT = 60.0
"""Seconds; some servers read every document to answer."""


def tells_free(build_info: Mapping[str, Any]) -> bool:
    """Tell whether the server says how full its file system is: SecantusDB, the embedded one, does not."""
    return "secantusVersion" not in build_info


async def ask_room(mongo: Mongo, timeout: float = TIMEOUT) -> Room:
    """Ask the server with ``dbStats``."""
    return read_room(await mongo.command("ask how much room there is", {"dbStats": 1}, timeout=timeout))


def read_room(reply: Mapping[str, Any]) -> Room:
    """Return what a reply to ``dbStats`` tells.

    ``dataSize`` and not ``storageSize``: files do not shrink when what is in them is removed, they are filled again. Of
    a sharded cluster the fullest shard counts.
    """
    parts = list(reply["raw"].values()) if reply.get("raw") else [reply]
    free = [int(part["fsTotalSize"] - part.get("fsUsedSize", 0)) for part in parts if part.get("fsTotalSize")]
    used = int(reply.get("dataSize", 0)) + int(reply.get("indexSize", 0))
    return Room(min(free) if free else None, used)
