"""What may stand in a log line, and what may not."""

import ast
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import fr_twisted
from fr_twisted.ops.logs import FIELDS, MAX_TEXT, bounded, describe_failure, make_observer, wants_colour
from fr_twisted.ops.services import StartError

NAME = "DOE^JANE"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def failing(error: Exception) -> Failure:
    """Return a failure with a traceback."""
    try:
        raise error
    except Exception:
        return Failure()


class ObserverTestCase(SynchronousTestCase):
    """A logger whose events go through our observer alone."""

    def setUp(self) -> None:
        """Begin with nothing written."""
        self.stream = io.StringIO()

    def logger(self, namespace: str = "fr_twisted.test", **options: Any) -> Logger:
        """Return a logger of ``namespace`` that is observed with these options."""
        publisher = LogPublisher(make_observer(self.stream, **options))
        return Logger(namespace=namespace, observer=publisher)

    def line(self) -> dict[str, Any]:
        """Return the one JSON line that was written."""
        text = self.stream.getvalue()
        self.assertEqual(text.count("\n"), 1, text)
        line = json.loads(text)
        assert isinstance(line, dict)
        return line


class JsonTests(ObserverTestCase):
    """``log_format="json"``."""

    def test_line(self) -> None:
        """A line has time, level, namespace, message, event and the allowed fields, as plain values."""
        self.logger(log_format="json").warn(
            "scan {scan_id} kept in {seconds:.2f} s",
            scan_id="s1",
            seconds=0.125,
            path=Path("/x"),
            event="scan.stored",
        )
        line = self.line()
        self.assertRegex(line.pop("t"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            line,
            {
                "level": "warn",
                "ns": "fr_twisted.test",
                "msg": "scan s1 kept in 0.12 s",
                "event": "scan.stored",
                "scan_id": "s1",
                "seconds": 0.125,
                "path": "/x",
            },
        )

    def test_otherFieldsAreNotWritten(self) -> None:
        """A field that is not on the list is neither a field nor in the message, however it is formatted."""
        logger = self.logger(log_format="json")
        logger.info(
            "{patient_name} {patient_name!r} {meta.patient_id} {meta[x]} {call()} {scan_id}",
            patient_name=NAME,
            meta={"x": NAME},
            call=lambda: NAME,
            scan_id="s1",
        )
        text = self.stream.getvalue()
        self.assertNotIn("DOE", text)
        self.assertIn("(not logged) (not logged) (not logged) (not logged) (not logged) s1", text)

    def test_failureHasNoForeignWords(self) -> None:
        """Of an exception that may quote data only the type and the places are written."""

        class Patient(BaseModel):
            age: int

        with self.assertRaises(ValidationError) as caught:
            Patient.model_validate({"age": NAME})
        logger = self.logger(log_format="json")
        for error in (
            caught.exception,
            ValueError(NAME),
            KeyError(NAME),
            UnicodeDecodeError("utf-8", b"D", 0, 1, NAME),
        ):
            logger.failure("analysis failed: {log_failure}", failing(error), scan_id="s1")
        text = self.stream.getvalue()
        self.assertNotIn("DOE", text)
        for name in ("ValidationError", "ValueError", "KeyError", "UnicodeDecodeError"):
            self.assertIn(f'"failure": "{name} [unit/test_ops_logs.py', text.replace("tests/unit", "unit"))

    def test_failureWithOurWords(self) -> None:
        """Our own exceptions, and those of the system, are written with their message."""
        self.assertIn("StartError: no port [", describe_failure(failing(StartError("no port"))))
        self.assertIn(
            "FileNotFoundError: [Errno 2] ", describe_failure(failing(FileNotFoundError(2, "gone")))
        )

    def test_failureIsBounded(self) -> None:
        """A deep traceback is cut to its inner end."""

        def deep(n: int) -> None:
            if n == 0:
                raise StartError("x" * 5000)
            deep(n - 1)

        try:
            deep(200)
        except StartError:
            text = describe_failure(Failure())
        self.assertLess(len(text), 3000)
        self.assertEqual(text.count(" deep"), 12)

    def test_codeOfForeignException(self) -> None:
        """The numeric code that a database's exception has is written; its words are not."""

        class OperationFailure(Exception):  # noqa: N818
            code = 13

        OperationFailure.__module__ = "pymongo.errors"
        text = describe_failure(failing(OperationFailure(NAME)))
        self.assertTrue(text.startswith("OperationFailure (code 13) ["), text)

    def test_legacyError(self) -> None:
        """An error logged in the old way shows its reason and the failure's type, not its words."""
        publisher = legacy.LogPublisher()
        observer = make_observer(self.stream, "json")
        publisher._publishPublisher = LogPublisher(observer)
        publisher.msg(failure=failing(ValueError(NAME)), why="Odd thing", isError=True)
        line = self.line()
        self.assertEqual(line["msg"], "Odd thing")
        self.assertTrue(line["failure"].startswith("ValueError ["))
        self.assertNotIn("DOE", self.stream.getvalue())

    def test_whatLibrariesPrint(self) -> None:
        """Of text on standard error only the skeleton of a traceback is kept."""
        logger = self.logger("stderr", log_format="json")
        for text in (
            "Traceback (most recent call last):",
            '  File "x.py", line 3, in f',
            f"ValueError: {NAME}",
            NAME,
        ):
            logger.error("{log_io}", log_io=text)
        messages = [json.loads(line)["msg"] for line in self.stream.getvalue().splitlines()]
        self.assertEqual(
            messages[:3], ["Traceback (most recent call last):", '  File "x.py", line 3, in f', "ValueError"]
        )
        self.assertEqual(messages[3], "(text on stderr, not logged)")

    @given(st.text(max_size=2000))
    @settings(deadline=None, max_examples=50)
    def test_oneBoundedLine(self, text: str) -> None:
        """Whatever a field holds, an event is one line of bounded length."""
        self.stream = io.StringIO()
        self.logger(log_format="json").info("got {reason}", reason=text, error=text)
        line = self.line()
        self.assertLessEqual(max(len(line["msg"]), len(line["error"])), MAX_TEXT)
        self.assertEqual(len(self.stream.getvalue().splitlines()), 1)


class LevelTests(ObserverTestCase):
    """Which events are written."""

    def written(self, namespace: str, level: str) -> list[str]:
        """Return the levels that are written of ``namespace`` at ``level``."""
        self.stream = io.StringIO()
        logger = self.logger(namespace, log_format="json", log_level=level)
        for name in ("debug", "info", "warn", "error", "critical"):
            logger.emit(LogLevel.levelWithName(name), "x")
        return [json.loads(line)["level"] for line in self.stream.getvalue().splitlines()]

    def test_ours(self) -> None:
        """Our events are written from the level on."""
        self.assertEqual(self.written("fr_twisted.hub", "info"), ["info", "warn", "error", "critical"])
        self.assertEqual(self.written("fr_twisted.hub", "error"), ["error", "critical"])

    def test_others(self) -> None:
        """Events of other packages are written from warnings on, or all of them to debug."""
        self.assertEqual(self.written("twisted.internet", "info"), ["warn", "error", "critical"])
        self.assertEqual(self.written("twisted.internet", "error"), ["error", "critical"])
        self.assertEqual(len(self.written("twisted.internet", "debug")), 5)


class TextTests(ObserverTestCase):
    """``log_format="text"``."""

    def test_line(self) -> None:
        """A line has the time of day, the level and the message, and no escape codes where it is no terminal."""
        self.logger().info("kept {scan_id}", scan_id="s1")
        self.assertRegex(self.stream.getvalue(), r"^\d\d:\d\d:\d\d info     kept s1\n$")

    def test_failure(self) -> None:
        """A failure follows on a second line."""
        self.logger().failure("no", failing(StartError("because")))
        self.assertRegex(self.stream.getvalue(), r"critical no\n +StartError: because \[")

    def test_noControlCharacters(self) -> None:
        """A field cannot bring a line break or an escape code into the log."""
        self.logger().info("got {reason}", reason="a\nb\x1b[31mc\u2028d")
        self.assertIn("got a b [31mc d\n", self.stream.getvalue())

    def test_colour(self) -> None:
        """Warnings and errors are coloured on a terminal."""
        self.logger(colour=True).error("bad")
        self.assertIn("\x1b[31m", self.stream.getvalue())
        self.assertTrue(self.stream.getvalue().endswith("\x1b[0m\n"))

    def test_wantsColour(self) -> None:
        """Colour needs a terminal, and nobody who said NO_COLOR."""
        self.assertTrue(wants_colour(Terminal(), {"TERM": "xterm"}))
        self.assertFalse(wants_colour(Terminal(), {"NO_COLOR": "1"}))
        self.assertFalse(wants_colour(Terminal(), {"TERM": "dumb"}))
        self.assertFalse(wants_colour(io.StringIO(), {}))

    def test_bounded(self) -> None:
        """A text that is too long ends with an ellipsis."""
        self.assertEqual(bounded("abcdef", 4), "abc…")


class CallsTests(SynchronousTestCase):
    """The logging calls of the whole package."""

    def test_fieldsAreOnTheList(self) -> None:
        """Every field that our code logs is one that may be written: nothing is lost for want of a name."""
        package = Path(fr_twisted.__file__).parent
        strange = [
            f"{path.relative_to(package)}:{call.lineno} {keyword.arg}"
            for path in package.rglob("*.py")
            for call in ast.walk(ast.parse(path.read_text()))
            if isinstance(call, ast.Call) and self.is_log(call.func)
            for keyword in call.keywords
            if keyword.arg is not None and keyword.arg not in FIELDS | {"event", "failure", "log_failure"}
        ]
        self.assertEqual(strange, [])

    def is_log(self, function: ast.expr) -> bool:
        """Return whether this is ``self._log.info`` or the like, or a ``_say`` that hands its fields on to it."""
        if not isinstance(function, ast.Attribute):
            return False
        owner = getattr(function.value, "attr", getattr(function.value, "id", ""))
        return owner in ("_log", "log") or function.attr == "_say"

    def test_noPatient(self) -> None:
        """No field on the list is about the patient."""
        self.assertEqual([name for name in FIELDS if "patient" in name or "birth" in name], [])
