"""The library that runs the nets."""

import os
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from tests.daemons import ROOT


class QuietTests(SynchronousTestCase):
    """`fr_twisted.brain.analysis.nets`."""

    def test_reportsNothing(self) -> None:
        """The nets are loaded without the library's report of its use, whose first sign is a file of its session."""
        code = "from fr_twisted.brain.analysis import skullstrip as s; s._session('bbox.onnx')"
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"TMPDIR": folder, "PYTHONPATH": str(ROOT)}
            environment.pop("ORT_DISABLE_TELEMETRY", None)
            subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
            self.assertEqual(os.listdir(folder), [])
