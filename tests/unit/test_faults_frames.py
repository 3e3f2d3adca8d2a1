"""What the proxies of the fault rounds make of the bytes that pass."""

import random
import struct

import bson
from twisted.trial.unittest import SynchronousTestCase

from tests.faults.frames import Frame, LinkSplitter, MongoSplitter, Splitter
from tests.faults.scans import LARGE, SMALL, expect, nifti, scan_id

RAW = b"\nACK {}\n\0" * 40
LINK = (
    b'HELLO {"proto":"fr-link/1","node":"a"}\n'
    b'DATA {"id":"x","offset":0,"size":'
    + str(len(RAW)).encode()
    + b"}\n"
    + RAW
    + b'KEPT {"id":"x","offset":9}\nodd\n'
)


def message(
    document: dict[str, object], request: int = 1, response_to: int = 0, sequence: bytes = b""
) -> bytes:
    """Return an OP_MSG of the MongoDB protocol; ``sequence``: a section of documents that goes first."""
    body = struct.pack("<I", 0) + sequence + b"\0" + bson.encode(document)
    return struct.pack("<iiii", 16 + len(body), request, response_to, 2013) + body


def fed(splitter: Splitter, data: bytes, seed: int) -> list[Frame]:
    """Return the frames of ``data``, given in pieces of any size."""
    draw, frames = random.Random(seed), []
    while data:
        size = draw.randint(1, 50)
        frames += splitter.feed(data[:size])
        data = data[size:]
    return frames


class LinkTests(SynchronousTestCase):
    """`LinkSplitter`."""

    def test_anySplit(self) -> None:
        """However the bytes arrive, the frames are the same, none is found in a chunk, and no byte is lost."""
        for seed in range(50):
            frames = fed(LinkSplitter(), LINK, seed)
            self.assertEqual(b"".join(frame.data for frame in frames), LINK)
            self.assertEqual([f.verb for f in frames if f.verb], ["HELLO", "DATA", "KEPT", "odd"])
            self.assertEqual([f.fields.get("offset") for f in frames if f.verb == "KEPT"], [9])


class MongoTests(SynchronousTestCase):
    """`MongoSplitter`."""

    def test_anySplit(self) -> None:
        """However the bytes arrive, every message is one frame, with its command and collection."""
        insert = message({"insert": "brain_chunks", "documents": [{"data": bytes(300)}]}, 5)
        answer = message({"ok": 1.0}, 9, 5)
        for seed in range(50):
            first, second = fed(MongoSplitter(), insert + answer, seed)
            self.assertEqual(
                (first.verb, first.fields["collection"], first.fields["request"]),
                ("insert", "brain_chunks", 5),
            )
            self.assertEqual((second.data, second.fields["response_to"]), (answer, 5))

    def test_done(self) -> None:
        """The update that sets a scan Done is told from the others."""
        for state, done in (("Done", True), ("To Do", False)):
            change = {
                "q": {"_id": "x", "report_generated": "In Progress"},
                "u": {"$set": {"report_generated": state}},
            }
            [frame] = MongoSplitter().feed(message({"update": "brain_scans", "updates": [change]}))
            self.assertEqual(frame.fields["done"], done)

    def test_documentsFirst(self) -> None:
        """A command is found behind a section of documents."""
        payload = b"documents\0" + bson.encode({"_id": 1})
        sequence = b"\1" + struct.pack("<i", 4 + len(payload)) + payload
        [frame] = MongoSplitter().feed(message({"insert": "brain_scans"}, sequence=sequence))
        self.assertEqual((frame.verb, frame.fields["collection"]), ("insert", "brain_scans"))

    def test_otherMessages(self) -> None:
        """Handshakes of the old kind pass as they are."""
        old = struct.pack("<iiii", 20, 1, 0, 2004) + bytes(4)
        self.assertEqual([f.data for f in MongoSplitter().feed(old)], [old])


class ScanTests(SynchronousTestCase):
    """The scans that are sent."""

    def test_repeatable(self) -> None:
        """The same seed gives the same file, another another; sizes are as said."""
        self.assertEqual(nifti("a"), nifti("a"))
        self.assertNotEqual(nifti("a"), nifti("b"))
        self.assertEqual(len(nifti("a", SMALL)), 352 + 2 * 8**3)
        self.assertGreater(len(nifti("a", LARGE)), 2 * 1024 * 1024)

    def test_ids(self) -> None:
        """Our own reading of how ids are made is Fr's."""
        from fr_twisted.model import make_scan_id

        data = nifti("a")
        expected = expect("pacs-1", "sub-x", data)
        self.assertEqual(expected.scan_id, make_scan_id("pacs-1", "sub-x", expected.sha256))
        self.assertNotEqual(expected.scan_id, scan_id("pacs-2", "sub-x", expected.sha256))
