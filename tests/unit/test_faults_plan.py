"""Plans of fault rounds, and what belongs to them: the kinds, their injectors, what is drawn."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.inject import Injector
from tests.faults.kinds import IN_ORDER, INPUT, KINDS, NOT_FULL
from tests.faults.plan import ABANDONED, INPUTS, WINDOW, Layout, Plan, make_plan


def plan(seed: int, **more: object) -> Plan:
    """Return a plan of the usual size."""
    return make_plan(seed, scans=100, faults=12, **more)  # type: ignore[arg-type]


class PlanTests(SynchronousTestCase):
    """`make_plan`."""

    def test_sameSeed(self) -> None:
        """The same seed gives the same plan, to the last number."""
        self.assertEqual(plan(7), plan(7))
        self.assertEqual(plan(7).to_json(), plan(7).to_json())

    def test_otherSeed(self) -> None:
        """Another seed gives another."""
        self.assertNotEqual(plan(7).faults, plan(8).faults)
        self.assertNotEqual(plan(7).scans, plan(8).scans)

    def test_json(self) -> None:
        """A plan that was written down is the same plan."""
        for seed in range(20):
            self.assertEqual(Plan.from_json(plan(seed).to_json()), plan(seed))

    def test_notAPlan(self) -> None:
        """Anything else is refused."""
        for text in (
            "",
            "[]",
            "{}",
            '{"seed": 1}',
            '{"seed": 1, "layout": {"a": 1}, "scans": [], "faults": []}',
        ):
            self.assertRaises(ValueError, Plan.from_json, text)

    def test_counts(self) -> None:
        """There are as many scans and faults as were asked for, some of the input, all begun in the window."""
        for seed in range(60):
            made = plan(seed)
            drawn = [fault for fault in made.faults if fault.kind != "scan-abandoned"]
            groups = Counter(KINDS[fault.kind].group == INPUT for fault in drawn)
            inputs = 0 if made.in_order else INPUTS
            self.assertEqual((len(made.scans), len(drawn), groups[True]), (100, 12, inputs))
            times = [scan.at for scan in made.scans] + [fault.at for fault in made.faults]
            self.assertTrue(min(times) >= 0 and max(times) <= WINDOW)
            self.assertTrue(any(scan.large for scan in made.scans))

    def test_everyKind(self) -> None:
        """Every kind is drawn sooner or later, about as often as its weight says."""
        drawn = Counter(fault.kind for seed in range(200) for fault in plan(seed).faults)
        self.assertEqual(set(drawn), set(KINDS))
        self.assertGreater(min(drawn.values()), 20)

    def test_onlySomeKinds(self) -> None:
        """No other kinds are drawn than those that are allowed, and one alone more than once."""
        made = plan(1, kinds=["hub-kill"])
        self.assertEqual({fault.kind for fault in made.faults}, {"hub-kill"})
        self.assertEqual(len(made.faults), 12)

    def test_inOrder(self) -> None:
        """In some rounds units are only ended in order; where other kinds are asked for, in none."""
        made = [each for each in map(plan, range(200)) if each.in_order]
        self.assertTrue(10 <= len(made) <= 50, len(made))
        self.assertEqual({fault.kind for each in made for fault in each.faults}, IN_ORDER)
        kinds = ["brain-term", "hub-term"]
        self.assertFalse(any(plan(seed, kinds=kinds).in_order for seed in range(100)))

    def test_shortPeriods(self) -> None:
        """Seeds of one ten share a world, about every other has short periods, and uploads are left there alone."""
        made = [plan(seed) for seed in range(400)]
        tens = [{each.short_periods for each in made[first : first + 10]} for first in range(0, 400, 10)]
        self.assertEqual({len(ten) for ten in tens}, {1})
        self.assertTrue(10 <= sum(ten == {True} for ten in tens) <= 30)
        for each in made:
            left = sum(fault.kind == "scan-abandoned" for fault in each.faults)
            self.assertEqual(left, ABANDONED if each.short_periods and not each.in_order else 0)

    def test_targetsExist(self) -> None:
        """What a fault is done to is there in the layout, whatever that is."""
        for layout in (Layout(), Layout(1, 1, 1), Layout(2, 3, 4)):
            units = {name for kind in ("hub", "brain", "pacs", "store") for name in layout.names(kind)}
            wires = {">".join(ends) for ends in layout.wires()}
            for seed in range(50):
                for fault in plan(seed, layout=layout).faults:
                    self.assertIn(fault.target, units | wires | {"several", "pacs"})
                    self.assertLessEqual(set(fault.params.get("units", ())), units)


class KindTests(SynchronousTestCase):
    """`KINDS`."""

    def test_everyKindCanBeInjected(self) -> None:
        """Each has its method, and there is no method without a kind."""
        methods = {name[3:].replace("_", "-") for name in dir(Injector) if name.startswith("do_")}
        self.assertEqual(methods, set(KINDS))

    def test_everyKindIsExplained(self) -> None:
        """Each says how it is done."""
        for kind in KINDS.values():
            self.assertGreater(len(kind.how), 4, kind.name)
        self.assertLessEqual(NOT_FULL, set(KINDS))
