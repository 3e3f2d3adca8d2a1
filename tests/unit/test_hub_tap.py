"""Tests of Fr-HUB's options."""

from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.hub.tap import Options, roomy


class RoomyTests(SynchronousTestCase):
    """`roomy`."""

    def test_backlog(self) -> None:
        """A TCP port gets a long queue, unless its own is given; other endpoints are left as they are."""
        for given, made in (
            ("tcp:7801:interface=127.0.0.1", "tcp:7801:interface=127.0.0.1:backlog=1024"),
            ("ssl:7801:privateKey=k.pem", "ssl:7801:privateKey=k.pem:backlog=1024"),
            ("tcp:7801:backlog=5", "tcp:7801:backlog=5"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            self.assertEqual(roomy(given), made)


class OptionsTests(SynchronousTestCase):
    """The options of ``twistd frhub``."""

    def setUp(self) -> None:
        """Make a folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def refused(self, **environ: str) -> str:
        """Return why the unit does not start."""
        options = Options(environ, self.folder)
        return str(self.assertRaises(UsageError, options.parseOptions, []))

    def test_defaults(self) -> None:
        """Without any option it is a HUB."""
        options = Options({}, self.folder)
        options.parseOptions([])
        self.assertEqual(options.settings.node, "hub")

    def test_badAddress(self) -> None:
        """An address of the store that cannot be honoured stops the unit by name, without the password."""
        for uri in (
            "mongodb://u:secret@db/fr?replicaset2=x",
            "mongodb://u:secret@db/fr?authMechanism=PLAIN",
            "mongodb://u:secret@db:abc/fr",
        ):
            message = self.refused(FR_MONGO_URI=uri)
            self.assertTrue(message.startswith("FR_MONGO_URI or --mongo-uri: "), message)
            self.assertNotIn("secret", message)

    def test_badCertificates(self) -> None:
        """A certificate file that is not there, or is none, stops the unit by the setting's name."""
        missing = self.folder / "missing.pem"
        self.assertIn(
            f"FR_MONGO_TLS_CA or --mongo-tls-ca: {missing}", self.refused(FR_MONGO_TLS_CA=str(missing))
        )
        other = self.folder / "other.pem"
        other.write_text("not a certificate")
        self.assertIn("no certificate", self.refused(FR_MONGO_TLS_CERT=str(other)))
