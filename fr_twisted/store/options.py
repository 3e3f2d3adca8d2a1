"""What is checked of the store's settings before a unit begins, so that a wrong one stops it by name."""

from pathlib import Path

from twisted.python import usage

from fr_twisted.config import BrainSettings, HubSettings, OperatorSettings
from fr_twisted.store.uri import MongoUriError, parse


def check_store(settings: HubSettings | BrainSettings | OperatorSettings) -> None:
    """Return if the store's address and certificate files can be used as they stand.

    Raises:
        usage.UsageError: with the setting's name, never with a password.
    """
    try:
        parse(settings.mongo_uri)
    except MongoUriError as error:
        raise usage.UsageError(f"FR_MONGO_URI or --mongo-uri: {error}") from None
    _check_pem("FR_MONGO_TLS_CA or --mongo-tls-ca", settings.mongo_tls_ca)
    _check_pem("FR_MONGO_TLS_CERT or --mongo-tls-cert", settings.mongo_tls_cert)


def _check_pem(name: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        text = path.read_bytes()
    except OSError as error:
        raise usage.UsageError(f"{name}: {path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in text:
        raise usage.UsageError(f"{name}: {path} holds no certificate in PEM form")
