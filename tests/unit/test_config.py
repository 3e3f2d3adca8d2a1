"""The settings of the units: defaults, texts, limits, secrets."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.config import (
    UNITS,
    BrainSettings,
    HubSettings,
    PacsSettings,
    Settings,
    StoreSettings,
    default_text,
    known_variables,
    setting_of,
    setting_text,
    unknown_variables,
)
from fr_twisted.setting_dicom import Archive
from fr_twisted.setting_values import parse_size, redact_uri, size_text


class SizeTests(SynchronousTestCase):
    """`parse_size` and `size_text`."""

    def test_suffixes(self) -> None:
        """K, M and G are powers of 1024, in either case."""
        self.assertEqual(
            [parse_size(t) for t in ("7", "1K", "2m", "3G")], [7, 1024, 2 * 1024**2, 3 * 1024**3]
        )

    def test_notASize(self) -> None:
        """Signs, fractions, other suffixes and nothing are refused."""
        for text in ("", "-1", "1.5G", "1T", "M", "1 M", "1e3"):
            self.assertRaises(ValueError, parse_size, text)

    @given(st.integers(0, 2**45))
    @settings(deadline=None)
    def test_textIsReadBack(self, size: int) -> None:
        """Every size is read back from its own text."""
        self.assertEqual(parse_size(size_text(size)), size)


class RedactTests(SynchronousTestCase):
    """`redact_uri`."""

    def test_password(self) -> None:
        """The password goes, whatever signs it holds; user, host and database stay."""
        for password in ("secret", "p@ss", "a/b:c", "x%40y"):
            text = redact_uri(f"mongodb://fr:{password}@db.example:27017/fr?w=1")
            self.assertEqual(text, "mongodb://fr:***@db.example:27017/fr?w=1")

    def test_options(self) -> None:
        """Options that hold a secret are redacted too."""
        text = redact_uri(
            "mongodb://h/fr?tlsCertificateKeyFilePassword=abc&w=1&authMechanismProperties=T:abc"
        )
        self.assertNotIn("abc", text)
        self.assertIn("w=1", text)

    def test_nothingSecret(self) -> None:
        """A URI without a secret is left as it is."""
        self.assertEqual(redact_uri("mongodb://127.0.0.1:27017/fr"), "mongodb://127.0.0.1:27017/fr")


class ModelTests(SynchronousTestCase):
    """The four models."""

    def refuse(self, model: type[Settings], **values: object) -> str:
        """Return why ``model`` does not take ``values``."""
        error = self.assertRaises(ValidationError, model.model_validate, values)
        return str(error)

    def test_defaultsAreValid(self) -> None:
        """The default of every field, written as text, is read back as that default."""
        for model in UNITS.values():
            plain = model()
            texts = {field: setting_text(plain, field) for field in model.model_fields}
            again = model.model_validate({field: text for field, text in texts.items() if text is not None})
            self.assertEqual(again, plain)

    def test_everyFieldIsExplained(self) -> None:
        """Every field has a variable that begins with FR_, a description and a word on what it accepts."""
        for model in UNITS.values():
            for field, info in model.model_fields.items():
                setting = setting_of(model, field)
                self.assertTrue(setting.env.startswith("FR_") and setting.accepts and info.description, field)

    def test_oneMeaningPerVariable(self) -> None:
        """A variable that several units read has the same field and default in each; ``store_dir`` is ``dir``."""
        seen: dict[str, tuple[str, str | None]] = {}
        for model in UNITS.values():
            for field in model.model_fields:
                entry = (field.removeprefix("store_"), default_text(model, field))
                self.assertEqual(seen.setdefault(setting_of(model, field).env, entry), entry)

    def test_frozen(self) -> None:
        """Settings do not change after they were read."""
        with self.assertRaises(ValidationError):
            HubSettings().node = "other"

    def test_nodes(self) -> None:
        """Nodes are name=endpoint pairs; an endpoint may hold '=' itself."""
        hub = HubSettings.model_validate({"nodes": " a=tcp:10.0.0.2:7802  b=tcp:host=h:port=1\n"})
        self.assertEqual(hub.nodes, {"a": "tcp:10.0.0.2:7802", "b": "tcp:host=h:port=1"})
        self.assertEqual(setting_text(hub, "nodes"), "a=tcp:10.0.0.2:7802 b=tcp:host=h:port=1")

    def test_badNodes(self) -> None:
        """A name twice, a bad name and a bad endpoint are refused by name."""
        self.assertIn("a is named twice", self.refuse(HubSettings, nodes="a=tcp:h:1 a=tcp:h:2"))
        self.assertIn("a: missing", self.refuse(HubSettings, nodes="a=tcp:h"))
        self.assertIn("nodes", self.refuse(HubSettings, nodes="-a=tcp:h:1"))
        self.assertIn("a: Unknown endpoint type", self.refuse(HubSettings, nodes="a"))

    def test_endpoints(self) -> None:
        """Endpoint strings are read by Twisted's own parser; TLS and systemd ones where they are used."""
        for good in (
            "tcp:0",
            "tcp:7801:interface=127.0.0.1",
            "unix:/run/fr.sock",
            "systemd:domain=INET:name=frhub",
        ):
            self.assertEqual(HubSettings.model_validate({"listen": good}).listen, good)
        for bad in ("", "7801", "tcp", "tcp:x", "tcp:65536", "tcp:1:nonsense=2", "tpc:1", "tls"):
            self.refuse(HubSettings, listen=bad)
        self.assertIn("65535", self.refuse(PacsSettings, hub="tcp:h:70000"))
        self.assertEqual(
            PacsSettings.model_validate({"hub": "tls:hub.example:7801"}).hub, "tls:hub.example:7801"
        )

    def test_ranges(self) -> None:
        """Numbers out of range, and such as are none, are refused."""
        for model, values in (
            (HubSettings, {"link_window": "0"}),
            (HubSettings, {"memory": "1K"}),
            (HubSettings, {"stop_timeout": "nan"}),
            (HubSettings, {"upload_ttl": "inf"}),
            (HubSettings, {"upload_ttl": "599"}),
            (BrainSettings, {"slots": "0"}),
            (BrainSettings, {"max_attempts": "many"}),
            (PacsSettings, {"generate": "-1"}),
            (PacsSettings, {"patient_id": "x" * 65}),
            (StoreSettings, {"port": "65536"}),
            (StoreSettings, {"change_streams": "perhaps"}),
        ):
            self.assertIn(next(iter(values)), self.refuse(model, **values))

    def test_uriMustBeMongo(self) -> None:
        """Only mongodb:// URIs are taken, and the message never holds the value."""
        for uri in ("", "mongodb+srv://u:geheim@h/fr", "http://u:geheim@h", "mongodb:///geheim"):
            self.assertNotIn("geheim", self.refuse(HubSettings, mongo_uri=uri))

    def test_secretsAreNotShown(self) -> None:
        """Neither the URI nor a patient id is in the text of the settings."""
        shown = repr(HubSettings.model_validate({"mongo_uri": "mongodb://u:geheim@h/fr"}))
        shown += str(PacsSettings.model_validate({"patient_id": "P-geheim"}))
        self.assertNotIn("geheim", shown)

    def test_yesNo(self) -> None:
        """Yes and no are taken in the usual spellings."""
        values = [
            StoreSettings.model_validate({"change_streams": t}).change_streams
            for t in ("Yes", "no", "ON", "0")
        ]
        self.assertEqual(values, [True, False, True, False])

    def test_archives(self) -> None:
        """Archives are AET@host:port, with commas between or given one by one; a title may hold spaces and '@'."""
        wanted = (Archive("MY PACS", "10.0.0.5", 104), Archive("A@B", "::1", 4242))
        for given_value in (
            "MY PACS@10.0.0.5:104, A@B@[::1]:4242",
            ["MY PACS@10.0.0.5:104", "A@B@[::1]:4242"],
        ):
            self.assertEqual(
                PacsSettings.model_validate({"dicom_archives": given_value}).dicom_archives, wanted
            )

    def test_badArchives(self) -> None:
        """What is no archive, and one that is named twice, are refused with the word that is wrong."""
        for bad in (
            "ORTHANC",
            "ORTHANC@host",
            "@host:104",
            "A@host:0",
            "A@host:65536",
            "A\\B@host:104",
            "A@h o:1",
        ):
            self.assertIn("dicom_archives", self.refuse(PacsSettings, dicom_archives=bad))
        self.assertIn("no AE title", self.refuse(PacsSettings, dicom_archives="X" * 17 + "@host:104"))
        self.assertIn("A@h:1 is named twice", self.refuse(PacsSettings, dicom_archives="A@h:1,A@h:1"))

    def test_paths(self) -> None:
        """Several paths stand in one variable as in PATH, or are given one by one."""
        for given_value in ("/a:/b c", ["/a", "/b c"]):
            settings = PacsSettings.model_validate({"send": given_value})
            self.assertEqual(settings.send, (Path("/a"), Path("/b c")))


class UnknownTests(SynchronousTestCase):
    """`unknown_variables`."""

    def test_suggestion(self) -> None:
        """A misspelled name comes with the known one that is most like it; a strange one with none."""
        self.assertEqual(
            unknown_variables(["FR_HUB_LISTN", "FR_QQQQQQ", "HOME"]),
            {"FR_HUB_LISTN": "FR_HUB_LISTEN", "FR_QQQQQQ": None},
        )

    def test_knownAndReserved(self) -> None:
        """The names of every unit, FR_ENV_FILE and FR_TEST_* are no strangers."""
        self.assertEqual(unknown_variables([*known_variables(), "FR_TEST_MONGO_URI", "FR_ENV_FILE"]), {})
