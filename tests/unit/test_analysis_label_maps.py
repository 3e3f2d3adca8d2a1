"""Label maps: what the voxels were counted as, in their place."""

import gzip
from typing import Any

import nibabel
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import label_maps
from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.schema import Usability
from fr_twisted.bundle import LABELS, LABELS_NII, LESIONS_NII
from tests.report_builders import some_findings, some_head

PLACES = ((25, 30, 22), (20, 30, 22))
SPACING = (4.0, 4.0, 4.0)


def read(data: bytes) -> Any:
    """Return the image in compressed bytes."""
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


class LabelMapTests(SynchronousTestCase):
    """`label_maps`."""

    def test_labelsInTheirPlace(self) -> None:
        """The map holds the labels of the box, and its affine puts the box where it is in the head."""
        head = some_head(PLACES, SPACING)
        image = read(label_maps.files(head, some_findings(lesions=head.lesions))[LABELS_NII])
        self.assertEqual(image.get_data_dtype(), np.uint8)
        np.testing.assert_array_equal(np.asarray(image.dataobj), head.labels)
        corner = [side.start for side in head.box]
        np.testing.assert_allclose(
            image.affine[:3, 3], head.head.affine[:3, :3] @ corner + head.head.affine[:3, 3]
        )

    def test_lesionsByNumber(self) -> None:
        """Each candidate's voxels hold its number, as in the report."""
        head = some_head(PLACES, SPACING)
        numbers = np.asarray(
            read(label_maps.files(head, some_findings(lesions=head.lesions))[LESIONS_NII]).dataobj
        )
        for number, lesion in enumerate(head.lesions, start=1):
            self.assertEqual(int((numbers == number).sum()), len(lesion.voxels))
            self.assertTrue((numbers[tuple(lesion.voxels.T)] == number).all())

    def test_noLesionsNoMap(self) -> None:
        """Without candidates there is no map of them."""
        self.assertEqual(list(label_maps.files(some_head((), SPACING), some_findings())), [LABELS_NII])

    def test_withheld(self) -> None:
        """Of a scan whose numbers are withheld there is no map."""
        found = some_findings(Usability.NOT_USABLE)
        self.assertEqual(label_maps.files(some_head((), SPACING), found), {})

    def test_sameBytes(self) -> None:
        """The same anatomy gives the same bytes."""
        one, other = (label_maps.files(some_head(PLACES, SPACING), some_findings()) for _ in range(2))
        self.assertEqual(one, other)

    def test_publishedValues(self) -> None:
        """The values that the bundle names are those of the analysis."""
        self.assertEqual(LABELS, {1: "fluid", 2: "grey matter", 3: "white matter", 4: "ventricle"})
        self.assertEqual([label.name for label in Label], ["OUTSIDE", "FLUID", "GREY", "WHITE", "VENTRICLE"])
