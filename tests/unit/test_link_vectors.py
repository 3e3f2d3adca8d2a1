"""The examples of docs/wire.md, run against both sides."""

import json
import re
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.link.interfaces import Item, Refuse
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory
from tests.fakes_link import MemoryIntake, MemoryOutbox
from tests.unit.test_link_receiver import Transport

CONTENT = b"0123456789abcdefghij"
DOCUMENT = Path(__file__).parents[2] / "docs" / "wire.md"

Step = tuple[str, bytes]
"""``("<" or ">", the bytes said)``."""


def vectors() -> list[tuple[str, list[Step]]]:
    """Return the examples: the words after ``fr-link``, and the steps."""
    found = []
    for options, body in re.findall(
        r"^```fr-link *(.*)\n((?:.*\n)*?)```$", DOCUMENT.read_text(), re.MULTILINE
    ):
        steps: list[Step] = []
        for line in body.splitlines():
            if line.startswith(">= "):
                steps.append((">", line[3:].encode()))
            elif line[:2] in ("> ", "< "):
                steps.append((line[0], line[2:].encode() + b"\n"))
        found.append((options, steps))
    return found


def same(said: bytes, awaited: bytes) -> bool:
    """Return whether two frames are the same, whatever the order and spacing of their members."""

    def split(line: bytes) -> Any:
        verb, _, body = line.partition(b" ")
        return (verb, json.loads(body)) if body.startswith(b"{") else line

    return bool(split(said) == split(awaited))


class VectorTests(SynchronousTestCase):
    """docs/wire.md is what the code does."""

    def test_thereAreExamples(self) -> None:
        """The document holds its examples, so that the other tests are not empty."""
        self.assertEqual(len(vectors()), 7)
        self.assertGreater(sum(len(steps) for _, steps in vectors()), 40)

    def test_receiver(self) -> None:
        """Our receiver answers what the sender of each example says, word for word."""
        for options, steps in vectors():
            transport = Transport()
            protocol = ReceiverFactory("hub", self.intake(options), Clock(), window=2, chunk=8, max_item=1000)
            receiver = protocol.buildProtocol(None)
            receiver.makeConnection(transport)
            awaited = [said for side, said in steps if side == "<"]
            for side, said in steps:
                if side == ">":
                    receiver.dataReceived(said)
            answers = transport.value().splitlines(keepends=True)
            self.assertEqual(len(answers), len(awaited), (options, answers))
            for answer, expected in zip(answers, awaited, strict=True):
                self.assertTrue(same(answer, expected), (options, answer, expected))

    def test_sender(self) -> None:
        """Our sender says what the sender of each example says, when the receiver says its part."""
        for options, steps in vectors():
            if options == "receiver-only":
                continue
            transport = Transport()
            outbox = MemoryOutbox((self.offered(steps), CONTENT))
            outbox.retry = False
            sender = ReconnectingSenderFactory("pacs-1", outbox, Clock()).buildProtocol(None)
            sender.makeConnection(transport)
            rest = b""
            for side, said in steps:
                if side == "<":
                    sender.dataReceived(said)
                    rest += transport.value()
                    transport.clear()
                else:
                    answer, rest = rest[: self.length(rest, said)], rest[self.length(rest, said) :]
                    self.assertTrue(answer == said or same(answer, said), (options, answer, said))
            self.assertEqual(rest, b"", options)
            self.assertEqual(len(outbox.outcomes()), 1)

    def length(self, rest: bytes, awaited: bytes) -> int:
        """Return how many of the bytes said belong to the awaited step: raw bytes, or a line."""
        return rest.index(b"\n") + 1 if awaited.endswith(b"\n") else len(awaited)

    def offered(self, steps: list[Step]) -> Item:
        """Return the item that an example offers."""
        [body] = [json.loads(said.split(b" ", 1)[1]) for _, said in steps if said.startswith(b"OFFER ")]
        return Item(body["id"], body["kind"], body["size"], body["sha256"], body["meta"])

    def intake(self, options: str) -> MemoryIntake:
        """Return an intake in the state that an example begins with."""
        intake = MemoryIntake()
        if options == "kept":
            intake.stored.append(("scan-1", CONTENT))
        elif options.startswith("resumed-at="):
            size = int(options.partition("=")[2])
            intake.chunks["scan-1"] = {n: CONTENT[n : n + 8] for n in range(0, size, 8)}
        elif options.startswith("refuse="):
            code, retry = options.partition("=")[2].split(",")
            intake.refuse = Refuse(code, "the store is full", retry == "true")
        return intake
