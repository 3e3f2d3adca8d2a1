"""Peers of the DICOM port for tests: dcmtk's programs, and pynetdicom as SCU."""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

STORESCU, ECHOSCU, DCMCJPEG = (Path("/usr/bin", name) for name in ("storescu", "echoscu", "dcmcjpeg"))
"""By their full names: pynetdicom brings programs of the same names."""

needs_dcmtk = pytest.mark.skipif(
    not (STORESCU.exists() and ECHOSCU.exists() and DCMCJPEG.exists()),
    reason="dcmtk is not installed: apt-get install dcmtk",
)

INSTANCE = "1.2.840.10008.1.20.1.1"


def storescu(
    port: int,
    *paths: Path,
    title: str = "MR1",
    called: str = "FR",
    options: Sequence[str] = (),
    quick: bool = False
) -> subprocess.CompletedProcess[str]:
    """Send files or folders with dcmtk; ``quick``: without its wait of 10 ms for each."""
    return subprocess.run(
        [STORESCU, *options, "-aet", title, "-aec", called, "+sd", "127.0.0.1", str(port), *paths],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **({"TCP_NODELAY": "1"} if quick else {})},
    )


def echoscu(port: int, title: str = "MR1", called: str = "FR") -> subprocess.CompletedProcess[str]:
    """Send a C-ECHO with dcmtk."""
    return subprocess.run(
        [ECHOSCU, "-aet", title, "-aec", called, "127.0.0.1", str(port)],
        capture_output=True,
        text=True,
        timeout=30,
    )


def jpeg_lossless_of(path: Path, coded: Path) -> None:
    """Code a file as JPEG Lossless with dcmtk."""
    subprocess.run([DCMCJPEG, "+e1", path, coded], check=True, timeout=30)


class Scu:
    """A modality: sends instances, asks for commitment, hears the reports on ``reports``."""

    def __init__(
        self,
        port: int,
        title: str = "MR1",
        called: str = "FR",
        syntax: str | list[Any] = ExplicitVRLittleEndian,
    ) -> None:
        self.port, self.title, self.called = port, title, called
        self.reports: list[tuple[int, Dataset]] = []
        self._ae = AE(ae_title=title)
        self._ae.add_requested_context(Verification)
        self._ae.add_requested_context(StorageCommitmentPushModel)
        self._ae.add_requested_context(MRImageStorage, syntax)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = 20
        self._server: Any = None

    @property
    def ae(self) -> AE:
        """What may be changed before it is used."""
        return self._ae

    def open(self) -> Any:
        """Return an association."""
        return self._ae.associate(
            "127.0.0.1", self.port, ae_title=self.called, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._heard)]
        )

    @contextmanager
    def association(self) -> Iterator[Any]:
        """Run with an association that is released afterwards."""
        found = self.open()
        assert found.is_established
        try:
            yield found
        finally:
            if found.is_established:
                found.release()

    def takes(self, kind: str) -> bool:
        """Return whether the port accepts what is proposed of a class."""
        with self.association() as association:
            return any(context.abstract_syntax == kind for context in association.accepted_contexts)

    def send(self, datasets: Sequence[Dataset]) -> list[int]:
        """Send instances on one association; return the statuses."""
        with self.association() as association:
            return [association.send_c_store(dataset).Status for dataset in datasets]

    def listen(self) -> int:
        """Hear reports on associations of others; return the port. `close` ends it."""
        ae = AE(ae_title=self.title)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._heard)]
        )
        return int(self._server.socket.getsockname()[1])

    def close(self) -> None:
        """Hear no more."""
        if self._server is not None:
            self._server.shutdown()

    def _heard(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return 0, None


def commitment(uid: str, *sops: str, kind: str = MRImageStorage) -> Dataset:
    """Return the Action Information of a request."""
    information: Any = Dataset()
    information.TransactionUID = uid
    items = []
    for sop in sops:
        item: Any = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, sop
        items.append(item)
    information.ReferencedSOPSequence = Items(items)
    return information  # type: ignore[no-any-return]


def ask(association: Any, information: Dataset) -> int:
    """Ask for commitment; return the status."""
    status, _ = association.send_n_action(information, 1, StorageCommitmentPushModel, INSTANCE)
    return int(status.Status)


def send_raw(association: Any, sop: str, data: bytes) -> int:
    """Send any bytes as the data set of an MR image; return the status."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = MRImageStorage, sop
    request.Priority = 2
    request.DataSet = BytesIO(data)
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == MRImageStorage)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        threading.Event().wait(0.001)
    try:
        association.dimse.send_msg(request, context.context_id)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return int(answer.Status)
