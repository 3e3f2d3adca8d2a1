"""The way from a recipe to a scan with its truth."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.anatomy import shape_anatomy
from fr_twisted.pacs.generator.geometry import Grid, Pose, grid_of, pose_of
from fr_twisted.pacs.generator.head import Codes, Head, load_head
from fr_twisted.pacs.generator.imaging import (
    add_texture,
    label_table,
    majority,
    palette,
    receive,
    soften,
    store,
    tissue_volumes,
)
from fr_twisted.pacs.generator.lesions import Patch, draw_axes, make_patch, place_lesions
from fr_twisted.pacs.generator.recipe import Recipe, Triple, draw_recipe
from fr_twisted.pacs.generator.sampling import Sampled, sample
from fr_twisted.pacs.generator.truth import GeneratedScan, Label, Sides, Truth


@dataclass(frozen=True)
class Scene:
    """The patient on the table: everything that does not depend on lesions, noise and gain.

    ``anatomy``: codes of the label head; ``fine``: the scan's fine voxels, before blur, white matter at 1.
    """

    recipe: Recipe
    head: Head
    grid: Grid
    pose: Pose
    anatomy: Codes
    fine: Sampled

    def patches(self, recipe: Recipe, white: NDArray[np.int64] | None = None) -> list[Patch]:
        """Return the patches of a recipe's lesions, each painted on the image without the others.

        ``white``: `white_matter` of the anatomy, if it is known already.

        Raises:
            ValueError: a lesion has no place in the brain.
        """
        found = []
        for number, lesion in enumerate(place_lesions(self.head, self.anatomy, recipe, white)):
            centre = self.pose.to_scan(np.array(lesion.place) - self.head.origin)
            axes = draw_axes(recipe, number, lesion)
            found.append(make_patch(lesion, axes, centre, self.grid, self.fine.codes, self.fine.image))
        return found


def generate(recipe: Recipe | int, spacing: Triple | None = None) -> GeneratedScan:
    """Return the scan of a recipe, or of the one drawn from a seed. Blocks, for about a second at 1 mm.

    Args:
        recipe: or a seed.
        spacing: of the voxels along x, y, z, mm; None: the recipe's. Above 1.5 mm voxels are means of finer ones, so
            that thick slices have the partial volume of thick slices.

    Raises:
        ValueError: a spacing is not within 0.5 to 10 mm, or a lesion has no place in the brain.
    """
    if isinstance(recipe, int):
        recipe = draw_recipe(recipe)
    if spacing is not None:
        recipe = replace(recipe, spacing=spacing)
    scene = set_scene(recipe)
    lesions = []
    for patch in scene.patches(recipe):
        scene.fine.image[patch.box] += patch.change
        lesions.append(patch.truth)
    image = soften(scene.fine.image, recipe.blur, scene.grid.fine_spacing, scene.grid.blocks)
    receive(image, recipe)
    truth = replace(measure(scene), lesions=tuple(lesions))
    return GeneratedScan(store(image, recipe), scene.grid.affine, truth, recipe, labels_of(scene))


def set_scene(recipe: Recipe) -> Scene:
    """Return the scene of a recipe."""
    head, grid = load_head(), grid_of(recipe.spacing)
    anatomy = shape_anatomy(head, recipe)
    pose = pose_of(recipe, head)
    fine = sample(anatomy, pose, grid, palette(recipe), label_table(), recipe.mixed)
    add_texture(fine.image, fine.codes, recipe)
    return Scene(recipe, head, grid, pose, anatomy, fine)


def labels_of(scene: Scene) -> NDArray[np.uint8]:
    """Return the `Label` that most of each voxel of the scan is."""
    return majority(scene.fine.labels, scene.grid.blocks)


def measure(scene: Scene) -> Truth:
    """Return the volumes of a scene, without lesions."""
    volumes = tissue_volumes(scene.fine.counts, float(np.prod(scene.grid.fine_spacing)) / 1000)
    total = volumes.sum(0)

    def sides(label: Label) -> Sides:
        return Sides(left=float(volumes[0, label]), right=float(volumes[1, label]))

    return Truth(
        gm=float(total[Label.GREY]),
        wm=float(total[Label.WHITE]),
        csf=float(total[Label.FLUID] + total[Label.VENTRICLE]),
        ventricles=float(total[Label.VENTRICLE]),
        gm_sides=sides(Label.GREY),
        ventricle_sides=sides(Label.VENTRICLE),
    )
