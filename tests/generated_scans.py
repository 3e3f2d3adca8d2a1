"""Generated scans that several tests look at, each made once."""

import functools
from dataclasses import replace

from fr_twisted.pacs.generator import GeneratedScan, Recipe, generate

QUICK = (1.49, 1.49, 1.49)
"""The coarsest spacing whose voxels are not means of finer ones."""

PLAIN = Recipe(seed=1, spacing=QUICK)
"""The label head as it is."""

POSED = replace(
    PLAIN, rotation=(8.0, -5.0, 10.0), shift=(3.0, -4.0, 2.0), scale=(0.9, 0.95, 0.92), warp=4.0, blur=0.0
)

DEEP = (28.0, -20.0, 30.0)
"""In deep white matter, stereotaxic mm."""


@functools.cache
def scan_of(recipe: Recipe) -> GeneratedScan:
    """Return a scan that tests share."""
    return generate(recipe)
