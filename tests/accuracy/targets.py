"""The figures that were set before anything was measured: what at least, and what to aim at."""

from dataclasses import dataclass

AIM, FLOOR, MISSED, UNMEASURED = "aim reached", "reached", "**not reached**", "not measured"

AS_UNROTATED = 0.002
"""How much lower the Dice of a turned head may be to count as that of the head as it was."""


@dataclass(frozen=True)
class Target:
    """One figure. ``higher``: more is better. ``aim`` None: none was set, or it depends on another figure."""

    what: str
    floor: float
    aim: float | None
    unit: str = ""
    digits: int = 3
    higher: bool = False

    def judge(self, value: float | None, aim: float | None = None) -> str:
        """Return how far a value reaches; ``aim`` in place of the target's own."""
        if value is None:
            return UNMEASURED
        sign = 1 if self.higher else -1
        goal = self.aim if aim is None else aim
        if sign * value < sign * self.floor:
            return MISSED
        return AIM if goal is not None and sign * value >= sign * goal else FLOOR


def _dice(what: str, floors: tuple[float, ...], aims: tuple[float | None, ...]) -> dict[str, Target]:
    names = ("inside of the skull", "grey matter", "white matter")
    keys = ("skull", "gm", "wm")
    return {
        f"dice {what} {key}": Target(f"Dice, {what}: {name}", floor, aim, higher=True)
        for key, name, floor, aim in zip(keys, names, floors, aims, strict=True)
    }


def _volumes() -> dict[str, Target]:
    names = {"icv": "intracranial", "gm": "grey matter", "wm": "white matter", "ventricles": "ventricles"}
    found = {}
    for key, name in names.items():
        found[f"bias {key}"] = Target(f"volume bias on set-aside scans: {name}", 3, 1, "%", 1)
        found[f"sd {key}"] = Target(f"its standard deviation: {name}", 1.5, None, "%", 1)
    return found


TARGETS: dict[str, Target] = {
    **_dice("3 % noise", (0.985, 0.975, 0.98), (0.99, 0.985, 0.99)),
    **_dice("9 % noise", (0.985, 0.92, 0.91), (0.985, 0.94, 0.94)),
    **_dice("15° rotations", (0.983, 0.95, 0.975), (None, None, None)),
    **_volumes(),
    "thick wm": Target("white matter volume at 1x1x5 mm, largest error", 18, 6, "%", 1),
    "thick flagged": Target("such scans flagged", 100, 100, "%", 0, higher=True),
    "dark found": Target(
        "hypointense lesions deep in white matter, r >= 3 mm, contrast <= -20 %: found", 85, 95, "%", 1, True
    ),
    "dark false": Target("hypointense candidates in clean scans, per scan", 0.2, 0.05, "", 2),
    "bright found": Target(
        "hyperintense lesions deep in white matter, r >= 3 mm, contrast >= 20 %: found", 90, 95, "%", 1, True
    ),
    "bright false": Target("hyperintense candidates in clean scans, per scan", 0.3, 0.1, "", 2),
    "ventricle index": Target("left/right index of ventricles, largest error", 5, 2, "points", 1),
    "not brains": Target(
        "not-brains and cut heads refused or flagged for the right reason", 100, 100, "%", 0, True
    ),
    "cpu fine": Target("CPU per scan at 1 mm, lesions included", 14, 7, "s", 1),
    "cpu coarse": Target("CPU per scan at 2 mm", 6.5, 3, "s", 1),
    "memory": Target("peak memory of a worker", 1.2, 0.7, "GB", 2),
    "identical": Target(
        "runs with 1 and 2 workers, in two orders: identical reports", 100, 100, "%", 0, True
    ),
    "pool": Target("pool efficiency with 2 workers against one bare loop", 95, 98, "%", 0, True),
}
"""By key, in the order of the summary. Those without another word are of 1 mm scans."""
