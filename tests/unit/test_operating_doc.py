"""docs/operating.md: every command that it shows is run, on the store that it tells of, and prints what it shows."""

import argparse
import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.command import desk, main, verify
from fr_twisted.config import OperatorSettings
from fr_twisted.store.ioperators import FindingKind
from tests.operating_story import SERVER, Story

DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(text: str) -> list[tuple[str, str]]:
    """Return each command in a document, and what it is said to print."""
    found = []
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.rstrip("\n")))
    return found


class OperatingDocTests(SynchronousTestCase):
    """docs/operating.md."""

    def setUp(self) -> None:
        """Tell the story."""
        self.clock = Clock()
        self.story = Story(self.clock)
        self.successResultOf(Deferred.fromCoroutine(self.story.tell()))
        self.patch(self.story.store, "open", lambda: succeed(SERVER))
        self.patch(desk, "perform", self.perform)
        self.patch(desk, "person", lambda: "by alice")
        self.patch(verify, "monotonic", self.clock.seconds)
        self.patch(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("FR_")})

    def perform(self, settings: OperatorSettings, given: argparse.Namespace, work: desk.Work) -> int:
        """Do a command's work."""
        self.clock.advance(1.0)
        results: list[Any] = []
        Deferred.fromCoroutine(desk.at_store(self.story.store, settings, given, work)).addBoth(results.append)
        if not isinstance(results[0], int):
            results[0].raiseException()
        return int(results[0])

    def run_command(self, command: str) -> str:
        """Return what a command line prints."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            main.main(shlex.split(command)[1:])
        return out.getvalue().rstrip("\n")

    def test_examples(self) -> None:
        """One after the other, the commands print what the document shows."""
        shown = examples(DOCUMENT.read_text(encoding="utf-8"))
        self.assertGreater(len(shown), 8)
        for command, output in shown:
            self.assertEqual(self.run_command(command), output, command)

    def test_findings(self) -> None:
        """Every kind of finding is explained, in the document and in the help."""
        text = DOCUMENT.read_text(encoding="utf-8")
        for kind in FindingKind:
            self.assertIn(f"`{kind}`", text)
            self.assertIn(f"{kind}", verify.MORE)
