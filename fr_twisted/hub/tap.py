"""``twistd frhub``: options and the services of Fr-HUB."""

from typing import Any
from uuid import uuid4

from twisted.application.service import IService, Service

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
    from twisted.internet.endpoints import serverFromString

    from fr_twisted.hub.caretaker import CaretakerService
    from fr_twisted.hub.room import Limits, RoomService
    from fr_twisted.link.receiver_factory import DrainService
    from fr_twisted.ops.services import ListeningService, make_unit
    from fr_twisted.store.mongo import MongoStore
    from fr_twisted.store.service import StoreService

    clock: Any = reactor
    settings: HubSettings = options.settings
    store = MongoStore.from_settings(settings, clock=clock, unit="hub")
    root = make_unit("hub", options, clock)
    opening = StoreService(store, clock)
    folder = settings.store_dir if store.address.is_local else None
    limits = Limits(settings.store_min_free, settings.store_quota, folder)
    room = RoomService(store, limits, clock, opening.when_ready)
    wanted: set[str] = set()
    receivers = _receivers(settings, store, room, clock, wanted)
    caretaker = CaretakerService(
        store,
        settings.nodes,
        settings.upload_ttl,
        clock,
        opening.when_ready,
        keep_payload_days=settings.keep_payload_days,
        wanted=wanted,
    )
    drain = DrainService(receivers, settings.stop_timeout / 2)
    port = ListeningService(serverFromString(clock, roomy(settings.listen)), receivers, settings.listen)
    for child in (opening, room, caretaker, drain, *_deliveries(settings, store, clock), port):
        child.setServiceParent(root)
    return root


def _receivers(settings: HubSettings, store: Any, room: Any, clock: Any, wanted: set[str]) -> Any:
    """Return the factory of the connections that scans come by."""
    from fr_twisted.hub.intake import ScanIntake
    from fr_twisted.link.protocol import LinkTimes
    from fr_twisted.link.receiver_factory import ReceiverFactory
    from fr_twisted.ops.files import connections_allowed

    return ReceiverFactory(
        settings.node,
        ScanIntake(store, clock, room, wanted),
        clock,
        window=settings.link_window,
        memory=settings.memory,
        max_item=settings.max_item,
        max_connections=connections_allowed(settings.connections),
        times=LinkTimes.with_silence(settings.link_silence),
    )


def _deliveries(settings: HubSettings, store: Any, clock: Any) -> list[Service]:
    """Return the links that reports go by, after what lets their outboxes settle when they have ended."""
    from twisted.internet.endpoints import clientFromString

    from fr_twisted.hub.delivery import ReportOutbox
    from fr_twisted.hub.settling import SettlingService
    from fr_twisted.link.protocol import LinkTimes
    from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService

    # Two HUBs may carry one name, and a restarted one is another.
    owner = f"{settings.node}.{uuid4().hex[:12]}"
    times, patience = LinkTimes.with_silence(settings.link_silence), settings.stop_timeout / 4
    outboxes, links = [], []
    for node, endpoint in settings.nodes.items():
        outbox = ReportOutbox(store, node, owner, clock, lease=settings.delivery_lease)
        factory = ReconnectingSenderFactory(settings.node, outbox, clock, expects=node, times=times)
        outboxes.append(outbox)
        links.append(SenderService(clientFromString(clock, endpoint), factory, patience))
    return [SettlingService(outboxes, patience, clock), *links]
