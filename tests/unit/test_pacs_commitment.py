"""Storage commitment: what is committed and why not, restarts, retries."""

from typing import Any

from pydicom.dataset import Dataset

from fr_twisted.pacs.commitment import GIVE_UP, CommitmentBook, Reason
from fr_twisted.pacs.rules import Rule, Rules
from tests.dicom_peers import commitment
from tests.pacs_builders import inline
from tests.unit.test_pacs_received import KIND, SourceCase

ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"


def request(*sops: str, uid: str = "1.7", kind: str = KIND) -> Any:
    """Return the Action Information of a request."""
    return commitment(uid, *sops, kind=kind)


class CommitmentTests(SourceCase):
    """`CommitmentBook` over a real ledger, spool and source."""

    def setUp(self) -> None:
        """Start a book that delivers into a list, or not."""
        self.problem: str | None = None
        self.delivered: list[tuple[str, int, list[str], dict[str, int]]] = []
        self.attempts = 0
        super().setUp()

    def start(self) -> None:
        """Start a book beside the source."""
        super().start()
        self.book = CommitmentBook(
            self.ledger,
            self.spool,
            self.deliver,
            self.clock,
            3600.0,
            lambda function: function(),
            run=inline,
            now=lambda: self.time,
        )
        self.source.on_settled = self.book.look
        self.book.start()
        self.addCleanup(self.book.stop)

    def restart(self) -> None:
        """Be killed, and start again."""
        self.book.stop()
        super().restart()

    def deliver(self, association: Any, peer: str, kind: int, information: Any) -> str | None:
        """Stand for the network."""
        self.attempts += 1
        if self.problem is None:
            good = [str(i.ReferencedSOPInstanceUID) for i in information.get("ReferencedSOPSequence", [])]
            bad = {
                str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
                for item in information.get("FailedSOPSequence", [])
            }
            self.delivered.append((peer, kind, good, bad))
        return self.problem

    def ask(self, *sops: str, **more: Any) -> int:
        """Ask for commitment; return the status."""
        return self.book.requested(None, "MR1", request(*sops, **more))[0]

    def all_of(self, count: int = 8) -> list[str]:
        """Return the UIDs of the usual series."""
        return [f"1.2.3.{number}" for number in range(1, count + 1)]

    def test_silentPeer(self) -> None:
        """A peer that is switched off is tried once a round, and does not hold up another."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        deliver, tried = self.book._deliver, list[str]()

        def away(association: Any, peer: str, kind: int, information: Any) -> str | None:
            tried.append(peer)
            if peer == "MR1":
                self.clock.rightNow += 10
                return "it cannot be reached"
            return deliver(association, peer, kind, information)

        self.book._deliver = away
        self.book._call = lambda _function: None
        for number in range(3):
            self.ask("1.2.3.1", uid=f"1.9.{number}")
        self.book.requested(None, "MR2", request("1.2.3.1", uid="1.9.9"))
        self.book.look()
        self.assertEqual(tried, ["MR1", "MR2"])
        self.assertEqual([peer for peer, *_ in self.delivered], ["MR2"])

    def test_onlyWhatTheHubHas(self) -> None:
        """The answer waits until the HUB has acknowledged, and is success then."""
        self.receive(range(1, 9))
        self.assertEqual(self.ask(*self.all_of()), 0)
        self.clock.advance(5)
        self.clock.pump([30] * 3)
        self.assertEqual(self.delivered, [])
        self.send()
        self.assertEqual(self.delivered, [("MR1", 1, self.all_of(), {})])
        self.assertEqual(self.ledger.requests(), [])

    def test_afterwards(self) -> None:
        """What is kept long since is committed at once, also when it has left the spool."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.time += 101
        self.clock.pump([60, 1])
        self.assertEqual(self.spool.series(), [])
        self.ask(*self.all_of())
        self.assertEqual([kind for _, kind, _, _ in self.delivered], [1])

    def test_failures(self) -> None:
        """What never came, and what has another class, fail with their reasons beside what is committed."""
        self.receive(range(1, 9))
        self.clock.advance(5)
        self.send()
        self.ask("1.2.3.1", "1.2.3.99")
        self.ask("1.2.3.2", uid="1.8", kind=ENHANCED)
        self.assertEqual(
            self.delivered,
            [
                ("MR1", 2, ["1.2.3.1"], {"1.2.3.99": Reason.NO_SUCH_INSTANCE}),
                ("MR1", 2, [], {"1.2.3.2": Reason.CLASS_CONFLICT}),
            ],
        )

    def test_notOnItsWay(self) -> None:
        """What the rules ignore or the HUB refused fails with 0110H; what is here with another class with 0119H."""
        self.source.rules = Rules(rule=(Rule(name="no", description="flair", ignore=True), Rule(name="all")))
        self.receive(range(1, 9), series="1.2.4", SeriesDescription="flair")
        self.clock.advance(5)
        self.ask("1.2.4.1")
        self.receive(range(1, 9))
        self.ask("1.2.3.1", uid="1.8", kind=ENHANCED)
        self.ask("1.2.3.1", uid="1.9")
        self.clock.advance(5)
        item = self.successResultOf(self.outbox.next_item())
        assert item is not None
        self.successResultOf(self.outbox.refused(item, "too-large", "no"))
        reasons = [list(bad.values()) for _, _, _, bad in self.delivered]
        self.assertEqual(reasons, [[0x0110], [0x0119], [0x0110]])

    def test_waitsNotForEver(self) -> None:
        """What the HUB has not acknowledged in time counts as failed."""
        self.receive(range(1, 9))
        self.ask(*self.all_of())
        self.time += 3601
        self.clock.advance(31)
        [(_, kind, good, bad)] = self.delivered
        self.assertEqual((kind, good, set(bad.values())), (2, [], {0x0110}))

    def test_restart(self) -> None:
        """A request that was answered with success survives a restart, decided or not."""
        self.receive(range(1, 9))
        self.ask(*self.all_of())
        self.restart()
        self.clock.advance(60)
        self.problem = "it cannot be reached"
        self.send()
        self.assertEqual((self.delivered, self.attempts), ([], 1))
        self.problem = None
        self.restart()
        self.assertEqual(self.delivered, [("MR1", 1, self.all_of(), {})])

    def test_backoff(self) -> None:
        """An answer that is not heard is sent again after 5, 10, 20 s and so on, and given up in the end."""
        self.problem = "it cannot be reached"
        self.ask("1.2.3.1")
        seen = []
        for _ in range(80):
            seen.append(self.attempts)
            self.clock.advance(1)
        self.assertEqual([seen.index(number) for number in (1, 2, 3, 4, 5)], [0, 5, 15, 35, 75])
        self.ask("1.2.3.1", uid="1.8")
        self.assertEqual(self.attempts, 6)
        self.time += GIVE_UP + 1
        self.clock.pump([100] * 12)
        self.assertEqual(self.ledger.requests(), [])

    def test_sameRequestAgain(self) -> None:
        """A request that is sent again is one request; another with its transaction UID is refused."""
        self.receive(range(1, 9))
        self.assertEqual([self.ask("1.2.3.1"), self.ask("1.2.3.1"), self.ask("1.2.3.2")], [0, 0, 0x0110])
        self.assertEqual(len(self.ledger.requests()), 1)

    def test_badRequests(self) -> None:
        """A request without what it must have is refused, and not kept."""
        nothing, no_items = Dataset(), request()
        no_uid = request("1.2", uid="x.y")
        wrong = request("1.2")
        del wrong.ReferencedSOPSequence[0].ReferencedSOPClassUID
        statuses = [self.book.requested(None, "MR1", each)[0] for each in (nothing, no_items, no_uid, wrong)]
        self.assertEqual(statuses, [0x0120, 0x0120, 0x0106, 0x0120])
        self.assertEqual(self.ledger.requests(), [])
