"""The limit of open files: a unit that takes many connections raises it, and takes no more than it allows."""

import resource

from twisted.logger import Logger

SPARE = 128
"""Files that a unit needs beside the connections that it takes: store, logs, links to other nodes."""

_log = Logger()


def connections_allowed(wanted: int) -> int:
    """Return how many connections may be open, ``wanted`` at most, after raising the soft limit as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + SPARE:
        return wanted
    limit = wanted + SPARE if hard == resource.RLIM_INFINITY else min(hard, wanted + SPARE)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    allowed = max(2, min(wanted, max(soft, limit) - SPARE))
    if allowed < wanted:
        _log.warn(
            "{count} connections may be open, as only {limit} files may: raise that (LimitNOFILE=, ulimit -n)",
            event="unit.few-files",
            count=allowed,
            limit=max(soft, limit),
        )
    return allowed
