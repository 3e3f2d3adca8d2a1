"""The settings of each unit: one frozen model a unit, every field with its environment variable. No input or output.

Where the values come from (command line, environment, ``.env``) is the business of `fr_twisted.ops.options`.
Texts are accepted for every field, as they stand in an environment variable, and `setting_text` gives them back.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fr_twisted.model import NodeName
from fr_twisted.setting_dicom import DicomIn, DicomOut
from fr_twisted.setting_values import (
    CLIENT_TEXT,
    FOLDER_TEXT,
    NODE_TEXT,
    SECONDS_TEXT,
    SERVER_TEXT,
    SIZE_TEXT,
    ClientEndpoint,
    Nodes,
    Paths,
    ServerEndpoint,
    Setting,
    Size,
    YesNo,
    mongodb_uri,
    redact_uri,
    usable_cores,
)

RESERVED_PREFIX = "FR_TEST_"
"""Environment variables of the test suite; no unit reads them."""

ENV_FILE = "FR_ENV_FILE"
"""Names the file of settings to read instead of ``.env`` in the current folder."""

_StoreFolder = Annotated[Path, Setting("FR_STORE_DIR", FOLDER_TEXT)]


class Settings(BaseModel):
    """What every unit has."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    log_format: Annotated[Literal["text", "json"], Setting("FR_LOG_FORMAT", "text or json")] = Field(
        default="text", description="how log lines are written"
    )
    log_level: Annotated[
        Literal["debug", "info", "warn", "error"], Setting("FR_LOG_LEVEL", "debug, info, warn or error")
    ] = Field(default="info", description="the least level that is logged")
    stop_timeout: Annotated[float, Setting("FR_STOP_TIMEOUT", SECONDS_TEXT)] = Field(
        default=4.0, gt=0, le=600, description="seconds that a clean stop may take"
    )


class _StoreAccess(BaseModel):
    """How HUB and BRAIN reach the store."""

    mongo_uri: Annotated[
        str,
        BeforeValidator(mongodb_uri),
        Setting(
            "FR_MONGO_URI", "mongodb://[user:password@]host[:port][,...]/database[?options]", secret=True
        ),
    ] = Field(default="mongodb://127.0.0.1:27017/fr", repr=False, description="the MongoDB that is the store")
    mongo_tls_ca: Annotated[Path | None, Setting("FR_MONGO_TLS_CA", "the path of a PEM file")] = Field(
        default=None,
        description="certificates of the authorities that may vouch for the store; given, TLS is used",
    )
    mongo_tls_cert: Annotated[Path | None, Setting("FR_MONGO_TLS_CERT", "the path of a PEM file")] = Field(
        default=None, description="our certificate and its private key, for a store that asks for one"
    )
    # Far below the grace period of the cleaner, which counts on every operation being over within it.
    mongo_timeout: Annotated[float, Setting("FR_MONGO_TIMEOUT", SECONDS_TEXT + ", at most 60")] = Field(
        default=10.0, gt=0, le=60, description="seconds that one operation of the store may take"
    )


class HubSettings(_StoreAccess, Settings):
    """Fr-HUB: keeps scans, delivers reports."""

    node: Annotated[NodeName, Setting("FR_HUB_NODE", NODE_TEXT)] = Field(
        default="hub", description="the name of this node"
    )
    listen: Annotated[ServerEndpoint, Setting("FR_HUB_LISTEN", SERVER_TEXT)] = Field(
        default="tcp:7801:interface=127.0.0.1", description="endpoint that Fr-PACS nodes dial"
    )
    nodes: Annotated[
        Nodes,
        Setting("FR_HUB_NODES", "name=endpoint pairs with spaces between, such as pacs=tcp:127.0.0.1:7802"),
    ] = Field(
        default={"pacs": "tcp:127.0.0.1:7802"},
        description="Fr-PACS nodes that get reports, and where each listens",
    )
    max_item: Annotated[Size, Setting("FR_MAX_ITEM", SIZE_TEXT)] = Field(
        default=2 * 1024**3, gt=0, description="the largest scan that is accepted"
    )
    memory: Annotated[Size, Setting("FR_HUB_MEMORY", SIZE_TEXT + ", at least 1M")] = Field(
        default=64 * 1024**2, ge=1024**2, description="bytes of scans that may be in flight at once"
    )
    connections: Annotated[int, Setting("FR_HUB_CONNECTIONS", "a whole number, 2 to 65536")] = Field(
        default=1024,
        ge=2,
        le=65536,
        description="connections of senders that may be open at once, half of them from one address",
    )
    link_window: Annotated[int, Setting("FR_LINK_WINDOW", "a whole number, 1 to 64")] = Field(
        default=4, ge=1, le=64, description="chunks of one item that may be unacknowledged"
    )
    link_silence: Annotated[float, Setting("FR_LINK_SILENCE", "a number of seconds, at least 1")] = Field(
        default=60.0, ge=1, description="seconds after which a peer of which nothing is heard is cut off"
    )
    delivery_lease: Annotated[float, Setting("FR_DELIVERY_LEASE", "a number of seconds, at least 1")] = Field(
        default=120.0,
        ge=1,
        description="seconds after which a report that a HUB fell silent over is sent by another",
    )
    # An upload that goes on says so every 60 s (fr_twisted.store.payloads.TOUCH_SECONDS): far less than this.
    upload_ttl: Annotated[float, Setting("FR_UPLOAD_TTL", "a number of seconds, at least 600")] = Field(
        default=86400.0,
        ge=600,
        description="seconds after which an upload that nobody continues is forgotten",
    )
    keep_payload_days: Annotated[
        float, Setting("FR_KEEP_PAYLOAD_DAYS", "a number of days, 0 or more; 0: for ever")
    ] = Field(
        default=0.0,
        ge=0,
        le=36500,
        description="days for which a scan's bytes are kept after all of its reports were delivered",
    )
    store_min_free: Annotated[Size, Setting("FR_STORE_MIN_FREE", SIZE_TEXT + "; 0: no limit")] = Field(
        default=1024**3,
        ge=0,
        description="free bytes of the store's file system below which no new scan is taken; its node keeps it",
    )
    store_quota: Annotated[Size, Setting("FR_STORE_QUOTA", SIZE_TEXT + "; 0: no limit")] = Field(
        default=0, ge=0, description="bytes in the store's database above which no new scan is taken"
    )
    store_dir: _StoreFolder = Field(
        default=Path(".fr/store"),
        description="folder of a store on this machine that does not tell its free space, as the embedded one",
    )


class BrainSettings(_StoreAccess, Settings):
    """Fr-BRAIN: claims scans, analyses them, writes reports."""

    node: Annotated[NodeName, Setting("FR_BRAIN_NODE", NODE_TEXT)] = Field(
        default="brain", description="the name of this node"
    )
    slots: Annotated[
        int,
        Setting("FR_BRAIN_SLOTS", "a whole number, 1 to 256", shown_default="the number of usable cores"),
    ] = Field(default_factory=usable_cores, ge=1, le=256, description="scans that are analysed at once")
    analysis: Annotated[str, Setting("FR_BRAIN_ANALYSIS", "the name of an installed analysis")] = Field(
        default="t1-volumes",
        min_length=1,
        description="the analysis to run, an entry point of fr_twisted.analyses",
    )
    time_limit: Annotated[float, Setting("FR_BRAIN_TIME_LIMIT", SECONDS_TEXT)] = Field(
        default=600.0, gt=0, description="seconds that the analysis of one scan may take"
    )
    memory_limit: Annotated[Size, Setting("FR_BRAIN_MEMORY_LIMIT", SIZE_TEXT + ", at least 256M")] = Field(
        default=3 * 1024**3, ge=256 * 1024**2, description="memory that the analysis of one scan may take"
    )
    lease: Annotated[float, Setting("FR_LEASE", "a number of seconds, at least 1")] = Field(
        default=60.0, ge=1, description="seconds after which a scan of a BRAIN that fell silent is taken over"
    )
    max_attempts: Annotated[int, Setting("FR_MAX_ATTEMPTS", "a whole number, 1 to 100")] = Field(
        default=3, ge=1, le=100, description="attempts after which a scan is Failed"
    )
    work_dir: Annotated[Path | None, Setting("FR_BRAIN_WORK_DIR", FOLDER_TEXT)] = Field(
        default=None, description="folder for scans under analysis; none: a private temporary folder"
    )


class PacsSettings(DicomIn, DicomOut, Settings):
    """Fr-PACS: sends scans, receives their reports."""

    node: Annotated[NodeName, Setting("FR_PACS_NODE", NODE_TEXT)] = Field(
        default="pacs", description="the name of this node, as the HUB knows it"
    )
    hub: Annotated[ClientEndpoint, Setting("FR_PACS_HUB", CLIENT_TEXT)] = Field(
        default="tcp:127.0.0.1:7801", description="endpoint where the HUB listens"
    )
    listen: Annotated[ServerEndpoint, Setting("FR_PACS_LISTEN", SERVER_TEXT)] = Field(
        default="tcp:7802:interface=127.0.0.1", description="endpoint that the HUB dials with reports"
    )
    reports: Annotated[Path, Setting("FR_PACS_REPORTS", FOLDER_TEXT)] = Field(
        default=Path("reports"), description="folder that reports are written to"
    )
    watch: Annotated[Path | None, Setting("FR_PACS_WATCH", FOLDER_TEXT)] = Field(
        default=None,
        description="folder whose files are sent as they appear, then moved to sent/ or refused/ in it",
    )
    send: Annotated[Paths, Setting("FR_PACS_SEND", f"paths with {os.pathsep!r} between", many=True)] = Field(
        default=(), description="NIfTI file, DICOM file or folder to send; may be given several times"
    )
    generate: Annotated[int, Setting("FR_PACS_GENERATE", "a whole number, 0 or more")] = Field(
        default=0, ge=0, description="how many scans of known truth to generate and send"
    )
    interval: Annotated[float, Setting("FR_PACS_INTERVAL", "a number of seconds, 0 or more")] = Field(
        default=0.0, ge=0, description="seconds between generated scans"
    )
    seed: Annotated[int | None, Setting("FR_PACS_SEED", "a whole number, 0 or more")] = Field(
        default=None, ge=0, description="makes the generated scans the same every time; none: new ones"
    )
    truth: Annotated[Path | None, Setting("FR_PACS_TRUTH", FOLDER_TEXT)] = Field(
        None,
        description="folder for the true volumes of generated scans, which go nowhere else; none: not kept",
    )
    patient_id: Annotated[str | None, Setting("FR_PACS_PATIENT_ID", "1 to 64 characters", secret=True)] = (
        Field(
            None, min_length=1, max_length=64, repr=False, description="patient id of files that carry none"
        )
    )
    spool: Annotated[Path | None, Setting("FR_PACS_SPOOL", FOLDER_TEXT)] = Field(
        default=None,
        description="folder for payloads that are prepared to be sent; none: a private temporary folder",
    )
    link_window: Annotated[int, Setting("FR_LINK_WINDOW", "a whole number, 1 to 64")] = Field(
        default=4, ge=1, le=64, description="chunks of one item that may be unacknowledged"
    )
    link_silence: Annotated[float, Setting("FR_LINK_SILENCE", "a number of seconds, at least 1")] = Field(
        default=60.0, ge=1, description="seconds after which a peer of which nothing is heard is cut off"
    )


class StoreSettings(Settings):
    """Fr-STORE: the embedded server, for newcomers and tests."""

    node: Annotated[NodeName, Setting("FR_STORE_NODE", NODE_TEXT)] = Field(
        default="store", description="the name of this node"
    )
    dir: _StoreFolder = Field(
        default=Path(".fr/store"), description="folder that the data is kept in; made if it is missing"
    )
    port: Annotated[int, Setting("FR_STORE_PORT", "a port, 0 to 65535")] = Field(
        default=27017, ge=0, le=65535, description="port on 127.0.0.1 to listen on; 0: any free one"
    )
    cache: Annotated[Size, Setting("FR_STORE_CACHE", SIZE_TEXT + ", at least 1M")] = Field(
        default=256 * 1024**2, ge=1024**2, description="memory for the server's cache"
    )
    change_streams: Annotated[YesNo, Setting("FR_STORE_CHANGE_STREAMS", "yes or no")] = Field(
        default=True,
        description="whether units are told of changes at once; no: faster writes, half the disk",
    )
    test_commands: Annotated[YesNo, Setting("FR_STORE_TEST_COMMANDS", "yes or no")] = Field(
        default=False,
        description="whether the server takes commands that make it fail on purpose; for tests alone",
    )


class OperatorSettings(_StoreAccess, Settings):
    """What the commands of ``fr`` know of the store: the settings that HUB and BRAIN have for it."""

    upload_ttl: Annotated[float, Setting("FR_UPLOAD_TTL", "a number of seconds, at least 600")] = Field(
        default=86400.0,
        ge=600,
        description="seconds after which an upload that nobody continues should have been forgotten",
    )


UNITS: Mapping[str, type[Settings]] = {
    "hub": HubSettings,
    "brain": BrainSettings,
    "pacs": PacsSettings,
    "store": StoreSettings,
}


def setting_of(model: type[Settings], field: str) -> Setting:
    """Return what people are told of ``field``."""
    return next(item for item in model.model_fields[field].metadata if isinstance(item, Setting))


def default_text(model: type[Settings], field: str) -> str | None:
    """Return the default of ``field`` as it would be written in an environment variable; None: there is none."""
    setting = setting_of(model, field)
    if setting.shown_default is not None:
        return setting.shown_default
    text = setting_text(model.model_construct(), field)
    return redact_uri(text) if text and setting.secret else text


def setting_text(settings: Settings, field: str) -> str | None:
    """Return the value of ``field`` as it would be written in an environment variable, secrets included."""
    value = settings.model_dump(mode="json", include={field})[field]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value in (None, "") else str(value)


def known_variables() -> frozenset[str]:
    """Return every ``FR_*`` name that some unit reads."""
    names = {setting_of(model, field).env for model in UNITS.values() for field in model.model_fields}
    return frozenset(names | {ENV_FILE})


def unknown_variables(names: Iterable[str]) -> dict[str, str | None]:
    """Return those of ``names`` that begin with ``FR_`` and mean nothing, each with the known name most like it."""
    known = known_variables()
    strangers = (
        n for n in names if n.startswith("FR_") and not n.startswith(RESERVED_PREFIX) and n not in known
    )
    return {
        name: next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)
        for name in sorted(strangers)
    }
