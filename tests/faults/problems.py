"""What the checks find."""

from dataclasses import dataclass

LOST, DOUBLED, STUCK, BYTES, ORPHAN, LEFT, OTHER = (
    "lost",
    "doubled",
    "stuck",
    "bytes",
    "orphan",
    "left",
    "other",
)

KINDS = (LOST, DOUBLED, STUCK, BYTES, ORPHAN, LEFT, OTHER)


@dataclass(frozen=True)
class Problem:
    """Something that must not be."""

    kind: str
    what: str
    """A scan, report, payload or unit."""
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}: {self.text}"
