"""Generated scans: T1-weighted heads of exact truth, each different, made from the label head of one real person.

`draw_recipe` draws the numbers of a scan from a seed, `generate` makes the scan: the head's labels are aged and given
lesions, posed, scaled and warped, painted, blurred, cut into slices, and imaged with a receive field, a ghost and
noise. The truth counts the labels that were painted. `fast` makes many scans of few patients for load tests.
"""

from fr_twisted.pacs.generator.recipe import Lesion, LesionKind, Recipe, draw_recipe
from fr_twisted.pacs.generator.scan import generate
from fr_twisted.pacs.generator.truth import GeneratedScan, Label, LesionTruth, Sides, Truth

__all__ = [
    "GeneratedScan",
    "Label",
    "Lesion",
    "LesionKind",
    "LesionTruth",
    "Recipe",
    "Sides",
    "Truth",
    "draw_recipe",
    "generate",
]
