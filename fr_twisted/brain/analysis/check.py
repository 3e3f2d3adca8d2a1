"""Refuses what cannot be a head at all, with the reason and what to do; what can be shown but not measured is not
refused here but becomes the verdict of a report (`fr_twisted.brain.analysis.verdict`).
"""

import numpy as np

from fr_twisted.brain.analysis.volume import Mask, Volume
from fr_twisted.brain.interfaces import UnusableScanError

SPACING_MM = (0.4, 6.0)
"""Voxel sides that can be used. Coarser than 6 mm the cortex, 2.5 mm thick, is only partial volume."""

FIELD_MM = (90.0, 512.0)
"""Sides of the field of view that can hold a head, or a stripped and cropped brain."""

MAX_SIDE = round(FIELD_MM[1] / SPACING_MM[0])
"""Most voxels along an axis that can be used: refused before they are read."""

MAX_VOXELS = 100_000_000
"""Of one scan: 0.5 mm voxels over 256 x 256 x 190 mm."""

MOST_ANISOTROPIC = 10.0
"""Longest over shortest side of a voxel: beyond it, next to nothing is known across the slices."""

FEWEST_PLANES = 16

FEWEST_VALUES = 16
"""Different values that a scan has at least: fewer are a mask or a map of labels."""

SAMPLED = 40
"""Voxels along each axis that are looked at for that, at least, where there are so many."""

SPAN = (1e-30, 1e30)
"""Between the lowest and highest value, so that single precision has digits left on both sides."""

BRIGHTEST = 99.9
"""Percentile of the absolute values that stands for bright tissue: a stripped brain fills 1 % of a large field."""

SPIKE = 1e4
"""Times that, no tissue, vessel or artefact is; it is damaged data, and would hide all else."""

LEAST_VARIATION = 1e-3
"""Of the values, relative to that: less is no picture."""

FARTHEST_MM = 1e5
"""Of the field of view from the scanner's centre."""

LEAST_ML = 10.0
"""Of a brain: what is smaller is a chance find."""


def check_geometry(scan: Volume) -> None:
    """Refuse a scan whose grid or values cannot be those of a head.

    Raises:
        UnusableScanError: with the numbers.
    """
    _check_values(scan)
    shape, spacing = scan.data.shape, scan.spacing
    sides = " x ".join(f"{size:.3g}" for size in spacing)
    if min(shape) < FEWEST_PLANES:
        raise UnusableScanError(
            f"only {min(shape)} slices along one axis (shape {' x '.join(map(str, shape))}); a 3-D scan of the whole"
            f" brain has at least {FEWEST_PLANES}; send the full series"
        )
    if min(spacing) < SPACING_MM[0] or max(spacing) > SPACING_MM[1]:
        raise UnusableScanError(
            f"voxels of {sides} mm; sides of {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm can be analysed;"
            " send a 3-D T1 series, and check the units of the header if these numbers look wrong"
        )
    if max(spacing) > MOST_ANISOTROPIC * min(spacing):
        raise UnusableScanError(
            f"voxels of {sides} mm are {max(spacing) / min(spacing):.0f} times as long as wide; up to"
            f" {MOST_ANISOTROPIC:g} times can be analysed; send a 3-D T1 series"
        )
    field = [size * count for size, count in zip(spacing, shape, strict=True)]
    if min(field) < FIELD_MM[0] or max(field) > FIELD_MM[1]:
        raise UnusableScanError(
            f"a field of view of {' x '.join(f'{side:.0f}' for side in field)} mm; a head takes {FIELD_MM[0]:.0f} to"
            f" {FIELD_MM[1]:.0f} mm along each axis; send a scan of the whole head"
        )
    _check_place(scan)
    _check_variety(scan)


def _check_values(scan: Volume) -> None:
    strange = int(scan.data.size - np.count_nonzero(np.isfinite(scan.data)))
    if strange:
        raise UnusableScanError(
            f"{strange} voxels are not finite numbers (NaN, infinite or beyond 1e38); export the series again"
        )
    low, high = float(scan.data.min()), float(scan.data.max())
    if low == high:
        raise UnusableScanError(
            f"the image is empty: every voxel has the value {low:g}; export the series again"
        )
    if not SPAN[0] < high - low < SPAN[1]:
        raise UnusableScanError(
            f"values from {low:g} to {high:g} are beyond what a scanner gives: the header's intensity scaling is not"
            " valid; export the series again"
        )


def _check_variety(scan: Volume) -> None:
    every = tuple(slice(None, None, count // SAMPLED | 1) for count in scan.data.shape)
    sample = scan.data[every]
    values = np.unique(sample).size
    if values < FEWEST_VALUES:
        raise UnusableScanError(
            f"the image has only {values} different values: it is a mask, a map of labels or empty; send the scan"
            " itself"
        )
    bright = float(np.percentile(np.abs(sample), BRIGHTEST))
    most = max(abs(float(scan.data.min())), abs(float(scan.data.max())))
    if most > SPIKE * bright:
        raise UnusableScanError(
            f"a few voxels have values up to {most:.3g}, nearly all others less than {bright:.3g}: the data are"
            " damaged; export the series again"
        )
    if float(np.ptp(np.percentile(sample, [100 - BRIGHTEST, BRIGHTEST]))) < LEAST_VARIATION * bright:
        raise UnusableScanError(
            f"all values are within {LEAST_VARIATION:.1%} of {bright:.3g}: there is no picture; export the series again"
        )


def _check_place(scan: Volume) -> None:
    corner = np.abs(scan.affine[:3, 3]).max()
    if not corner < FARTHEST_MM:
        raise UnusableScanError(
            f"the header places the scan {corner:.3g} mm from the scanner's centre: check the units of"
            " the header, and export the series again"
        )


def check_brain(head: Volume, mask: Mask) -> None:
    """Refuse a scan in which there is no brain.

    Args:
        head: in RAS axis order.
        mask: what the skull strip found in it.

    Raises:
        UnusableScanError: none was found, or it does not stand out.
    """
    volume = float(np.count_nonzero(mask)) * head.voxel_ml
    if volume < LEAST_ML or not _stands_out(head, mask):
        raise UnusableScanError(
            "no brain was found; is this a T1-weighted scan of the whole head, and are its orientation and voxel size"
            " right?"
        )


def _stands_out(head: Volume, mask: Mask) -> bool:
    """Return whether the brain is brighter than the rest, which is air for the most part; noise is not."""
    within = int(np.count_nonzero(mask))
    inside = float(head.data[mask].mean(dtype=np.float64))
    outside = (float(head.data.sum(dtype=np.float64)) - inside * within) / max(1.0, float(mask.size - within))
    return inside > 1.1 * outside
