"""The outbox of Fr-PACS: preparing ahead, offering, retrying, settling, stopping."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.pacs.ack_times import AckTimes
from fr_twisted.pacs.files import ChangedError, NotUsableError
from fr_twisted.pacs.outbox import MAX_DEFERRED, PREPARED, PacsOutbox
from fr_twisted.pacs.scans import Payload, Prepared
from fr_twisted.pacs.sources import Queue
from tests.fakes_link import make_item
from tests.pacs_builders import Threads, inline, new_folder


class FakeCandidate:
    """Has a few bytes; notes what is done to it in ``calls``; raises what is in ``errors`` when prepared or opened."""

    def __init__(self, folder: Path, name: str, data: bytes | None = None) -> None:
        self.name, self.path = name, folder / name
        self.data = data if data is not None else f"bytes of {name}".encode()
        self.calls: list[Any] = []
        self.prepare_errors: list[Exception] = []
        self.open_errors: list[Exception] = []
        self.note_error: Exception | None = None

    def prepare(self) -> Prepared:
        """Write the bytes to a file that counts as spooled."""
        self.calls.append("prepare")
        if self.prepare_errors:
            raise self.prepare_errors.pop(0)
        self.path.write_bytes(self.data)
        return Prepared(make_item(self.data, f"scan-{self.name}"), self.path, True)

    def open(self, prepared: Prepared) -> Payload:
        """Open it."""
        if self.open_errors:
            raise self.open_errors.pop(0)
        return Payload(prepared)

    def kept(self, prepared: Prepared) -> None:
        """Note it."""
        self.calls.append("kept")
        if self.note_error is not None:
            raise self.note_error

    def refused(self, prepared: Prepared, code: str, reason: str) -> None:
        """Note it."""
        self.calls.append(("refused", code, reason))

    def ended(self) -> None:
        """Note it."""
        self.calls.append("ended")

    def changed(self) -> None:
        """Note it."""
        self.calls.append("changed")

    def skipped(self, reason: str) -> None:
        """Note it."""
        self.calls.append(("skipped", reason))


class FakeSource:
    """Gives what the test puts into it; None ends it."""

    def __init__(self, *candidates: FakeCandidate | None) -> None:
        self.queue = Queue()
        self.running = False
        self.asked = 0
        for candidate in candidates:
            self.queue.put(candidate)

    def start(self) -> None:
        """Note it."""
        self.running = True

    def stop(self) -> None:
        """Note it."""
        self.running = False

    def next_candidate(self) -> Deferred[Any]:
        """Give the next."""
        self.asked += 1
        return self.queue.get()


class OutboxCase(SynchronousTestCase):
    """Has a folder, a clock and an outbox."""

    def setUp(self) -> None:
        """Make them."""
        self.folder = new_folder(self)
        self.clock = Clock()
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def candidates(self, *names: str) -> list[FakeCandidate]:
        """Return candidates."""
        return [FakeCandidate(self.folder, name) for name in names]

    def outbox(
        self, *sources: FakeSource, run: Callable[..., Any] = inline, jitter: float = 1.0
    ) -> PacsOutbox:
        """Return a started outbox."""
        self.acks = AckTimes(self.clock)
        outbox = PacsOutbox(sources, self.clock, self.acks, run=run, jitter=lambda: jitter)
        outbox.start()
        return outbox

    def take(self, outbox: PacsOutbox) -> Item:
        """Return the next item, which must be there."""
        item = self.successResultOf(outbox.next_item())
        assert item is not None
        return item

    def said(self, event: str) -> list[LogEvent]:
        """Return the events of that name."""
        return [logged for logged in self.events if logged.get("event") == event]


class SendingTests(OutboxCase):
    """Items on their way."""

    def test_interface(self) -> None:
        """It is an IOutbox."""
        self.assertTrue(verifyObject(IOutbox, self.outbox()))

    def test_inOrder(self) -> None:
        """Items come in the order of their source, with the bytes that were prepared; then nothing."""
        first, second = self.candidates("a", "b")
        outbox = self.outbox(FakeSource(first, second, None))
        item = self.take(outbox)
        self.assertEqual(item.id, "scan-a")
        self.assertEqual(self.successResultOf(outbox.read(item, 0, item.size)), first.data)
        self.assertEqual(self.successResultOf(outbox.read(item, 3, 4)), first.data[3:7])
        self.successResultOf(outbox.acknowledged(item, False))
        self.assertEqual(first.calls, ["prepare", "kept", "ended"])
        self.assertEqual(self.take(outbox).id, "scan-b")

    def test_waits(self) -> None:
        """A request waits until there is something."""
        source = FakeSource()
        outbox = self.outbox(source)
        asked = outbox.next_item()
        self.assertNoResult(asked)
        source.queue.put(*self.candidates("a"))
        self.assertEqual(getattr(self.successResultOf(asked), "id", None), "scan-a")

    def test_cancelledRequest(self) -> None:
        """A request that was given up takes nothing; the item goes to the next request."""
        source = FakeSource()
        outbox = self.outbox(source)
        asked = outbox.next_item()
        asked.cancel()
        self.failureResultOf(asked)
        source.queue.put(*self.candidates("a"))
        self.assertEqual(self.take(outbox).id, "scan-a")

    def test_cancelledWhileOpening(self) -> None:
        """A request given up while the file is being opened leaves the item for the next one."""
        threads = Threads()
        outbox = self.outbox(FakeSource(*self.candidates("a"), None), run=threads)
        threads.release()  # prepared
        asked = outbox.next_item()
        asked.cancel()
        self.failureResultOf(asked)
        threads.release()  # opened
        again = outbox.next_item()
        threads.holding = False
        threads.release()
        self.assertEqual(getattr(self.successResultOf(again), "id", None), "scan-a")

    def test_preparesAFewAhead(self) -> None:
        """At most `PREPARED` scans are prepared at once, however many there are."""
        candidates = self.candidates(*"abcdefgh")
        source = FakeSource(*candidates, None)
        outbox = self.outbox(source)
        self.assertEqual(sum(bool(c.calls) for c in candidates), PREPARED)
        self.assertEqual(len(list(self.folder.iterdir())), PREPARED)
        self.successResultOf(outbox.acknowledged(self.take(outbox), False))
        self.assertEqual(sum(bool(c.calls) for c in candidates), PREPARED + 1)
        self.assertEqual(len(list(self.folder.iterdir())), PREPARED)

    def test_sourcesShare(self) -> None:
        """A source that has nothing for now holds up no other."""
        outbox = self.outbox(FakeSource(), FakeSource(*self.candidates("a"), None))
        self.assertEqual(self.take(outbox).id, "scan-a")

    def test_refusedForGood(self) -> None:
        """A refusal is passed on with its reason, and the item is forgotten."""
        (candidate,) = self.candidates("a")
        outbox = self.outbox(FakeSource(candidate, None))
        self.successResultOf(outbox.refused(self.take(outbox), "too-large", "too many bytes"))
        self.assertEqual(candidate.calls[1:], [("refused", "too-large", "too many bytes"), "ended"])
        self.assertNoResult(outbox.next_item())
        self.assertEqual(self.said("scan.refused")[0]["code"], "too-large")

    def test_notPutAway(self) -> None:
        """That a kept scan's files cannot be moved is logged, and does not hold up the others."""
        first, second = self.candidates("a", "b")
        first.note_error = OSError(errno.EACCES, "Permission denied")
        outbox = self.outbox(FakeSource(first, second, None))
        self.successResultOf(outbox.acknowledged(self.take(outbox), False))
        self.assertEqual(self.said("scan.not-put-away")[0]["reason"], "Permission denied")
        self.assertEqual(first.calls[-1], "ended")
        self.assertEqual(self.take(outbox).id, "scan-b")

    def test_acknowledgedOnlyWhenNoted(self) -> None:
        """The next item may be asked for when the files are moved away, not before."""
        (candidate,) = self.candidates("a")
        threads = Threads()
        threads.holding = False
        outbox = self.outbox(FakeSource(candidate, None), run=threads)
        item = self.take(outbox)
        threads.holding = True
        noting = outbox.acknowledged(item, False)
        self.assertNoResult(noting)
        threads.release()
        self.successResultOf(noting)

    def test_logs(self) -> None:
        """Preparing, offering, progress at most once a second, and the end are logged, with ids and numbers alone."""
        outbox = self.outbox(FakeSource(*self.candidates("a"), None))
        item = self.take(outbox)
        for _ in range(25):
            self.clock.advance(0.1)
            outbox.progress(item, 5)
        self.successResultOf(outbox.acknowledged(item, True))
        self.assertEqual(len(self.said("scan.prepared")), 1)
        self.assertEqual(len(self.said("scan.offered")), 1)
        self.assertEqual(len(self.said("scan.progress")), 2)
        self.assertEqual(
            (self.said("scan.progress")[0]["bytes"], self.said("scan.progress")[0]["size"]), (5, item.size)
        )
        (acknowledged,) = self.said("scan.acknowledged")
        self.assertAlmostEqual(acknowledged["seconds"], 2.5)
        self.assertTrue(acknowledged["duplicate"])

    def test_ackTimes(self) -> None:
        """The time of an acknowledgement is known later, for as many scans as are kept in mind."""
        outbox = self.outbox(FakeSource(*self.candidates("a"), None))
        self.successResultOf(outbox.acknowledged(self.take(outbox), False))
        self.clock.advance(4)
        self.assertEqual(self.acks.seconds_since("scan-a"), 4)
        self.assertIsNone(self.acks.seconds_since("scan-b"))
        few = AckTimes(self.clock, limit=2)
        for name in "abc":
            few.note(name)
        self.assertIsNone(few.seconds_since("a"))
        self.assertEqual(few.seconds_since("c"), 0)


class DeferringTests(OutboxCase):
    """Items that were not kept this time."""

    def test_backoff(self) -> None:
        """An item comes again after 1, 2, 4, ... 30 s, prepared anew each time."""
        (candidate,) = self.candidates("a")
        outbox = self.outbox(FakeSource(candidate, None))
        item: Item | None = self.take(outbox)
        for delay in (1, 2, 4, 8, 16, 30, 30):
            assert item is not None
            self.successResultOf(outbox.deferred(item, "busy", "later"))
            asked = outbox.next_item()
            self.clock.advance(delay - 0.01)
            self.assertNoResult(asked)
            self.clock.advance(0.02)
            item = self.successResultOf(asked)
        self.assertEqual(candidate.calls.count("prepare"), 8)
        self.assertEqual(self.said("scan.deferred")[2]["attempts"], 3)

    def test_jitter(self) -> None:
        """Chance takes up to half of the delay away."""
        outbox = self.outbox(FakeSource(*self.candidates("a"), None), jitter=0.0)
        self.successResultOf(outbox.deferred(self.take(outbox), "busy", "later"))
        self.clock.advance(0.5)
        self.assertEqual(self.take(outbox).id, "scan-a")

    def test_remembered(self) -> None:
        """What is to be remembered of a scan is, before it is offered; where that fails, the scan waits."""
        seen: list[str] = []

        def remember(prepared: Prepared) -> None:
            seen.append(prepared.item.id)
            if len(seen) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")

        source = FakeSource(*self.candidates("a"), None)
        outbox = PacsOutbox([source], self.clock, run=inline, jitter=lambda: 1.0, remember=remember)
        outbox.start()
        asked = outbox.next_item()
        self.assertNoResult(asked)
        self.assertFalse((self.folder / "a").exists())
        self.clock.advance(1)
        item = self.successResultOf(asked)
        assert item is not None
        self.assertEqual(item.id, "scan-a")
        self.assertEqual(seen, ["scan-a", "scan-a"])

    def test_othersGoOn(self) -> None:
        """While one waits, the others are sent, and the one that waits occupies neither disk nor room."""
        outbox = self.outbox(FakeSource(*self.candidates(*"abcdef"), None))
        self.successResultOf(outbox.deferred(self.take(outbox), "busy", "later"))
        self.assertFalse((self.folder / "a").exists())
        for name in "bcdef":
            item = self.take(outbox)
            self.assertEqual(item.id, f"scan-{name}")
            self.successResultOf(outbox.acknowledged(item, False))
        self.clock.advance(1)
        self.assertEqual(self.take(outbox).id, "scan-a")

    def test_waitingScansAreBounded(self) -> None:
        """No new scans are taken up while `MAX_DEFERRED` wait for their next offer."""
        candidates = self.candidates(*(f"{n:03d}" for n in range(MAX_DEFERRED + 10)))
        source = FakeSource(*candidates, None)
        outbox = self.outbox(source)
        offered = 0
        while outbox._ready:
            self.successResultOf(outbox.deferred(self.take(outbox), "busy", "later"))
            offered += 1
        self.assertLessEqual(offered, MAX_DEFERRED + PREPARED + 1)  # and one in the hands of the source
        self.assertLess(sum(bool(c.calls) for c in candidates), len(candidates))
        for _ in range(400):
            self.clock.advance(1)
            while outbox._ready:
                self.successResultOf(outbox.acknowledged(self.take(outbox), False))
        self.assertEqual({c.calls[-1] for c in candidates}, {"ended"})

    def test_changedMeanwhile(self) -> None:
        """A scan that has changed when it is due again is dropped, and its source told."""
        (candidate,) = self.candidates("a")
        outbox = self.outbox(FakeSource(candidate, None))
        candidate.prepare_errors = [ChangedError("a has changed")]
        self.successResultOf(outbox.deferred(self.take(outbox), "busy", "later"))
        self.clock.advance(1)
        self.assertEqual(candidate.calls, ["prepare", "prepare", "changed"])
        self.successResultOf(outbox.when_idle())

    def test_changedBeforeItIsOffered(self) -> None:
        """A scan that changed between preparation and its turn is dropped; the next one is offered instead."""
        first, second = self.candidates("a", "b")
        first.open_errors = [ChangedError("a has changed")]
        outbox = self.outbox(FakeSource(first, second, None))
        self.assertEqual(self.take(outbox).id, "scan-b")
        self.assertEqual(first.calls[-1], "changed")

    def test_notUsable(self) -> None:
        """A scan that turns out not to be usable is skipped, with the reason."""
        first, second = self.candidates("a", "b")
        first.prepare_errors = [NotUsableError("it is a poem")]
        outbox = self.outbox(FakeSource(first, second, None))
        self.assertEqual(self.take(outbox).id, "scan-b")
        self.assertEqual(first.calls[-1], ("skipped", "it is a poem"))

    def test_fullSpool(self) -> None:
        """A scan that cannot be prepared for want of disk is tried again later."""
        (candidate,) = self.candidates("a")
        candidate.prepare_errors = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
        outbox = self.outbox(FakeSource(candidate, None))
        self.assertEqual(self.said("scan.unprepared")[0]["reason"], os.strerror(errno.ENOSPC))
        self.clock.advance(1)
        self.assertEqual(self.take(outbox).id, "scan-a")

    def test_fileThatBecomesShorter(self) -> None:
        """A read beyond the end of a file fails; the link then defers the item."""
        (candidate,) = self.candidates("a")
        outbox = self.outbox(FakeSource(candidate, None))
        item = self.take(outbox)
        candidate.path.write_bytes(b"")
        failure: Failure = self.failureResultOf(outbox.read(item, 0, item.size))
        failure.trap(ChangedError)

    def test_twoCopies(self) -> None:
        """Two candidates with the same bytes are one after the other, not both on their way."""
        first, second = (FakeCandidate(self.folder, name, b"same") for name in "ab")
        second.name = "a"  # the same id, from another file
        outbox = self.outbox(FakeSource(first, second, None))
        item = self.take(outbox)
        other = outbox.next_item()
        self.assertNoResult(other)
        other.cancel()
        self.failureResultOf(other)
        self.successResultOf(outbox.acknowledged(item, False))
        self.assertEqual(self.take(outbox).id, "scan-a")


class LifeTests(OutboxCase):
    """Idle and stop."""

    def test_idle(self) -> None:
        """Idle is when the sources are at their end and every scan has ended."""
        source = FakeSource(*self.candidates("a"))
        outbox = self.outbox(source)
        idle = outbox.when_idle()
        item = self.take(outbox)
        self.successResultOf(outbox.acknowledged(item, False))
        self.assertNoResult(idle)
        source.queue.put(None)
        self.successResultOf(idle)
        self.successResultOf(outbox.when_idle())

    def test_idleWaitsForWhatIsDeferred(self) -> None:
        """A scan that waits for its next offer is not done with."""
        outbox = self.outbox(FakeSource(*self.candidates("a"), None))
        idle = outbox.when_idle()
        self.successResultOf(outbox.deferred(self.take(outbox), "busy", "later"))
        self.assertNoResult(idle)
        idle.cancel()
        self.failureResultOf(idle)

    def test_stop(self) -> None:
        """Stopping ends sources, timers and requests, closes files, and removes what is spooled."""
        source = FakeSource(*self.candidates(*"abcde"), None)
        outbox = self.outbox(source)
        self.successResultOf(outbox.deferred(self.take(outbox), "busy", "later"))
        item = self.take(outbox)
        self.successResultOf(outbox.stop())
        self.assertFalse(source.running)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(list(self.folder.iterdir()), [])
        self.successResultOf(outbox.deferred(item, "connection-lost", "stopping"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopWaitsForThreads(self) -> None:
        """Stopping waits for a thread that is preparing, and drops what it made."""
        threads = Threads()
        (candidate,) = self.candidates("a")
        outbox = self.outbox(FakeSource(candidate, None), run=threads)
        stopping = outbox.stop()
        self.assertNoResult(stopping)
        threads.holding = False
        threads.release()
        self.successResultOf(stopping)
        self.assertEqual(candidate.calls, ["prepare"])
