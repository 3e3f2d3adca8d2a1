"""``twistd frstore``: the embedded server."""

from twisted.application.service import IService

from fr_twisted.config import StoreSettings
from fr_twisted.ops.options import SettingsOptions, settings_options

Options = settings_options(
    StoreSettings,
    "Runs the embedded MongoDB-protocol server on the loopback interface, for newcomers and tests. "
    "Production uses a MongoDB replica set: set FR_MONGO_URI for Fr-HUB and Fr-BRAIN and leave this unit out.",
)


def makeService(options: SettingsOptions[StoreSettings]) -> IService:
    """Return the unit."""
    from twisted.internet import reactor

    from fr_twisted.ops.services import make_unit
    from fr_twisted.store.embedded import EmbeddedStoreService

    root = make_unit("store", options, reactor)
    EmbeddedStoreService(reactor, options.settings).setServiceParent(root)
    return root
