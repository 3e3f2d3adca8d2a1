"""The data sets of storage commitment: what one side writes, the other reads."""

from typing import Any

from pydicom.dataset import Dataset
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.pacs.commitment_data import make_report, make_request, read_report, read_request

ITEMS = [("1.2.840.10008.5.1.4.1.1.4", f"1.2.{number}") for number in range(3)]


class CommitmentDataTests(SynchronousTestCase):
    """Requests and reports."""

    def test_request(self) -> None:
        """A request is read as it was made; padding of UIDs is no part of them."""
        self.assertEqual(read_request(make_request("1.7", ITEMS)), ("1.7", ITEMS))
        padded: Any = make_request("1.7\0", [(kind + "\0", sop + " ") for kind, sop in ITEMS])
        self.assertEqual(read_request(padded), ("1.7", ITEMS))

    def test_brokenRequest(self) -> None:
        """A request without a transaction has none; one with a wrong or missing UID lists nothing."""
        self.assertEqual(read_request(Dataset()), ("", []))
        broken: Any = make_request("1.7", ITEMS)
        broken.ReferencedSOPSequence[1].ReferencedSOPInstanceUID = "x"
        self.assertEqual(read_request(broken), ("1.7", []))
        del broken.ReferencedSOPSequence[1].ReferencedSOPInstanceUID
        self.assertEqual(read_request(broken), ("1.7", []))

    def test_report(self) -> None:
        """A report is read as it was made, and its type says whether there are failures."""
        everything = frozenset(sop for _, sop in ITEMS)
        kind, information = make_report("1.7", ITEMS, {})
        self.assertEqual((kind, read_report(information)), (1, ("1.7", everything, {})))
        self.assertNotIn("FailedSOPSequence", information)
        kind, information = make_report("1.7", ITEMS, {"1.2.1": 0x0112})
        self.assertEqual(
            (kind, read_report(information)), (2, ("1.7", everything - {"1.2.1"}, {"1.2.1": 0x0112}))
        )
        kind, information = make_report("1.7", ITEMS, dict.fromkeys(everything, 0x0110))
        self.assertEqual(read_report(information)[1:], (frozenset(), dict.fromkeys(everything, 0x0110)))

    def test_brokenReport(self) -> None:
        """A report with an instance that has no UID cannot be read; one without a reason has reason 0."""
        _, information = make_report("1.7", ITEMS, {"1.2.1": 0x0112})
        failed: Any = information.FailedSOPSequence[0]
        del failed.FailureReason
        self.assertEqual(read_report(information)[2], {"1.2.1": 0})
        del failed.ReferencedSOPInstanceUID
        self.assertRaises(AttributeError, read_report, information)
