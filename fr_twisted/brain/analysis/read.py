"""Reads a scan of any accepted format into a volume. Nothing a file says is believed before it is checked."""

import warnings
from pathlib import Path

from fr_twisted.brain.analysis.read_dicom import read_dicom_tar
from fr_twisted.brain.analysis.read_nifti import read_nifti
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat

READERS = {
    PayloadFormat.NIFTI: read_nifti,
    PayloadFormat.NIFTI_GZ: read_nifti,
    PayloadFormat.DICOM_TAR: read_dicom_tar,
}


def read(payload: Path, kind: PayloadFormat) -> Volume:
    """Return the scan in the file ``payload``, values as measured (rescaled), millimetres as in `Volume`.

    Raises:
        UnusableScanError: the file is not one good 3-D image of its kind; says why.
        OSError: the file cannot be opened.
        MemoryError: a scan within the limits takes more than this process may have.
    """
    with payload.open("rb") as stream, warnings.catch_warnings():
        # what the libraries would warn of is either checked here or of no account, and may quote the file
        warnings.simplefilter("ignore")
        try:
            return READERS[kind](stream)
        except (UnusableScanError, MemoryError):
            raise
        except Exception as error:
            # parsers of broken files raise anything; the text of such an error may quote the file, so it is not shown
            raise UnusableScanError(
                f"the file cannot be read as {kind.value} ({type(error).__name__}): it is damaged or of another kind;"
                " export the series again"
            ) from error
