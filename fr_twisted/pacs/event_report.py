"""Tells a peer what became of the instances that it asked commitment for: N-EVENT-REPORT. All of it blocks."""

from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from fr_twisted.pacs.commitment_data import COMMITMENT_INSTANCE
from fr_twisted.pacs.scp import SUCCESS

Address = tuple[str, int]

_PATIENCE = 30
"""Seconds for one answer of the peer."""


def report(
    title: str, association: Any, peer: str, address: Address | None, kind: int, information: Dataset
) -> str | None:
    """Send an N-EVENT-REPORT of storage commitment; return None, or why it was not delivered. Blocks.

    On an association of our own where the peer's ``address`` is known, else on ``association``, that of the request.
    """
    if address is None:
        if association is None or not association.is_established:
            return f"FR_DICOM_PEERS does not say where {peer} listens"
        return _report_on(association, kind, information)
    ae = AE(ae_title=title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _PATIENCE
    ae.connection_timeout = 10
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    ours = ae.associate(*address, ae_title=peer, ext_neg=[role])
    if not ours.is_established:
        return "it takes no association" if ours.is_rejected else "it cannot be reached"
    try:
        return _report_on(ours, kind, information)
    finally:
        ours.release()


def _report_on(association: Any, kind: int, information: Dataset) -> str | None:
    try:
        status, _ = association.send_n_event_report(
            information, kind, StorageCommitmentPushModel, COMMITMENT_INSTANCE
        )
    except (ValueError, RuntimeError) as error:
        return f"it has not agreed to reports ({type(error).__name__})"
    code = getattr(status, "Status", None)
    if code is None:
        return "it did not answer"
    return None if code == SUCCESS else f"it answered {code:04X}H"


def address_of(peers: Mapping[str, str], peer: str) -> Address | None:
    """Return where a peer listens, of ``TITLE -> HOST:PORT``."""
    text = peers.get(peer)
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return host, int(port)
