"""Orthanc, a PACS that is not ours, beside Fr: its configuration, its process, and its REST interface.

Debian's package of 1.10 and later, https://orthanc.uclouvain.be/book/users/configuration.html
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from fr_twisted.ops.child import Output
from fr_twisted.ops.launch import command
from fr_twisted.ops.services import StartError

TITLE = "ORTHANC"
HOST = "127.0.0.1"

READY_WITHIN = 20.0
STOP_WITHIN = 4.0
_PAUSE = 0.1
_ANSWER_WITHIN = 20.0

# The folders that packages install into; /usr/sbin is on no user's PATH in Debian.
_PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")

_ROUTE = """\
-- Whatever MR image comes in goes to Fr; its results, which come back, are none.
function OnStoredInstance(instanceId, tags, metadata, origin)
  if tags['Modality'] == 'MR' then
    SendToModality(instanceId, 'fr')
  end
end
"""


def find_orthanc() -> str:
    """Return the path of the program.

    Raises:
        StartError: it is not installed.
    """
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path=":".join(_PLACES))
    if found is None:
        raise StartError(
            "Orthanc is not installed: apt-get install orthanc (Debian, Ubuntu), brew install orthanc, or "
            "https://www.orthanc-server.com/download.php"
        )
    return found


@dataclass(frozen=True)
class OrthancPorts:
    """Ports of the loopback interface: of its REST interface and pages, its DICOM port, and that of Fr-PACS."""

    http: int
    dicom: int
    fr: int


def configure(
    folder: Path, ports: OrthancPorts, title: str, route: bool, senders: Sequence[str] = ()
) -> Path:
    """Write Orthanc's configuration and return its path.

    Args:
        folder: for its files, made if need be.
        ports: where it listens, and where Fr does.
        title: the AE title of Fr-PACS, which it knows as the modality ``fr``.
        route: whether it is to pass on every MR image that it gets.
        senders: AE titles of others that may send to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "route.lua"
    script.write_text(_ROUTE, encoding="ascii")
    settings = {
        "Name": "Orthanc beside Fr",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": ports.http,
        "DicomPort": ports.dicom,
        "DicomAet": TITLE,
        "DicomCheckCalledAet": True,
        # The pages are for this machine alone: there is no password.
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "LuaScripts": [str(script)] if route else [],
        # Its DICOM port cannot be bound to this machine alone: whoever it does not know is turned away.
        "DicomAlwaysAllowStore": False,
        "DicomAlwaysAllowEcho": False,
        "DicomModalities": {"fr": [title, HOST, ports.fr], **{name: [name, HOST, 104] for name in senders}},
        "StableAge": 1,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return path


class OrthancClient:
    """Its REST interface, https://orthanc.uclouvain.be/book/users/rest.html; every call blocks.

    Each raises ``OSError`` when there is no answer, or one that is an error.
    """

    def __init__(self, port: int) -> None:
        """Take the port of the REST interface, on the loopback interface."""
        self._base = f"http://{HOST}:{port}"
        self._opener = build_opener(ProxyHandler({}))

    @property
    def explorer(self) -> str:
        """The address of its pages."""
        return f"{self._base}/app/explorer.html"

    def page(self, study: str) -> str:
        """Return the address of the page that shows a study."""
        return f"{self.explorer}#study?uuid={study}"

    def raw(self, path: str, data: bytes | None = None) -> bytes:
        """Return the answer to a GET, or with ``data`` to a POST."""
        with self._opener.open(Request(self._base + path, data=data), timeout=_ANSWER_WITHIN) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        """Return the decoded answer to a GET."""
        return json.loads(self.raw(path))

    def post(self, path: str, value: Any) -> Any:
        """POST ``value`` as JSON and return the decoded answer."""
        return json.loads(self.raw(path, json.dumps(value).encode()))

    def upload(self, instance: bytes) -> str:
        """Store a Part 10 file; return Orthanc's name for its study."""
        return str(json.loads(self.raw("/instances", instance))["ParentStudy"])

    def series(self, study: str) -> dict[str, list[str]]:
        """Return the instances of each series of a study, by modality."""
        found: dict[str, list[str]] = {}
        for each in self.get(f"/studies/{study}/series"):
            found.setdefault(each["MainDicomTags"]["Modality"], []).extend(each["Instances"])
        return found

    def file(self, instance: str) -> bytes:
        """Return the Part 10 file of an instance."""
        return self.raw(f"/instances/{instance}/file")


class OrthancProcess:
    """Runs it until it is stopped; its own log is ``orthanc.log`` in its folder."""

    def __init__(
        self,
        reactor: Any,
        executable: str,
        configuration: Path,
        client: OrthancClient,
        on_end: Callable[[str], None],
        in_thread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        """Take what `configure` wrote, and ``on_end``: told how it ended, once it was up and unless it was asked to."""
        self._reactor = reactor
        self._executable = executable
        self._configuration = configuration
        self._client = client
        self._on_end = on_end
        self._in_thread = in_thread
        self._transport: Any = None
        self._gone: Deferred[None] | None = None
        self._how: str | None = None
        self._is_up = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._transport is None else self._transport.pid

    async def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            StartError: it ended, or does not answer in time.
        """
        log = self._configuration.with_name("orthanc.log")
        arguments: Sequence[str] = (str(self._configuration), f"--logfile={log}")
        run = command(self._executable, arguments, SIGTERM)
        self._transport = self._reactor.spawnProcess(
            Output(lambda _: None, self._ended), run[0], run, env=None
        )
        deadline = self._reactor.seconds() + READY_WITHIN
        while self._how is None and self._reactor.seconds() < deadline:
            with suppress(OSError, ValueError, HTTPException):
                await self._in_thread(self._client.get, "/system")
                self._is_up = True
                return
            await deferLater(self._reactor, _PAUSE)
        how = "it does not answer" if self._how is None else f"it ended with {self._how}"
        raise StartError(f"Orthanc does not start ({how}): see {log}")

    def stop(self) -> Deferred[None]:
        """Ask it to end; fire when it has. One that does not is killed."""
        self._gone = Deferred()
        if self._transport is None:
            return succeed(None)
        self._signal(SIGTERM)
        kill = self._reactor.callLater(STOP_WITHIN, self.kill)
        return self._gone.addBoth(lambda _: kill.cancel() if kill.active() else None)

    def kill(self) -> None:
        """End it now."""
        self._signal(SIGKILL)

    def _signal(self, number: int) -> None:
        if self._transport is not None:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(int(number))

    def _ended(self, how: str) -> None:
        self._transport, self._how = None, how
        if self._gone is not None:
            self._gone.callback(None)
        elif self._is_up:
            self._on_end(how)
