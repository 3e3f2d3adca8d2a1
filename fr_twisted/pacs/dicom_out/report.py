"""A report as it lies in its folder, read for the objects that are made of it."""

import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fr_twisted import bundle
from fr_twisted.brain.analysis.schema import SCHEMA, Findings
from fr_twisted.pacs.encode import make_uid
from fr_twisted.pacs.report_files import Written

MAX_MAP = 1024**3
"""Bytes of an uncompressed label map."""


class UnreadableReportError(Exception):
    """A report's file is not what it should be; says which, and quotes nothing."""


@dataclass(frozen=True)
class LabelMap:
    """Values of voxels (i, j, k), and where they are: millimetres to the right, front and top."""

    values: NDArray[Any]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """What a report's folder holds. ``findings``: None if they are of a form that is not known here."""

    written: Written
    findings: Findings | None
    files: dict[str, bytes]

    @property
    def moment(self) -> datetime:
        """When it was written: the content time of what is made of it, however often it is made."""
        moment = datetime.fromisoformat(self.written.written_at)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def uid(self, *words: object) -> str:
        """Return the one UID of these words in this report; the same scan and analysis version have the same."""
        return make_uid("report", self.written.report_id, *words)

    def label_map(self, name: str) -> LabelMap | None:
        """Return a label map; None: the report has none of this name.

        Raises:
            UnreadableReportError: it is none.
        """
        data = self.files.get(name)
        return None if data is None else _label_map(data, name)


def read(folder: Path, written: Written) -> Report:
    """Return the report in ``folder``.

    Raises:
        OSError: a file cannot be read.
        UnreadableReportError: its JSON is none.
    """
    names = (
        *(bundle.REPORT_JSON, bundle.REPORT_PDF, bundle.OVERLAY_PNG),
        *(bundle.LABELS_NII, bundle.LESIONS_NII),
    )
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    try:
        said = json.loads(files[bundle.REPORT_JSON])
        raw = said.get("findings")
    except (KeyError, ValueError, AttributeError, RecursionError):
        raise UnreadableReportError(f"{bundle.REPORT_JSON} is missing or no JSON object") from None
    return Report(written, _findings(raw), files)


def _findings(raw: Any) -> Findings | None:
    """Return findings of the schema that is known here; members that were added since are passed over."""
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        return None
    try:
        return Findings.model_validate(raw, extra="ignore")
    except ValidationError:
        return None


def _label_map(data: bytes, name: str) -> LabelMap:
    try:
        unpacker = zlib.decompressobj(wbits=31)
        plain = unpacker.decompress(data, MAX_MAP)
        if not unpacker.eof:
            raise ValueError("cut short, or too large")
        image: Any = nibabel.Nifti1Image.from_bytes(plain)
        values = np.asarray(image.dataobj)
    except Exception:  # parsers of broken files raise anything
        raise UnreadableReportError(f"{name} is no label map") from None
    if values.ndim != 3 or values.dtype.kind not in "iu":
        raise UnreadableReportError(f"{name} is no label map of three axes and whole numbers")
    return LabelMap(values, np.asarray(image.affine, np.float64))
