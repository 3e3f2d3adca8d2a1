"""Bounds what a DICOM peer can make the network library hold, and spares it some waiting."""

import socket
import time
from typing import Any

from pynetdicom.association import Association
from twisted.logger import Logger

MAX_INSTANCE = 1024**3
"""Bytes of one instance: it is in memory until it is whole."""

_REQUEST = 128 * 1024
"""Bytes of an association request, which no PDU length is agreed for yet."""

_READ = 64 * 1024

STALL = 30.0
"""Seconds in which the next part of a PDU that was begun must come, or one of ours be taken;"""

SLOWEST = 10_000.0
"""and bytes per second that a whole one must make, beyond that."""

_INVALID = "Evt19"
"""Of the state machine (PS3.8 9.2): an invalid PDU was received."""

_log = Logger()


def guard(association: Association, max_pdu: int) -> None:
    """Bound what a peer makes us hold, and for how long, let no answer wait for more data, and read in larger pieces.

    The library believes the length that a PDU states, up to 4 GiB, collects instances of any size, and lets some broken
    messages end its thread.
    """
    wrapped: Any = association.dul.socket
    connection: socket.socket = wrapped.socket
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that lost its power in the middle of a PDU would hold one of our few associations for ever.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.settimeout(STALL)
    longest = max(max_pdu, _REQUEST) + 6

    def recv(size: int) -> bytearray:
        message = association.dimse.message
        held = message.data_set.tell() if message is not None and message.data_set is not None else 0
        if size > longest or held > MAX_INSTANCE:
            _log.warn("a peer sends more than was agreed; closed", event="dicom.too-much")
            raise OSError("more than was agreed")
        data = bytearray(size)
        view, got = memoryview(data), 0
        end = time.monotonic() + STALL + size / SLOWEST
        while got < size:
            if time.monotonic() > end:
                _log.warn("a peer does not end what it began to send; closed", event="dicom.too-slow")
                raise OSError("too slow")
            more = connection.recv_into(view[got : got + _READ])
            if not more:
                return data[:got]
            got += more
        return data

    receive = association.dimse.receive_primitive

    def receive_primitive(primitive: Any) -> None:
        try:
            receive(primitive)
        except Exception:  # such as a command without a command field, which would end the library's thread
            _log.warn("a peer sends what is no message; aborted", event="dicom.no-message")
            association.dul.event_queue.put(_INVALID)

    wrapped.recv = recv
    association.dimse.receive_primitive = receive_primitive  # type: ignore[method-assign]
