"""The unit files in deploy/systemd: what they run, and how they are fenced in."""

import configparser
import shlex
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.config import UNITS
from fr_twisted.ops.options import settings_options

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectProc": "invisible",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
}


def read(unit: str) -> configparser.ConfigParser:
    """Return the unit file of Fr-``unit``."""
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    with open(FOLDER / f"fr{unit}.service") as stream:
        parser.read_file(stream)
    return parser


class UnitFileTests(SynchronousTestCase):
    """frpacs.service, frhub.service, frbrain.service."""

    def test_threeDaemons(self) -> None:
        """There is one for each daemon; the embedded server is no service of a production machine."""
        self.assertEqual({path.stem for path in FOLDER.glob("*.service")}, {"frpacs", "frhub", "frbrain"})

    def test_notify(self) -> None:
        """systemd waits for READY=1 of the main process, which is twistd in the foreground."""
        for unit in ("pacs", "hub", "brain"):
            service = read(unit)["Service"]
            self.assertEqual((service["Type"], service["NotifyAccess"]), ("notify", "main"))
            self.assertEqual(service["KillMode"], "mixed")
            words = shlex.split(service["ExecStart"])
            self.assertEqual(words[1:3], ["--nodaemon", "--pidfile="])

    def test_options(self) -> None:
        """The options that a file gives are options of that unit, with values that it takes."""
        for unit in ("pacs", "hub", "brain"):
            words = shlex.split(read(unit)["Service"]["ExecStart"])
            arguments = words[words.index(f"fr{unit}") + 1 :]
            options = settings_options(UNITS[unit], "A unit.")({}, FOLDER)
            options.parseOptions(arguments)
            name, value = read(unit)["Service"]["Environment"].split("=")
            settings_options(UNITS[unit], "A unit.")({name: value}, FOLDER).parseOptions(arguments)

    def test_settings(self) -> None:
        """Settings, secrets among them, come from a file and not from the unit file."""
        for unit in ("pacs", "hub", "brain"):
            self.assertEqual(read(unit)["Service"]["EnvironmentFile"], f"/etc/fr/fr{unit}.env")

    def test_hardening(self) -> None:
        """Each is fenced in, runs as a user of its own and writes only where it must."""
        for unit in ("pacs", "hub", "brain"):
            service = read(unit)["Service"]
            self.assertEqual({key: service.get(key) for key in HARDENING}, HARDENING)
            self.assertEqual((service["User"], service["StateDirectory"]), (f"fr{unit}", f"fr{unit}"))
            for key in ("MemoryMax", "TasksMax", "TimeoutStopSec", "Restart", "RestartSec", "WatchdogSec"):
                self.assertIn(key, service)

    def test_foldersAreWritable(self) -> None:
        """A folder that an option names is in the unit's state or runtime folder."""
        for unit in ("pacs", "brain"):
            words = shlex.split(read(unit)["Service"]["ExecStart"])
            folders = [word.partition("=")[2] for word in words if "=/" in word]
            self.assertTrue(folders)
            for folder in folders:
                self.assertTrue(folder.startswith((f"/var/lib/fr{unit}/", f"/run/fr{unit}/")), folder)
