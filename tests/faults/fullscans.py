"""Scans of whole heads for the rounds with the default analysis: a few are generated, and sent for many patients."""

from pathlib import Path

from fr_twisted.pacs.encode import to_nifti
from fr_twisted.pacs.generator import generate

HEADS = 4
SPACING = (2.0, 2.0, 2.0)


class FullScans:
    """Makes a head when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._heads: dict[int, bytes] = {}
        self._folder = folder

    def __call__(self, seed: str, _: bool) -> bytes:
        """Return one of the heads, chosen by ``seed``."""
        number = sum(seed.encode()) % HEADS
        if number not in self._heads:
            self._heads[number] = to_nifti(generate(100 + number, SPACING))
        return self._heads[number]
