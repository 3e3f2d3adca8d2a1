"""The settings of Fr-PACS for DICOM: from whom it takes series, to whom it sends results."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer

from fr_twisted.setting_values import (
    FOLDER_TEXT,
    SECONDS_TEXT,
    SIZE_TEXT,
    Setting,
    Size,
    YesNo,
    server_endpoint,
)

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")


@dataclass(frozen=True)
class Archive:
    """A DICOM archive that results are sent to."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


def _dicom_endpoint(value: str) -> str:
    """The DICOM port is served by threads, not by Twisted: of its endpoint strings only plain TCP is understood."""
    if re.fullmatch(r"tcp:\d{1,5}(:interface=[A-Za-z0-9.-]+)?", value) is None:
        raise ValueError("it is not of the form tcp:PORT or tcp:PORT:interface=ADDRESS")
    return server_endpoint(value)


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


class DicomIn(BaseModel):
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
    dicom_max_pdu: Annotated[Size, Setting("FR_DICOM_MAX_PDU", SIZE_TEXT + ", 4K to 1M")] = Field(
        default=256 * 1024, ge=4096, le=1024**2, description="the longest PDU that is taken"
    )
    dicom_max_associations: Annotated[
        int, Setting("FR_DICOM_MAX_ASSOCIATIONS", "a whole number, 1 to 256")
    ] = Field(default=16, ge=1, le=256, description="associations that may be open at once")
    dicom_jpeg: Annotated[YesNo, Setting("FR_DICOM_JPEG", "yes or no")] = Field(
        default=False,
        description="whether JPEG Extended and JPEG Lossless are taken: every BRAIN needs fr-twisted[jpeg] then",
    )
    dicom_spool: Annotated[Path, Setting("FR_SPOOL", FOLDER_TEXT)] = Field(
        default=Path("received"),
        description="folder that received instances are kept in until the HUB has them",
    )
    spool_limit: Annotated[Size, Setting("FR_SPOOL_LIMIT", SIZE_TEXT)] = Field(
        default=20 * 1024**3, gt=0, description="bytes that FR_SPOOL may hold; more is answered A700H"
    )
    spool_reserve: Annotated[Size, Setting("FR_SPOOL_RESERVE", SIZE_TEXT)] = Field(
        default=1024**3, ge=0, description="bytes of its disk that are left free; less is answered A700H"
    )
    spool_keep: Annotated[float, Setting("FR_SPOOL_KEEP", "a number of seconds, 0 or more")] = Field(
        default=86400.0,
        ge=0,
        description="seconds for which a series that is done with stays, for latecomers",
    )
    series_quiet: Annotated[float, Setting("FR_SERIES_QUIET", SECONDS_TEXT)] = Field(
        default=5.0, gt=0, description="seconds after the sender's release until a series counts as complete"
    )
    series_patience: Annotated[float, Setting("FR_SERIES_PATIENCE", SECONDS_TEXT)] = Field(
        default=60.0,
        gt=0,
        description="the same where the sender broke off, falls silent, or we were restarted",
    )
    series_rules: Annotated[Path | None, Setting("FR_SERIES_RULES", "the path of a TOML file")] = Field(
        default=None, description="which received series are sent, how urgent; none: all that can be"
    )
    commit_wait: Annotated[float, Setting("FR_COMMIT_WAIT", SECONDS_TEXT)] = Field(
        default=3600.0, gt=0, description="seconds after which what is not kept yet counts as not committed"
    )


class DicomOut(BaseModel):
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
    dicom_state: Annotated[Path, Setting("FR_DICOM_STATE", FOLDER_TEXT)] = Field(
        default=Path(".fr/dicom"),
        description="folder for headers of sent series, and results that no archive has yet; holds patients' names",
    )
