"""Generated scans: T1-weighted heads of known truth, each different, made from the MNI152 template.

A head is posed, warped, aged and imaged by numbers drawn from a seed: the same seed gives the same bytes. What is
drawn over the template's own average anatomy (folding of the cortex, skull, scalp, face, neck) looks like a head and
is nobody's. The truth is exact: it is the sum of the tissue fractions that the image was painted from, before blur,
bias and noise.
"""

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from fr_twisted.pacs.head import Head, Tissue, load_head

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

Floats = npt.NDArray[np.float32]

WHITE = 1000.0
"""Intensity of white matter; the others relative to it are as an MPRAGE at 3 T shows them."""

LEVELS = {
    Tissue.AIR: 0.0,
    Tissue.MENINGES: 0.30,
    Tissue.BONE: 0.07,
    Tissue.MARROW: 0.95,
    Tissue.MUSCLE: 0.50,
    Tissue.FAT: 1.30,
    Tissue.SKIN: 0.60,
    Tissue.VITREOUS: 0.20,
    Tissue.FLUID: 0.20,
    Tissue.CORD: 0.92,
    Tissue.BRAIN: 0.0,
}
GREY, FLUID = 0.66, 0.20
"""Intensities of grey matter and cerebrospinal fluid relative to white matter."""

SHARPNESS = 1.8
"""Exponent that makes one person's tissue borders of the average's soft ones."""

MAX_VALUE = 4095
"""The largest stored value: 12 bits, as MR scanners store."""

_FOLDS = 128
"""Edge of the periodic texture that folds the cortex, mm."""


@dataclass(frozen=True)
class Truth:
    """Volumes in mL. ``brain`` is ``gm + wm``, ``icv`` is ``brain + csf``."""

    brain: float
    gm: float
    wm: float
    csf: float
    icv: float


@dataclass(frozen=True)
class Recipe:
    """The numbers that make one scan, drawn from its seed by `draw_recipe`. Angles in radians, lengths in mm."""

    seed: int
    rotation: tuple[float, float, float]
    shift: tuple[float, float, float]
    scale: tuple[float, float, float]
    warp: float
    """Amplitude of the smooth warp."""
    atrophy: float
    """Log-odds of fluid against tissue: 0 young, 1 old."""
    folding: float
    """Strength of the drawn folds."""
    bias: float
    """Largest relative deviation of the receive field."""
    noise: float
    """Standard deviation of the noise in each channel, relative to white matter."""
    gain: float


@dataclass(frozen=True)
class GeneratedScan:
    """``volume``: int16 (X, Y, Z), to the right, front, top; ``affine``: 4 x 4, voxel to scanner mm (RAS)."""

    volume: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    truth: Truth
    recipe: Recipe

    def record(self) -> dict[str, Any]:
        """Return truth and recipe as JSON-able data, for the record on this side."""
        return {"volumes_ml": asdict(self.truth), "recipe": asdict(self.recipe)}


def draw_recipe(seed: int) -> Recipe:
    """Return the numbers of the scan with this seed.

    The template is larger than a person's brain (Lancaster et al. 2007, doi:10.1002/hbm.20345); the scale brings the
    intracranial volume to about 1.2 to 1.7 L.
    """
    rng = np.random.default_rng((0x4652, seed))

    def three(deviation: float, limit: float) -> tuple[float, float, float]:
        x, y, z = np.clip(rng.normal(0, deviation, 3), -limit, limit)
        return float(x), float(y), float(z)

    size = float(np.clip(rng.normal(0.92, 0.025), 0.86, 0.98))
    sx, sy, sz = three(0.015, 0.03)
    return Recipe(
        seed=seed,
        rotation=three(0.06, 0.15),
        shift=three(3.0, 6.0),
        scale=(size * (1 + sx), size * (1 + sy), size * (1 + sz)),
        warp=float(rng.uniform(0.8, 2.0)),
        atrophy=float(rng.uniform(0.0, 1.0)),
        folding=float(rng.uniform(0.9, 1.3)),
        bias=float(rng.uniform(0.05, 0.20)),
        noise=float(rng.uniform(0.015, 0.035)),
        gain=float(rng.uniform(0.6, 1.4)),
    )


def generate(seed: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> GeneratedScan:
    """Return the scan with this seed, sampled at ``spacing`` mm along x, y, z. Blocks; not for the reactor's thread.

    A spacing above 1.5 mm is painted finer and averaged, so that thick slices have the partial volume of thick slices.

    Raises:
        ValueError: a spacing is not within 0.5 to 10 mm.
    """
    if not all(0.5 <= edge <= 10 for edge in spacing):
        raise ValueError(f"a spacing of {spacing} mm is not within 0.5 to 10 mm")
    recipe = draw_recipe(seed)
    head = load_head()
    blocks = tuple(max(1, round(edge)) for edge in spacing)
    fine = np.array(spacing) / blocks
    counts = [round(n / edge) for n, edge in zip(head.labels.shape, spacing, strict=True)]
    shape = tuple(n * block for n, block in zip(counts, blocks, strict=True))
    coordinates = _head_coordinates(head, recipe, fine, shape)
    image, fractions = _paint(head, recipe, coordinates)
    truth = _measure(fractions, float(np.prod(fine)))
    image = _average(ndimage.gaussian_filter(image, 0.5 / fine, truncate=3.0), blocks)
    _distort(image, recipe)
    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = -(np.array(image.shape) - 1) / 2 * spacing
    return GeneratedScan(image.astype(np.int16), affine, truth, recipe)


def _head_coordinates(
    head: Head, recipe: Recipe, fine: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Return where each voxel of the scan lies on the head's label grid: three arrays of ``shape``."""
    cx, cy, cz = np.cos(recipe.rotation)
    sx, sy, sz = np.sin(recipe.rotation)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turn = np.diag(1 / np.array(recipe.scale)) @ about_x @ about_y @ about_z
    matrix = (turn * fine).astype(np.float32)
    centre = (np.array(head.labels.shape) - 1) / 2
    offset = (centre - turn @ (fine * (np.array(shape) - 1) / 2 + recipe.shift)).astype(np.float32)
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    i, j, k = (axis.astype(np.float32) for axis in axes)
    waves = _waves(recipe, fine, (i, j, k))
    x, y, z = (
        (matrix[row, 0] * i + offset[row]) + matrix[row, 1] * j + matrix[row, 2] * k + waves[row]
        for row in range(3)
    )
    return x, y, z


def _waves(
    recipe: Recipe, fine: npt.NDArray[np.float64], axes: tuple[Floats, Floats, Floats]
) -> list[Floats]:
    """Return a smooth displacement for each axis: products of sines with wavelengths of 70 to 140 mm."""
    rng = np.random.default_rng((0x5741, recipe.seed))
    out: list[Floats] = []
    for _ in range(3):
        lengths, phases = rng.uniform(70, 140, 3), rng.uniform(0, 2 * np.pi, 3)
        factors = [
            np.sin(axis * np.float32(2 * np.pi * edge / length) + np.float32(phase))
            for axis, edge, length, phase in zip(axes, fine, lengths, phases, strict=True)
        ]
        out.append((factors[0] * factors[1] * np.float32(recipe.warp)) * factors[2])
    return out


def _paint(head: Head, recipe: Recipe, coordinates: tuple[Floats, Floats, Floats]) -> tuple[Floats, Floats]:
    """Return the image without blur, bias and noise, and the fractions (3, brain voxels) of GM, WM and CSF in it."""
    rng = np.random.default_rng((0x5041, recipe.seed))
    labels = _nearest(head.labels, coordinates)
    levels = np.array([LEVELS[tissue] for tissue in Tissue], np.float32)
    levels *= rng.normal(1, 0.06, levels.shape).astype(np.float32)
    image: Floats = levels[labels]
    where = np.flatnonzero(labels == Tissue.BRAIN)
    shift = head.brain_origin - head.head_origin
    points = np.stack([axis.reshape(-1)[where] - s for axis, s in zip(coordinates, shift, strict=True)])
    t1, gm, wm = (
        ndimage.map_coordinates(m, points, np.float32, 1, prefilter=False)
        for m in (head.t1, head.gm, head.wm)
    )
    fractions = _fractions(gm / 255, wm / 255, _folds(points, rng), recipe)
    texture = _texture(t1 / 255, gm / 255, wm / 255)
    brain = GREY * fractions[0] + fractions[1] + FLUID * fractions[2] + texture * (1 - fractions[2])
    image.reshape(-1)[where] = brain
    return image, fractions


def _nearest(
    volume: npt.NDArray[np.uint8], coordinates: tuple[Floats, Floats, Floats]
) -> npt.NDArray[np.uint8]:
    """Return the nearest voxels of ``volume``; beyond its edges, the edge (a neck goes on)."""
    index = np.zeros(coordinates[0].shape, np.int32)
    for axis, n in zip(coordinates, volume.shape, strict=True):
        index *= np.int32(n)
        index += np.clip(np.rint(axis), 0, n - 1).astype(np.int32)
    return volume.reshape(-1)[index]


def _fractions(gm: Floats, wm: Floats, folds: Floats, recipe: Recipe) -> Floats:
    """Return the fractions (3, n) of GM, WM, CSF, which sum to 1, from the average's probabilities.

    In log-odds: sharpened, folds deepened where grey matter meets fluid, moved towards fluid by the atrophy.
    """
    csf = 1 - gm - wm
    floor = np.float32(1e-3)
    odds = np.log(np.maximum(np.stack((gm, wm, csf)), floor)) * np.float32(SHARPNESS)
    odds[2] += np.float32(1.3 * recipe.atrophy + 0.3)
    odds[2] += folds * np.float32(1.6 * recipe.folding)
    odds[1] -= folds * np.float32(0.5 * recipe.folding)
    odds -= odds.max(0)
    np.exp(odds, out=odds)
    fractions: Floats = odds / odds.sum(0)
    return fractions


def _texture(t1: Floats, gm: Floats, wm: Floats) -> Floats:
    """Return what the template's T1 shows beyond its three tissues, such as the brighter deep grey matter."""
    plain = np.float32(0.66) * gm + np.float32(0.90) * wm + np.float32(0.28) * (1 - gm - wm)
    texture: Floats = np.clip(t1 - plain, -0.15, 0.15).astype(np.float32)
    return texture


@functools.cache
def _fold_texture() -> Floats:
    """Return a periodic texture of winding lines some 9 mm apart, mean 0 and deviation 1; made once a process."""
    rng = np.random.default_rng(9)
    noise = rng.standard_normal((_FOLDS,) * 3, dtype=np.float32)
    band = ndimage.gaussian_filter(noise, 2.2, mode="wrap") - ndimage.gaussian_filter(noise, 3.3, mode="wrap")
    texture: Floats = (band - band.mean()) / band.std()
    return texture


def _folds(points: Floats, rng: np.random.Generator) -> Floats:
    """Return the texture at ``points`` (3, n), shifted and mirrored anew for each scan."""
    shift, flip = rng.uniform(0, _FOLDS, 3), rng.choice((-1, 1), 3)
    index = np.zeros(points.shape[1], np.int32)
    for axis, s, f in zip(points, shift, flip, strict=True):
        index *= np.int32(_FOLDS)
        index += np.rint(axis * np.float32(f) + np.float32(s)).astype(np.int32) % _FOLDS
    return _fold_texture().reshape(-1)[index]


def _measure(fractions: Floats, voxel: float) -> Truth:
    """Return the truth; ``voxel`` in cubic millimetres."""
    gm, wm, csf = (float(total) * voxel / 1000 for total in fractions.sum(1, dtype=np.float64))
    return Truth(brain=gm + wm, gm=gm, wm=wm, csf=csf, icv=gm + wm + csf)


def _average(image: Floats, blocks: tuple[int, ...]) -> Floats:
    """Return the means of blocks of voxels."""
    if max(blocks) == 1:
        return image
    shape = [part for n, block in zip(image.shape, blocks, strict=True) for part in (n // block, block)]
    mean: Floats = image.reshape(shape).mean((1, 3, 5), dtype=np.float32)
    return mean


def _distort(image: Floats, recipe: Recipe) -> None:
    """Apply the receive field, Rician noise and the gain, in place; the result is in 0 to 4095.

    A magnitude image has Rician noise: the modulus of two channels with Gaussian noise each
    (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).
    """
    rng = np.random.default_rng((0x4E4F, recipe.seed))
    for axis, n in enumerate(image.shape):
        line = np.linspace(-1, 1, n, dtype=np.float32)
        field = rng.uniform(-1, 1) * line + rng.uniform(-1, 1) * (line**2 - np.float32(1 / 3))
        shape = [1, 1, 1]
        shape[axis] = n
        image *= (1 + recipe.bias * field / 2).astype(np.float32).reshape(shape)
    deviation = np.float32(recipe.noise)
    channel = rng.standard_normal(image.shape, dtype=np.float32)
    channel *= deviation
    image += channel
    rng.standard_normal(dtype=np.float32, out=channel)
    channel *= deviation
    np.hypot(image, channel, out=image)
    image *= np.float32(WHITE * recipe.gain)
    np.clip(image, 0, MAX_VALUE, out=image)
