"""Options made from settings: help, sources, precedence, what is said of mistakes."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated
from unittest import mock

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.config import UNITS, HubSettings, PacsSettings, StoreSettings, default_text, setting_of
from fr_twisted.ops.options import SettingsOptions, read_environment, settings_options

HubOptions = settings_options(HubSettings, "Keeps scans.")
PacsOptions = settings_options(PacsSettings, "Sends scans.")
StoreOptions = settings_options(StoreSettings, "Stores.")


class OptionsTestCase(SynchronousTestCase):
    """A folder of our own, and parsing in it."""

    def setUp(self) -> None:
        """Make the folder."""
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def parse(
        self, arguments: list[str], environ: dict[str, str] | None = None, kind: type = HubOptions
    ) -> SettingsOptions[HubSettings]:
        """Return the parsed options."""
        options: SettingsOptions[HubSettings] = kind(environ or {}, self.folder)
        options.parseOptions(arguments)
        return options

    def refused(
        self, arguments: list[str], environ: dict[str, str] | None = None, kind: type = HubOptions
    ) -> str:
        """Return why the unit does not start."""
        return str(self.assertRaises(usage.UsageError, self.parse, arguments, environ, kind))


class SourceTests(OptionsTestCase):
    """Where values come from."""

    def test_defaults(self) -> None:
        """With nothing given, the defaults count."""
        self.assertEqual(self.parse([]).settings, HubSettings())

    def test_precedence(self) -> None:
        """The command line is over the environment, that over .env, that over the default."""
        (self.folder / ".env").write_text(
            "FR_HUB_NODE=file\nFR_HUB_LISTEN='tcp:1'\nFR_LINK_WINDOW=9\nOTHER=x\n"
        )
        environ = {"FR_HUB_NODE": "environment", "FR_HUB_LISTEN": "tcp:2"}
        settings = self.parse(["--node", "line"], environ).settings
        self.assertEqual(
            (settings.node, settings.listen, settings.link_window, settings.log_level),
            ("line", "tcp:2", 9, "info"),
        )

    def test_envFile(self) -> None:
        """FR_ENV_FILE names another file, and then it must be there."""
        (self.folder / "other.env").write_text("FR_HUB_NODE=other\n")
        (self.folder / ".env").write_text("FR_HUB_NODE=unread\n")
        self.assertEqual(self.parse([], {"FR_ENV_FILE": "other.env"}).settings.node, "other")
        self.assertIn("No such file", self.refused([], {"FR_ENV_FILE": "missing.env"}))

    def test_emptyIsNotSet(self) -> None:
        """A variable set to nothing counts as not set, in the environment as in the file."""
        (self.folder / ".env").write_text("FR_HUB_NODE=file\nFR_HUB_LISTEN=\n")
        settings = self.parse([], {"FR_HUB_NODE": ""}).settings
        self.assertEqual((settings.node, settings.listen), ("file", HubSettings().listen))

    def test_lastOptionCounts(self) -> None:
        """An option given twice has its last value."""
        self.assertEqual(self.parse(["--node=a", "--node=b"]).settings.node, "b")

    def test_repeatedOption(self) -> None:
        """--send may be given several times, and each may hold several paths."""
        settings = self.parse(["--send", "/a", "--send=/b:/c"], kind=PacsOptions).settings
        self.assertEqual(settings.send, (Path("/a"), Path("/b"), Path("/c")))  # type: ignore[attr-defined]

    def test_otherUnitsVariables(self) -> None:
        """One .env serves all units: the variables of another are no mistake, even with values it would refuse."""
        (self.folder / ".env").write_text("FR_STORE_PORT=99999999\nFR_TEST_MONGO_URI=x\n")
        self.assertEqual(self.parse([]).settings, HubSettings())

    def test_processEnvironment(self) -> None:
        """Unless told otherwise, the environment is that of the process."""
        with mock.patch.dict(os.environ, {"FR_HUB_NODE": "mine"}):
            options = HubOptions(folder=self.folder)
            options.parseOptions([])
        self.assertEqual(options.settings.node, "mine")


class MistakeTests(OptionsTestCase):
    """What is said of a setting that is unknown or invalid."""

    def test_invalidInEnvironment(self) -> None:
        """The message has the variable, its place, its value and what is accepted."""
        self.assertEqual(
            self.refused([], {"FR_LINK_WINDOW": "many"}),
            'FR_LINK_WINDOW is "many" in the environment, which cannot be used; accepted: a whole number, 1 to 64',
        )

    def test_invalidOnCommandLine(self) -> None:
        """An option is named as it was written, with the reason where there is one."""
        message = self.refused(["--listen", "tcp:70000"])
        self.assertIn('--listen is "tcp:70000" on the command line', message)
        self.assertIn("a port is at most 65535; accepted: a Twisted server endpoint string", message)

    def test_invalidInFile(self) -> None:
        """A mistake in the file is told with the file's path."""
        (self.folder / ".env").write_text("FR_HUB_MEMORY=lots\n")
        self.assertIn(f'FR_HUB_MEMORY is "lots" in {self.folder / ".env"}', self.refused([]))

    def test_secretIsNotShown(self) -> None:
        """A secret's value is in no message, wherever it stands."""
        for arguments, environ in (
            (["--mongo-uri=x://geheim"], {}),
            ([], {"FR_MONGO_URI": "http://a:geheim@b"}),
        ):
            message = self.refused(arguments, environ)
            self.assertNotIn("geheim", message)
            self.assertIn("not shown", message)

    def test_severalMistakes(self) -> None:
        """Every mistake has a line of its own."""
        message = self.refused(["--memory=x"], {"FR_LOG_LEVEL": "loud", "FR_LINK_WINDOW": "0"})
        self.assertEqual(len(message.splitlines()), 3)

    def test_unknownVariable(self) -> None:
        """An unknown variable stops the unit, with the place and the name that was meant perhaps."""
        (self.folder / ".env").write_text("FR_BRIAN_SLOTS=1\n")
        message = self.refused([], {"FR_HUB_LISTN": "tcp:1", "FR_XYZ": "1"})
        self.assertIn(
            "FR_HUB_LISTN (in the environment) is no setting of Fr; did you mean FR_HUB_LISTEN?", message
        )
        self.assertIn(f"FR_BRIAN_SLOTS (in {self.folder / '.env'}) is no setting", message)
        self.assertIn("did you mean FR_BRAIN_SLOTS?", message)
        self.assertIn("FR_XYZ (in the environment) is no setting of Fr", message)

    def test_unknownOption(self) -> None:
        """An unknown option, or a word too many, is refused."""
        self.assertIn("nonsense", self.refused(["--nonsense=1"]))
        self.assertIn("Wrong number", self.refused(["extra"]))

    def test_malformedFile(self) -> None:
        """A line of .env that is no NAME=value stops the unit by its number, and is not shown: it may be secret."""
        for text in (
            "A=1\nFR_HUB_LISTEN tcp:1\n",
            'A=1\nFR_MONGO_URI="mongodb://u:secret@h\n',
            "A=1\nFR_HUB_LISTEN\n",
        ):
            (self.folder / ".env").write_text(text)
            message = self.refused([])
            self.assertIn(f"line 2 of the file of settings {self.folder / '.env'}", message)
            self.assertNotIn("secret", message)

    def test_unreadableFile(self) -> None:
        """A file that is no text is named."""
        (self.folder / ".env").write_bytes(b"FR_HUB_NODE=\xff\xfe\n")
        self.assertIn("no UTF-8 text", self.refused([]))


class HelpTests(OptionsTestCase):
    """--help and --version."""

    def test_everyOption(self) -> None:
        """Every field of every unit is an option, with its description, default and variable."""
        for model in UNITS.values():
            text = " ".join(str(settings_options(model, "A unit.")({}, self.folder)).split())
            for field, info in model.model_fields.items():
                setting = setting_of(model, field)
                self.assertIn(f"--{field.replace('_', '-')}=", text)
                described = (
                    f"{info.description} [default: {default_text(model, field) or 'none'}; env: {setting.env}"
                )
                self.assertIn("".join(described.split()), "".join(text.split()))

    def test_helpInABadEnvironment(self) -> None:
        """Help is given whatever the environment holds."""
        with mock.patch("builtins.print"):
            error = self.assertRaises(
                SystemExit, self.parse, ["--help"], {"FR_HUB_LISTN": "x", "FR_LINK_WINDOW": "x"}
            )
        self.assertEqual(error.code, 0)

    def test_version(self) -> None:
        """The version is Fr's."""
        with mock.patch("builtins.print") as printed:
            self.assertRaises(SystemExit, self.parse, ["--version"])
        self.assertIn("fr-twisted", printed.call_args.args[0])

    def test_secretDefaultIsRedacted(self) -> None:
        """A default that held a password would be shown without it."""

        class Odd(HubSettings):
            mongo_uri: Annotated[str, setting_of(HubSettings, "mongo_uri")] = "mongodb://u:geheim@h/fr"

        self.assertEqual(default_text(Odd, "mongo_uri"), "mongodb://u:***@h/fr")


class LogPathTests(OptionsTestCase):
    """Where a unit logs, as twistd's own options say."""

    def path(self, **parent: object) -> str | None:
        """Return the log file under these options of twistd."""
        options = HubOptions({}, self.folder)
        options.parent = usage.Options()
        options.parent.update(parent)
        options.parseOptions([])
        return options.log_path

    def test_paths(self) -> None:
        """In the foreground to standard output unless a file is named; a daemon writes twistd.log."""
        self.assertIsNone(self.path(nodaemon=True, logfile=None))
        self.assertIsNone(self.path(nodaemon=False, logfile="-"))
        self.assertEqual(self.path(nodaemon=True, logfile="hub.log"), "hub.log")
        self.assertEqual(self.path(nodaemon=False, logfile=None), "twistd.log")
        self.assertIsNone(self.parse([]).log_path)


class ReadEnvironmentTests(OptionsTestCase):
    """`read_environment`."""

    def test_onlyOurs(self) -> None:
        """Nothing but FR_ variables is returned, each with its place."""
        self.assertEqual(
            read_environment({"HOME": "/root", "FR_LEASE": "5"}, self.folder),
            {"FR_LEASE": ("5", "the environment")},
        )
