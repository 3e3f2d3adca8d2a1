"""Finds the one scan that a path stands for: a NIfTI file, or one DICOM series of a folder or tar."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from fr_twisted.brain.analysis import read_tar
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.command.trouble import CommandError
from fr_twisted.pacs import dicom, nifti
from fr_twisted.pacs.files import Skipped, Stamp, walk
from fr_twisted.pacs.scans import Drop, classify

_T1 = re.compile(r"t1|mp2?-?rage|bravo|spgr|tfe|flash|fl3d|vibe", re.IGNORECASE)
_OTHER = re.compile(
    r"t2|flair|stir|dwi|dti|adc|diff|trace|swi|swan|asl|perf|bold|fmri|tof|angio|mra|mip|loc|scout|survey|phase|map",
    re.IGNORECASE,
)
_SHOWN_REASONS = 3
_COMPRESSED = (b"\x1f\x8b", b"PK", b"BZ", b"\xfd7", b"\x28\xb5")
"""How files of gzip, zip, bzip2, xz and zstd begin."""


def pick(path: Path, series: str | None, work: Path, note: Callable[[str], None]) -> Drop:
    """Return the scan; reads all headers, blocks.

    Args:
        path: a file or folder.
        series: the Series Instance UID to take; None: the only one, or the only one that looks T1-weighted.
        work: a folder for what is unpacked.
        note: told when one of several was chosen.

    Raises:
        CommandError: there is none, or not one alone; says why, and what there is.
    """
    found = _files(path, work)
    drops, skipped = classify((item for item in found if isinstance(item, Stamp)), None)
    skipped += [item for item in found if isinstance(item, Skipped)]
    if series is not None:
        drops = _only(path, series, drops)
    if not drops:
        raise CommandError(f"there is no scan to measure in {path}{_reasons(skipped)}")
    if len(drops) == 1:
        return drops[0]
    likely = [drop for drop in drops if looks_t1(drop)]
    if len(likely) != 1:
        how = "none of them looks" if not likely else f"{len(likely)} of them look"
        raise CommandError(
            f"{path} holds {len(drops)} scans, and {how} T1-weighted; choose one:\n{_listed(drops)}"
        )
    note(f"{path} holds {len(drops)} scans; measuring the one that looks T1-weighted:\n{_listed(likely)}")
    return likely[0]


def _only(path: Path, series: str, drops: list[Drop]) -> list[Drop]:
    chosen = [drop for drop in drops if drop.meta.series_instance_uid == series]
    if not chosen and drops:
        raise CommandError(f"--series: {path} holds no whole series {series}; there is:\n{_listed(drops)}")
    return chosen


def looks_t1(drop: Drop) -> bool:
    """Return whether the words about a scan, of its series, sequence and file, are those of T1-weighted images."""
    meta = drop.meta
    words = [meta.series_description or "", str(meta.facts.get("sequence") or "")]
    if meta.series_instance_uid is None:
        words.append(drop.files[0].path.name)
    text = " ".join(words)
    return _T1.search(text) is not None and _OTHER.search(text) is None


def _files(path: Path, work: Path) -> list[Stamp | Skipped]:
    try:
        if path.is_dir() or nifti.is_nifti_name(path) or dicom.is_dicom(path):
            return list(walk(path))
        return _unpack(path, work)
    except FileNotFoundError:
        raise CommandError(f"there is no file or folder {path}") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from None


def _unpack(path: Path, work: Path) -> list[Stamp | Skipped]:
    """Unpack a tar under names of our own; nothing that it says of paths is used."""
    folder = work / "unpacked"
    folder.mkdir()
    try:
        with path.open("rb") as stream:
            for number, content in read_tar.files(stream):
                (folder / f"{number:05d}").write_bytes(content)
    except UnusableScanError as error:
        raise CommandError(f"{path} {_no_tar(path)}" if _no_tar(path) else f"{path}: {error}") from None
    return list(walk(folder))


def _no_tar(path: Path) -> str | None:
    """Return what a file is said to be that does not begin as a tar does; None if it does."""
    with path.open("rb") as stream:
        first = stream.read(262)
    if first[257:] == b"ustar":
        return None
    if first[:2] in _COMPRESSED:
        return "is a compressed archive; unpack it and name the folder"
    return "is neither NIfTI (.nii, .nii.gz) nor DICOM, nor a tar of DICOM files"


def _reasons(skipped: Iterable[Skipped]) -> str:
    """Return why files were passed over, the most common reasons first."""
    found: dict[str, list[str]] = {}
    for item in skipped:
        found.setdefault(item.reason, []).append(item.path.name)
    most = sorted(found.items(), key=lambda pair: -len(pair[1]))[:_SHOWN_REASONS]
    parts = [
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {reason}" for reason, names in most
    ]
    return "; " + "; ".join(parts) if parts else "; it holds neither NIfTI (.nii, .nii.gz) nor DICOM files"


def _listed(drops: list[Drop]) -> str:
    return "\n".join(f"  {_line(drop)}" for drop in drops)


def _line(drop: Drop) -> str:
    meta, facts = drop.meta, drop.meta.facts
    name = f"--series {meta.series_instance_uid}" if meta.series_instance_uid else str(drop.files[0].path)
    size = facts.get("shape") or f"{facts.get('slices')} slices"
    spacing = f", {facts['spacing_mm']} mm" if facts.get("spacing_mm") else ""
    return f"{name}  {meta.series_description or 'no description'}  ({size}{spacing})"
