"""Indexes that others made in our collections: those with which something could be lost are told, none is touched."""

from collections.abc import Mapping, Sequence
from typing import Any

from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import INDEXES
from fr_twisted.store.interfaces import StoreUnusableError
from fr_twisted.store.retry import ServerError

Doc = dict[str, Any]

_NAMESPACE_NOT_FOUND = 26
_OWN = frozenset({"v", "key", "name", "ns", "sparse", "background"})
"""What an index of ours may say of itself, and those of older servers."""


async def check_indexes(mongo: Mongo, timeout: float) -> None:
    """Return if the indexes that there are do no harm; those that are missing are none of its business.

    Raises:
        StoreUnusableError: one does; one line that names it.
    """
    for collection in dict.fromkeys(index.collection for index in INDEXES):
        command = {"listIndexes": collection, "cursor": {"batchSize": 1000}}
        try:
            reply = await mongo.command(f"list the indexes of {collection}", command, timeout=timeout)
        except ServerError as error:
            if error.code != _NAMESPACE_NOT_FOUND:
                raise
            continue
        fault = find_fault(collection, reply["cursor"]["firstBatch"])
        if fault is not None:
            raise StoreUnusableError(fault)


def find_fault(collection: str, found: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first thing that is wrong with the indexes of a collection."""
    for index in found:
        name = str(index["name"])
        fault = None if name == "_id_" else _fault(collection, index)
        if fault is not None:
            drop = f'db.{collection}.dropIndex("{name}")'
            return f"the index {name} of {collection} {fault}: drop it ({drop}) and start again"
    return None


def _fault(collection: str, index: Mapping[str, Any]) -> str | None:
    if index.get("unique"):
        return "is unique, so that documents of ours could be kept out"
    if "expireAfterSeconds" in index:
        return "deletes documents by their age, whether they are done with or not"
    keys = [(str(key), direction) for key, direction in dict(index["key"]).items()]
    for ours in INDEXES:
        if ours.collection != collection or not (ours.name == index["name"] or list(ours.keys) == keys):
            continue
        same = ours.name == index["name"] and list(ours.keys) == keys
        if not same or bool(index.get("sparse")) != ours.sparse or not _OWN.issuperset(index):
            wanted = ", ".join(f"{key}: {direction}" for key, direction in ours.keys)
            return (
                f"was made differently from ours, {ours.name} ({wanted}{', sparse' if ours.sparse else ''})"
            )
    return None
