"""Make the data of the scan generator from the MNI152 template in the nilearn wheel; the same bytes every time.

Usage: ``python scripts/make_pacs_data.py [--out FOLDER]`` (needs numpy, scipy, nibabel and pip).

Writes ``mni152_head.npz.xz``, an xz-compressed NumPy archive of uint8 arrays on 1 mm grids (axes x to the right, y to
the front, z up; millimetres of MNI space):

- ``t1``, ``gm``, ``wm``: the skull-stripped T1 template (0..255) and the tissue probabilities (0..255 for 0..1) of
  the ICBM152 2009a symmetric average, cropped to the brain; unchanged otherwise. - ``head``: a label a voxel of a
  larger grid (see `Tissue`): the brain mask, and a head built around it from dilations of the mask and simple
  solids. The head is a drawing, not anybody's anatomy. - ``brain_origin``, ``head_origin``: MNI coordinates of the
  first voxels, mm.
"""

import argparse
import gzip
import hashlib
import io
import lzma
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import scipy.ndimage

from fr_twisted.pacs.head import DATA_FILE, Tissue

VERSION = "0.14.1"
WHEEL_SHA256 = "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"
MEMBER = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
HEAD_ORIGIN = np.array((-94.0, -128.0, -122.0))
HEAD_SHAPE = (189, 248, 226)
NOISE_SEED = 152

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


def main() -> None:
    """Download, check, build, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DATA_FILE.parent, help="folder to write to")
    out = parser.parse_args().out / DATA_FILE.name
    out.write_bytes(build())
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    print(f"{out}: {out.stat().st_size} bytes, sha256 {digest}")


def build() -> bytes:
    """Return the bytes of the data file."""
    maps, affine = template()
    inside = maps["t1"] > 0
    lows = np.argwhere(inside).min(0)
    highs = np.argwhere(inside).max(0) + 1
    box = tuple(slice(int(low), int(high)) for low, high in zip(lows, highs, strict=True))
    origin = affine[:3, 3] + lows
    brain = {
        name: np.ascontiguousarray(np.where(inside, volume, 0)[box], np.uint8)
        for name, volume in maps.items()
    }
    archive = io.BytesIO()
    np.savez(
        archive,
        allow_pickle=False,
        **brain,
        head=draw_head(brain["t1"] > 0, origin),
        brain_origin=origin.astype(np.float32),
        head_origin=HEAD_ORIGIN.astype(np.float32),
    )
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]
    return lzma.compress(archive.getvalue(), filters=filters)


def template() -> tuple[dict[str, npt.NDArray[np.uint8]], npt.NDArray[np.float64]]:
    """Return the T1, GM and WM volumes of the wheel and their affine (voxel to MNI mm).

    Raises:
        SystemExit: the wheel is not the one these figures were made with.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, f"nilearn=={VERSION}"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
            raise SystemExit(f"{wheel.name} does not have the expected sha256 {WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            raw = {name: gzip.decompress(archive.read(MEMBER.format(name))) for name in ("t1", "gm", "wm")}
    images: dict[str, Any] = {name: nibabel.Nifti1Image.from_bytes(data) for name, data in raw.items()}
    return {name: np.asanyarray(image.dataobj) for name, image in images.items()}, images["t1"].affine


def draw_head(brain: Mask, origin: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the labels of a head around the brain mask whose first voxel lies at ``origin`` (mm)."""
    mask = np.zeros(HEAD_SHAPE, bool)
    start = np.round(origin - HEAD_ORIGIN).astype(int)
    mask[tuple(slice(s, s + n) for s, n in zip(start, brain.shape, strict=True))] = brain
    mask = ndimage.binary_fill_holes(mask)
    x, y, z = (axis.astype(np.float32) for axis in np.ogrid[tuple(slice(0, n) for n in HEAD_SHAPE)])
    x, y, z = x + np.float32(HEAD_ORIGIN[0]), y + np.float32(HEAD_ORIGIN[1]), z + np.float32(HEAD_ORIGIN[2])
    noise = smooth_noise(9.0), smooth_noise(5.0)
    labels = np.full(HEAD_SHAPE, Tissue.AIR, np.uint8)
    vault = closed(mask & (z > -66), 22.0)
    draw_face(labels, vault, (x, y, z), noise)
    draw_skull(labels, vault, mask, (x, y, z), noise)
    draw_spine(labels, mask, (x, y, z))
    labels[mask] = Tissue.BRAIN
    return labels


def outside_distance(mask: Mask) -> Floats:
    """Return each voxel's distance to the mask in mm, 0 inside."""
    distance: Floats = ndimage.distance_transform_edt(~mask).astype(np.float32)
    return distance


def closed(mask: Mask, radius: float) -> Mask:
    """Return the morphological closing of the mask by a ball of ``radius`` mm, smoothed."""
    pad = int(radius) + 1
    grown = np.pad(outside_distance(mask) <= radius, pad, mode="edge")
    shrunk: Floats = ndimage.distance_transform_edt(grown).astype(np.float32)
    inner = tuple(slice(pad, -pad) for _ in range(3))
    smooth: Mask = (ndimage.gaussian_filter((shrunk > radius).astype(np.float32), 2.0)[inner] > 0.5) | mask
    return smooth


def smooth_noise(sigma: float) -> Floats:
    """Return repeatable noise with a correlation length of ``sigma`` mm, mean 0 and deviation 1."""
    rng = np.random.default_rng(NOISE_SEED + int(sigma))
    field: Floats = ndimage.gaussian_filter(
        rng.standard_normal(HEAD_SHAPE, dtype=np.float32), sigma, mode="wrap"
    )
    return field / field.std()


def ball(
    axes: tuple[Floats, Floats, Floats], centre: tuple[float, float, float], radii: tuple[float, ...]
) -> Floats:
    """Return the normalised distance from ``centre``: below 1 is inside the ellipsoid with ``radii`` (mm)."""
    return np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)))


def draw_face(
    labels: Any, vault: Mask, axes: tuple[Floats, Floats, Floats], noise: tuple[Floats, Floats]
) -> None:
    """Draw skin, fat, muscle, the face's bones, eyes and airways into ``labels``."""
    x, y, z = axes
    neck_y = -18 + 0.28 * (z + 120) * -1 + 10
    neck = (np.hypot(x / 60, (y - neck_y) / 62) < 1) & (z < -40)
    face = ball(axes, (0, 40, -62), (66, 58, 74)) < 1
    jaw = ball(axes, (0, 62, -104), (44, 36, 30)) < 1
    drop = np.clip((-22 - z) / 36, 0, 1)
    nose = (np.hypot(x / (5 + 11 * drop), (y - 84) / (8 + 22 * drop)) < 1) & (z < -22) & (z > -60)
    brow = ball(axes, (0, 66, -12), (52, 26, 30)) < 1
    ears = ball((abs(x), y, z), (74, -24, -34), (9, 16, 28)) < 1
    solid = (outside_distance(vault) < 15) | neck | face | jaw | brow
    solid = ndimage.gaussian_filter(solid.astype(np.float32), 5.0) > 0.5
    solid = (ndimage.gaussian_filter((solid | nose | ears).astype(np.float32), 2.0) > 0.45) | (
        solid & (z < -115)
    )
    depth = ndimage.distance_transform_edt(np.pad(solid, ((0, 0), (0, 0), (12, 0)), mode="edge"))[:, :, 12:]
    labels[solid] = Tissue.MUSCLE
    wide, fine = noise
    labels[solid & (fine + 0.6 * wide > 1.0)] = Tissue.FAT
    labels[solid & (abs(wide) < 0.10) & (z < -30)] = Tissue.FAT
    labels[solid & (depth < 4.5 + 1.5 * wide)] = Tissue.FAT
    labels[solid & (depth < 1.6)] = Tissue.SKIN
    draw_bones(labels, solid & (depth > 5), axes)
    draw_eyes(labels, axes)
    draw_airways(labels, solid, axes, fine)


def draw_bones(labels: Any, deep: Mask, axes: tuple[Floats, Floats, Floats]) -> None:
    """Draw jaws with marrow, and the bone around the orbits."""
    x, y, z = axes
    lower = np.hypot(x / 43, (y - 40) / 46)
    mandible = deep & (abs(lower - 0.92) < 0.14) & (abs(z + 104) < 11) & (y > 20)
    ramus = deep & (abs(abs(x) - 46) < 5) & (abs(y - 18) < 15) & (z < -48) & (z > -112)
    upper = deep & (abs(np.hypot(x / 33, (y - 46) / 42) - 0.86) < 0.17) & (abs(z + 78) < 8) & (y > 46)
    for bone in (mandible, ramus, upper):
        labels[bone] = Tissue.BONE
        labels[ndimage.binary_erosion(bone, iterations=2)] = Tissue.MARROW
    zygoma = deep & (abs(abs(x) - 55) < 3.5) & (abs(z + 50) < 6) & (y > 10) & (y < 60)
    labels[zygoma] = Tissue.BONE


def draw_eyes(labels: Any, axes: tuple[Floats, Floats, Floats]) -> None:
    """Draw the orbits: a cone of fat, four straight muscles, the globe with its lens, the nerve."""
    x, y, z = axes
    side = abs(x)
    along = np.clip((y - 18) / 44, 0, 1)
    axis = 12 + 20 * along
    off = np.hypot(side - axis, z + 37)
    cone = (off < 4 + 15 * along) & (y > 18) & (y < 70)
    labels[cone] = Tissue.FAT
    rim = abs(np.maximum(abs(side - axis), abs(z + 37)) - (2.5 + 11 * along)) < 1.6
    labels[cone & rim & (y < 60) & (np.minimum(abs(side - axis), abs(z + 37)) < 4)] = Tissue.MUSCLE
    labels[(off < 2) & (y > 18) & (y < 54)] = Tissue.MUSCLE
    globe = ball((side, y, z), (32, 63, -37), (12.2, 12.2, 12.2))
    labels[globe < 1.1] = Tissue.MUSCLE
    labels[globe < 1] = Tissue.VITREOUS
    labels[ball((side, y, z), (32, 72, -37), (5, 2.2, 5)) < 1] = Tissue.SKIN


def draw_airways(labels: Any, solid: Mask, axes: tuple[Floats, Floats, Floats], fine: Floats) -> None:
    """Draw nasal cavity with turbinates, sinuses, mouth and pharynx: air with a lining."""
    x, y, z = axes
    side = abs(x)
    nasal = (
        (side > 1.2)
        & (side < 11 - 0.12 * np.clip(z + 62, 0, 60))
        & (y > 24)
        & (y < 84)
        & (z > -66)
        & (z < -26)
    )
    sinus = ball((side, y, z), (25, 48, -58), (12, 15, 15)) < 1
    sphenoid = ball((side, y, z), (8, 22, -36), (7, 10, 8)) < 1
    frontal = ball((side, y, z), (9, 74, -12), (9, 4.5, 11)) < 1
    mouth = ball(axes, (0, 52, -92), (23, 30, 3)) < 1
    pharynx = (np.hypot(x / 13, (y - 15 - 0.1 * (z + 60)) / 6) < 1) & (z < -54)
    air = (nasal | sinus | sphenoid | frontal | mouth | pharynx) & solid
    labels[ndimage.binary_dilation(air, iterations=2) & solid & ~air] = Tissue.BONE
    labels[ndimage.binary_dilation(air, iterations=1) & solid & ~air] = Tissue.MUSCLE
    labels[air] = Tissue.AIR
    labels[nasal & solid & (fine > 0.35)] = Tissue.MUSCLE


def draw_skull(
    labels: Any, vault: Mask, mask: Mask, axes: tuple[Floats, Floats, Floats], noise: tuple[Floats, Floats]
) -> None:
    """Draw the meninges and the skull: two dark tables with marrow between them, thicker and patchy at the base."""
    _, y, z = axes
    wide, fine = noise
    distance = outside_distance(vault)
    thickness = 6.5 + 1.3 * wide + np.clip((-y - 90) / 20, 0, 2) + 0 * z
    within = distance < thickness
    labels[within] = Tissue.BONE
    table = 1.7 + 0.25 * fine
    labels[within & (distance > table) & (distance < thickness - table) & (wide > -1.2)] = Tissue.MARROW
    labels[vault] = Tissue.BONE
    gap = outside_distance(mask)
    base = vault & (gap > 3) & (z < 0)
    labels[base & (wide + fine > 0.9)] = Tissue.MARROW
    labels[vault & (gap <= 2.2)] = Tissue.MENINGES
    labels[vault & (z > 20) & (gap > 2.2)] = Tissue.MENINGES


def draw_spine(labels: Any, mask: Mask, axes: tuple[Floats, Floats, Floats]) -> None:
    """Draw the cord below the brain stem in its canal, vertebral bodies with discs, and arches."""
    x, y, z = axes
    bottom = np.argwhere(mask)
    stem = bottom[bottom[:, 2] == bottom[:, 2].min()].mean(0) + HEAD_ORIGIN
    cord_y = np.float32(stem[1]) - 0.10 * (z - np.float32(stem[2])) * -1
    below = z < stem[2] + 1
    canal = np.hypot(x, y - cord_y)
    around = np.hypot(x / 24, (y - cord_y - 10) / 24) < 1
    body = (np.hypot(x / 13, (y - cord_y - 19) / 9) < 1) & below
    arch = (abs(canal - 13) < 2.2) & below & (y < cord_y + 4) & (np.mod(z, 18) > 5)
    labels[body] = Tissue.MARROW
    labels[body & (np.mod(z + 4, 18) < 4)] = Tissue.MUSCLE
    edge = np.broadcast_to(body, HEAD_SHAPE) & ~ndimage.binary_erosion(
        np.broadcast_to(body, HEAD_SHAPE), iterations=1
    )
    labels[edge & around] = Tissue.BONE
    labels[arch] = Tissue.BONE
    labels[below & (canal < 10)] = Tissue.MENINGES
    labels[below & (canal < 9)] = Tissue.FLUID
    labels[below & (np.hypot(x / 6.5, (y - cord_y) / 5) < 1)] = Tissue.CORD


if __name__ == "__main__":
    main()
