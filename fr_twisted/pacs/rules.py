"""Which received series are sent, for which analysis, how urgent: rules in a TOML file, the first that matches counts.

::

    [[rule]]
    name = "3-D T1"
    description = "t1|mprage|bravo"
    three_d = true
    min_slices = 100
    priority = 7

    [[rule]]
    name = "everything else"
    ignore = true
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fr_twisted.model import ScanMeta

DEFAULT_PRIORITY = 5

MAX_PATTERN = 500
"""Characters of one pattern."""


class RulesError(Exception):
    """A file of rules cannot be used; says where and why."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value


Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN), AfterValidator(_pattern)]


class Rule(BaseModel):
    """One ``[[rule]]``: every condition that it names must hold; one that names none holds for every series."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1, max_length=64, description="what the log and fr rules test call it")
    description: Pattern | None = Field(
        default=None, description="regular expression to be found in the Series Description, in any case"
    )
    modality: str | None = Field(default=None, description="Modality, such as MR")
    sequence: Pattern | None = Field(
        default=None, description="the same in the Sequence Name, Pulse Sequence Name or Scanning Sequence"
    )
    min_slices: int | None = Field(default=None, ge=1, description="slices or frames, at least")
    max_slices: int | None = Field(default=None, ge=1, description="slices or frames, at most")
    three_d: bool | None = Field(default=None, description="MR Acquisition Type is 3D, or is not")
    ignore: bool = Field(default=False, description="such a series is not sent")
    analysis: str | None = Field(default=None, min_length=1, max_length=64, description="analysis it is for")
    priority: int = Field(default=DEFAULT_PRIORITY, ge=0, le=9, description="9 is analysed first")

    @model_validator(mode="after")
    def _makes_sense(self) -> "Rule":
        if self.ignore and self.model_fields_set & {"analysis", "priority"}:
            raise ValueError("what is ignored has neither analysis nor priority")
        if self.min_slices and self.max_slices and self.min_slices > self.max_slices:
            raise ValueError("min_slices is more than max_slices")
        return self

    def objection(self, meta: ScanMeta) -> str | None:
        """Return the first condition that a series does not meet, or None: the rule matches."""
        facts = meta.facts
        sequences = [str(facts.get(name) or "") for name in ("sequence", "scanning_sequence")]
        kind, slices = facts.get("acquisition_type"), facts.get("slices")
        count = slices if isinstance(slices, int) else 0
        if words := _not_found(self.description, "description", [meta.series_description or ""]):
            return words
        if self.modality not in (None, meta.modality):
            return f"modality is {meta.modality}"
        if words := _not_found(self.sequence, "sequence", sequences):
            return words
        if self.min_slices is not None and count < self.min_slices:
            return f"{count} slices are too few"
        if self.max_slices is not None and count > self.max_slices:
            return f"{count} slices are too many"
        if self.three_d is not None and (kind == "3D") is not self.three_d:
            return f"acquisition type is {kind or 'not given'}"
        return None


def _not_found(pattern: str | None, what: str, texts: Sequence[str]) -> str | None:
    if pattern is None or any(re.search(pattern, text, re.IGNORECASE) for text in texts):
        return None
    shown = " / ".join(filter(None, texts))
    return f"{what} {shown!r} has no {pattern!r}" if shown else f"no {what} is given"


@dataclass(frozen=True)
class Decision:
    """What becomes of a series: ``rule`` is the name of the rule that matched, ``passed`` why each before did not."""

    send: bool
    rule: str | None
    reason: str
    analysis: str | None = None
    priority: int = DEFAULT_PRIORITY
    passed: tuple[tuple[str, str], ...] = ()


class Rules(BaseModel):
    """A file of rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> "Rules":
        names = [rule.name for rule in self.rule]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rules are called {min(twice)!r}")
        return self

    def decide(self, meta: ScanMeta) -> Decision:
        """Return what becomes of a series; what no rule matches is not sent."""
        passed: list[tuple[str, str]] = []
        for rule in self.rule:
            objection = rule.objection(meta)
            if objection is None:
                reason = f"the rule {rule.name!r} {'ignores it' if rule.ignore else 'takes it'}"
                return Decision(
                    not rule.ignore, rule.name, reason, rule.analysis, rule.priority, tuple(passed)
                )
            passed.append((rule.name, objection))
        return Decision(False, None, "no rule matches", passed=tuple(passed))


EVERYTHING = Rules(rule=(Rule(name="everything"),))
"""Where no file is named, everything that can be sent is."""


def load(path: Path) -> Rules:
    """Return the rules of a file.

    Raises:
        RulesError: it cannot be read or understood.
    """
    try:
        with path.open("rb") as stream:
            found = tomllib.load(stream)
    except OSError as error:
        raise RulesError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesError(f"{path} is no TOML: {error}") from None
    try:
        return Rules.model_validate(found)
    except ValidationError as error:
        raise RulesError(
            "\n".join(f"{path}: {_line(found, dict(item))}" for item in error.errors())
        ) from None


def _line(found: dict[str, Any], error: dict[str, Any]) -> str:
    """Return one line for people: which rule, which key, what is wrong."""
    place = list(error["loc"])
    words = str(error["msg"]).removeprefix("Value error, ")
    if len(place) >= 2 and place[0] == "rule" and isinstance(place[1], int):
        given = found["rule"][place[1]]
        name = given.get("name") if isinstance(given, dict) else None
        key = ".".join(str(part) for part in place[2:] if isinstance(part, str) and part in Rule.model_fields)
        if error["type"] == "extra_forbidden":
            return f"rule {place[1] + 1} ({name}): there is no {place[-1]!r}; there are {', '.join(Rule.model_fields)}"
        return f"rule {place[1] + 1} ({name}){': ' + key if key else ''}: {words}"
    if error["type"] == "extra_forbidden":
        return f"there is no {place[0]!r} at the top; rules are [[rule]]"
    return words if not place else f"rules are [[rule]]: {words}"
