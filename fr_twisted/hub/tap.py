"""``twistd frhub``: options and the services of Fr-HUB."""

from typing import Any
from uuid import uuid4

from twisted.application.service import IService

from fr_twisted.config import HubSettings
from fr_twisted.ops.options import settings_options
from fr_twisted.store.options import check_store

_Options: Any = settings_options(
    HubSettings, "Keeps brain scans durably in MongoDB and delivers their reports."
)


def roomy(endpoint: str) -> str:
    """Return a server endpoint's string with a queue for as many nodes as may dial at once; Twisted's has 50 places.

    A node that finds the queue full dials again after seconds, by the rules of TCP.
    """
    counts = endpoint.partition(":")[0] in ("tcp", "tcp6", "ssl") and "backlog=" not in endpoint
    return f"{endpoint}:backlog=1024" if counts else endpoint


class Options(_Options):  # type: ignore[misc]
    """The options of Fr-HUB."""

    def postOptions(self) -> None:
        """Validate them; the store's address among them.

        Raises:
            usage.UsageError: a setting is invalid.
        """
        super().postOptions()
        check_store(self.settings)


def makeService(options: Any) -> IService:
    """Return Fr-HUB. Its children stop in the reverse order: port, links to nodes, senders' connections, store."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import clientFromString, serverFromString

    from fr_twisted.hub.delivery import CaretakerService, ReportOutbox
    from fr_twisted.hub.intake import ScanIntake
    from fr_twisted.hub.room import Limits, RoomService
    from fr_twisted.hub.settling import SettlingService
    from fr_twisted.link.protocol import LinkTimes
    from fr_twisted.link.receiver import DrainService, ReceiverFactory
    from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
    from fr_twisted.ops.files import connections_allowed
    from fr_twisted.ops.services import ListeningService, make_unit
    from fr_twisted.store.mongo import MongoStore
    from fr_twisted.store.service import StoreService

    clock: Any = reactor
    settings: HubSettings = options.settings
    times = LinkTimes.with_silence(settings.link_silence)
    store = MongoStore.from_settings(settings, clock=clock, unit="hub")
    root = make_unit("hub", options, clock)
    opening = StoreService(store, clock)
    opening.setServiceParent(root)
    folder = settings.store_dir if store.address.is_local else None
    limits = Limits(settings.store_min_free, settings.store_quota, folder)
    room = RoomService(store, limits, clock, opening.when_ready)
    room.setServiceParent(root)
    receivers = ReceiverFactory(
        settings.node,
        ScanIntake(store, clock, room),
        clock,
        window=settings.link_window,
        memory=settings.memory,
        max_item=settings.max_item,
        max_connections=connections_allowed(settings.connections),
        times=times,
    )
    caretaker = CaretakerService(
        store,
        settings.nodes,
        settings.upload_ttl,
        clock,
        opening.when_ready,
        keep_payload_days=settings.keep_payload_days,
    )
    caretaker.setServiceParent(root)
    DrainService(receivers, settings.stop_timeout / 2).setServiceParent(root)
    owner = (
        f"{settings.node}.{uuid4().hex[:12]}"  # two HUBs may carry one name, and a restarted one is another
    )
    outboxes = {
        node: ReportOutbox(store, node, owner, clock, lease=settings.delivery_lease)
        for node in settings.nodes
    }
    SettlingService(list(outboxes.values()), settings.stop_timeout / 4, clock).setServiceParent(root)
    for node, endpoint in settings.nodes.items():
        outbox = outboxes[node]
        factory = ReconnectingSenderFactory(settings.node, outbox, clock, expects=node, times=times)
        SenderService(clientFromString(clock, endpoint), factory, settings.stop_timeout / 4).setServiceParent(
            root
        )
    endpoint = serverFromString(clock, roomy(settings.listen))
    ListeningService(endpoint, receivers, settings.listen).setServiceParent(root)
    return root
