"""Writes what each voxel was counted as: label maps on the analysis's own grid, for viewers and DICOM segmentations."""

import gzip
from collections.abc import Sequence

import nibabel
import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Anatomy, Lesion
from fr_twisted.brain.analysis.schema import Findings
from fr_twisted.brain.analysis.volume import Affine
from fr_twisted.bundle import LABELS_NII, LESIONS_NII


def files(anatomy: Anatomy, found: Findings) -> dict[str, bytes]:
    """Return the label maps by name, none where the numbers are withheld: a map would look like one to be trusted.

    They cover the box around the brain. Their voxels are those that were counted, so that a map gives the report's
    volumes wherever these were counted by whole voxels.
    """
    if found.volumes is None:
        return {}
    grid = anatomy.head.crop(anatomy.box)
    written = {LABELS_NII: _nifti(anatomy.labels, grid.affine, "Fr tissue labels")}
    if anatomy.lesions:
        numbers = lesion_numbers(anatomy.lesions, anatomy.labels.shape)
        written[LESIONS_NII] = _nifti(numbers, grid.affine, "Fr lesion candidates")
    return written


def lesion_numbers(lesions: Sequence[Lesion], shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return the number of the candidate that each voxel belongs to, 0 for none; where two touch, the first."""
    numbers = np.zeros(shape, np.uint16)
    for number, lesion in reversed(list(enumerate(lesions, start=1))):
        numbers[tuple(lesion.voxels.T)] = number
    return numbers


def _nifti(data: NDArray[np.uint8] | NDArray[np.uint16], affine: Affine, words: str) -> bytes:
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label", name=words[:15])
    image.header["descrip"] = words.encode()
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
