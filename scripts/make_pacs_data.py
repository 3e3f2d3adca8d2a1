#!/usr/bin/env python3
"""Make the label head of the scan generator from the scan of one real person, Colin27; the same bytes every time.

    python scripts/make_pacs_data.py [--out FOLDER]

Needs ``pip install fr-twisted[data]``, Debian's ``apt-get`` and ``dpkg-deb``, and some ten minutes of one core.
Downloads, by name, version and SHA-256: Debian's ``mricron-data`` (the T1 scan ``ch2.nii.gz``: 27 scans of one man,
averaged, 1 mm) and the ``nilearn`` wheel (the MNI ICBM152 2009a symmetric average with its tissue maps).

How the labels come about, none of it with the segmentation of the analysis that the generated scans are to try:

1. The inside of the skull: deepbet's two nets (arXiv 2308.07003) on the published grid of 256, threshold 0.5.
2. ANTs (antspyx): N4 correction; SyN registration of the average to Colin27 (Avants et al. 2008, doi:10.1016/
   j.media.2007.06.004); Atropos classification with the registered tissue maps as priors, weight 0.25 (Avants et al.
   2011, doi:10.1007/s12021-011-9109-y). One thread and fixed seeds.
3. Ventricles: the average's, registered, grown over fluid that touches. Deep grey matter: by place, prior, brightness.
   Voxels between ventricle and white matter hold both and look grey: they go to that of which they hold more.
4. Outside: seven classes of brightness. Between the halves of the brain: the registered plane x = 0 of the average.

Writes ``colin27_labels.npz.xz`` (``labels`` uint8 (X, Y, Z) of `Tissue`, axes to the right, front, top, 1 mm;
``origin``: stereotaxic mm of the first voxel; ``midline`` int8 (Y, Z): x of that plane, tenths of a mm), its licence
and SHA256SUMS.
"""

import argparse
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

# Threads change the order of sums, and the seed draws the points at which registration compares images.
os.environ |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "ANTS_RANDOM_SEED": "27"}

import ants
import nibabel
import numpy as np
import numpy.typing as npt
import onnxruntime
import scipy.ndimage

from fr_twisted.pacs.generator.head import DATA_FILE, Tissue

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
Origin = npt.NDArray[np.float64]

DEBIAN = "mricron-data=1.2.20211006+dfsg-4"
SCAN = "usr/share/mricron/templates/ch2.nii.gz"
SCAN_SHA256 = "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309"
COPYRIGHT = "usr/share/doc/mricron-data/copyright"
WHEEL = "nilearn==0.14.1"
WHEEL_SHA256 = "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"
MEMBER = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
NETS = Path(__file__).resolve().parent.parent / "fr_twisted" / "brain" / "analysis" / "data"

SEED = 27
CLASSES = {"csf": Tissue.FLUID, "gm": Tissue.GREY, "wm": Tissue.WHITE}
HEAD_STEPS = (12, 40, 70, 100, 140, 190)
"""Between the seven brightness classes outside the skull, of 255."""

GROWTH = {"lateral": 3, "middle": 1}
"""Voxels that the ventricles may reach over fluid beyond their registered places; the third borders on cisterns."""

SMALLEST_PART = 100
"""Voxels of a part of the ventricles; less is a stray."""

MIXED_REACH, WHITE_REACH = 2.3, 1.5
"""Distance of mixed voxels from ventricle and white matter, mm: within two voxels of the one, beside the other."""

NOTICE = """\
colin27_labels.npz.xz is made from ch2.nii.gz of the Debian package mricron-data 1.2.20211006+dfsg-4 (MRIcron): the
Colin27 average, 27 T1-weighted scans of one person registered and averaged. Each voxel was replaced by a label;
registered maps of the MNI ICBM152 non-linear symmetric average (2009a, as the nilearn package carries it) helped to
find them. scripts/make_pacs_data.py says how.
References: C.J. Holmes et al., J Comput Assist Tomogr 22(2), 1998; V.S. Fonov et al., NeuroImage 54(1), 2011; V.S.
Fonov et al., NeuroImage 47 S1, 2009.

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.

The package mricron-data is under this licence (BSD-3-Clause):

Copyright 2006-2010, Chris Rorden

"""


def fetch_scan(folder: Path) -> tuple[Floats, Origin, str]:
    """Return Colin27 (X, Y, Z), the mm of its first voxel, and the BSD licence text of its package.

    Raises:
        SystemExit: it is not the expected file.
    """
    subprocess.run(["apt-get", "download", "--quiet", DEBIAN], cwd=folder, check=True)
    (package,) = folder.glob("mricron-data_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    content = (folder / SCAN).read_bytes()
    _check(content, SCAN_SHA256, SCAN)
    image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    licence = (folder / COPYRIGHT).read_text(encoding="utf-8").split("License: BSD-3-clause\n")[-1]
    text = "\n".join("" if line.strip() == "." else line.strip() for line in licence.strip().splitlines())
    return np.asanyarray(image.dataobj).astype(np.float32), image.affine[:3, 3], text + "\n"


def fetch_average(folder: Path) -> tuple[dict[str, Floats], Origin]:
    """Return ``t1``, ``gm`` and ``wm`` (0 to 1) of the MNI average, (X, Y, Z), and the mm of the first voxel.

    Raises:
        SystemExit: it is not the expected file.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, WHEEL], check=True)
    (wheel,) = folder.glob("nilearn-*.whl")
    _check(wheel.read_bytes(), WHEEL_SHA256, wheel.name)
    maps = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in ("t1", "gm", "wm"):
            content = gzip.decompress(archive.read(MEMBER.format(name)))
            image: Any = nibabel.Nifti1Image.from_bytes(content)
            maps[name] = np.asanyarray(image.dataobj).astype(np.float32)
    return {"t1": maps["t1"], "gm": maps["gm"] / 255, "wm": maps["wm"] / 255}, image.affine[:3, 3]


def _check(content: bytes, digest: str, name: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise SystemExit(f"{name} is not the file that was expected: its SHA-256 differs")


def skull_inside(scan: Floats) -> Mask:
    """Return the inside of the skull as deepbet finds it: a box on a 128 grid, then the mask on a 256 grid."""
    small = nearest(scan, (128,) * 3)
    low, high = np.quantile(small, [0.005, 0.995]).tolist()
    seen = largest(_run_net("bbox.onnx", small, low, high) > 0.5)
    box = []
    for axis, size in enumerate(scan.shape):
        planes = np.flatnonzero(seen.mean(axis=tuple(a for a in range(3) if a != axis)) > 0.02)
        middle = round((planes[-1] + 1 + planes[0]) / 2 * size / 128)
        length = round((planes[-1] + 1 - planes[0]) * size / 128 * 1.2)
        box.append(slice(max(0, int(middle - length / 2)), min(size, int(middle + length / 2))))
    part = scan[tuple(box)]
    mask = np.zeros(scan.shape, bool)
    mask[tuple(box)] = nearest(_run_net("brain.onnx", nearest(part, (256,) * 3), low, high), part.shape) > 0.5
    return np.asarray(ndimage.binary_fill_holes(largest(mask)), bool)


def _run_net(name: str, image: Floats, low: float, high: float) -> Floats:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    net = onnxruntime.InferenceSession(str(NETS / name), options, providers=["CPUExecutionProvider"])
    x = np.clip((image - low) / (high - low), 0, 1)
    x = (0.226 * (x - x.mean()) / x.std(ddof=1) + 0.449).astype(np.float32)
    return np.asarray(net.run(["y"], {"x": x[None, None]})[0][0, 1], np.float32)


def nearest(data: Floats, shape: tuple[int, ...]) -> Floats:
    """Return ``data`` resized to ``shape`` by the nearest voxel centre."""
    index = [((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, data.shape, strict=True)]
    return np.ascontiguousarray(data[np.ix_(*index)])


def largest(mask: Mask) -> Mask:
    """Return the largest part of voxels that share at least a corner."""
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def places(shape: tuple[int, ...], origin: Origin) -> tuple[Floats, Floats, Floats]:
    """Return x, y and z in mm, as arrays that broadcast to ``shape``."""
    x, y, z = (axis + float(o) for axis, o in zip(np.ogrid[tuple(map(slice, shape))], origin, strict=True))
    return x, y, z


def add_ventricles(maps: dict[str, Floats], origin: Origin) -> None:
    """Add to the average's maps its fluid, its ventricles (lateral; third and fourth as ``middle``) and x in mm.

    Lateral: the part of 12 to 25 mL, across the midline, of what is mostly fluid and over 6 mm under the surface.
    Third: the fluid between the thalami. Fourth: the largest dark part in its box behind the brain stem.
    """
    mask = ndimage.binary_fill_holes(maps["t1"] > 0)
    maps["csf"] = (np.clip(1 - maps["gm"] - maps["wm"], 0, 1) * mask).astype(np.float32)
    depth = ndimage.distance_transform_edt(mask)
    x, y, z = places(mask.shape, origin)
    maps["x"] = np.broadcast_to(x, mask.shape).astype(np.float32)
    parts, count = ndimage.label((maps["csf"] > 0.5) & (depth > 6))
    sizes = np.bincount(parts.ravel())
    middles = ndimage.mean(maps["x"], parts, range(count + 1))
    lateral = [n for n in range(1, count + 1) if 12_000 < sizes[n] < 25_000 and abs(middles[n]) < 2]
    maps["lateral"] = np.isin(parts, lateral).astype(np.float32)
    third = (np.abs(x) < 5) & (y > -26) & (y < 4) & (z > -13) & (z < 9) & (maps["csf"] > 0.3)
    box = (np.abs(x) < 13) & (y > -58) & (y < -32) & (z > -46) & (z < -20)
    fourth = largest(box & (maps["t1"] < 150) & (maps["csf"] > 0.35) & (depth > 8))
    maps["middle"] = (third | fourth).astype(np.float32)


def register(
    scan: Floats, inside: Mask, origin: Origin, maps: dict[str, Floats], average_origin: Origin
) -> tuple[dict[str, Floats], Labels]:
    """Return the average's maps on the grid of the scan (``t1``: the scan itself, N4-corrected), Atropos' classes."""

    def image(data: Any, first: Origin) -> Any:
        # Both images have the same axes, so ITK may take right, front, top for its own directions.
        floats = np.ascontiguousarray(data, np.float32)
        return ants.from_numpy(floats, origin=first.tolist(), spacing=(1.0,) * 3, direction=np.eye(3))

    mask = image(inside, origin)
    corrected = ants.n4_bias_field_correction(image(scan, origin), mask=mask, shrink_factor=4).numpy()
    brain = image(corrected * inside, origin)
    moved = ants.registration(
        brain, image(maps["t1"], average_origin), "SyN", reg_iterations=(40, 20, 10), random_seed=SEED
    )
    warped = {
        name: ants.apply_transforms(brain, image(data, average_origin), moved["fwdtransforms"]).numpy()
        for name, data in maps.items()
    }
    priors = np.stack([warped[name] for name in CLASSES]) + np.float32(1e-3)
    priors *= inside / priors.sum(0)
    found = ants.atropos(
        a=brain,
        x=mask,
        i=[image(p, origin) for p in priors],
        m="[0.1,1x1x1]",
        c="[10,0]",
        priorweight=0.25,
        r="0",  # the order in which voxels are visited is drawn, from a constant seed instead of the clock
    )
    return warped | {"t1": corrected}, found["segmentation"].numpy().astype(np.uint8)


def tissues(maps: dict[str, Floats], classes: Labels, inside: Mask, origin: Origin) -> Labels:
    """Return the labels inside the skull: classes smoothed by a vote of neighbours, deep grey matter, ventricles."""
    labels = np.zeros(classes.shape, np.uint8)
    votes = []
    for tissue in CLASSES.values():
        own = (classes == int(tissue)).astype(np.float32)
        votes.append(ndimage.uniform_filter(own, 3) + 0.25 * own)
    labels[inside] = np.array(list(CLASSES.values()), np.uint8)[np.argmax(votes, 0)[inside]]
    labels[deep_grey(maps, labels, inside, origin)] = Tissue.DEEP_GREY
    labels[ventricles(maps, labels)] = Tissue.VENTRICLE
    part_mixed(maps["t1"], labels)
    return labels


def deep_grey(maps: dict[str, Floats], labels: Labels, inside: Mask, origin: Origin) -> Mask:
    """Return caudate, putamen, thalamus and their neighbours: central, and grey by class or by prior and brightness.

    Their brightness lies between grey and white matter, so Atropos calls part of them white.
    """
    x, y, z = places(inside.shape, origin)
    box = (np.abs(x) < 36) & (y > -36) & (y < 26) & (z > -14) & (z < 24)
    central = box & (ndimage.distance_transform_edt(inside) > 24)
    grey, white = (
        float(np.median(maps["t1"][labels == int(tissue)])) for tissue in (Tissue.GREY, Tissue.WHITE)
    )
    dim = ndimage.gaussian_filter(maps["t1"], 1.0) < white - 0.25 * (white - grey)
    greyish = (labels == Tissue.GREY) | ((labels == Tissue.WHITE) & dim & (maps["gm"] > 0.35))
    return np.asarray(ndimage.binary_opening(central & greyish), bool)


def ventricles(maps: dict[str, Floats], labels: Labels) -> Mask:
    """Return the registered ventricles where fluid is, grown over fluid that touches, and what lies deep in them."""
    fluid = labels == Tissue.FLUID
    found = np.zeros(labels.shape, bool)
    for name, growth in GROWTH.items():
        core = maps[name] > 0.4
        found |= ndimage.binary_dilation(core & fluid, iterations=growth, mask=fluid)
        found |= ndimage.binary_erosion(core)  # the choroid plexus is as bright as grey matter
    parts, _ = ndimage.label(found)
    return np.asarray(found & (np.bincount(parts.ravel())[parts] >= SMALLEST_PART))


def part_mixed(scan: Floats, labels: Labels) -> None:
    """Give sheets of grey, two voxels thick at most, between ventricle and white matter to the one or the other.

    Such a voxel holds both, as bright as grey matter, for which a classification takes it (J. Tohka et al.,
    NeuroImage 23, 2004); the ependyma that is really there is thinner than a tenth of a millimetre. Half way in
    brightness is half of each.
    """
    inside, white = labels == int(Tissue.VENTRICLE), labels == int(Tissue.WHITE)
    grey = labels == int(Tissue.GREY)
    sheet = grey & ~ndimage.binary_opening(grey | (labels == int(Tissue.DEEP_GREY)))
    for tissue, reach in ((inside, MIXED_REACH), (white, WHITE_REACH)):
        sheet &= ndimage.distance_transform_edt(~tissue) < reach
    half = (np.median(scan[ndimage.binary_erosion(inside)]) + np.median(scan[white])) / 2
    labels[sheet] = np.where(scan[sheet] > half, Tissue.WHITE, Tissue.VENTRICLE)


def outside(scan: Floats, inside: Mask) -> Labels:
    """Return the labels of the head outside the skull's inside: classes of brightness, air around it."""
    smooth = ndimage.median_filter(scan, 3)
    head = ndimage.binary_fill_holes(ndimage.binary_opening(smooth > HEAD_STEPS[0]))
    classes = np.digitize(smooth, HEAD_STEPS) + int(Tissue.HEAD_1)
    return np.where(head & ~inside, classes, int(Tissue.AIR)).astype(np.uint8)


def midline(x: Floats, inside: Mask, origin: Origin) -> npt.NDArray[np.int8]:
    """Return where ``x`` (the average's, registered) is 0 for each y and z, in tenths of a mm of the scan's x."""
    found = np.full(x.shape[1:], np.nan)
    left = inside[:-1] & inside[1:] & (x[:-1] < 0) & (x[1:] >= 0)
    for i, j, k in np.argwhere(left):
        found[j, k] = origin[0] + i - x[i, j, k] / (x[i + 1, j, k] - x[i, j, k])
    missing = np.isnan(found)
    index = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.round(ndimage.gaussian_filter(found[tuple(index)], 2.0) * 10).astype(np.int8)


def pack(**arrays: npt.NDArray[Any]) -> bytes:
    """Return the arrays as an xz-compressed NumPy archive."""
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **arrays)
    options = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}
    return lzma.compress(archive.getvalue(), filters=[options])


def make(out: Path) -> None:
    """Write the data file, its licence notice and ``SHA256SUMS`` into ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        scan, origin, licence = fetch_scan(Path(folder))
        maps, average_origin = fetch_average(Path(folder))
    add_ventricles(maps, average_origin)
    inside = skull_inside(scan)
    warped, classes = register(scan, inside, origin, maps, average_origin)
    labels = tissues(warped, classes, inside, origin) + outside(scan, inside)
    content = pack(
        labels=labels, origin=origin.astype(np.int16), midline=midline(warped["x"], inside, origin)
    )
    files = {DATA_FILE.name: content, "LICENSE.colin27.txt": (NOTICE + licence).encode()}
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    files["SHA256SUMS"] = "".join(sums).encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    for tissue in Tissue:
        print(f"{tissue.name.lower()}: {(labels == int(tissue)).sum() / 1000:.1f} mL")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Make the data file of the scan generator.")
    parser.add_argument(
        "--out", type=Path, default=DATA_FILE.parent, help="folder to write to (default: %(default)s)"
    )
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
