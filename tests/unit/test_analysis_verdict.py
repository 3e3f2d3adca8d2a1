"""What is refused, what is not usable, what needs care: every gate with the reason that it gives."""

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import check, gates, template, verdict, volume
from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.mixture import CSF, GREY, WHITE, Mixture
from fr_twisted.brain.analysis.quality import Background, Signal
from fr_twisted.brain.analysis.schema import Quality, Reason, Usability
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError
from tests.builders import ball

AIR = Background(air=0.5, zeroed=False, ghost=(0.001, 0.002, 0.0))
GOOD = {
    "snr": 30.0,
    "cnr": 6.0,
    "ghosting": 0.2,
    "non_uniformity": 20.0,
    "coverage": 100.0,
    "alignment": 0.94,
}


def head(shape: tuple[int, int, int] = (100, 110, 100), size: float = 2.0) -> Volume:
    """Return a ball of nearly one brightness in air."""
    texture = 1 + np.arange(np.prod(shape)).reshape(shape) % 101 / 1e4
    return Volume((ball(shape, 38) * texture).astype(np.float32), np.diag([size, size, size, 1.0]))


class CheckTests(SynchronousTestCase):
    """What cannot be a head at all."""

    def assert_refused(self, words: str, gate: object, *arguments: object) -> None:
        """``gate`` refuses ``arguments`` with a reason that has the ``words``."""
        reason = str(self.assertRaises(UnusableScanError, gate, *arguments))
        self.assertIn(words, reason)

    def test_geometry(self) -> None:
        """Few slices, odd voxels, odd fields of view, NaN and empty images are refused; a head passes."""
        good = head()
        check.check_geometry(good)
        gate = check.check_geometry
        self.assert_refused("only 8 slices", gate, good.crop((slice(None), slice(None), slice(46, 54))))
        self.assert_refused("voxels of 10 x 10 x 10 mm", gate, head(size=10.0))
        flat = Volume(head((200, 220, 36)).data, np.diag([0.5, 0.5, 5.5, 1.0]))
        self.assert_refused("11 times as long as wide", gate, flat)
        self.assert_refused(
            "field of view of 200 x 220 x 60 mm", gate, good.crop((slice(None), slice(None), slice(30)))
        )
        self.assert_refused("field of view of 600", gate, head(size=6.0))
        broken = good.data.copy()
        broken[3, 3, 3] = np.nan
        self.assert_refused("1 voxels are not finite", gate, good.with_data(broken))
        self.assert_refused("empty: every voxel has the value 7", gate, good.with_data(good.data * 0 + 7))

    def test_brain(self) -> None:
        """Nothing found, a speck, and a mask no brighter than the rest are no brain; a whole one passes."""
        good = head()
        check.check_brain(good, good.data > 0)
        self.assert_refused("no brain", check.check_brain, good, good.data > 5)
        self.assert_refused("no brain", check.check_brain, good, ball(good.data.shape, 4))
        self.assert_refused("no brain", check.check_brain, good.with_data(good.data * 0 + 1), good.data > 0)


class VerdictTests(SynchronousTestCase):
    """Reasons, and what follows from them."""

    def codes(self, reasons: list[Reason], usability: Usability = Usability.NOT_USABLE) -> list[str]:
        """Return the codes of reasons, which all have this usability."""
        self.assertEqual({reason.usability for reason in reasons} - {usability}, set())
        return [reason.code for reason in reasons]

    def test_brainOfImpossibleSize(self) -> None:
        """A brain of 360 mL cannot be a person's, and the reason gives the figure."""
        small = ball((100, 110, 100), 22)
        reasons = verdict.of_mask(head().with_data(small.astype(np.float32)), small)
        self.assertEqual(self.codes(reasons), ["implausible-size"])
        self.assertIn("outside the 600 to 2400 mL", reasons[0].text)

    def test_cutBrain(self) -> None:
        """A brain that the field cuts is told with the side; one that was cropped to its bounding box is whole."""
        whole = head()
        self.assertEqual(verdict.of_mask(whole, whole.data > 0), [])
        for box, side in (
            ((slice(None), slice(None), slice(0, 70)), "at the top"),
            ((slice(30, None), slice(None), slice(None)), "at the left"),
            ((slice(None), slice(0, 75), slice(None)), "at the front"),
        ):
            cut = whole.crop(box)
            reasons = verdict.of_mask(cut, cut.data > 0)
            self.assertEqual(self.codes(reasons), ["cut-brain"])
            self.assertIn(side, reasons[0].text)
        padded = whole.data.copy()
        padded[:, :, 70:] = 0
        reasons = verdict.of_mask(whole.with_data(padded), padded > 0)
        self.assertEqual(self.codes(reasons), ["cut-brain"])
        tight = whole.crop(volume.bounding_box(whole.data > 0))
        self.assertEqual(verdict.of_mask(tight, tight.data > 0), [])

    def test_contrast(self) -> None:
        """Only fluid < grey < white is T1."""
        variances = np.full(4, 0.01)
        self.assertEqual(verdict.of_contrast(Mixture(np.array([0.3, 0.8, 1.0, 0.9]), variances)), [])
        for fluid, grey in ((1.4, 1.2), (0.3, 1.1), (0.9, 0.8), (0.9, 0.99)):
            reasons = verdict.of_contrast(Mixture(np.array([fluid, grey, 1.0, 0.9]), variances))
            self.assertEqual(self.codes(reasons), ["contrast"])
            self.assertIn(f"fluid has {fluid:.2f} and grey matter {grey:.2f}", reasons[0].text)
        self.assertEqual((CSF, GREY, WHITE), (0, 1, 2))

    def test_thickSlices(self) -> None:
        """Slices over 3 mm need care; thinner ones do not."""
        thick = Volume(np.zeros((4, 4, 4), np.float32), np.diag([1.0, 1.0, 5.0, 1.0]))
        self.assertEqual(self.codes(verdict.of_geometry(thick), Usability.WITH_CARE), ["thick-slices"])
        self.assertEqual(verdict.of_geometry(head()), [])
        tilted = np.eye(4)
        tilted[:2, :2] = [[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]]
        for edge in (3.0, 2.9999):
            oblique = (tilted @ np.diag([edge, edge, 3.0000001, 1.0])).astype(np.float32).astype(np.float64)
            self.assertEqual(verdict.of_geometry(Volume(np.zeros((4, 4, 4), np.float32), oblique)), [])

    def test_coverage(self) -> None:
        """The template in its own field is covered; in half of it, half."""
        average = template.load()
        grid = average.volume(average.t1)
        here = Alignment(np.eye(4), 1.0)
        self.assertEqual(verdict.coverage(grid, here, average), 1.0)
        half = verdict.coverage(grid.crop((slice(0, 49), slice(None), slice(None))), here, average)
        self.assertLess(abs(half - 0.5), 0.03)

    def test_theWorstReasonDecides(self) -> None:
        """Without reasons a scan is usable; with several, the worst decides and stands first."""
        care = Reason(code="a", usability=Usability.WITH_CARE, text="a")
        bad = Reason(code="b", usability=Usability.NOT_USABLE, text="b")
        self.assertEqual(verdict.verdict([]).usability, Usability.USABLE)
        self.assertEqual(verdict.verdict([care]).usability, Usability.WITH_CARE)
        both = verdict.verdict([care, bad])
        self.assertEqual((both.usability, both.reasons), (Usability.NOT_USABLE, (bad, care)))
        self.assertEqual([verdict.hopeless([care]), verdict.hopeless([care, bad])], [False, True])


class GateTests(SynchronousTestCase):
    """The gates of the quality readings."""

    def test_goodScan(self) -> None:
        """Good readings give no reason and are marked usable."""
        self.assertEqual(gates.reasons(GOOD, AIR), [])
        found = gates.quality(GOOD)
        states = {getattr(found, name).usability for name in Quality.model_fields}
        self.assertEqual(states, {Usability.USABLE})

    def test_eachGate(self) -> None:
        """Each reading beyond its gates is told with its value, by care first and by refusal then."""
        for name, care, refuse in (
            ("snr", 10.0, 4.0),
            ("cnr", 2.0, 0.5),
            ("ghosting", 2.0, 9.0),
            ("non_uniformity", 80.0, 200.0),
            ("coverage", 97.0, 80.0),
            ("alignment", 0.88, 0.5),
        ):
            for value, usability in ((care, Usability.WITH_CARE), (refuse, Usability.NOT_USABLE)):
                found = gates.reasons(GOOD | {name: value}, AIR)
                self.assertEqual([reason.usability for reason in found], [usability], name)
                self.assertIn(f"{value:g}"[:3], found[0].text)
                self.assertEqual(getattr(gates.quality(GOOD | {name: value}), name).usability, usability)

    def test_whatCannotBeMeasured(self) -> None:
        """A reading without a value judges nothing, and says that there is none."""
        self.assertEqual(gates.reasons(dict.fromkeys(GOOD), AIR), [])
        self.assertIsNone(gates.quality(dict.fromkeys(GOOD)).snr.value)

    def test_noAir(self) -> None:
        """A field without air along two axes, or with air that was set to zero, needs care; they are told apart."""
        filled = Background(air=0.0, zeroed=False, ghost=(None, None, None))
        masked = Background(air=0.5, zeroed=True, ghost=(None, None, None))
        tight = Background(air=0.2, zeroed=False, ghost=(0.001, None, None))
        for air, words in (
            (filled, "filled with tissue"),
            (masked, "exactly zero"),
            (tight, "missing along two axes"),
        ):
            (reason,) = gates.reasons(GOOD, air)
            self.assertEqual((reason.code, reason.usability), ("no-air", Usability.WITH_CARE))
            self.assertIn(words, reason.text)

    def test_values(self) -> None:
        """Readings are scaled to white matter; one axis of air alone cannot show a ghost."""
        signal = Signal(noise=0.05, white=0.8, grey=0.6, non_uniformity=0.25)
        found = gates.values(Background(0.5, False, (0.004, 0.016, -0.1)), signal, 0.99, 0.93)
        self.assertAlmostEqual(found["snr"] or 0, 16.0)
        self.assertAlmostEqual(found["cnr"] or 0, 4.0)
        self.assertAlmostEqual(found["ghosting"] or 0, 2.0)
        self.assertAlmostEqual(found["coverage"] or 0, 99.0)
        lone = gates.values(Background(0.5, False, (0.004, None, None)), signal, 0.99, 0.93)
        self.assertIsNone(lone["ghosting"])
        self.assertIsNone(gates.values(AIR, None, None, None)["snr"])
