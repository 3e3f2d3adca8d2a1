"""What a HUB does after its grace period, done now: ``python -m tests.faults.clean URI``. Only when no unit works."""

import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred

from fr_twisted.store.mongo import MongoStore


async def clean(uri: str) -> int:
    """Return how many payloads Fr's own cleaner removed, its periods being over."""
    reactor: Any = global_reactor
    store = MongoStore(uri, clock=reactor, node="faults", unit="hub", grace_seconds=0)
    await store.open()
    try:
        await store.scans().repair()
        return int(await store.scans().clean(0))
    finally:
        await store.close()


def main(uri: str) -> int:
    """Clean, print the number, return the exit status."""
    reactor: Any = global_reactor
    status = [1]

    def done(removed: int) -> None:
        print(removed, flush=True)
        status.append(0)

    def begin() -> None:
        cleaning = Deferred.fromCoroutine(clean(uri))
        cleaning.addCallback(done)
        cleaning.addErrback(lambda failure: failure.printTraceback())
        cleaning.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    return status[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
