"""Fr beside a PACS that is not ours: ``python -m fr_twisted.ops.pacs_demo``. Behind ``make pacs-demo``.

Starts Orthanc and the whole of Fr, sends generated studies into Orthanc, which passes them on to Fr-PACS by DICOM, and
shows where the results, sent back to Orthanc, can be seen beside the images.
"""

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from fr_twisted.ops.house import House, parse, run_house
from fr_twisted.ops.orthanc import (
    HOST,
    TITLE,
    OrthancClient,
    OrthancPorts,
    OrthancProcess,
    configure,
    find_orthanc,
)
from fr_twisted.ops.preparing import free_ports

FR_TITLE = "FR"
QUIET_SECONDS = 2
"""After Orthanc's last image until the series counts as complete: it sends one after the other, each on its own."""


def studies(count: int, seed: int) -> list[list[bytes]]:
    """Return generated studies of one T1 series each, as Part 10 files."""
    # Only now: numpy and the rest take a second, which errors in the options need not.
    from fr_twisted.pacs.encode import to_dicom
    from fr_twisted.pacs.generator import generate

    now = datetime.now(UTC).replace(microsecond=0)
    made = []
    for number in range(count):
        scan = generate(seed + number)
        made.append([data for _, data in to_dicom(scan, f"DEMO-{seed + number}", now)])
    return made


class PacsDemo(House):
    """A house whose Fr-PACS gets its scans from Orthanc, and sends it the results."""

    def __init__(
        self, *arguments: Any, in_thread: Callable[..., Deferred[Any]] = deferToThread, **options: Any
    ) -> None:
        """Take what `House` takes, and what runs a function in a thread.

        Raises:
            StartError: Orthanc is not installed.
        """
        super().__init__(*arguments, **options)
        self._in_thread = in_thread
        self.ports = OrthancPorts(*free_ports(3))
        self.client = OrthancClient(self.ports.http)
        folder = self.data / "orthanc"
        self.orthanc = OrthancProcess(
            self.reactor,
            find_orthanc(),
            configure(folder, self.ports, FR_TITLE, route=True),
            self.client,
            lambda how: self.give_up(f"Orthanc has ended ({how}): see {folder / 'orthanc.log'}"),
            in_thread,
        )
        self.pages: list[str] = []
        self.delivered: set[str] = set()
        """Scans whose results Orthanc has."""

    async def start(self) -> None:
        """Start Orthanc, then the units, and then send."""
        await self.orthanc.start()
        self.screen.line("fr", f"Orthanc is up, pid {self.orthanc.pid}: {self.client.explorer}")
        await super().start()
        Deferred.fromCoroutine(self._send()).addErrback(
            lambda failure: self.give_up(f"the studies cannot be sent: {failure.getErrorMessage()}")
        )

    def sources(self) -> list[str]:
        """Return options for DICOM in and out."""
        received = f"tcp:{self.ports.fr}:interface={HOST}"
        return [
            f"--dicom-listen={received}",
            f"--dicom-aet={FR_TITLE}",
            f"--dicom-allow={TITLE}",
            f"--dicom-archives={TITLE}@{HOST}:{self.ports.dicom}",
            f"--dicom-spool={self.data / 'received'}",
            f"--dicom-state={self.data / 'dicom'}",
            f"--series-quiet={QUIET_SECONDS}",
        ]

    async def _send(self) -> None:
        seed = random.SystemRandom().randrange(2**31)
        for instances in await self._in_thread(studies, self.options.scans, seed):
            study = ""
            for data in instances:
                study = await self._in_thread(self.client.upload, data)
            self.pages.append(self.client.page(study))
            self.screen.line(
                "fr", f"Orthanc has a study of {len(instances)} images and passes it on to Fr-PACS"
            )

    def heard(self, name: str, line: Mapping[str, Any]) -> None:
        """Note what Orthanc got, or will not get: that is told, and is no reason to wait."""
        if name == "pacs" and line.get("event") in ("dicom.delivered", "dicom.refused", "dicom.nothing"):
            self.delivered.add(str(line.get("scan_id")))
        super().heard(name, line)

    @property
    def finished(self) -> bool:
        """Whether every scan has come to its end, and Orthanc has what came of it."""
        return super().finished and self.tally.reported <= self.delivered

    async def stop(self) -> None:
        """Stop Fr, then Orthanc."""
        await super().stop()
        await self.orthanc.stop()

    def kill(self) -> None:
        """End everything at once."""
        super().kill()
        self.orthanc.kill()

    def show_table(self) -> None:
        """Print also where the studies are to be seen."""
        super().show_table()
        self.screen.plain()
        if self.options.until_done:
            self.screen.plain(f"Orthanc's files, the results among them, are in {self.data / 'orthanc'}")
            return
        for page in self.pages:
            self.screen.plain(f"open {page}")
        self.screen.plain("there, beside the images: the SR, the SEG, the pictures and the PDF")


def main(arguments: Sequence[str]) -> int:
    """Run it, and return the exit status."""
    words = "Run the whole of Fr beside Orthanc, which has to be installed."
    return run_house(parse(arguments, "python -m fr_twisted.ops.pacs_demo", words, scans=1), PacsDemo)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
