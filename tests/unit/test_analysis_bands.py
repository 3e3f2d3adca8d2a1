"""Published ranges: figures, whom they fit, and that there are none where nothing was published."""

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import bands
from fr_twisted.brain.analysis.schema import Band
from fr_twisted.model import PayloadFormat, ScanMeta

SEXES = st.sampled_from(["F", "M", "O", None])
AGES = st.none() | st.floats(0, 120)


def band(name: str, sex: str | None = None, age: float | None = None) -> Band:
    """Return a band that must be there."""
    found = bands.of(name, sex, age)
    assert found is not None
    return found


class BandTests(SynchronousTestCase):
    """`bands.of`."""

    def test_intracranialIsTheWidestOfThreeStudies(self) -> None:
        """For a woman of 45: from 1289 - 3 x 111 to 1393.2 + 3 x 91.2 mL, outwards to whole mL."""
        found = band("intracranial", "F", 45)
        self.assertEqual((found.low, found.high, found.unit), (956, 1667, "mL"))
        for words in ("women", "87 of 21 to 92 years", "49 of both sexes of 24 to 80 years", "mean ± 3"):
            self.assertIn(words, found.population)
        for words in ("10.1007/s00330-023-09632-x", "J Neurosurg", "JBCS"):
            self.assertIn(words, found.source)

    def test_ventriclesAreLogNormal(self) -> None:
        """For a man: three deviations of the logarithm about 30.1 and 13.8 mL, which leaves no volume below zero."""
        found = band("ventricles", "M", 60)
        spread = math.sqrt(math.log(1 + (13.8 / 30.1) ** 2))
        middle = 30.1 / math.exp(spread**2 / 2)
        self.assertEqual(found.low, math.floor(middle * math.exp(-3 * spread)))
        self.assertEqual(found.high, math.ceil(middle * math.exp(3 * spread)))
        self.assertGreater(found.low, 0)

    def test_fluidIsWhatTheFractionLeaves(self) -> None:
        """The band of the fluid is a share of the intracranial volume, and mirrors that of the fraction."""
        fluid, fraction = band("csf", "F", 50), band("brain_parenchymal_fraction", "F", 50)
        self.assertEqual((fluid.unit, fraction.unit), ("%", "1"))
        self.assertAlmostEqual(fluid.low, 100 * (1 - fraction.high), 6)
        self.assertAlmostEqual(fluid.high, 100 * (1 - fraction.low), 6)
        self.assertEqual((fraction.low, fraction.high), (0.638, 0.965))

    def test_noneWithoutAPublication(self) -> None:
        """Children, people older than any who were measured, grey and white matter and unknown names have none."""
        for name, age in (
            ("intracranial", 12),
            ("brain", 97),
            ("brain_parenchymal_fraction", 88),
            ("csf", 20.9),
        ):
            self.assertIsNone(bands.of(name, "F", age), (name, age))
        for name in ("grey_matter", "white_matter", "spleen"):
            self.assertIsNone(bands.of(name, "F", 45), name)

    def test_oldestYearCounts(self) -> None:
        """Somebody of 92 years and some months is as old as the oldest who was measured."""
        self.assertIsNotNone(bands.of("ventricles", "F", 92.7))
        self.assertIsNone(bands.of("ventricles", "F", 93.0))

    def test_studyOfOtherAgesIsLeftOut(self) -> None:
        """A study of people from 41 years on says nothing of a person of 30."""
        self.assertNotIn("Ahmad", band("brain", "M", 30).source)
        self.assertIn("Ahmad", band("brain", "M", 50).source)

    @given(name=st.sampled_from(sorted(bands.GROUPS)), age=AGES)
    def test_unknownSexIsWider(self, name: str, age: float | None) -> None:
        """Without a sex the band holds those of both."""
        both = bands.of(name, None, age)
        for sex in ("F", "M"):
            one = bands.of(name, sex, age)
            self.assertEqual(one is None, both is None)
            if one is not None and both is not None:
                self.assertLessEqual(both.low, one.low)
                self.assertGreaterEqual(both.high, one.high)

    @given(name=st.sampled_from(sorted(bands.GROUPS)), sex=SEXES, age=AGES)
    def test_bandsAreWide(self, name: str, sex: str | None, age: float | None) -> None:
        """The mean of every group that fits lies well inside; nothing is below zero or above the whole."""
        found = bands.of(name, sex, age)
        for group in bands.GROUPS[name] if found is not None else ():
            assert found is not None
            if group.fits(sex, age):
                middle = 100 * (1 - group.middle) if name == "csf" else group.middle
                self.assertLess(found.low, middle - 0.02 * middle)
                self.assertGreater(found.high, middle + 0.02 * middle)
                self.assertGreaterEqual(found.low, 0)
                self.assertLessEqual(found.high, {"%": 100, "1": 1}.get(found.unit, 2500))


class PatientTests(SynchronousTestCase):
    """Sex and age of a scan."""

    def test_dicomAges(self) -> None:
        """Age strings of DICOM are read in years; anything else is not known."""
        for text, years in (("045Y", 45.0), ("018M", 1.5), ("010D", 10 / 365.2425), (" 090Y ", 90.0)):
            self.assertEqual(bands.age_years(text), years)
        for text in ("45", "45Y", "0450Y", "", "Doe", "04 Y"):
            self.assertIsNone(bands.age_years(text), text)
        self.assertEqual(
            (bands.age_years(45), bands.age_years(-1), bands.age_years(math.nan)), (45.0, None, None)
        )

    def test_fromFacts(self) -> None:
        """They are taken from the facts that travel with a scan."""

        def patient(**facts: str | int | float | None) -> tuple[str | None, float | None]:
            return bands.patient(ScanMeta(patient_id="P", format=PayloadFormat.NIFTI, facts=facts))

        self.assertEqual(patient(patient_sex="f", patient_age="045Y"), ("F", 45.0))
        self.assertEqual(patient(patient_sex="O"), ("O", None))
        self.assertEqual(patient(patient_sex="?", patient_age=None), (None, None))
        self.assertEqual(patient(), (None, None))
