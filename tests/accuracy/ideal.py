"""How far voxels can be told apart at all: thresholds on a perfect scan."""

from dataclasses import replace

import numpy as np

from fr_twisted.pacs.generator import generate
from fr_twisted.pacs.generator.head import Tissue
from fr_twisted.pacs.generator.imaging import WHITE, palette
from fr_twisted.pacs.generator.recipe import Recipe
from fr_twisted.pacs.generator.truth import Label
from tests.accuracy.compare import MASK, agreement, region

NAMES = ("gm", "wm", "csf")
"""What thresholds can tell apart, by the names of `tests.accuracy.compare.REGIONS`."""

ORDER = (Label.FLUID, Label.GREY, Label.WHITE)


def ideal(recipe: Recipe) -> dict[str, float]:
    """Return the Dice of thresholds on the scan of a recipe without noise, field, ghost, texture and lesions.

    They stand midway between the true brightness of fluid, grey and white matter, inside the true mask. What is missing
    to 1 is partial volume: voxels of several tissues, which a label must call by one. With what is known of the
    neighbourhood one may do somewhat better.
    """
    scan = generate(replace(recipe, noise=0.0, bias=0.0, ghost=0.0, texture=0.0, lesions=(), lesion_count=0))
    levels = palette(recipe)[[Tissue.FLUID, Tissue.GREY, Tissue.WHITE]] * WHITE * recipe.gain
    found = np.array(ORDER, np.uint8)[np.digitize(scan.volume, (levels[:-1] + levels[1:]) / 2)]
    found[~region(scan.labels, MASK)] = Label.OUTSIDE
    agreed = agreement(found, scan.labels)
    return {name: agreed[name] for name in NAMES}
