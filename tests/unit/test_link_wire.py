"""The frames of fr-link/1."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.link import wire
from fr_twisted.link.wire import Bye, Frame, WireError
from tests.strategies import FRAMES_FROM_RECEIVER, FRAMES_FROM_SENDER

SHA = "0" * 64


class ParseTests(SynchronousTestCase):
    """`wire.parse`."""

    def code(self, line: bytes) -> Bye:
        """Return the code with which a line of a sender is refused."""
        error: WireError = self.assertRaises(WireError, wire.parse, line, wire.FROM_SENDER)
        return error.code

    def test_offer(self) -> None:
        """An OFFER is read with its meta as it stands."""
        line = f'OFFER {{"id":"a","kind":"scan","size":3,"sha256":"{SHA}","meta":{{"x":[null,1.5]}},"new":1}}'
        frame = wire.parse(line.encode(), wire.FROM_SENDER)
        self.assertEqual(frame, wire.Offer(id="a", kind="scan", size=3, sha256=SHA, meta={"x": [None, 1.5]}))

    def test_refusals(self) -> None:
        """Each way of not being a frame has its code."""
        offer = f'"id":"a","kind":"scan","sha256":"{SHA}"'
        for line, code in [
            (b"", Bye.UNKNOWN_VERB),
            (b"HOWDY {}", Bye.UNKNOWN_VERB),
            (b"ping {}", Bye.UNKNOWN_VERB),
            (b"\xff\xfe {}", Bye.UNKNOWN_VERB),
            (b"GO {}", Bye.OUT_OF_ORDER),
            (b"PING", Bye.BAD_FRAME),
            (b"PING  {}", Bye.BAD_FRAME),
            (b"PING []", Bye.BAD_FRAME),
            (b"PING {", Bye.BAD_FRAME),
            (b'PING {"a":\xff}', Bye.BAD_FRAME),
            (b"PING " + b'{"a":' * 3000, Bye.BAD_FRAME),
            (b"OFFER {}", Bye.BAD_FRAME),
            (b"OFFER {%s}" % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":-1}' % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":1.0}' % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":"1"}' % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":true}' % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":9007199254740992}' % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":1,"meta":{"a":NaN}}' % offer.encode(), Bye.BAD_FRAME),
            (b'OFFER {%s,"size":1,"meta":[]}' % offer.encode(), Bye.BAD_FRAME),
            (b'DATA {"id":"../a","offset":0,"size":1}', Bye.BAD_FRAME),
            (b'DATA {"id":"a","offset":0,"size":0}', Bye.BAD_FRAME),
            (b"PING {}" + b" " * wire.MAX_LINE, Bye.LINE_TOO_LONG),
        ]:
            self.assertEqual(self.code(line), code, line[:60])

    def test_reasonNamesTheMember(self) -> None:
        """The reason of a refusal names the member that is wrong, and not its value."""
        error = self.assertRaises(
            WireError, wire.parse, b'DATA {"id":"Doe^Jane","offset":0,"size":1}', wire.FROM_SENDER
        )
        self.assertIn("id:", error.reason)
        self.assertNotIn("Jane", error.reason)

    @settings(deadline=None)
    @given(
        st.binary(max_size=200)
        | st.sampled_from([b"OFFER ", b"HELLO ", b"BYE ", b"DATA "]).flatmap(
            lambda verb: st.text(max_size=80).map(lambda text: verb + b"{" + text.encode("utf-8", "replace"))
        )
    )
    def test_total(self, line: bytes) -> None:
        """Whatever the bytes, parsing gives a frame or a WireError."""
        for frames in (wire.FROM_SENDER, wire.FROM_RECEIVER):
            try:
                self.assertIsInstance(wire.parse(line, frames), Frame)
            except WireError as error:
                self.assertLessEqual(len(error.reason), wire.MAX_REASON)


class LineTests(SynchronousTestCase):
    """`Frame.line`."""

    @settings(deadline=None)
    @given(FRAMES_FROM_SENDER)
    def test_roundTripSender(self, frame: Frame) -> None:
        """Every frame that a sender can write is read as the same frame."""
        self.assertEqual(wire.parse(frame.line()[:-1], wire.FROM_SENDER), frame)

    @settings(deadline=None)
    @given(FRAMES_FROM_RECEIVER)
    def test_roundTripReceiver(self, frame: Frame) -> None:
        """Every frame that a receiver can write is read as the same frame."""
        self.assertEqual(wire.parse(frame.line()[:-1], wire.FROM_RECEIVER), frame)

    def test_oneLine(self) -> None:
        """A line feed in a value is written so that the frame stays one line."""
        line = wire.Goodbye(code="done", reason="one\ntwo").line()
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(json.loads(line[4:])["reason"], "one\ntwo")

    def test_tooLong(self) -> None:
        """A frame that no peer would read is not written."""
        offer = wire.Offer(id="a", kind="scan", size=1, sha256=SHA, meta={"x": "y" * wire.MAX_LINE})
        self.assertEqual(self.assertRaises(WireError, offer.line).code, Bye.LINE_TOO_LONG)

    def test_notUtf8(self) -> None:
        """A lone surrogate, as a file name may hold, is refused and not written."""
        offer = wire.Offer.model_construct(id="a", kind="scan", size=1, sha256=SHA, meta={"x": "\udc80"})
        self.assertEqual(self.assertRaises(WireError, offer.line).code, Bye.BAD_FRAME)

    def test_shorten(self) -> None:
        """A reason of any text becomes one that a frame can carry."""
        self.assertEqual(wire.shorten("a\n b\t\udc80"), "a b ?")
        self.assertEqual(len(wire.shorten("x" * 1000)), wire.MAX_REASON)
