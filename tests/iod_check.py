"""Whether a data set has what its IOD asks for, by the tables of PS3.3 that highdicom has; more than dcmtk checks."""

from typing import Any

from highdicom import _standard_utils as standard
from pydicom.dataset import Dataset

ALSO = {
    "segmentation": ("frame-of-reference", "common-instance-reference"),
    "encapsulated-pdf": (),
    "comprehensive-3d-sr": (),
    "secondary-capture-image": (),
}
"""The IODs that Fr writes, and their conditional modules whose conditions its objects meet."""

GROUPS = "segmentation-multi-frame-functional-groups"
SLIDES = "PlanePositionSlideSequence"
"""A functional group of microscopy alone; the tables do not tell conditions of macros."""

CONTENT = "sr-document-content"
"""What an item of an SR needs depends on its value type, which the tables do not tell: dsrdump reads that tree."""


def complaints(dataset: Dataset) -> list[str]:
    """Return what is missing or empty that may not be: attributes of types 1 and 2 of the mandatory modules."""
    iod = standard.get_sop_class_iod_map()[dataset.SOPClassUID]
    every = standard.get_iod_module_map()[iod]
    modules = [each["key"] for each in every if each["usage"] == "M" and each["key"] != CONTENT]
    found = []
    for module in (*modules, *ALSO[iod]):
        tree: dict[str, Any] = standard.construct_module_tree(module)["attributes"]
        if module == GROUPS:
            found += _missing_groups(dataset, tree)
            continue
        try:
            standard.check_required_attributes(dataset, module)
        except AttributeError as error:
            found.append(f"{iod}, {module}: {error}")
        found += [
            f"{iod}, {module}: {keyword} is empty"
            for keyword, facts in tree.items()
            if facts["type"] is standard.AttributeTypeValues.REQUIRED
            and keyword in dataset
            and dataset[keyword].is_empty
        ]
    return found


def _missing_groups(dataset: Dataset, tree: dict[str, Any]) -> list[str]:
    """Return functional groups that stand neither with what all frames share nor with each frame (PS3.3 C.7.6.16)."""
    [shared], frames = dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    return [
        f"{keyword} is in no functional group"
        for keyword, facts in tree["SharedFunctionalGroupsSequence"]["attributes"].items()
        if facts["type"] is standard.AttributeTypeValues.REQUIRED
        and keyword != SLIDES
        and keyword not in shared
        and not all(keyword in frame for frame in frames)
    ]
