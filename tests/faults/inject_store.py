"""The store's own errors, its disk, its indexes; and one BRAIN's clock."""

import errno
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from tests.daemons import runs
from tests.faults.inject_base import Faults, direct_client
from tests.faults.plan import PlannedFault
from tests.faults.world import LEASE

_COMMANDS = ["find", "insert", "update", "delete"]
_WRITES = ["insert", "update", "delete"]
_DROPPED = ("brain_scans", "report_generated_1_priority_-1_received_at_1")
HOUR = 3600.0


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
            return "no file system can be mounted here, or the store is not ours"
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
            self.world.full_at = math.inf
            time.sleep(max(2.0, fault.params["seconds"]))
        finally:
            ballast.unlink(missing_ok=True)
            self.world.full_at = time.time()
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
        """Move the clock for longer than a lease while a worker is at an analysis: its BRAIN must keep the lease."""
        with self.world.one_at_a_time["clock"]:
            clock = self.world.clock_file(fault.target)
            hit = True
            if self.world.options.full:
                clock.write_text(str(seconds))
            else:
                hit = self._shift_at_work(fault.target, clock, seconds)
            time.sleep(fault.params["seconds"])
            clock.write_text("0")
        return hit

    def _shift_at_work(self, brain: str, clock: Path, seconds: float) -> bool:
        unit = self.unit(brain)
        with self.at_work(brain) as pid:
            began, life = time.time(), unit.pid
            scan = self.scan_at(pid) if pid else ""
            clock.write_text(str(seconds))
            time.sleep(LEASE + 1)
            # Another fault may have killed that worker meanwhile: then the scan is rightly another's, or done.
            if scan and unit.pid == life and runs(pid) and self.store_well(brain, began - 6):
                self._check_kept(brain, scan)
        return bool(pid)

    def _check_kept(self, brain: str, scan_id: str) -> None:
        """See that a scan is still leased to the BRAIN that works on it."""
        try:
            with direct_client(self.world.direct_uri) as client:
                scan = client.get_default_database()["brain_scans"].find_one({"_id": scan_id}, {"lease": 1})
        except PyMongoError:
            return
        owner = ((scan or {}).get("lease") or {}).get("owner", "nobody")
        if not owner.startswith(f"{brain}."):
            self.timeline.problem(brain, f"lost the lease of {scan_id} to {owner} when its clock jumped")

    def do_clock_forward(self, fault: PlannedFault) -> bool:
        """An hour ahead."""
        return self._shift(fault, HOUR)

    def do_clock_back(self, fault: PlannedFault) -> bool:
        """An hour back."""
        return self._shift(fault, -HOUR)
