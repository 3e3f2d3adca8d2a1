"""The store's own errors, its disk, its indexes; and one BRAIN's clock."""

import errno
import os
import time
from contextlib import suppress
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.faults.inject_base import Faults
from tests.faults.plan import PlannedFault

_COMMANDS = ["find", "insert", "update", "delete"]
_WRITES = ["insert", "update", "delete"]
_DROPPED = ("brain_scans", "report_generated_1_priority_-1_received_at_1")
HOUR = 3600.0


def direct_client(uri: str) -> MongoClient[dict[str, Any]]:
    """Return a client of the harness's own, past every proxy."""
    return MongoClient(
        f"{uri}?directConnection=true",
        serverSelectionTimeoutMS=20_000,
        socketTimeoutMS=20_000,
        tz_aware=True,
    )


class StoreFaults(Faults):
    """What can happen to the store, and to a clock."""

    def _fail_commands(self, fault: PlannedFault, commands: list[str], **data: Any) -> bool | str:
        """Let the server fail commands for some seconds."""
        try:
            with direct_client(self.world.direct_uri) as client:
                begun = {"configureFailPoint": "failCommand", "mode": "alwaysOn"}
                client.admin.command(begun | {"data": {"failCommands": commands, **data}})
                time.sleep(fault.params["seconds"])
        except OperationFailure:
            return "the server was not started with test commands"
        except PyMongoError:
            return False  # it is down for another fault, and begins again without fail points
        finally:
            self._end_fail_point()
        return True

    def _end_fail_point(self) -> None:
        with suppress(PyMongoError), direct_client(self.world.direct_uri) as client:
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    def do_store_not_primary(self, fault: PlannedFault) -> bool | str:
        """10107."""
        return self._fail_commands(fault, _COMMANDS, errorCode=10107)

    def do_store_write_concern(self, fault: PlannedFault) -> bool | str:
        """Applied, and answered with an error."""
        error = {"code": fault.params["code"], "errmsg": "not by the majority in time"}
        return self._fail_commands(fault, _WRITES, writeConcernError=error)

    def do_store_closes(self, fault: PlannedFault) -> bool | str:
        """Hangs up instead of answering."""
        return self._fail_commands(fault, _COMMANDS, closeConnection=True)

    def do_store_blocks(self, fault: PlannedFault) -> bool | str:
        """Answers late."""
        milliseconds = int(1000 * max(1.0, fault.params["seconds"]))
        return self._fail_commands(fault, _COMMANDS, blockConnection=True, blockTimeMS=milliseconds)

    def do_store_full(self, fault: PlannedFault) -> bool | str:
        """Fill the disk with one large file."""
        if not self.world.can_fill:
            return "no file system can be mounted here"
        ballast = self.world.store_folder / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                block = bytes(4 * 1024 * 1024)
                while True:
                    try:
                        if file.write(block) < len(block):
                            break
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        break
            free = os.statvfs(self.world.store_folder).f_bavail
            self.note("disk", f"the store's disk is full: {free} blocks free")
            time.sleep(max(2.0, fault.params["seconds"]))
        finally:
            ballast.unlink(missing_ok=True)
        return True

    def do_store_index_missing(self, fault: PlannedFault) -> bool:
        """Drop an index, and start a HUB."""
        collection, name = _DROPPED
        unit = self.unit(fault.target)
        with unit.lock:
            try:
                with direct_client(self.world.direct_uri) as client:
                    client.get_default_database()[collection].drop_index(name)
            except PyMongoError:
                return False
            return self.kill(unit, fault.params["down"])

    def _shift(self, fault: PlannedFault, seconds: float) -> bool:
        clock = self.world.clock_file(fault.target)
        clock.write_text(str(seconds))
        time.sleep(fault.params["seconds"])
        clock.write_text("0")
        return True

    def do_clock_forward(self, fault: PlannedFault) -> bool:
        """An hour ahead."""
        return self._shift(fault, HOUR)

    def do_clock_back(self, fault: PlannedFault) -> bool:
        """An hour back."""
        return self._shift(fault, -HOUR)

    # -- for the checks of a stop

    def store_well(self, since: float) -> bool:
        """Return whether nothing was done to the store since then."""
        doings = ("store", "several-kill")
        lately = [
            e for e in list(self.timeline.entries) if e.at >= since and e.event in ("fault", "fault.over")
        ]
        return not any(entry.text.startswith(doings) for entry in lately) and not self._open_store_fault()

    def _open_store_fault(self) -> bool:
        begun = over = 0
        for entry in list(self.timeline.entries):
            if entry.text.startswith(("store", "several-kill")):
                begun += entry.event == "fault"
                over += entry.event == "fault.over"
        return begun > over

    def leases_of(self, brain: str) -> list[str]:
        """Return the scans that a BRAIN holds by the store."""
        query = {"report_generated": "In Progress"}
        try:
            with direct_client(self.world.direct_uri) as client:
                found = list(client.get_default_database()["brain_scans"].find(query, {"lease": 1}))
        except PyMongoError:
            return []
        return [
            scan["_id"]
            for scan in found
            if (scan.get("lease") or {}).get("owner", "").startswith(f"{brain}.")
        ]
