"""onnxruntime, told before it is loaded to report nothing about its use.

Its wheels for Linux report to their maker by default (seen in 1.32), and leave a file ``.ses`` with an id in the folder
of temporary files. Nothing of a patient is in it, but a machine that works on patients has nobody to report to.
"""

import os
from importlib import import_module
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
runtime: Any = import_module("onnxruntime")
