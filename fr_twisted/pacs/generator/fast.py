"""Many distinct scans for load tests, each in tens of milliseconds: few patients, each scanned again and again.

A patient is rendered once. Each scan of it has noise, gain and lesions of its own, and the truth is as exact as the
slow way's: `generate` of the scan's recipe has the same truth and, but for the noise, the same image.

``python -m fr_twisted.pacs.generator.fast [COUNT]`` measures it.
"""

import resource
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.fields import Field, Floats
from fr_twisted.pacs.generator.imaging import receive, receive_field, soften, store_magnitude
from fr_twisted.pacs.generator.lesions import Patch, white_matter
from fr_twisted.pacs.generator.recipe import Recipe, Triple, draw_recipe
from fr_twisted.pacs.generator.scan import Scene, labels_of, measure, set_scene
from fr_twisted.pacs.generator.truth import GeneratedScan, Truth

_SLACK = 1 << 20
"""Offsets at which a scan can begin to read the pool of noise."""


@dataclass(frozen=True)
class _Patient:
    scene: Scene
    image: Floats
    truth: Truth
    labels: NDArray[np.uint8]
    white: NDArray[np.int64]
    field: Field | None


class FastGenerator:
    """Scans of a few patients. Takes some 100 MB for each patient at 1 mm, and half a second to make it."""

    def __init__(self, patients: int = 2, spacing: Triple = (1.0, 1.0, 1.0), seed: int = 0) -> None:
        """Render ``patients`` (at least 1), drawn from ``seed`` and the numbers after it; no ghost, lesions apart."""
        recipes = [
            replace(draw_recipe(seed + number, spacing), base_seed=seed + number, ghost=0.0)
            for number in range(patients)
        ]
        self._patients = [_render(recipe) for recipe in recipes]
        pool = np.random.default_rng((0x504F, seed))
        self._pool = pool.standard_normal(self._patients[0].image.size + _SLACK, dtype=np.float32)

    def scan(self, seed: int) -> GeneratedScan:
        """Return the scan with this seed, each time the same: a patient by turns, the rest drawn. Blocks for 30 ms."""
        rng = np.random.default_rng((0x4641, seed))
        patient = self._patients[seed % len(self._patients)]
        drawn = draw_recipe(seed)
        recipe = replace(
            patient.scene.recipe,
            seed=seed,
            lesion_count=drawn.lesion_count,
            bright_share=drawn.bright_share,
            noise=drawn.noise,
            gain=drawn.gain,
        )
        real, imaginary = (
            self._pool[start : start + patient.image.size].reshape(patient.image.shape)
            for start in rng.integers(0, _SLACK, 2)
        )
        volume = np.empty(patient.image.shape, np.int16)
        for index, stored in enumerate(volume):
            store_magnitude(patient.image[index], (real[index], imaginary[index]), recipe, stored)
        lesions = []
        for patch in patient.scene.patches(recipe, patient.white):
            box, change = _of_scan(patch, patient)
            store_magnitude(patient.image[box] + change, (real[box], imaginary[box]), recipe, volume[box])
            lesions.append(patch.truth)
        truth = replace(patient.truth, lesions=tuple(lesions))
        return GeneratedScan(volume, patient.scene.grid.affine, truth, recipe, patient.labels)


def _render(recipe: Recipe) -> _Patient:
    scene = set_scene(recipe)
    image = soften(scene.fine.image, recipe.blur, scene.grid.fine_spacing, scene.grid.blocks)
    receive(image, recipe)
    return _Patient(
        scene=scene,
        image=image,
        truth=measure(scene),
        labels=labels_of(scene),
        white=white_matter(scene.head, scene.anatomy),
        field=receive_field(recipe),
    )


def _of_scan(patch: Patch, patient: _Patient) -> tuple[tuple[slice, ...], Floats]:
    """Return a patch as the scan shows it: its box in voxels, its change after blur, slices, receive field."""
    grid, field = patient.scene.grid, patient.field
    change = soften(patch.change, patient.scene.recipe.blur, grid.fine_spacing, grid.blocks)
    box = tuple(
        slice(side.start // n, side.stop // n) for side, n in zip(patch.box, grid.blocks, strict=True)
    )
    if field is not None:
        places = [
            (np.arange(side.start, side.stop) + 0.5) / n for side, n in zip(box, grid.shape, strict=True)
        ]
        change *= field.on(places).whole()
    return box, change


def main(count: int = 20) -> None:
    """Print what a scan and its DICOM files take, in milliseconds of the processor."""
    from fr_twisted.pacs.encode import to_dicom

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return (usage.ru_utime + usage.ru_stime) * 1000

    for spacing in ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)):
        started = spent()
        generator = FastGenerator(2, spacing)
        made = spent()
        making = encoding = 0.0
        for seed in range(count):
            since = spent()
            scan = generator.scan(seed)
            between = spent()
            files = list(to_dicom(scan, f"FAST-{seed:06d}", datetime(2026, 1, 5, 8, tzinfo=UTC)))
            making, encoding = making + between - since, encoding + spent() - between
        size = sum(len(data) for _, data in files) / 1e6
        print(
            f"{spacing[0]:g} mm: two patients {made - started:.0f} ms; a scan {making / count:.1f} ms; "
            f"its {len(files)} DICOM files ({size:.1f} MB) {encoding / count:.1f} ms"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
