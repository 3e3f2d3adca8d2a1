"""From a seed to what happens in a round. Pure: the same seed, load and house give the same plan, also as JSON."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.kinds import IN_ORDER, INPUT, KINDS, NETWORK, STORE, Kind
from tests.faults.periods import SHORT

WINDOW = 11.0
"""Seconds in which scans are sent and faults begin."""

INPUTS = 3
"""Faults of the input in a round, beside the others."""

IN_ORDER_SHARE = 0.125
"""Of rounds: those in which units are only ended in order."""

SHORT_SHARE = 0.5
"""Of worlds: those whose periods are short."""

ABANDONED = 2
"""Uploads that are left half-way in a round of those."""

_BLOCK = 10
"""Seeds that have the same world."""

_SLOW = frozenset(("scan-hangs", "store-full"))


@dataclass(frozen=True)
class Layout:
    """How many of each unit there are."""

    hubs: int = 2
    brains: int = 2
    nodes: int = 3

    def names(self, unit: str) -> list[str]:
        """Return the names of the units of one kind: hub, brain, pacs, store."""
        if unit == "store":
            return ["store"]
        count = {"hub": self.hubs, "brain": self.brains, "pacs": self.nodes}[unit]
        return [f"{unit}-{number}" for number in range(1, count + 1)]

    def hub_of(self, node: str) -> str:
        """Return the HUB that a node dials."""
        return f"hub-{(int(node.rpartition('-')[2]) - 1) % self.hubs + 1}"

    def wires(self) -> list[tuple[str, str]]:
        """Return who dials whom."""
        nodes, hubs, brains = self.names("pacs"), self.names("hub"), self.names("brain")
        dialled = [(node, self.hub_of(node)) for node in nodes]
        dialled += [(hub, node) for hub in hubs for node in nodes]
        return dialled + [(unit, "store") for unit in hubs + brains]


@dataclass(frozen=True)
class PlannedScan:
    """A scan that is put into a node's folder."""

    number: int
    at: float
    node: str
    kind: str = "quick"
    """``quick``; or what it makes the analysis do: ``crash``, ``hang``, ``hungry``."""
    large: bool = False
    """Of several chunks."""


@dataclass(frozen=True)
class PlannedFault:
    """A fault: when it is begun, what it is done to, and how exactly."""

    number: int
    at: float
    kind: str
    target: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A round."""

    seed: int
    layout: Layout
    scans: tuple[PlannedScan, ...]
    faults: tuple[PlannedFault, ...]
    short_periods: bool = False
    """It wants a world in which what nobody needs is removed after seconds."""
    in_order: bool = False
    """Units are only ended in order: nothing may be counted as an attempt but what led to a report."""

    def to_json(self) -> str:
        """Return it as text, from which `from_json` makes it again."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Return the plan that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            raw = json.loads(text)
            return cls(
                raw["seed"],
                Layout(**raw["layout"]),
                tuple(PlannedScan(**scan) for scan in raw["scans"]),
                tuple(PlannedFault(**fault) for fault in raw["faults"]),
                raw.get("short_periods", False),
                raw.get("in_order", False),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a plan: {error}") from None


def make_plan(
    seed: int, *, scans: int, faults: int, layout: Layout | None = None, kinds: Sequence[str] | None = None
) -> Plan:
    """Return the plan of the round with this ``seed``.

    Args:
        seed: decides everything.
        scans: how many scans are put into folders; those that faults of the input send come on top.
        faults: how many faults, `INPUTS` of which (where allowed) are of the input.
        layout: how many units.
        kinds: the kinds that may be drawn; None: all.
    """
    draw = random.Random(f"fr-faults-{seed}")
    layout = layout or Layout()
    names = list(KINDS if kinds is None else kinds)
    in_order = set(names) > IN_ORDER and _drawn("round", seed) < IN_ORDER_SHARE
    short = _drawn("world", seed // _BLOCK) < SHORT_SHARE
    allowed = [KINDS[name] for name in names if KINDS[name].weight and (not in_order or name in IN_ORDER)]
    inputs = [kind for kind in allowed if kind.group == INPUT]
    chosen = _choose(draw, inputs, min(INPUTS, faults, len(inputs)))
    chosen += _choose(draw, [k for k in allowed if k.group != INPUT], faults - len(chosen))
    planned = []
    for kind in chosen:
        at = draw.uniform(0.0, WINDOW * (0.3 if kind.name in _SLOW else 0.8))
        target = _target(draw, kind, layout)
        planned.append((round(at, 2), kind.name, target, _params(draw, kind, layout)))
    if short and not in_order and "scan-abandoned" in names:
        planned += [_abandoned(random.Random(f"fr-faults-{seed}-{n}")) for n in range(ABANDONED)]
    planned.sort(key=lambda each: (each[0], each[1]))
    nodes = layout.names("pacs")
    large = set(draw.sample(range(scans), max(1, scans // 16))) if scans else set()
    return Plan(
        seed,
        layout,
        tuple(
            PlannedScan(n, round(draw.uniform(0.0, WINDOW), 2), draw.choice(nodes), "quick", n in large)
            for n in range(scans)
        ),
        tuple(PlannedFault(number, *rest) for number, rest in enumerate(planned)),
        short,
        in_order,
    )


def _drawn(what: str, number: int) -> float:
    """Return what does not depend on how much else is drawn of a seed."""
    return random.Random(f"fr-faults-{what}-{number}").random()


def _abandoned(draw: random.Random) -> tuple[float, str, str, dict[str, Any]]:
    """Return an upload that is left half-way; every other one goes on when it may just be given up, or removed."""
    after = round(draw.uniform(SHORT.upload_ttl - 2, SHORT.upload_ttl + SHORT.grace + 3), 1)
    back = after if draw.random() < 0.5 else None
    return round(draw.uniform(0.0, WINDOW * 0.3), 2), "scan-abandoned", "pacs", {"back": back}


def _choose(draw: random.Random, kinds: list[Kind], count: int) -> list[Kind]:
    """Draw kinds by weight, none twice before all were drawn."""
    chosen: list[Kind] = []
    while kinds and len(chosen) < count:
        deck = sorted(kinds, key=lambda kind: draw.random() ** (1.0 / kind.weight), reverse=True)
        chosen += deck[: count - len(chosen)]
    return chosen


def _target(draw: random.Random, kind: Kind, layout: Layout) -> str:
    if kind.target == "wire":
        return ">".join(draw.choice(layout.wires()))
    if kind.target == "unit":
        return draw.choice([*layout.names("hub"), *layout.names("brain"), *layout.names("pacs")])
    if kind.target == "none":
        return "several" if kind.name == "several-kill" else "pacs"
    if kind.name.startswith("clock-"):
        return layout.names("brain")[-1]
    return draw.choice(layout.names(kind.target))


def _params(draw: random.Random, kind: Kind, layout: Layout) -> dict[str, Any]:
    """Return how exactly; the same numbers are drawn for every kind, so that plans stay comparable."""
    down, seconds, coin = round(draw.uniform(0.0, 1.5), 2), draw.random(), draw.random() < 0.5
    spare = draw.random()
    if kind.name == "several-kill":
        every = [*layout.names("hub"), *layout.names("brain"), *layout.names("pacs"), "store"]
        return {"down": down, "units": sorted(draw.sample(every, draw.randint(2, 4)))}
    if kind.group in ("SIGKILL", "SIGTERM") or kind.name == "store-index-missing":
        return {"down": down}
    if kind.group == "SIGSTOP":
        return {"seconds": round(8.0 + 2.0 * seconds, 1)}
    if kind.group == NETWORK:
        direction = "up" if coin else "down"
        lengths = {"net-half-open": (3, 9), "net-silent": (3, 8), "net-delay": (3, 6), "net-slow": (4, 8)}
        least, most = lengths.get(kind.name, (1, 4))
        params = {"seconds": round(least + (most - least) * seconds, 1), "direction": direction}
        return params | ({"lost": spare < 0.5} if kind.name == "net-half-open" else {})
    if kind.group == STORE:
        return {"seconds": round(0.5 + 3.0 * seconds, 1), "code": 64 if coin else 100}
    if kind.name.startswith("clock-"):
        return {"seconds": round(4.0 + 4.0 * seconds, 1)}
    return {}
