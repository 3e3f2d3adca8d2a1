"""What lies at the voxels of a scan: codes, brightness, labels and volumes, read off the label head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.fields import Floats
from fr_twisted.pacs.generator.geometry import Grid, Pose
from fr_twisted.pacs.generator.head import RIGHT, Codes
from fr_twisted.pacs.generator.truth import Label


@dataclass(frozen=True)
class Sampled:
    """Of the fine voxels (X, Y, Z).

    ``codes``: of the nearest voxel of the label head. ``image``: brightness, float32. ``labels``: uint8 of `Label`,
    what most of a voxel is. ``counts``: voxels of each code, float64 (32); parts of voxels count as parts.
    """

    codes: Codes
    image: Floats
    labels: NDArray[np.uint8]
    counts: NDArray[np.float64]


def sample(
    codes: Codes, pose: Pose, grid: Grid, levels: Floats, table: NDArray[np.uint8], mixed: bool = True
) -> Sampled:
    """Return what lies at the fine voxels of ``grid``.

    Fine voxels that are averaged later are each of one tissue, the nearest voxel's. Others are mixed of the eight
    voxels of ``codes`` around, by trilinear weights: brightness, labels and counts all follow from the same mixture,
    for the nearest voxel may be the smallest part of it. Beyond the margin of ``codes`` its outermost voxels go on:
    air, and below, the neck.

    Args:
        codes: of the label head.
        pose: where the scan lies in it.
        grid: of the scan.
        levels: brightness of each code (32).
        table: `Label` of each code (32).
        mixed: False: fine voxels are each of one tissue anyway.
    """
    shape = grid.fine_shape
    tracks = _Tracks(pose, grid, codes.shape)
    flat = codes.reshape(-1)
    nearest, image = np.empty(shape, np.uint8), np.empty(shape, np.float32)
    labels = np.empty(shape, np.uint8)
    counts = np.zeros(2 * RIGHT)
    for i in range(shape[0]):
        places = tracks.plane(i)
        half_on = [place + np.float32(0.5) for place in places]
        np.take(flat, _index(half_on, codes.shape), out=nearest[i], mode="clip")
        labels[i] = table[nearest[i]]
        counts += np.bincount(nearest[i].reshape(-1), minlength=len(counts))
        if max(grid.blocks) > 1 or not mixed:
            image[i] = levels[nearest[i]]
        else:
            mixture = _Mixture(flat, places, codes.shape)
            image[i] = mixture.brightness(levels)
            mixture.correct(nearest[i], labels[i], counts, table)
    return Sampled(nearest, image, labels, counts)


class _Mixture:
    """The eight voxels of the label head around each voxel of a plane, and their weights."""

    def __init__(self, flat: Codes, places: list[Floats], shape: tuple[int, ...]) -> None:
        index = _index(places, shape)
        steps = [x * shape[1] * shape[2] + y * shape[2] + z for x in (0, 1) for y in (0, 1) for z in (0, 1)]
        self._corners = [np.take(flat, index + np.int32(step), mode="clip") for step in steps]
        self._shares = [place - np.trunc(place) for place in places]

    def brightness(self, levels: Floats) -> Floats:
        """Return the mean brightness (Y, Z)."""
        values = [levels[corner] for corner in self._corners]
        for share in reversed(self._shares):
            values = [_between(low, high, share) for low, high in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def correct(
        self, nearest: Codes, labels: NDArray[np.uint8], counts: NDArray[np.float64], table: NDArray[np.uint8]
    ) -> None:
        """Replace the nearest voxel by the mixture, in ``labels`` (Y, Z) and ``counts``, where there is one."""
        first = self._corners[0]
        mixed = np.zeros(first.shape, bool)
        for corner in self._corners[1:]:
            mixed |= corner != first
        where = np.flatnonzero(mixed)
        corners = np.stack([corner.reshape(-1)[where] for corner in self._corners])
        weights = self._weights(where)
        counts -= np.bincount(nearest.reshape(-1)[where], minlength=len(counts))
        counts += np.bincount(corners.reshape(-1), weights.reshape(-1), minlength=len(counts))
        kinds = table[corners]
        brain = kinds.any(0)
        kinds, weights = kinds[:, brain], weights[:, brain]
        votes = np.stack([(weights * (kinds == label)).sum(0) for label in Label])
        labels.reshape(-1)[where[brain]] = votes.argmax(0)

    def _weights(self, where: NDArray[np.int64]) -> Floats:
        """Return the weights (8, n) of the corners."""
        x, y, z = ([1 - share.reshape(-1)[where], share.reshape(-1)[where]] for share in self._shares)
        return np.stack([a * b * c for a in x for b in y for c in z])


class _Tracks:
    """The places of a scan's fine voxels in the label head, plane by plane."""

    def __init__(self, pose: Pose, grid: Grid, limits: tuple[int, ...]) -> None:
        shape = grid.fine_shape
        self._step = pose.matrix * grid.fine_spacing
        start = pose.matrix @ grid.fine_affine[:3, 3] + pose.offset
        j, k = np.arange(shape[1])[:, None], np.arange(shape[2])
        self._bases = [
            (self._step[axis, 1] * j + self._step[axis, 2] * k + start[axis]).astype(np.float32)
            for axis in range(3)
        ]
        self._warps = [field.on(grid.fine_places) for field in pose.warp] if pose.warp else []
        self._limits = [np.float32(count - 1.001) for count in limits]

    def plane(self, index: int) -> list[Floats]:
        """Return x, y and z (Y, Z) of the plane ``index``, as indices of the label head, inside of it."""
        places = []
        for axis, (base, limit) in enumerate(zip(self._bases, self._limits, strict=True)):
            place = base + np.float32(self._step[axis, 0] * index)
            if self._warps:
                place += self._warps[axis].plane(index)
            places.append(np.clip(place, np.float32(0), limit, out=place))
        return places


def _index(places: Sequence[Floats], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the flat index of the voxels that places lie in, their fractions cut off."""
    index = np.zeros(places[0].shape, np.int32)
    for place, count in zip(places, shape, strict=True):
        index *= np.int32(count)
        index += place.astype(np.int32)
    return index


def _between(low: Floats, high: Floats, share: Floats) -> Floats:
    high -= low
    high *= share
    high += low
    return high
