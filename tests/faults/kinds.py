"""The kinds of faults: their names in the timeline, the counts and docs/reliability.md, and how each is injected."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    group: str
    target: str
    """What it is done to: ``hub``, ``brain``, ``pacs``, ``store``, ``unit`` (any but the store), ``wire``, ``none``."""
    how: str
    """A sentence for the documentation."""
    weight: float = 1.0
    """How often it is drawn, beside the others; 0: it comes with the world that it is for."""


KILL, TERM, STOP = "SIGKILL", "SIGTERM", "SIGSTOP"
NETWORK, STORE, CLOCK, INPUT = "Network", "Store", "Clock", "Input"

_ALL = (
    Kind("hub-kill", KILL, "hub", "at any moment"),
    Kind(
        "hub-kill-mid-chunk",
        KILL,
        "hub",
        "the proxy has passed half of a chunk's bytes on, and holds the rest",
    ),
    Kind(
        "hub-kill-before-commit",
        KILL,
        "hub",
        "every chunk is kept; the proxy holds the insert that commits the scan",
    ),
    Kind(
        "hub-kill-before-ack",
        KILL,
        "hub",
        "the scan is committed; the proxy holds the store's answer, so there is no ACK",
    ),
    Kind("brain-kill", KILL, "brain", "at any moment"),
    Kind("brain-kill-fetching", KILL, "brain", "the proxy holds the store's answer with the scan's bytes"),
    Kind("brain-kill-analysing", KILL, "brain", "a worker has said that it is at work, and is held there"),
    Kind(
        "brain-kill-before-done",
        KILL,
        "brain",
        "the report's bytes are kept; the proxy holds the update to `Done`",
    ),
    Kind(
        "brain-kill-after-done",
        KILL,
        "brain",
        "the scan is `Done`; the proxy holds the answer, so its report is in no list yet",
    ),
    Kind("worker-kill", KILL, "brain", "the worker process that is at an analysis, not its BRAIN"),
    Kind("pacs-kill", KILL, "pacs", "at any moment"),
    Kind("pacs-kill-sending", KILL, "pacs", "half of a chunk has passed the proxy"),
    Kind("pacs-kill-before-ack", KILL, "pacs", "the report is on its disk; the proxy holds its ACK"),
    Kind("store-kill", KILL, "store", "the server's process; Fr-STORE starts it again"),
    Kind("store-unit-kill", KILL, "store", "Fr-STORE itself, and its server with it"),
    Kind(
        "several-kill",
        KILL,
        "none",
        "two to four units in the same moment, the store's server among them at times",
    ),
    Kind("restart-storm", KILL, "unit", "one unit, four times within two seconds"),
    Kind("hub-term", TERM, "hub", "under load"),
    Kind("hub-term-delivering", TERM, "hub", "half of a report has passed the proxy"),
    Kind("brain-term", TERM, "brain", "under load"),
    Kind("pacs-term", TERM, "pacs", "under load"),
    Kind("store-term", TERM, "store", "Fr-STORE, under load"),
    Kind("hub-freeze", STOP, "hub", "longer than every timeout, then SIGCONT"),
    Kind(
        "brain-freeze",
        STOP,
        "brain",
        "while it analyses, longer than its lease: the late finisher with an old token",
    ),
    Kind(
        "brain-freeze-before-done",
        STOP,
        "brain",
        "its update to `Done` reaches the store only after another BRAIN's claim",
    ),
    Kind("pacs-freeze", STOP, "pacs", "longer than every timeout, then SIGCONT"),
    Kind("store-freeze", STOP, "store", "the server's process, longer than every timeout, then SIGCONT"),
    Kind("net-cut", NETWORK, "wire", "connections are reset, new ones too, for some seconds", 2.0),
    Kind("net-half-open", NETWORK, "wire", "one direction is dead, then goes on or is reset", 2.0),
    Kind("net-delay", NETWORK, "wire", "every piece is late by 50 to 300 ms, differently each time"),
    Kind("net-slow", NETWORK, "wire", "1 Mbit/s"),
    Kind("net-reset", NETWORK, "wire", "the connection is reset in the middle of a frame", 2.0),
    Kind("net-silent", NETWORK, "wire", "a peer that accepts and says nothing"),
    Kind("net-stranger", NETWORK, "wire", "a port that answers with HTTP or SSH"),
    Kind("store-not-primary", STORE, "store", "every command fails with code 10107 for some seconds"),
    Kind(
        "store-write-concern",
        STORE,
        "store",
        "writes are applied but answered with a write concern error (64 or 100)",
    ),
    Kind("store-closes", STORE, "store", "the server closes the connection instead of answering"),
    Kind("store-blocks", STORE, "store", "the server answers some seconds late"),
    Kind("store-full", STORE, "store", "the server's file system (a small tmpfs) is filled up, later freed"),
    Kind("store-index-missing", STORE, "hub", "an index is dropped, then a HUB is killed and started"),
    Kind("clock-forward", CLOCK, "brain", "one BRAIN's clock jumps an hour ahead, later back"),
    Kind("clock-back", CLOCK, "brain", "one BRAIN's clock jumps back an hour, later ahead"),
    Kind("scan-crashes", INPUT, "pacs", "a scan that ends the worker process by a segmentation fault"),
    Kind("scan-hangs", INPUT, "pacs", "a scan at which native code never returns"),
    Kind("scan-eats-memory", INPUT, "pacs", "a scan at which the worker takes memory without end"),
    Kind("scan-two-nodes", INPUT, "none", "the same scan sent by two nodes"),
    Kind(
        "scan-other-bytes",
        INPUT,
        "none",
        "the same id with other bytes, while the first is sent and after its ACK",
    ),
    Kind(
        "scan-abandoned",
        INPUT,
        "none",
        "where periods are short: two of three chunks are sent and no more, or the rest when it may have been given up",
        0.0,
    ),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}

IN_ORDER = frozenset(("hub-term", "hub-term-delivering", "brain-term", "pacs-term"))
"""Those after which nothing at all may have to be done again, when there are no others."""

NOT_FULL = frozenset(
    (
        "worker-kill",
        "scan-crashes",
        "scan-hangs",
        "scan-eats-memory",
        "scan-other-bytes",
        "scan-abandoned",
        "store-full",
    )
)
"""Those that ask something of the stand-in analysis, or send what no analysis of heads can take."""
