"""A client of ``fr-link/1`` of the harness's own, written from docs/wire.md: plain sockets, one item after another."""

import hashlib
import json
import socket
import time
from dataclasses import dataclass
from typing import Any

PROTO = "fr-link/1"
_PATIENCE = 12.0


class LinkLostError(Exception):
    """The connection ended, or nothing came; offer the item again on another."""


class HungUpError(LinkLostError):
    """We ended it, as was asked for."""


@dataclass(frozen=True)
class Answer:
    """The receiver's last word about an item."""

    verb: str
    code: str = ""
    retry: bool = False
    duplicate: bool = False


class RawLink:
    """One connection as the node ``node``."""

    def __init__(self, port: int, node: str) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        except OSError as error:
            raise LinkLostError(str(error)) from None
        self._buffer = b""
        hello = self._receive()
        if hello[0] != "HELLO":
            self.close()
            raise LinkLostError(f"{hello[0]} instead of HELLO")
        self._chunk, self._window = int(hello[1]["chunk"]), int(hello[1]["window"])
        self._say("HELLO", {"proto": PROTO, "node": node})

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, item_id: str, data: bytes, meta: dict[str, Any], stop_after: int | None = None) -> Answer:
        """Offer an item and send it; ``stop_after``: hang up when so many bytes were sent.

        Raises:
            LinkLostError: there was no last word.
        """
        digest = hashlib.sha256(data).hexdigest()
        offer = {"id": item_id, "kind": "scan", "size": len(data), "sha256": digest, "meta": meta}
        self._say("OFFER", offer)
        sent = kept = None
        while True:
            verb, fields = self._receive()
            if verb == "PING":
                self._say("PONG", {})
            elif verb == "GO":
                sent = kept = fields["offset"]
            elif verb == "KEPT":
                kept = fields["offset"]
            elif verb == "ACK":
                if fields["sha256"] != digest:
                    raise LinkLostError("ACK of other bytes")
                return Answer("ACK", duplicate=bool(fields.get("duplicate")))
            elif verb == "NACK":
                return Answer("NACK", fields["code"], bool(fields["retry"]))
            else:
                raise LinkLostError(f"{verb} {fields.get('code', '')}")
            while sent is not None and kept is not None and sent < len(data):
                size = min(self._chunk, len(data) - sent)
                if sent + size - kept > self._window:
                    break
                self._say("DATA", {"id": item_id, "offset": sent, "size": size}, data[sent : sent + size])
                sent += size
                if stop_after is not None and sent >= stop_after:
                    raise HungUpError("hung up on purpose")

    def _say(self, verb: str, fields: dict[str, Any], raw: bytes = b"") -> None:
        try:
            self._socket.sendall(f"{verb} {json.dumps(fields)}\n".encode() + raw)
        except OSError as error:
            raise LinkLostError(str(error)) from None

    def _receive(self) -> tuple[str, dict[str, Any]]:
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise LinkLostError(str(error)) from None
            if not data:
                raise LinkLostError("the connection ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        verb, _, body = line.partition(b" ")
        try:
            return verb.decode(), json.loads(body)
        except ValueError:
            raise LinkLostError("not the link's protocol") from None


def deliver(
    port: int, node: str, item_id: str, data: bytes, meta: dict[str, Any], seconds: float = 60.0
) -> Answer | None:
    """Offer an item until it is acknowledged or refused for good; None: not in time."""
    end, pause = time.monotonic() + seconds, 0.2
    while time.monotonic() < end:
        try:
            link = RawLink(port, node)
            try:
                answer = link.send(item_id, data, meta)
            finally:
                link.close()
            if answer.verb == "ACK" or not answer.retry:
                return answer
        except LinkLostError:
            pass
        time.sleep(pause)
        pause = min(2.0, pause * 2)
    return None
