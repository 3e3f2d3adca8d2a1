"""The twistd commands of Fr; each unit is imported only when it is run."""

from twisted.application.service import ServiceMaker

fr_pacs = ServiceMaker(
    "Fr-PACS",
    "fr_twisted.pacs.tap",
    "Fr-PACS: send brain scans to Fr-HUB and receive their reports",
    "frpacs",
)
fr_hub = ServiceMaker(
    "Fr-HUB", "fr_twisted.hub.tap", "Fr-HUB: keep brain scans durably and deliver their reports", "frhub"
)
fr_brain = ServiceMaker(
    "Fr-BRAIN", "fr_twisted.brain.tap", "Fr-BRAIN: claim brain scans, analyse them, write reports", "frbrain"
)
fr_store = ServiceMaker(
    "Fr-STORE",
    "fr_twisted.store.tap",
    "Fr-STORE: the embedded MongoDB-protocol server, for newcomers and tests",
    "frstore",
)
