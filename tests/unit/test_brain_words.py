"""The last words of a worker process."""

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.words import KEPT, SHOWN, keep, last_words, values_of

CRASH = b"""\
reading the series
Fatal Python error: Segmentation fault

Current thread 0x00007f12a4ffd6c0 [forkserver] (most recent call first):
  File "/opt/fr/lib/python3.12/site-packages/odd/native.py", line 88 in resample
  File "/opt/fr/lib/python3.12/site-packages/fr_twisted/brain/jobs.py", line 107 in run

Extension modules: numpy._core._multiarray_umath, scipy.ndimage (total: 2)
"""


class LastWordsTests(SynchronousTestCase):
    """`keep` and `last_words`."""

    def test_end(self) -> None:
        """Of much that was said the end is kept and shown, on one line."""
        kept = keep(b"noise\n" * 10_000 + b"at  last\n\na word\n")
        self.assertEqual(len(kept), KEPT)
        shown = last_words(kept)
        self.assertEqual(len(shown), SHOWN)
        self.assertTrue(shown.endswith("noise | at last | a word"))

    def test_crash(self) -> None:
        """Of a crash its place is kept, though much follows, with what was said just before."""
        kept = keep(b"x" * 5000 + b"\n" + CRASH + b"and so on\n" * 10_000)
        shown = last_words(kept)
        self.assertIn(
            "reading the series | Fatal Python error: Segmentation fault | native.py:88 in resample", shown
        )
        self.assertIn("jobs.py:107 in run", shown)
        self.assertNotIn("0x0000", shown)
        self.assertNotIn("numpy._core", shown)
        self.assertLessEqual(len(shown), SHOWN + 160)

    def test_asked(self) -> None:
        """A process that was asked where it was has not crashed."""
        asked = CRASH.replace(b"Segmentation fault", b"Aborted")
        self.assertTrue(
            last_words(asked, asked=True).startswith("reading the series | it was at native.py:88 in")
        )
        self.assertIn("Fatal Python error: Aborted", last_words(asked))
        self.assertIn("Segmentation fault", last_words(CRASH, asked=True))

    def test_nothingOfThePatient(self) -> None:
        """What libraries quote, names as DICOM writes them, long numbers and the scan's own facts are left out."""
        said = (
            b"UserWarning: Invalid value for VR PN: 'Mustermann, Erika'\n"
            b'ValueError: cannot read "Erika M"\n'
            b"PatientName: Mustermann^Erika^^Dr.\n"
            b"born 19701231, seen in ward seven, id PX-9\n"
        )
        hidden = values_of({"patient_id": "PX-9", "facts": {"where": ["ward seven", 3, None, True]}})
        self.assertEqual(hidden, frozenset({"PX-9", "ward seven"}))
        shown = last_words(said, hidden)
        for private in ("Erika", "Mustermann", "1970", "ward seven", "PX-9"):
            self.assertNotIn(private, shown)
        self.assertIn("UserWarning: Invalid value for VR PN: …", shown)
        self.assertIn("PatientName: …", shown)

    def test_namesOfErrors(self) -> None:
        """The name of a C++ error stays, and so does where a place in the code has a long number."""
        said = b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
        self.assertIn("'std::bad_alloc' | what(): std::bad_alloc", last_words(said))
        self.assertEqual(last_words(b'  File "a.py", line 1234567 in f\n'), "a.py:1234567 in f")

    def test_noText(self) -> None:
        """Bytes that are no text do no harm, and silence is silence."""
        self.assertEqual(last_words(b"\xff\xfe ok"), "\ufffd\ufffd ok")
        self.assertEqual(last_words(b""), "")
