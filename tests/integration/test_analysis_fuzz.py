"""Whatever a file holds, it is measured or refused with a reason: no other error, in bounded time and memory.

FR_FUZZ_EXAMPLES=1000 makes a campaign of it (`tests.fuzzing`).
"""

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import pipeline, skullstrip, upright
from fr_twisted.brain.analysis.schema import Usability
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat, ScanMeta
from tests.builders import nifti_bytes
from tests.fuzzing import MOST_BYTES, bombs, fuzz, read_or_refuse, under_limit
from tests.strategies_scans import (
    archives,
    coarse_head,
    nifti_files,
    strange_content,
    strange_masks,
    strange_scans,
)


class ReadingTests(SynchronousTestCase):
    """Files are read or refused; nothing else."""

    def read_or_refuse(self, content: bytes, kind: PayloadFormat) -> None:
        """``content`` is read or refused, and nothing is said of the patient."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "payload"
            path.write_bytes(content)
            reason = read_or_refuse(path, kind)
        for private in ("Doe", "Jane", "1970"):
            self.assertNotIn(private, reason)

    @fuzz(80)
    @given(st.binary(max_size=1200), st.sampled_from(PayloadFormat))
    def test_garbage(self, content: bytes, kind: PayloadFormat) -> None:
        """Any bytes are read or refused, and no reason names the patient."""
        self.read_or_refuse(content, kind)

    @fuzz(300)
    @given(nifti_files())
    def test_nifti(self, content: bytes) -> None:
        """So is whatever looks like NIfTI."""
        self.read_or_refuse(content, PayloadFormat.NIFTI)

    @fuzz(200)
    @given(archives())
    def test_dicom(self, content: bytes) -> None:
        """So is whatever looks like an archive of DICOM files."""
        self.read_or_refuse(content, PayloadFormat.DICOM_TAR)


class MemoryTests(SynchronousTestCase):
    """Small files take little memory, whatever they declare: in a process that may not have more."""

    def test_bombs(self) -> None:
        """Files that would like to be gigabytes are refused with a reason, not for want of memory."""
        found = under_limit("tests.fuzzing:read_bombs")
        self.assertEqual(set(found), set(bombs()))
        for name, (rise, reason) in found.items():
            self.assertTrue(reason, name)
            self.assertLess(rise, MOST_BYTES, name)

    def test_strangeFiles(self) -> None:
        """Fuzzed files take little memory too."""
        for kind, (count, rise) in under_limit("tests.fuzzing:read_strange_files").items():
            self.assertGreaterEqual(count, 100, kind)
            self.assertLess(rise, MOST_BYTES, kind)


class ExamineTests(SynchronousTestCase):
    """Scans that pass for one by their grid end in a reason or in findings that claim little."""

    def examine(self, data: Any, affine: Any) -> None:
        """Examine a scan; warnings are errors, and so is a number that is none."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "payload"
        path.write_bytes(nifti_bytes(data, affine))
        meta = ScanMeta(patient_id="P1", format=PayloadFormat.NIFTI)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found, _ = pipeline.examine(path, meta)
        except UnusableScanError as error:
            self.assertTrue(str(error))
            return
        json.dumps(found.model_dump(mode="json"), allow_nan=False)
        # slices of 4 mm are never good enough for more
        self.assertIn(found.verdict.usability, (Usability.NOT_USABLE, Usability.WITH_CARE))
        self.assertTrue(found.verdict.reasons)
        self.assertEqual(found.volumes is None, found.verdict.usability is Usability.NOT_USABLE)

    def test_heads(self) -> None:
        """Heads that are next to good go all the way."""
        for kind in ("few values", "inverted head"):
            self.examine(strange_content(kind), coarse_head()[1])

    @fuzz(2)
    @given(strange_scans())
    def test_anything(self, scan: Any) -> None:
        """Blocks, noise, halves, spikes, balls and heads turned inside out, of any scale and sign, end so too."""
        self.examine(*scan)

    @fuzz(12)
    @given(strange_scans(), st.data())
    def test_anyMask(self, scan: Any, data: st.DataObject) -> None:
        """They do whatever the skull strip might see in them."""

        def see(head: Any, _seen: Any) -> Any:
            return data.draw(strange_masks(head.data.shape))

        for module in (skullstrip, upright):
            self.patch(module, "brain_mask", see)
        self.examine(*scan)
