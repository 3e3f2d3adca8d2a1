"""``fr`` as a process, on the store of running daemons: what an operator sees, and mends."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fr_twisted.store.indexes import create_commands
from tests import report_builders
from tests.analyses_for_tests import MODULE, REFUSAL
from tests.daemons import ROOT
from tests.house import House, free_port, wait_for
from tests.pacs_builders import write_nifti
from tests.store_servers import client

FR = str(Path(sys.executable).with_name("fr"))


class Terminal:
    """Runs ``fr`` in a folder whose ``.env`` names the store."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        (folder / ".env").write_text(f"FR_MONGO_URI={uri}\n")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FR_")}
        self.environment |= {"PYTHONPATH": str(ROOT), "USER": "alice", "LOGNAME": "alice"}

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error."""
        done = subprocess.run(
            [FR, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def text(self, *arguments: str) -> str:
        """Return what a command prints that is done."""
        status, out, err = self.run(*arguments)
        assert (status, err) == (0, ""), (out, err)
        return out

    def json(self, *arguments: str) -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self.text(*arguments, "--json"))


@pytest.fixture
def house(tmp_path: Path, database_uri: str) -> Iterator[House]:
    """Provide daemons whose BRAIN refuses every scan, not started, and leave no process."""
    house = House(tmp_path, database_uri, FR_BRAIN_ANALYSIS=f"{MODULE}:REFUSING", FR_BRAIN_SLOTS=1)
    try:
        yield house
    finally:
        house.stop()


def test_operators_day(house: House, tmp_path: Path) -> None:
    """A failed scan is seen, shown and retried, its report is resent, and everything that is kept verifies."""
    fr = Terminal(tmp_path / "desk", house.uri)
    status, _, err = fr.run("status")
    assert (status, err.count("\n")) == (2, 1)
    assert "is not a store of Fr: no HUB or BRAIN has opened it yet" in err

    house.start()
    write_nifti(tmp_path / "made" / "sub-07_T1w.nii.gz").rename(house.watched / "sub-07_T1w.nii.gz")
    wait_for("a Failed scan", lambda: house.db["brain_scans"].find_one({"report_generated": "Failed"}))
    [failed] = fr.json("scans", "--state", "failed", "--patient", "sub-07", "--since", "1h")["scans"]
    scan_id = failed["scan_id"]
    assert REFUSAL in failed["error"]
    assert scan_id in fr.text("scans")
    shown = fr.text("show", scan_id.removeprefix("scan-")[:8])
    assert re.search(rf"failed +brain +brain +.*{re.escape(REFUSAL)}", shown), shown

    house.brain.stop()
    house.brain.settings["FR_BRAIN_ANALYSIS"] = f"{report_builders.MODULE}:USABLE"
    house.brain.start()
    assert fr.text("retry", scan_id) == f"{scan_id} is To Do again\n"
    delivered = {"status": True}
    report = wait_for("the delivery", lambda: house.db["brain_reports"].find_one(delivered))
    first_delivery = report["delivered_at"]

    status, _, err = fr.run("retry", scan_id)
    assert (status, err) == (2, f"fr retry: {scan_id} is Done, not Failed: there is nothing to retry\n")
    assert fr.text("resend", report["_id"]) == f"{report['_id']} is due again for pacs\n"
    again = {**delivered, "delivered_at": {"$gt": first_delivery}}
    wait_for("the second delivery", lambda: house.db["brain_reports"].find_one(again))

    check_history(wait_for("the whole history", lambda: whole_history(fr, scan_id)))
    found = fr.json("status")
    assert {row["state"]: row["count"] for row in found["states"]} == {
        "To Do": 0,
        "In Progress": 0,
        "Done": 1,
        "Failed": 0,
    }
    assert found["last_hour"] == {"received": 1, "analysed": 1, "delivered": 1}
    verified = fr.json("verify", "--grace", "0")
    assert (verified["clean"], verified["findings"]) == (True, [])
    checked = verified["checked"]
    assert (checked["scans"], checked["reports"], checked["payloads"]) == (1, 1, 2)


def whole_history(fr: Terminal, scan_id: str) -> list[dict[str, str]] | None:
    """Return the history of a scan once its report was delivered twice."""
    history: list[dict[str, str]] = fr.json("show", scan_id)["scan"]["history"]
    return history if sum(entry["event"] == "delivered" for entry in history) == 2 else None


def check_history(history: list[dict[str, str]]) -> None:
    """Check that every change of state is there, with the unit and the node that made it."""
    told = [(entry["event"], entry["unit"], entry["node"]) for entry in history]
    [here] = {node for _, unit, node in told if unit == "fr"}
    assert told == [
        ("received", "hub", "hub"),
        ("claimed", "brain", "brain"),
        ("failed", "brain", "brain"),
        ("retried", "fr", here),
        ("claimed", "brain", "brain"),
        ("done", "brain", "brain"),
        ("delivered", "hub", "hub"),
        ("resent", "fr", here),
        ("delivered", "hub", "hub"),
    ]
    assert history[3]["detail"] == "by alice"


def test_store_is_away(tmp_path: Path) -> None:
    """A store that cannot be reached is one line and status 2, whatever the command."""
    fr = Terminal(tmp_path / "desk", f"mongodb://127.0.0.1:{free_port()}/fr")
    for command in (["status"], ["scans"], ["show", "a"], ["retry", "--failed"], ["resend", "a"], ["verify"]):
        status, out, err = fr.run(*command)
        assert (status, out) == (2, "")
        assert re.fullmatch(
            rf"fr {command[0]}: the store cannot be reached: 127\.0\.0\.1:\d+: nothing listens there\n", err
        )


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a command that waits for the store: one line, and the status that shells expect."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fr = Terminal(tmp_path / "desk", f"mongodb://127.0.0.1:{silent.getsockname()[1]}/fr")
        running = subprocess.Popen(
            [FR, "status"], cwd=fr.folder, env=fr.environment, stderr=subprocess.PIPE, text=True
        )
        with running:
            silent.settimeout(30)
            connection, _ = silent.accept()  # it dialled: the reactor runs
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=30)
            connection.close()
    assert (running.returncode, err) == (130, "fr status: interrupted\n")


def test_on_a_terminal(tmp_path: Path, database_uri: str) -> None:
    """On a terminal states have colours, and `verify` takes its progress away before it says how it went."""
    fr = Terminal(tmp_path / "desk", database_uri)
    with client(database_uri) as plain:
        for indexes in create_commands():
            plain.get_default_database().command(indexes)
    output = []
    for command in ("status", "verify"):
        ours, theirs = pty.openpty()
        environment = {**fr.environment, "TERM": "xterm"}
        environment.pop("NO_COLOR", None)
        done = subprocess.run(
            [FR, command],
            cwd=fr.folder,
            env=environment,
            stdout=theirs,
            stderr=theirs,
            timeout=60,
            check=False,
        )
        os.close(theirs)
        output.append(os.read(ours, 65536).decode())
        os.close(ours)
        assert done.returncode == 0, output
    assert "\033[36mTo Do" in output[0]
    assert output[1].startswith("\rscans: 0")
    assert output[1].endswith("\033[32mclean\033[0m\r\n")
    last = output[1].splitlines()[-1]
    assert last.startswith("0 scans, 0 reports, 0 uploads; 0 payloads, 0 B hashed, in "), output[1]
