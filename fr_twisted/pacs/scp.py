"""The DICOM port of Fr-PACS: Verification, Storage and Storage Commitment SCP, by pynetdicom in threads.

An instance is answered 0000H when it is in the spool, synced; anything else gets a status that says why. What the
reactor has to know goes through ``call``, which is `callFromThread` of a reactor.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from twisted.logger import Logger

from fr_twisted.pacs.arrivals import Arrival
from fr_twisted.pacs.commitment_data import COMMITMENT_INSTANCE
from fr_twisted.pacs.incoming import NOT_UNDERSTOOD, NotTakenError, examine, part10_head
from fr_twisted.pacs.instances import UID, FullError, InstanceSpool
from fr_twisted.pacs.scp_guard import guard

STORED = (MRImageStorage, EnhancedMRImageStorage)
"""The SOP classes that are taken."""

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSNearLossless,
    JPEG2000,
)
"""The transfer syntaxes that every BRAIN decodes (`fr_twisted.brain.analysis.read_dicom_pixels`)."""

JPEG_SYNTAXES = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
"""Those that a BRAIN decodes only with ``fr-twisted[jpeg]``."""

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
FAILED = 0xC001
"""In the range of `NOT_UNDERSTOOD`, of which only the first digit is given: the instance could not be written."""

_STOP_WITHIN = 2.0

_REMEMBERED = 1000
"""Transactions that nobody asked for; of older ones it is said again."""

_NUMBER = "fr_number"

_log = Logger()

# Its log lines may quote data sets, and cost a third of the time. What matters is logged here.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
logging.getLogger("pynetdicom").propagate = False


class NotAskedError(Exception):
    """A report on a commitment that nobody asked its sender for."""


class Told(Protocol):
    """What is told, in the reactor's thread, of what happens at the port."""

    def arrived(self, association: int, arrival: Arrival) -> None:
        """An instance was stored."""

    def changed(self, series: str, sop: str, what: Sequence[str]) -> None:
        """An instance came again, and was another image than the first, which is kept."""

    def closed(self, association: int, released: bool) -> None:
        """An association is over, by a release or an abort."""

    def disconnected(self, association: int) -> None:
        """Its connection is closed: after `closed`, before it, or without it where a thread of the library broke."""


class Commitments(Protocol):
    """What takes requests for storage commitment; called in an association's thread."""

    def requested(self, association: Any, peer: str, information: Dataset) -> tuple[int, str]:
        """Keep a request; return the status of the N-ACTION and a comment."""


@dataclass(frozen=True)
class ScpSettings:
    """How the port is served; ``allowed``: AE titles that may send, none: any."""

    host: str
    port: int
    title: str
    allowed: Sequence[str] = ()
    max_pdu: int = 256 * 1024
    max_associations: int = 16
    jpeg: bool = False
    """Whether `JPEG_SYNTAXES` are taken."""


class StorageScp:
    """The port. `start` and `stop` block."""

    def __init__(
        self,
        settings: ScpSettings,
        spool: InstanceSpool,
        told: Told,
        commitments: Commitments,
        call: Callable[..., None],
    ) -> None:
        self._settings, self._spool, self._told = settings, spool, told
        self._commitments, self._call = commitments, call
        self.heard: Callable[[str, int, Dataset], None] | None = None
        """Called, in an association's thread, with AE title, Event Type ID and Event Information of a report on the
        commitment of instances that we sent; `NotAskedError` and what else it raises are answered 0110H."""
        self._not_asked: deque[str] = deque(maxlen=_REMEMBERED)
        self._mutex = threading.Lock()
        self._server: Any = None
        self._numbers = itertools.count(1)
        self._ae = AE(ae_title=settings.title)
        self._ae.maximum_pdu_size = settings.max_pdu
        self._ae.maximum_associations = settings.max_associations
        self._ae.require_calling_aet = list(settings.allowed)
        self._ae.require_called_aet = True
        self._ae.add_supported_context(Verification)
        # We answer requests as SCP, and hear the reports of archives that call back as SCU.
        self._ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        syntaxes = [*SYNTAXES, *(JPEG_SYNTAXES if settings.jpeg else ())]
        for kind in STORED:
            self._ae.add_supported_context(kind, syntaxes)

    def start(self) -> int:
        """Listen; return the port.

        Raises:
            OSError: the port cannot be had.
        """
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_N_EVENT_REPORT, self._hear),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._aborted),
            (evt.EVT_CONN_CLOSE, self._disconnected),
        ]
        address = (self._settings.host, self._settings.port)
        self._server = self._ae.start_server(address, block=False, evt_handlers=handlers)
        return int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """Take no more associations, abort those that are open, and wait for their threads, two seconds in all."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        open_ones = self._ae.active_associations
        for association in open_ones:
            association.abort(block=False)
        end = time.monotonic() + _STOP_WITHIN
        for association in open_ones:
            association.join(max(0.0, end - time.monotonic()))

    # -- associations

    def _opened(self, event: evt.Event) -> None:
        setattr(event.assoc, _NUMBER, next(self._numbers))  # an id() may come again
        guard(event.assoc, self._settings.max_pdu)

    def _rejected(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        called = getattr(requestor.primitive, "called_ae_title", "")
        allowed = self._settings.allowed
        if allowed and requestor.ae_title not in allowed:
            reason = f"its AE title {_shown(requestor.ae_title)} is not in FR_DICOM_ALLOW"
        elif called != self._settings.title:
            reason = f"it called {_shown(called)}; we are {self._settings.title}"
        else:
            reason = "there are as many associations as FR_DICOM_MAX_ASSOCIATIONS says"
        host = getattr(requestor.address_info, "address", "")
        _log.warn(
            "association from {host} refused: {reason}", host=host, reason=reason, event="dicom.refused"
        )

    def _released(self, event: evt.Event) -> None:
        self._call(self._told.closed, _number(event), True)

    def _aborted(self, event: evt.Event) -> None:
        self._call(self._told.closed, _number(event), False)

    def _disconnected(self, event: evt.Event) -> None:
        self._call(self._told.disconnected, _number(event))

    # -- messages

    def _store(self, event: evt.Event) -> Any:
        try:
            self._keep(event)
        except NotTakenError as error:
            return self._refuse(error.status, str(error))
        except FullError as error:
            return self._refuse(OUT_OF_RESOURCES, str(error))
        except OSError as error:
            return self._refuse(FAILED, f"it could not be written: {error.strerror or 'I/O error'}")
        except Exception as error:
            _log.failure("an instance was not stored", event="dicom.defect")
            return self._refuse(FAILED, f"it could not be stored: {type(error).__name__}")
        return SUCCESS

    def _keep(self, event: evt.Event) -> None:
        request: Any = event.request
        kind, sop = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        if not UID.match(sop):
            raise NotTakenError(NOT_UNDERSTOOD, "no valid SOP Instance UID")
        data = request.DataSet.getvalue() if request.DataSet is not None else b""
        head = part10_head(kind, sop, event.context.transfer_syntax)
        found = examine(head, data, kind, sop)
        added = self._spool.add(found.series, sop, kind, (head, data))
        if added.changed:
            self._call(self._told.changed, found.series, sop, added.changed)
        arrival = Arrival(found.series, added.new, added.count, found.expected, found.acquisition)
        self._call(self._told.arrived, _number(event), arrival)

    def _refuse(self, status: int, comment: str) -> Dataset:
        _log.warn(
            "an instance was not taken, {status}: {reason}",
            status=f"{status:04X}H",
            reason=comment,
            event="dicom.not-taken",
        )
        return _answer(status, comment)

    def _action(self, event: evt.Event) -> tuple[Any, None]:
        request: Any = event.request
        if event.action_type != 1:
            return _answer(0x0123, "only action type 1 is known"), None
        if str(request.RequestedSOPInstanceUID) != COMMITMENT_INSTANCE:
            return _answer(0x0112, "the SOP instance of commitment is another"), None
        try:
            information = event.action_information
        except Exception:  # pydicom raises whatever broken data lead it to
            return _answer(0x0115, "the request cannot be read"), None
        peer = str(event.assoc.requestor.ae_title)
        try:
            status, comment = self._commitments.requested(event.assoc, peer, information)
        except Exception:
            _log.failure("a request for commitment was not kept", event="dicom.defect")
            status, comment = 0x0110, "it could not be kept"
        return _answer(status, comment), None

    def _hear(self, event: evt.Event) -> tuple[Any, None]:
        if self.heard is None:
            return _answer(0x0110, "we asked for no commitment"), None
        try:
            kind, information = int(event.event_type or 0), event.event_information
            self.heard(str(event.assoc.requestor.ae_title), kind, information)
        except NotAskedError:
            self._say_not_asked(event.assoc.requestor.ae_title, information)
            return _answer(0x0110, "it was not asked to commit to them"), None
        except Exception:
            _log.failure("a report of commitment was not understood", event="dicom.defect")
            return _answer(0x0110, "it could not be kept"), None
        return _answer(SUCCESS, ""), None

    def _say_not_asked(self, peer: object, information: Dataset) -> None:
        """Say it once of a transaction: archives that get 0110H tell it again, some for days."""
        with self._mutex:
            transaction = str(information.get("TransactionUID", ""))[:64]
            if transaction in self._not_asked:
                return
            self._not_asked.append(transaction)
        text = "{peer} reports on a commitment that it was not asked for"
        _log.warn(text, peer=_shown(peer), event="commit.unknown")


def _answer(status: int, comment: str) -> Dataset:
    """Return a status with an Error Comment (0000,0902), of at most 64 characters."""
    answer: Any = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:64]
    return answer  # type: ignore[no-any-return]


def _number(event: evt.Event) -> int:
    return int(getattr(event.assoc, _NUMBER))


def _shown(title: object) -> str:
    return repr("".join(letter if letter.isprintable() else "?" for letter in str(title))[:16])
