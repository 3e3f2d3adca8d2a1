"""``twistd frbrain``: options and the services of Fr-BRAIN."""

from typing import Any
from uuid import uuid4

from twisted.application.service import IService
from twisted.python import usage

from fr_twisted.brain import catalog
from fr_twisted.config import BrainSettings
from fr_twisted.ops.options import SettingsOptions, settings_options
from fr_twisted.store.options import check_store

_Options: Any = settings_options(
    BrainSettings,
    "Claims brain scans from the store, analyses them in worker processes and writes their reports.",
)


class Options(_Options):  # type: ignore[misc]
    """The options of Fr-BRAIN."""

    def postOptions(self) -> None:
        """Make sure that the analysis is installed.

        Raises:
            usage.UsageError: a setting is invalid, or there is no such analysis; the message lists those that are.
        """
        super().postOptions()
        check_store(self.settings)
        try:
            catalog.check(self.settings.analysis)
        except catalog.AnalysisUnavailableError as error:
            raise usage.UsageError(f"FR_BRAIN_ANALYSIS or --analysis: {error}") from None


def makeService(options: SettingsOptions[BrainSettings]) -> IService:
    """Return Fr-BRAIN. Its children stop in the reverse order: the analyses, then the store."""
    from functools import partial

    from twisted.internet import reactor
    from twisted.internet.threads import deferToThreadPool

    from fr_twisted.brain.attempt import Rules
    from fr_twisted.brain.jobs import Limits
    from fr_twisted.brain.pool import AnalysisPool
    from fr_twisted.brain.service import BrainService
    from fr_twisted.brain.tenure import Surroundings
    from fr_twisted.ops.services import make_unit
    from fr_twisted.ops.workdir import WorkDir
    from fr_twisted.store.mongo import MongoStore
    from fr_twisted.store.service import StoreService

    clock: Any = reactor
    settings = options.settings
    root = make_unit("brain", options, clock)
    store = StoreService(MongoStore.from_settings(settings, clock=clock, unit="brain"), clock)
    store.setServiceParent(root)
    work = WorkDir(settings.work_dir, settings.node)
    pool = AnalysisPool(
        clock,
        settings.analysis,
        slots=settings.slots,
        time_limit=settings.time_limit,
        limits=Limits(memory=settings.memory_limit),
        scratch=lambda: work.path,
    )
    rules = Rules(make_owner(settings.node), settings.analysis, settings.lease, settings.max_attempts)
    in_thread = partial(deferToThreadPool, clock, clock.getThreadPool())
    around = Surroundings(store.store, clock, in_thread, work)
    BrainService(
        pool, rules, around, stop_timeout=settings.stop_timeout, store_ready=store.when_ready
    ).setServiceParent(root)
    return root


def make_owner(node: str) -> str:
    """Return a name for the leases of this very process: two BRAINs may carry the name of one node."""
    return f"{node}.{uuid4().hex[:12]}"
