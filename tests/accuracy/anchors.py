"""What others published of their tools. The only figures here that are copied and not measured."""

from dataclasses import dataclass

NO_COMPARISON = (
    "Published figures of others, to know the order of magnitude. They were measured on other data, mostly of"
    " many real people, and are no comparison with the tables here."
)


@dataclass(frozen=True)
class Anchor:
    """One published figure."""

    tool: str
    figure: str
    source: str


SKULL_STRIP = (
    Anchor("deepbet (the nets used here, on a finer grid)", "median Dice 99.0 %, all above 96.9 %, on unseen data",
           "arXiv 2308.07003"),
    Anchor("HD-BET", "median Dice 1.16 to 2.50 points above six other tools", "PMC6865732"),
    Anchor("SynthStrip", "median Dice 0.96 on T2 scans of children, 7 s", "PMC9465771; figures: PMC12756446"),
    Anchor("DeepMedic on gliomas", "Dice 97.9 %", "PMC7311100"),
)  # fmt: skip

VOLUMES = (
    Anchor("intracranial volume, automatic against manual", "0.31 ± 1.35 %", "PMC7964602"),
    Anchor("brain parenchymal fraction in the same 106 people",
           "medians 0.857, 0.819 and 0.784 with SyMap, VBM8 and SPM12", "doi:10.1016/j.neurad.2016.08.002"),
    Anchor("NeuroQuant against Inbrain, regional volumes", "intraclass correlation 0.83 to 0.98", "PMC7909859"),
)  # fmt: skip

COST = (
    Anchor("SynthSeg", "about 2 minutes on a CPU, 6 s on a GPU",
           "surfer.nmr.mgh.harvard.edu/fswiki/SynthSeg; PMC10154424"),
    Anchor("FastSurfer, 95 classes", "below 1 minute on a GPU", "arXiv 1910.03866"),
    Anchor("deepbet, brain mask alone", "about 2 s on low-level hardware", "arXiv 2308.07003"),
)  # fmt: skip
