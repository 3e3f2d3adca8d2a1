"""A DICOM archive that answers as a test says, with the interface of `fr_twisted.pacs.dicom_out.scu.Sender`."""

from collections.abc import Callable, Mapping

from fr_twisted.pacs.dicom_out.scu import Commitment, Fate, Sent, judge
from fr_twisted.setting_dicom import Archive


class FakeArchive:
    """Keeps what it is sent. Set ``down``, or the ``statuses`` and the ``commitment`` that it answers."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.kept: dict[str, bytes] = {}
        self.times: dict[str, int] = {}
        """How often an object was kept."""
        self.attempts = 0
        self.down = False
        self.statuses: list[int] = []
        """Answers to the next objects; success when there are none."""
        self.does_commitment = True
        self.failing: dict[str, int] = {}
        """Reason codes of objects that it does not commit to."""
        self.calls_back = False
        """Whether its report comes on an association of its own, some time later."""
        self.while_it_waits: Callable[[str, frozenset[str]], object] = lambda _transaction, _uids: None
        """What happens while the sender waits for the report."""
        self.asked: list[str] = []
        """The transactions of its requests."""
        self.told: list[Commitment] = []
        self.aborted = False

    def send(self, objects: Mapping[str, bytes], transaction: str | None = None) -> Sent:
        """Take objects."""
        self.attempts += 1
        if self.down:
            return Sent({}, "it cannot be reached")
        answers = {}
        for uid, data in objects.items():
            answers[uid] = judge(self.statuses.pop(0) if self.statuses else 0x0000)
            if answers[uid].fate is Fate.DELIVERED:
                self.kept[uid] = data
                self.times[uid] = self.times.get(uid, 0) + 1
        commitment = None
        if transaction is not None and all(a.fate is Fate.DELIVERED for a in answers.values()):
            commitment = self._word(transaction, objects)
        return Sent(answers, None, commitment)

    def _word(self, transaction: str, objects: Mapping[str, bytes]) -> Commitment:
        if not self.does_commitment:
            return Commitment(transaction, False)
        self.asked.append(transaction)
        if self.calls_back:
            self.while_it_waits(transaction, frozenset(objects))
            return Commitment(transaction, True)
        failing, self.failing = self.failing, {}
        return Commitment(transaction, True, frozenset(set(objects) - set(failing)), failing)

    def report_came(self, word: Commitment) -> None:
        """Note it."""
        self.told.append(word)

    def abort(self) -> None:
        """Note it."""
        self.aborted = True
