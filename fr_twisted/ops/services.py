"""Services that all units share to be run: children that stop in order, and the root that says what goes on."""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
    maybeDeferred,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface import Interface, implementer

from fr_twisted.config import Settings
from fr_twisted.ops.logs import describe_exception, make_observer
from fr_twisted.ops.notify import sd_notify, watchdog_interval
from fr_twisted.ops.options import SettingsOptions
from fr_twisted.ops.steady import make_steady

_LOG_ROTATE = 10 * 1024 * 1024
_LOG_FILES = 5


class IReady(Interface):
    """A service that needs some time after its start before it can do its work."""

    def when_ready() -> Deferred[None]:
        """Fire when it can; errback when it never will, which ends the unit. Each call gives a Deferred of its own."""


class Ready:
    """What an `IReady` service fires once and hands out many times."""

    def __init__(self) -> None:
        self._result: Failure | bool | None = False
        self._waiting: list[Deferred[None]] = []

    @property
    def fired(self) -> bool:
        """Whether `succeed` or `fail` was called."""
        return self._result is not False

    def when(self) -> Deferred[None]:
        """Return a Deferred that fires as the outcome says, at once if it is known."""
        deferred: Deferred[None] = Deferred()
        if self.fired:
            deferred.callback(cast(None, self._result))
        else:
            self._waiting.append(deferred)
        return deferred

    def succeed(self) -> None:
        """Fire everything with None; only the first outcome counts."""
        self._settle(None)

    def fail(self, error: BaseException | Failure) -> None:
        """Errback everything with ``error``; only the first outcome counts."""
        self._settle(error if isinstance(error, Failure) else Failure(error))

    def _settle(self, result: Failure | None) -> None:
        if self.fired:
            return
        self._result = result
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(cast(None, result))


class OrderedMultiService(MultiService):
    """Stops its children one after another, the last added first; none of them can hold up the others.

    `MultiService` stops all of them at once, so that a store may be gone while a listener still hands it data.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, stop_timeout: float) -> None:
        """Take ``stop_timeout``: seconds that all children together may take to stop."""
        super().__init__()
        self._clock = clock
        self._stop_timeout = stop_timeout

    def stopService(self) -> Deferred[None]:
        """Fire when every child has stopped or has had its time; never errback."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_children())

    async def _stop_children(self) -> None:
        # When the start failed half-way there are some that were never started.
        children = [child for child in reversed(cast("list[Service]", self.services)) if child.running]
        end = self._clock.seconds() + self._stop_timeout
        # What one child does not use is the next one's; each is sure of a little, however long the first one takes.
        sure = self._stop_timeout / (4 * max(1, len(children)))
        for left, child in zip(range(len(children) - 1, -1, -1), children, strict=True):
            budget = max(sure, end - self._clock.seconds() - left * sure)
            await self._stop_child(child, budget)

    async def _stop_child(self, child: Service, seconds: float) -> None:
        name = getattr(child, "name", None) or type(child).__name__
        stopping: Deferred[Any] = maybeDeferred(child.stopService)
        try:
            await stopping.addTimeout(seconds, self._clock)
        except TimeoutError:
            self._log.warn(
                "{name} did not stop within {seconds:.1f} s", name=name, seconds=seconds, event="unit.late"
            )
        except Exception:
            self._log.failure("{name} did not stop as it should", name=name, event="unit.unclean")


@implementer(IReady)
class ListeningService(StreamServerEndpointService):
    """Listens on an endpoint; ready when the port is bound, and fails the unit when it cannot be."""

    _log = Logger()

    def __init__(self, endpoint: IStreamServerEndpoint, factory: IProtocolFactory, description: str) -> None:
        """Take ``description``, the endpoint's string, for messages."""
        super().__init__(endpoint, factory)
        self._description = description
        self._ready = Ready()
        self.port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Begin to listen."""
        Service.privilegedStartService(self)
        self._waitingForPort = self.endpoint.listen(self.factory)
        self._waitingForPort.addCallbacks(self._bound, self._not_bound)

    def when_ready(self) -> Deferred[None]:
        """Fire when the port is bound."""
        return self._ready.when()

    def _bound(self, port: IListeningPort) -> IListeningPort:
        self.port = port
        number = getattr(port.getHost(), "port", None)
        self._log.info("listening on {endpoint}", endpoint=self._description, port=number, event="port.bound")
        self._ready.succeed()
        return port

    def _not_bound(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            reason = describe_exception(failure.value)
            self._ready.fail(StartError(f"cannot listen on {self._description}: {reason}"))


class StartError(Exception):
    """A unit cannot start; the message is one line that says what to mend."""


class _ExitStatus:
    """Makes the process end with a status that twistd, which knows only signals, has no way to ask for."""

    def __init__(self) -> None:
        self._status = 0
        self._registered = False

    def register(self) -> None:
        """Be called last at exit: what is registered early runs late, so other exit functions have run by then."""
        if not self._registered:
            self._registered = True
            atexit.register(self._leave)

    def set(self, status: int) -> None:
        """End with ``status`` when the process ends."""
        self._status = status

    def _leave(self) -> None:
        if self._status:
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    stream.flush()
            os._exit(self._status)


_exit_status = _ExitStatus()


class UnitService(OrderedMultiService):
    """The root service of a unit.

    Installs the unit's log observer, waits for every child that is `IReady`, tells the service manager, and ends the
    process with status 1 and one line when a child cannot start.
    """

    _log = Logger()

    def __init__(
        self,
        unit: str,
        settings: Settings,
        reactor: Any,
        *,
        stream: TextIO | None = None,
        notify: Callable[[str], bool] = sd_notify,
        on_fatal: Callable[[], None] | None = None,
    ) -> None:
        """Make the root of ``unit`` (hub, brain, pacs, store).

        Args:
            unit: the name that log lines carry.
            settings: log format and level, node and stop timeout are taken from it.
            reactor: an `IReactorTime`; for the default ``on_fatal`` an `IReactorCore` too.
            stream: where log lines go; standard output unless given.
            notify: tells the service manager a state.
            on_fatal: ends the process with status 1.
        """
        super().__init__(reactor, settings.stop_timeout)
        self.setName(unit)
        self._unit = unit
        self._title = f"Fr-{unit.upper()}"
        self._node = str(getattr(settings, "node", unit))
        self.settings = settings
        self._reactor = reactor
        self.stream = stream
        self._notify = notify
        self._on_fatal = on_fatal or self._end_process
        self._watchdog: LoopingCall | None = None
        self._failed = False
        self._stopping = False

    def setServiceParent(self, parent: Any) -> None:
        """Install the log observer where the parent is twistd's application, which asks it for one."""
        super().setServiceParent(parent)
        if isinstance(parent, Componentized):
            stream = self.stream or sys.stdout
            settings = self.settings
            parent.setComponent(ILogObserver, make_observer(stream, settings.log_format, settings.log_level))

    def privilegedStartService(self) -> None:
        """Let the children bind their ports; one that cannot ends the unit."""
        try:
            super().privilegedStartService()
        except Exception:
            self._fatal(Failure())

    def startService(self) -> None:
        """Start the children, and say so when all of them are ready."""
        if self._on_fatal == self._end_process:
            _exit_status.register()
        self._say("unit.started", "{name} starts, node {node}, pid {pid}", pid=os.getpid())
        if self._failed:
            return
        try:
            super().startService()
        except Exception:
            self._fatal(Failure())
            return
        waiting = [IReady(child).when_ready() for child in self if IReady.providedBy(child)]
        # The first failure decides; the others are consumed, having nothing to add.
        everything = DeferredList(waiting, fireOnOneErrback=True, consumeErrors=True)
        everything.addCallbacks(
            lambda _: self._ready(), lambda failure: self._fatal(failure.value.subFailure)
        )
        everything.addErrback(lambda failure: self._log.failure("start of {unit}", failure, unit=self._unit))

    def stopService(self) -> Deferred[None]:
        """Stop the children in order, within the unit's stop timeout."""
        self._stopping = True
        self._say("unit.stopping", "{name} stops")
        self._notify("STOPPING=1")
        if self._watchdog is not None and self._watchdog.running:
            self._watchdog.stop()
        return super().stopService().addCallback(lambda _: self._say("unit.stopped", "{name} has stopped"))

    def _ready(self) -> None:
        if self._stopping or self._failed:
            return
        self._say("unit.ready", "{name} is ready")
        self._notify("READY=1")
        interval = watchdog_interval()
        if interval is not None:
            self._watchdog = LoopingCall(self._notify, "WATCHDOG=1")
            self._watchdog.clock = self._reactor
            self._watchdog.start(interval).addErrback(
                lambda failure: self._log.failure("watchdog of {unit}", failure, unit=self._unit)
            )

    def _fatal(self, failure: Failure) -> None:
        """Say in one line why the unit cannot start, and end it."""
        if self._failed or self._stopping:
            return
        self._failed = True
        error = failure.value
        # Our own errors are made for people; of any other the place it came from is wanted too.
        reason = str(error) if _is_ours(error) else describe_exception(error)
        self._log.critical(
            "{name} cannot start: {reason}",
            name=self._title,
            unit=self._unit,
            node=self._node,
            reason=reason,
            event="unit.failed",
            **({} if _is_ours(error) else {"log_failure": failure}),
        )
        self._notify(f"STATUS=cannot start: {reason}")
        self._on_fatal()

    def _end_process(self) -> None:
        _exit_status.set(1)
        # Before the reactor runs it cannot be stopped: then this waits until it does.
        self._reactor.callWhenRunning(self._reactor.stop)

    def _say(self, event: str, text: str, **fields: object) -> None:
        self._log.info(text, name=self._title, unit=self._unit, node=self._node, event=event, **fields)


def _is_ours(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] == "fr_twisted"


def make_unit(unit: str, options: SettingsOptions[Any], reactor: Any) -> UnitService:
    """Return the root service of ``unit``, logging where ``options`` and twistd's own options say.

    For use in ``makeService``::

        root = make_unit("hub", options, reactor)
        StoreService(...).setServiceParent(root)   # stopped last
        ListeningService(...).setServiceParent(root)
        return root
    """
    make_steady(reactor)
    stream: TextIO | None = None
    if options.log_path is not None:
        file = LogFile.fromFullPath(options.log_path, rotateLength=_LOG_ROTATE, maxRotatedFiles=_LOG_FILES)
        stream = cast(TextIO, file)
    return UnitService(unit, options.settings, reactor, stream=stream)
