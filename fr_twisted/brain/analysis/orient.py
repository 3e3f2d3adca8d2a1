"""Brings a scan to one form: axes to the right, front and top; intensities of the head; no finer than needed."""

import numpy as np
from nibabel import orientations

from fr_twisted.brain.analysis.volume import Volume, resample

FINEST_MM = 0.75
"""A finer axis is brought to `WORKING_MM`: it costs much and moves no volume."""

WORKING_MM = 1.0


def standard_form(scan: Volume) -> Volume:
    """Return ``scan`` in RAS axis order, with `scaled` intensities, no axis finer than `FINEST_MM`. Never upsampled."""
    upright = to_ras(scan)
    fine = [WORKING_MM if size < FINEST_MM else size for size in upright.spacing]
    return resample(scaled(upright), (fine[0], fine[1], fine[2]))


def to_ras(scan: Volume) -> Volume:
    """Return ``scan`` with its axes permuted and flipped to run nearest to right, anterior, superior.

    The values are not interpolated: an oblique scan keeps its obliquity in the affine. The affine is rounded to
    1e-6 mm, so that the same grid written in another storage order, or in DICOM's decimal text, gives the same
    numbers.
    """
    order = orientations.io_orientation(scan.affine)
    data = np.ascontiguousarray(orientations.apply_orientation(scan.data, order))
    affine = scan.affine @ orientations.inv_ornt_aff(order, scan.data.shape)
    return Volume(data, np.round(affine, 6) + 0.0)


def scaled(scan: Volume) -> Volume:
    """Return ``scan`` with 0 at its air and 1 near its bright tissue, so that no later step knows the scanner's
    scale.

    Air is zero, or, where values are negative (a rescale intercept), the first percentile; bright is the 99th
    percentile of what is above the mean. Both are values of the scan itself, so that a scan of integers times a
    constant gives the same bits.
    """
    values = scan.data
    low = min(float(np.percentile(values, 1, method="lower")), 0.0)
    foreground = values[values > values.mean(dtype=np.float64)]
    high = float(np.percentile(foreground, 99, method="lower")) if foreground.size else low + 1.0
    if not high > low:
        high = low + 1.0  # nearly all voxels have one value, and no other is above it
    result = (values - np.float32(low)) / np.float32(high - low)
    return Volume(np.maximum(result, 0.0, out=result), scan.affine)
