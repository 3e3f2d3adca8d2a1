"""What a report's files hold: the page, the A4 page, the JSON."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted import bundle
from fr_twisted.brain.analysis import page, pdf_parts, pictures
from fr_twisted.brain.analysis.anatomy import Lesion
from fr_twisted.brain.analysis.content import Content, clean
from fr_twisted.brain.analysis.schema import Findings, Reason, Usability, Verdict
from fr_twisted.model import PayloadFormat, ScanMeta
from tests import pdf_text
from tests.report_builders import METHODS, some_findings, some_head

ACQUIRED = datetime(2026, 1, 2, 10, 11, 12, tzinfo=UTC)
EVIL = "<script>alert('x')</script> $$support ${x} </para> &amp; \x00\u202e"
FACTS: dict[str, str | int | float | None] = {"patient_sex": "F", "patient_age": "045Y", "model": "Prisma"}


def some_meta(**changes: Any) -> ScanMeta:
    """Return what came with a scan."""
    known = {"patient_id": "P-42", "format": PayloadFormat.DICOM_TAR, "facts": FACTS, "acquired_at": ACQUIRED}
    return ScanMeta(**{**known, **changes})


@cache
def some_pictures(lesions: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the overlay, and the pictures of so many lesions."""
    head = some_head(tuple((18 + 3 * n, 24 + 3 * n, 20) for n in range(lesions)), (4.0, 4.0, 4.0))
    return pictures.overlay(head), pictures.lesion_pictures(head)


def report(found: Findings, **meta: Any) -> dict[str, bytes]:
    """Return a report's files, with the pictures of no scan in particular."""
    overlay, close_ups = some_pictures(min(3, len(found.lesions or ())))
    return page.files("scan-7", some_meta(**meta), found, overlay, close_ups)


def html(found: Findings | None = None, **meta: Any) -> str:
    """Return the page."""
    return page.html(Content("scan-7", some_meta(**meta), found or some_findings()), b"png", (b"close",))


def many_lesions(count: int) -> Findings:
    """Return findings with so many lesion candidates."""
    return some_findings(lesions=row_of_lesions(count))


def row_of_lesions(count: int) -> tuple[Lesion, ...]:
    """Return so many lesions."""
    return some_head(tuple((40, 50, 5 + n) for n in range(count))).lesions


class FilesTests(SynchronousTestCase):
    """All files together."""

    def test_areABundle(self) -> None:
        """The files can travel, and are those that are documented."""
        files = report(some_findings())
        self.assertEqual(bundle.unpack(bundle.pack(files)), files)
        self.assertEqual(sorted(files), ["overlay.png", "report.html", "report.json", "report.pdf"])

    def test_sameBytes(self) -> None:
        """The same findings give the same bytes, whenever."""
        found = many_lesions(3)
        self.assertEqual(report(found), report(found))

    def test_json(self) -> None:
        """The JSON says whose findings they are, by study and series as well, and holds them under their schema."""
        found = some_findings(Usability.WITH_CARE)
        files = report(
            found, study_instance_uid="1.2", series_instance_uid="1.2.3", series_description="\ud800"
        )
        envelope = json.loads(files["report.json"])
        self.assertEqual(envelope["findings"], found.model_dump(mode="json"))
        self.assertEqual(envelope["findings"]["schema"], "fr-findings/2")
        self.assertIn("Decision support only", envelope["findings"]["decision_support_only"])
        del envelope["findings"]
        expected = {
            "scan_id": "scan-7",
            "patient_id": "P-42",
            "analysis": "hand-made",
            "analysis_version": "1.0",
        }
        self.assertEqual(envelope, expected | {"study_instance_uid": "1.2", "series_instance_uid": "1.2.3"})

    def test_everyRenderingSaysThatItIsDecisionSupport(self) -> None:
        """The words stand in each file, whatever the verdict."""
        for usability in Usability:
            files = report(some_findings(usability))
            self.assertIn("Decision support only", files["report.html"].decode())
            self.assertIn("Decision support only", pdf_text.shown(files["report.pdf"]))
            self.assertIn(b"Decision support only", files["report.json"])
            self.assertIn(b"Decision support only", files["overlay.png"])


class PageTests(SynchronousTestCase):
    """The page."""

    def test_holdsWhatIsNeeded(self) -> None:
        """Ids, patient, date, volumes, shares, ranges, fraction, asymmetry, quality, notes and methods are there."""
        text = html(many_lesions(2), series_instance_uid="1.2.840.99", series_description="MPRAGE")
        wanted = (
            *("scan-7", "P-42", "female, 45 years", "2026-01-02 10:11 UTC", "MPRAGE", "1.2.840.99", "Prisma"),
            *(
                "1450.0",
                "47.6",
                "956 to 1667 mL",
                "0.814",
                "+12.5 %",
                "13.5",
                "12.3",
                "above 20",
                "not measured",
            ),
            *(
                "Slices of 5 mm.",
                "hand-made 1.0",
                "A plane of symmetry.",
                "10.1007/s00330-023-09632-x",
                "cG5n",
                "Y2xvc2U=",
            ),
            *("hypointense", "216", "-40", "0.95", "181 x 217 x 36", "1 x 1 x 5 mm"),
        )
        for words in wanted:
            self.assertIn(words, text)

    def test_verdictLeads(self) -> None:
        """Each verdict has its headline and colour, and its reasons with what to do."""
        for usability, words in (
            (Usability.USABLE, 'class="verdict good"><strong>Usable<'),
            (Usability.WITH_CARE, 'class="verdict care"><strong>Usable with care<'),
            (Usability.NOT_USABLE, 'class="verdict bad"><strong>Not usable<'),
        ):
            text = html(some_findings(usability))
            self.assertIn(words, text)
            self.assertEqual("repeat &lt;the scan&gt;" in text, usability is not Usability.USABLE)

    def test_numbersOfCareAreMarked(self) -> None:
        """Volumes that are to be used with care say so themselves."""
        marked = "To be used with care"
        self.assertIn(marked, html(some_findings(Usability.WITH_CARE)))
        self.assertNotIn(marked, html(some_findings()))

    def test_withheld(self) -> None:
        """A scan that is not usable has no volumes, fraction, asymmetry or lesions on its page, and says why."""
        text = html(some_findings(Usability.NOT_USABLE))
        self.assertIn("Withheld", text)
        self.assertIn("Not looked for", text)
        for words in ("1450", "0.814", "+12.5", 'class="track"'):
            self.assertNotIn(words, text)

    def test_noCandidateIsNotTheSameAsNotLookedFor(self) -> None:
        """Looked for and not found is said as that."""
        self.assertIn("no candidate was found", html(some_findings()))
        self.assertIn("Not looked for", html(some_findings(Usability.NOT_USABLE)))

    def test_outsideItsRange(self) -> None:
        """A number outside its range is marked, one inside is not."""
        self.assertNotIn('class="outside"', html())
        volumes = some_findings().volumes
        assert volumes is not None
        large = volumes.ventricles.model_copy(update={"value": 140.0})
        text = html(some_findings(volumes=volumes.model_copy(update={"ventricles": large})))
        self.assertEqual(text.count('<b class="outside">above</b>'), 1)

    def test_withoutAgeAndSex(self) -> None:
        """A page without facts says that they are not stated, and gives the ranges of both sexes."""
        found = some_findings(sex=None, age=None)
        text = html(found, facts={}, acquired_at=None)
        self.assertIn("not stated", text)
        self.assertIn("956 to 1951 mL", text)

    def test_isSelfContained(self) -> None:
        """The page loads nothing and runs nothing, and tells the browser so."""
        text = html(many_lesions(1))
        for words in ("http:", "https:", "<script", "url(", "@import", "<link"):
            self.assertNotIn(words, text)
        self.assertIn("default-src 'none'", text)

    def test_escapes(self) -> None:
        """What came with the scan cannot become markup or template, nor hide what follows it."""
        text = html(
            patient_id='"><img src=x>',
            series_description=EVIL,
            study_instance_uid="<b>1",
            facts={"model": "<i>m", "patient_age": "<u>", "patient_sex": "<"},
        )
        for words in ("<script>", "<img src=x", "<b>1", "<i>m", "\x00", "\u202e"):
            self.assertNotIn(words, text)
        self.assertIn("&lt;script&gt;", text)
        self.assertIn("${x}", text)
        self.assertIn("mixture of &lt;Gaussians&gt;", text)

    def test_longTexts(self) -> None:
        """A text without end is cut, with a sign that it was."""
        text = html(series_description="long" * 1000)
        self.assertNotIn("long" * 100, text)
        self.assertIn("…</bdi>", text)

    def test_clean(self) -> None:
        """Texts are put on one line, without what cannot be seen."""
        self.assertEqual(clean(" a\n\tb\x07\u200f c\ud800 "), "a b c")
        self.assertEqual(len(clean("x" * 5000)), 240)


class PdfTests(SynchronousTestCase):
    """The A4 page."""

    def test_isOnePage(self) -> None:
        """However much there is to say, it is one page; what does not fit is counted."""
        reasons = tuple(
            Reason(code=f"r{n}", usability=Usability.WITH_CARE, text="much is wrong with this scan; " * 12)
            for n in range(9)
        )
        full = some_findings(
            verdict=Verdict(usability=Usability.WITH_CARE, reasons=reasons),
            lesions=row_of_lesions(60),
            notes=("a long note, " * 20,) * 9,
            methods={f"method {n}": "In many words. " * 40 for n in range(12)},
        )
        for found in (some_findings(), some_findings(Usability.NOT_USABLE), many_lesions(3), full):
            written = report(found)["report.pdf"]
            self.assertTrue(written.startswith(b"%PDF-1."))
            self.assertEqual(pdf_text.pages(written), 1)
        text = pdf_text.shown(written)
        for words in ("3 more in report.html", "46 more in report.html"):
            self.assertIn(words, text)

    def test_saysWhatThePageSays(self) -> None:
        """Ids, numbers, ranges, reasons and methods are on it."""
        text = pdf_text.shown(report(many_lesions(2), series_instance_uid="1.2.840.99")["report.pdf"])
        wanted = (
            "scan-7",
            "P-42",
            "45 years",
            "1450.0",
            "956 to 1667 mL",
            "0.814",
            "+12.5 %",
            "1.2.840.99",
            "-40",
        )
        for words in (*wanted, "above 20", "hand-made 1.0", METHODS["tissue"], METHODS["blob"]):
            self.assertIn("".join(words.split()), "".join(text.split()))
        text = pdf_text.shown(report(some_findings(Usability.WITH_CARE))["report.pdf"])
        self.assertIn("repeat<thescan>", "".join(text.split()))

    def test_textsAreHarmless(self) -> None:
        """Markup in what came with the scan is shown as it is."""
        text = pdf_text.shown(
            report(some_findings(), series_description=EVIL, patient_id="<b>&")["report.pdf"]
        )
        for words in ("<script>", "</para>", "<b>&"):
            self.assertIn(words, "".join(text.split()))

    def test_lettersThatTheFontLacks(self) -> None:
        """They lose their accents or become question marks; those that it has stay."""
        self.assertEqual(pdf_parts.safe("Škoda ř é ß € 日本 Ω 1 < 2\x07"), "Škoda r é ß € ?? ? 1 &lt; 2 ")
        written = report(some_findings(), series_description="日本 ř 😀", patient_id="Ωmega")["report.pdf"]
        self.assertIn("?? r ?", pdf_text.shown(written))

    def test_namesNoPerson(self) -> None:
        """Neither a name nor a birth date is taken over from further facts."""
        facts = {**FACTS, "patient_name": "Doe^Jane", "patient_birth_date": "19500203"}
        files = report(some_findings(), facts=facts, extra_name="Doe^Jane")
        shown = pdf_text.shown(files["report.pdf"])
        for text in (files["report.html"].decode(), files["report.json"].decode(), shown):
            for words in ("Jane", "19500203"):
                self.assertNotIn(words, text)
