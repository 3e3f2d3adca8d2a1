"""The settings of each unit: one frozen model a unit, every field with its environment variable. No input or output.

Where the values come from (command line, environment, ``.env``) is the business of `fr_twisted.ops.options`.
Texts are accepted for every field, as they stand in an environment variable, and `setting_text` gives them back.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from twisted.internet.endpoints import clientFromString, serverFromString

from fr_twisted.model import NodeName

_SUFFIXES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SIZE = re.compile(r"(\d{1,15})([KMG]?)")
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
_PLAIN_ENDPOINT = re.compile(r"tcp6?:(?:[^:=]+:)?(\d+)(?::|$)")

RESERVED_PREFIX = "FR_TEST_"
"""Environment variables of the test suite; no unit reads them."""

ENV_FILE = "FR_ENV_FILE"
"""Names the file of settings to read instead of ``.env`` in the current folder."""


@dataclass(frozen=True)
class Archive:
    """A DICOM archive that results are sent to."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Setting:
    """What people are told of a field: its environment variable, what it accepts, whether it is to be kept secret."""

    env: str
    accepts: str
    secret: bool = False
    many: bool = False
    """The command-line option may be given several times."""
    shown_default: str | None = None
    """Instead of the default's own text, where that depends on the machine."""


def parse_size(value: Any) -> Any:
    """Return the bytes that ``64M`` stands for (K, M, G: powers of 1024); leave what is no text to the caller.

    Raises:
        ValueError: the text is no size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip().upper())
    if found is None:
        raise ValueError("not a size")
    return int(found[1]) * _SUFFIXES[found[2]]


def size_text(value: int) -> str:
    """Return bytes as the shortest text that `parse_size` reads back as the same number."""
    for suffix in "GMK":
        if value and value % _SUFFIXES[suffix] == 0:
            return f"{value // _SUFFIXES[suffix]}{suffix}"
    return str(value)


def redact_uri(uri: str) -> str:
    """Return ``uri`` with whatever is secret in it replaced by ``***``: fit for a log line."""
    uri = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", uri)
    return re.sub(r"(?i)([?&][^=&]*(?:password|properties)[^=&]*=)[^&]*", r"\1***", uri)


def _yes_no(value: Any) -> Any:
    known = {
        "yes": True,
        "true": True,
        "on": True,
        "1": True,
        "no": False,
        "false": False,
        "off": False,
        "0": False,
    }
    return known.get(value.strip().lower(), value) if isinstance(value, str) else value


def _check_endpoint(value: str, parse: Any) -> str:
    """Let Twisted's parser read it; TLS and systemd strings are read whole only where they are used."""
    try:
        parse(None, value)
    except Exception as error:
        if value.partition(":")[0] in ("tls", "ssl", "systemd") and ":" in value:
            return value
        raise ValueError(re.sub(r"^\S+\(\) ", "", str(error))) from None
    port = _PLAIN_ENDPOINT.match(value)
    if port is not None and int(port[1]) > 65535:
        raise ValueError("a port is at most 65535")
    return value


def _server_endpoint(value: str) -> str:
    return _check_endpoint(value, serverFromString)


def _client_endpoint(value: str) -> str:
    return _check_endpoint(value, clientFromString)


def _nodes(value: Any) -> Any:
    """Read ``pacs=tcp:127.0.0.1:7802 other=tcp:10.0.0.2:7802``."""
    if isinstance(value, str):
        pairs = [word.partition("=")[::2] for word in value.split()]
        names = [name for name, _ in pairs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)} is named twice")
        value = dict(pairs)
    if isinstance(value, Mapping):
        for name, endpoint in value.items():
            try:
                _client_endpoint(endpoint)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return value


def _paths(value: Any) -> Any:
    """Read paths that `os.pathsep` separates, given once or several times."""
    texts = [value] if isinstance(value, str) else value
    return tuple(part for text in texts for part in str(text).split(os.pathsep) if part)


def _dicom_endpoint(value: str) -> str:
    """The DICOM port is served by threads, not by Twisted: of its endpoint strings only plain TCP is understood."""
    if re.fullmatch(r"tcp:\d{1,5}(:interface=[A-Za-z0-9.-]+)?", value) is None:
        raise ValueError("it is not of the form tcp:PORT or tcp:PORT:interface=ADDRESS")
    return _server_endpoint(value)


def _ae_title(value: str) -> str:
    if _AE_TITLE.fullmatch(value) is None or not value.strip():
        raise ValueError("it is no AE title")
    return value.strip()


def _ae_titles(value: Any) -> Any:
    """Read ``SCANNER1, SCANNER2``: a title may hold spaces."""
    texts = value.split(",") if isinstance(value, str) else value
    return tuple(_ae_title(text.strip()) for text in texts if text.strip())


def _peers(value: Any) -> Any:
    """Read ``SCANNER1=10.0.0.5:104, ORTHANC=127.0.0.1:4242``."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, value.split(","))):
        title, _, address = part.rpartition("=")
        if re.fullmatch(r"[A-Za-z0-9.-]+:\d{1,5}", address) is None:
            raise ValueError(f"{part!r} is not TITLE=HOST:PORT")
        if _ae_title(title) in found:
            raise ValueError(f"{title} is named twice")
        found[_ae_title(title)] = address
    return found


def _archive(value: str) -> Archive:
    title, _, address = value.rpartition("@")
    found = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError(f"{value!r} is not AET@host:port")
    return Archive(_ae_title(title), found[1].strip("[]"), int(found[2]))


def _archives(value: Any) -> Any:
    """Read ``ORTHANC@127.0.0.1:4242, VNA@10.0.0.5:104``, given once or several times; a title may hold spaces."""
    texts = [value] if isinstance(value, str) else value
    if any(isinstance(text, Archive) for text in texts):
        return tuple(texts)
    found = tuple(_archive(part.strip()) for text in texts for part in text.split(",") if part.strip())
    if twice := {str(archive) for archive in found if found.count(archive) > 1}:
        raise ValueError(f"{min(twice)} is named twice")
    return found


def _mongo_uri(value: str) -> str:
    if not re.match(r"mongodb://[^/]", value):
        raise ValueError("it does not begin with mongodb://host")
    return value


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(size_text)]
YesNo = Annotated[bool, BeforeValidator(_yes_no), PlainSerializer(lambda value: "yes" if value else "no")]
ServerEndpoint = Annotated[str, BeforeValidator(_server_endpoint)]
ClientEndpoint = Annotated[str, BeforeValidator(_client_endpoint)]
Nodes = Annotated[
    Mapping[NodeName, str],
    BeforeValidator(_nodes),
    PlainSerializer(lambda value: " ".join(f"{name}={endpoint}" for name, endpoint in value.items())),
]
Paths = Annotated[
    tuple[Path, ...],
    BeforeValidator(_paths),
    PlainSerializer(lambda value: os.pathsep.join(str(path) for path in value)),
]
AeTitle = Annotated[str, BeforeValidator(_ae_title)]
Archives = Annotated[
    tuple[Archive, ...],
    BeforeValidator(_archives),
    PlainSerializer(lambda value: ", ".join(map(str, value))),
]

AeTitles = Annotated[
    tuple[str, ...], BeforeValidator(_ae_titles), PlainSerializer(lambda value: ", ".join(value))
]
Peers = Annotated[
    Mapping[str, str],
    BeforeValidator(_peers),
    PlainSerializer(lambda value: ", ".join(f"{title}={address}" for title, address in value.items())),
]

_NODE = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
_SECONDS = "a number of seconds above 0"
_SIZE_TEXT = "a number of bytes, with K, M or G behind it for powers of 1024"
_SERVER = "a Twisted server endpoint string such as tcp:7801:interface=127.0.0.1"
_CLIENT = "a Twisted client endpoint string such as tcp:127.0.0.1:7801"
_FOLDER = "the path of a folder"

_StoreFolder = Annotated[Path, Setting("FR_STORE_DIR", _FOLDER)]


class Settings(BaseModel):
    """What every unit has."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    log_format: Annotated[Literal["text", "json"], Setting("FR_LOG_FORMAT", "text or json")] = Field(
        default="text", description="how log lines are written"
    )
    log_level: Annotated[
        Literal["debug", "info", "warn", "error"], Setting("FR_LOG_LEVEL", "debug, info, warn or error")
    ] = Field(default="info", description="the least level that is logged")
    stop_timeout: Annotated[float, Setting("FR_STOP_TIMEOUT", _SECONDS)] = Field(
        default=4.0, gt=0, le=600, description="seconds that a clean stop may take"
    )


class _StoreAccess(BaseModel):
    """How HUB and BRAIN reach the store."""

    mongo_uri: Annotated[
        str,
        BeforeValidator(_mongo_uri),
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
    mongo_timeout: Annotated[float, Setting("FR_MONGO_TIMEOUT", _SECONDS + ", at most 60")] = Field(
        default=10.0, gt=0, le=60, description="seconds that one operation of the store may take"
    )


class HubSettings(_StoreAccess, Settings):
    """Fr-HUB: keeps scans, delivers reports."""

    node: Annotated[NodeName, Setting("FR_HUB_NODE", _NODE)] = Field(
        default="hub", description="the name of this node"
    )
    listen: Annotated[ServerEndpoint, Setting("FR_HUB_LISTEN", _SERVER)] = Field(
        default="tcp:7801:interface=127.0.0.1", description="endpoint that Fr-PACS nodes dial"
    )
    nodes: Annotated[
        Nodes,
        Setting("FR_HUB_NODES", "name=endpoint pairs with spaces between, such as pacs=tcp:127.0.0.1:7802"),
    ] = Field(
        default={"pacs": "tcp:127.0.0.1:7802"},
        description="Fr-PACS nodes that get reports, and where each listens",
    )
    max_item: Annotated[Size, Setting("FR_MAX_ITEM", _SIZE_TEXT)] = Field(
        default=2 * 1024**3, gt=0, description="the largest scan that is accepted"
    )
    memory: Annotated[Size, Setting("FR_HUB_MEMORY", _SIZE_TEXT + ", at least 1M")] = Field(
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
    store_min_free: Annotated[Size, Setting("FR_STORE_MIN_FREE", _SIZE_TEXT + "; 0: no limit")] = Field(
        default=1024**3,
        ge=0,
        description="free bytes of the store's file system below which no new scan is taken; its node keeps it",
    )
    store_quota: Annotated[Size, Setting("FR_STORE_QUOTA", _SIZE_TEXT + "; 0: no limit")] = Field(
        default=0, ge=0, description="bytes in the store's database above which no new scan is taken"
    )
    store_dir: _StoreFolder = Field(
        default=Path(".fr/store"),
        description="folder of a store on this machine that does not tell its free space, as the embedded one",
    )


class BrainSettings(_StoreAccess, Settings):
    """Fr-BRAIN: claims scans, analyses them, writes reports."""

    node: Annotated[NodeName, Setting("FR_BRAIN_NODE", _NODE)] = Field(
        default="brain", description="the name of this node"
    )
    slots: Annotated[
        int,
        Setting("FR_BRAIN_SLOTS", "a whole number, 1 to 256", shown_default="the number of usable cores"),
    ] = Field(default_factory=_usable_cores, ge=1, le=256, description="scans that are analysed at once")
    analysis: Annotated[str, Setting("FR_BRAIN_ANALYSIS", "the name of an installed analysis")] = Field(
        default="t1-volumes",
        min_length=1,
        description="the analysis to run, an entry point of fr_twisted.analyses",
    )
    time_limit: Annotated[float, Setting("FR_BRAIN_TIME_LIMIT", _SECONDS)] = Field(
        default=600.0, gt=0, description="seconds that the analysis of one scan may take"
    )
    memory_limit: Annotated[Size, Setting("FR_BRAIN_MEMORY_LIMIT", _SIZE_TEXT + ", at least 256M")] = Field(
        default=3 * 1024**3, ge=256 * 1024**2, description="memory that the analysis of one scan may take"
    )
    lease: Annotated[float, Setting("FR_LEASE", "a number of seconds, at least 1")] = Field(
        default=60.0, ge=1, description="seconds after which a scan of a BRAIN that fell silent is taken over"
    )
    max_attempts: Annotated[int, Setting("FR_MAX_ATTEMPTS", "a whole number, 1 to 100")] = Field(
        default=3, ge=1, le=100, description="attempts after which a scan is Failed"
    )
    work_dir: Annotated[Path | None, Setting("FR_BRAIN_WORK_DIR", _FOLDER)] = Field(
        default=None, description="folder for scans under analysis; none: a private temporary folder"
    )


class _DicomIn(BaseModel):
    """How Fr-PACS takes series by DICOM."""

    dicom_listen: Annotated[
        Annotated[str, BeforeValidator(_dicom_endpoint)] | None,
        Setting("FR_DICOM_LISTEN", "tcp:PORT or tcp:PORT:interface=ADDRESS, such as tcp:11112"),
    ] = Field(default=None, description="endpoint that scanners and archives send to; none: no DICOM in")
    dicom_aet: Annotated[AeTitle, Setting("FR_DICOM_AET", "1 to 16 characters, no backslash")] = Field(
        default="FR", description="our AE title: senders must call it, archives see it"
    )
    dicom_allow: Annotated[AeTitles, Setting("FR_DICOM_ALLOW", "AE titles with commas between")] = Field(
        default=(), description="the AE titles that may send; none: any"
    )
    dicom_peers: Annotated[
        Peers, Setting("FR_DICOM_PEERS", "TITLE=HOST:PORT with commas between, such as MR1=10.0.0.5:104")
    ] = Field(default={}, description="where the results of storage commitment are sent, by AE title")
    dicom_max_pdu: Annotated[Size, Setting("FR_DICOM_MAX_PDU", _SIZE_TEXT + ", 4K to 1M")] = Field(
        default=256 * 1024, ge=4096, le=1024**2, description="the longest PDU that is taken"
    )
    dicom_max_associations: Annotated[
        int, Setting("FR_DICOM_MAX_ASSOCIATIONS", "a whole number, 1 to 256")
    ] = Field(default=16, ge=1, le=256, description="associations that may be open at once")
    dicom_spool: Annotated[Path, Setting("FR_SPOOL", _FOLDER)] = Field(
        default=Path("received"),
        description="folder that received instances are kept in until the HUB has them",
    )
    spool_limit: Annotated[Size, Setting("FR_SPOOL_LIMIT", _SIZE_TEXT)] = Field(
        default=20 * 1024**3, gt=0, description="bytes that FR_SPOOL may hold; more is answered A700H"
    )
    spool_reserve: Annotated[Size, Setting("FR_SPOOL_RESERVE", _SIZE_TEXT)] = Field(
        default=1024**3, ge=0, description="bytes of its disk that are left free; less is answered A700H"
    )
    spool_keep: Annotated[float, Setting("FR_SPOOL_KEEP", "a number of seconds, 0 or more")] = Field(
        default=86400.0,
        ge=0,
        description="seconds for which a series that is done with stays, for latecomers",
    )
    series_quiet: Annotated[float, Setting("FR_SERIES_QUIET", _SECONDS)] = Field(
        default=5.0, gt=0, description="seconds after the sender's release until a series counts as complete"
    )
    series_patience: Annotated[float, Setting("FR_SERIES_PATIENCE", _SECONDS)] = Field(
        default=60.0,
        gt=0,
        description="the same where the sender broke off, falls silent, or we were restarted",
    )
    series_rules: Annotated[Path | None, Setting("FR_SERIES_RULES", "the path of a TOML file")] = Field(
        default=None, description="which received series are sent, how urgent; none: all that can be"
    )
    commit_wait: Annotated[float, Setting("FR_COMMIT_WAIT", _SECONDS)] = Field(
        default=3600.0, gt=0, description="seconds after which what is not kept yet counts as not committed"
    )


class _DicomOut(BaseModel):
    """How Fr-PACS sends results to DICOM archives."""

    dicom_archives: Annotated[
        Archives,
        Setting(
            "FR_DICOM_ARCHIVES", "AET@host:port with commas between, such as ORTHANC@10.0.0.5:4242", many=True
        ),
    ] = Field(default=(), description="archives that get the results of DICOM series as DICOM objects")
    dicom_commitment: Annotated[YesNo, Setting("FR_DICOM_COMMITMENT", "yes or no")] = Field(
        default=False, description="whether the archives are asked to commit to keeping the results"
    )
    dicom_state: Annotated[Path, Setting("FR_DICOM_STATE", _FOLDER)] = Field(
        default=Path(".fr/dicom"),
        description="folder for headers of sent series, and results that no archive has yet; holds patients' names",
    )


class PacsSettings(_DicomIn, _DicomOut, Settings):
    """Fr-PACS: sends scans, receives their reports."""

    node: Annotated[NodeName, Setting("FR_PACS_NODE", _NODE)] = Field(
        default="pacs", description="the name of this node, as the HUB knows it"
    )
    hub: Annotated[ClientEndpoint, Setting("FR_PACS_HUB", _CLIENT)] = Field(
        default="tcp:127.0.0.1:7801", description="endpoint where the HUB listens"
    )
    listen: Annotated[ServerEndpoint, Setting("FR_PACS_LISTEN", _SERVER)] = Field(
        default="tcp:7802:interface=127.0.0.1", description="endpoint that the HUB dials with reports"
    )
    reports: Annotated[Path, Setting("FR_PACS_REPORTS", _FOLDER)] = Field(
        default=Path("reports"), description="folder that reports are written to"
    )
    watch: Annotated[Path | None, Setting("FR_PACS_WATCH", _FOLDER)] = Field(
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
    truth: Annotated[Path | None, Setting("FR_PACS_TRUTH", _FOLDER)] = Field(
        None,
        description="folder for the true volumes of generated scans, which go nowhere else; none: not kept",
    )
    patient_id: Annotated[str | None, Setting("FR_PACS_PATIENT_ID", "1 to 64 characters", secret=True)] = (
        Field(
            None, min_length=1, max_length=64, repr=False, description="patient id of files that carry none"
        )
    )
    spool: Annotated[Path | None, Setting("FR_PACS_SPOOL", _FOLDER)] = Field(
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

    node: Annotated[NodeName, Setting("FR_STORE_NODE", _NODE)] = Field(
        default="store", description="the name of this node"
    )
    dir: _StoreFolder = Field(
        default=Path(".fr/store"), description="folder that the data is kept in; made if it is missing"
    )
    port: Annotated[int, Setting("FR_STORE_PORT", "a port, 0 to 65535")] = Field(
        default=27017, ge=0, le=65535, description="port on 127.0.0.1 to listen on; 0: any free one"
    )
    cache: Annotated[Size, Setting("FR_STORE_CACHE", _SIZE_TEXT + ", at least 1M")] = Field(
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
