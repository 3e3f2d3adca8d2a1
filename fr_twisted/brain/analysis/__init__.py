"""The default analysis: brain and tissue volumes of a T1-weighted scan.

Pure: a file in, findings and pictures out. Its stages, in order, are the modules `read`, `check`, `orient`,
`skullstrip`, `align`, `tissues`, `findings`, `pictures` and `page`; `pipeline` puts them together.
"""

from dataclasses import dataclass
from pathlib import Path

from fr_twisted.brain.analysis.identity import NAME, VERSION
from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.model import ScanMeta


@dataclass(frozen=True)
class T1Volumes:
    """The analysis as `fr_twisted.brain.interfaces.Analysis` has it. Heavy imports wait for its first call."""

    name: str = NAME
    version: str = VERSION

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Measure the scan whose bytes are in the file ``payload``.

        Raises:
            UnusableScanError: with the reason.
        """
        from fr_twisted.brain.analysis import pipeline

        return pipeline.run(payload, scan_id, meta)


T1_VOLUMES = T1Volumes()
