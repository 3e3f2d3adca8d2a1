"""Makes the scan of a case: generated heads, real images, things that are no heads."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator import GeneratedScan, generate
from fr_twisted.pacs.generator.geometry import FIELD_OF_VIEW
from fr_twisted.pacs.generator.head import load_head
from fr_twisted.pacs.generator.imaging import label_table, receive_field
from fr_twisted.pacs.generator.recipe import Recipe
from fr_twisted.pacs.generator.truth import Label, Sides, Truth
from tests.accuracy.compare import MASK, Labels, region
from tests.accuracy.results import Known

UNKNOWN = Known()


@dataclass(frozen=True)
class Subject:
    """A scan before it is written.

    ``data``: (i, j, k), or with further axes. ``affine``: 4 x 4, voxel to mm (RAS). ``labels``: what is true of its
    voxels, on the grid in RAS order; None: nothing to compare. ``masks``: other masks of the same grid. ``header``:
    fields of the NIfTI header to be written over. ``modality``: in DICOM. ``scan``: where it came from, if it is as
    generated.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    labels: Labels | None = None
    known: Known = UNKNOWN
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    header: dict[str, int] = field(default_factory=dict)
    modality: str = "MR"
    scan: GeneratedScan | None = None


def generated(recipe: Recipe) -> Subject:
    """Return the scan of a recipe."""
    scan = generate(recipe)
    known = Known(truth=scan.truth, non_uniformity=non_uniformity(recipe, scan.labels), coverage=100.0)
    return Subject(scan.volume, scan.affine, scan.labels, known, scan=scan)


def non_uniformity(recipe: Recipe, labels: Labels) -> float:
    """Return the 98th over the 2nd percentile of the receive field inside the skull, less one, in per cent."""
    planes = receive_field(recipe)
    if planes is None:
        return 0.0
    inside = region(labels, MASK)
    low, high = np.percentile(planes.over(labels.shape).whole()[inside], [2, 98]).tolist()
    return 100 * (float(high) / float(low) - 1)


def head_labels(affine: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[Labels, Truth]:
    """Return the labels of the generator's head on the grid of the image that they were made from, and their volumes.

    Raises:
        ValueError: it is another grid.
    """
    head = load_head()
    offset = affine[:3, 3] - head.origin
    box = tuple(slice(int(start), int(start) + count) for start, count in zip(offset, shape, strict=True))
    codes = head.codes[box]
    if not np.array_equal(affine[:3, :3], np.eye(3)) or codes.shape != shape:
        raise ValueError("the label head does not lie on this grid")
    labels = label_table()[codes]
    right = codes >= len(label_table()) // 2
    left_ml, right_ml = (np.bincount(labels[side], minlength=len(Label)) * 0.001 for side in (~right, right))
    total = left_ml + right_ml
    truth = Truth(
        gm=float(total[Label.GREY]),
        wm=float(total[Label.WHITE]),
        csf=float(total[Label.FLUID] + total[Label.VENTRICLE]),
        ventricles=float(total[Label.VENTRICLE]),
        gm_sides=Sides(float(left_ml[Label.GREY]), float(right_ml[Label.GREY])),
        ventricle_sides=Sides(float(left_ml[Label.VENTRICLE]), float(right_ml[Label.VENTRICLE])),
    )
    return labels, truth


def _grid() -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(FIELD_OF_VIEW) - 1) / 2
    return affine


def _radius(half_axes: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return how far each voxel of the field is from its middle, 1 at the ellipsoid of these half axes (mm)."""
    x, y, z = (
        ((np.arange(count, dtype=np.float32) - (count - 1) / 2) / half) ** 2
        for count, half in zip(FIELD_OF_VIEW, half_axes, strict=True)
    )
    return np.asarray(np.sqrt(x[:, None, None] + y[:, None] + z), np.float32)


def _noisy(image: NDArray[np.float32], deviation: float) -> Subject:
    """Return the magnitude of an image with noise in both channels."""
    rng = np.random.default_rng(5)
    real = image + rng.normal(0, deviation, image.shape)
    found = np.hypot(real, rng.normal(0, deviation, image.shape))
    return Subject(np.clip(found + 0.5, 0, 4095).astype(np.int16), _grid())


def sphere() -> Subject:
    """Return a sphere of 170 mm of one brightness: the scanner's test phantom."""
    return _noisy(np.where(_radius((85, 85, 85)) < 1, np.float32(1000), np.float32(0)), 30)


def noise() -> Subject:
    """Return a scan of nothing."""
    return _noisy(np.zeros(FIELD_OF_VIEW, np.float32), 100)


def ellipsoid() -> Subject:
    """Return an ellipsoid of the size of a brain, a bright core in a darker rind, in a ring like a skull's fat."""
    at = _radius((65, 85, 60))
    image = np.select([at < 0.8, at < 1.0, at < 1.06, at < 1.12], [1000, 750, 80, 1500], 0)
    return _noisy(image.astype(np.float32), 40)


def blocks() -> Subject:
    """Return cubes of 16 mm of random brightness."""
    cells = tuple(-(-count // 16) for count in FIELD_OF_VIEW)
    levels = np.random.default_rng(6).uniform(0, 1200, cells).astype(np.float32)
    image = levels
    for axis, count in enumerate(FIELD_OF_VIEW):
        image = np.repeat(image, 16, axis).take(range(count), axis)
    return _noisy(image, 20)


def empty() -> Subject:
    """Return a volume of zeros."""
    return Subject(np.zeros(FIELD_OF_VIEW, np.int16), _grid())


THINGS = {"sphere": sphere, "noise": noise, "ellipsoid": ellipsoid, "blocks": blocks, "empty": empty}
"""What has a name and is made here."""
