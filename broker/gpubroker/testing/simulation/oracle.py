"""What must hold, judged by the clouds' own books and by the ledger's rows, as they are written.

The oracle reads the ledger through a connection of its own, and knows nothing of what the broker
believes. Each rule is named after what it promises; the letters are those of the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.verify import violations
from gpubroker.lifecycle.owner import OWNER_TTL
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Order
from gpubroker.model.money import Money
from gpubroker.model.results import JobState, Result
from gpubroker.testing.books import JobRun, RentedMachine
from gpubroker.testing.scripted import ScriptedCloud
from gpubroker.testing.simulation.schedule import LIES, Schedule
from gpubroker.testing.simulation.world import START, Process, World

#: Seconds of healthy time within which a machine that nobody holds any more is destroyed.
BOUND: Final = 240.0


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was broken.

    Attributes:
        promise: which one, in a few words.
        at: seconds from the beginning at which that was noticed.
    """

    promise: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.text} (at {self.at:.1f} s)"


class Oracle:
    """Watches one simulation.

    Attributes:
        found: every promise that was broken.
    """

    def __init__(self, world: World, clouds: dict[str, ScriptedCloud], schedule: Schedule) -> None:
        self._world = world
        self._clouds = clouds
        self._schedule = schedule
        self._sql: sqlite3.Connection | None = None
        self._healed = 0.0
        self._results: list[tuple[Result, bool]] = []
        #: By lease: the true time from which nobody may hold it any more, whatever clocks say.
        self._free_from: dict[str, float] = {}
        #: By lease: what its intent reserved, and the price that was agreed on.
        self._reserved: dict[str, Money] = {}
        self._agreed: dict[str, Money] = {}
        self.found: list[Violation] = []

    def open(self, ledger: Path) -> None:
        """Read this ledger from now on."""
        self._sql = sqlite3.connect(ledger, check_same_thread=False, isolation_level=None)
        self._sql.row_factory = sqlite3.Row

    def close(self) -> None:
        """Read no more."""
        if self._sql is not None:
            self._sql.close()

    def report(self, promise: str, text: str) -> None:
        """A promise was broken."""
        self._world.note("ORACLE", f"{promise}: {text}")
        self.found.append(Violation(promise, self._world.time, text))

    def rows(self, where: str, **values: Any) -> list[sqlite3.Row]:
        """Rows of leases."""
        assert self._sql is not None
        return self._sql.execute(f"SELECT * FROM leases WHERE {where}", values).fetchall()  # noqa: S608

    # ---- while it runs --------------------------------------------------------------------

    def request(self, process: Process, cloud: ScriptedCloud, subject: Order | str) -> None:
        """A create or a destroy is about to reach a cloud."""
        if isinstance(subject, Order):
            self._create(process, cloud, subject)
        else:
            self._destroy(process, cloud, subject)

    def _create(self, process: Process, cloud: ScriptedCloud, order: Order) -> None:
        self._world.note(process.name, f"sends {cloud.name} a create for {order.lease_id}")
        if not self.rows("mark = :mark AND provider = :name", mark=order.mark, name=cloud.name):
            text = f"{process.name} sent {cloud.name} a create with no intent on record"
            self.report("intent before create", text)

    def _destroy(self, process: Process, cloud: ScriptedCloud, machine_id: str) -> None:
        self._world.note(process.name, f"sends {cloud.name} a destroy of {machine_id}")
        machine = cloud.machines.get(machine_id)
        if machine is None:
            return
        if machine.foreign:
            text = f"{process.name} asked {cloud.name} to destroy {machine_id}, which is not ours"
            self.report("no friendly fire", text)
            return
        for row in self.rows("mark = :mark AND machine_id = :id", mark=machine.mark, id=machine_id):
            held = row["state"] in ("provisioning", "ready", "busy", "idle")
            if held and row["release_requested_at"] is None and not self._unwell(process):
                text = f"{process.name} destroyed {machine_id}, whose release nobody asked for"
                self.report("no friendly fire", text)

    def commit(self, process: Process, operation: str, arguments: tuple[Any, ...]) -> None:
        """Something was written to the ledger."""
        lease = arguments[0] if arguments and isinstance(arguments[0], LeaseRow) else None
        if lease is not None:
            target = arguments[1] if operation == "move" else ""
            self._world.note(process.name, f"ledger.{operation} {lease.id} {target}".rstrip())
        if operation == "reserve":
            assert lease is not None
            self._reserved[lease.id] = lease.reserved
            self._agreed[lease.id] = lease.hourly
            lifetime = lease.deadline - lease.created_at
            self._free_from[lease.id] = self._world.true_time() + lifetime
            self._budgets(lease, arguments[1])
        elif operation == "request_release":
            assert lease is not None
            now = self._world.true_time()
            self._free_from[lease.id] = min(now, self._free_from.get(lease.id, now))
        elif operation == "move" and arguments[1] is LeaseState.RELEASED:
            assert lease is not None
            self._released(lease)
        elif operation == "take_over":
            assert lease is not None
            self._taken_over(process, lease)

    def _budgets(self, lease: LeaseRow, limits: Sequence[Any]) -> None:
        for limit in limits:
            rows = (
                self.rows("request_id = :id", id=lease.request_id)
                if limit.request_id is not None
                else self.rows("created_at >= :a AND created_at < :b", a=limit.since, b=limit.until)
            )
            taken = Money.from_micros(sum(row["reserved"] + row["spent"] for row in rows))
            if taken > limit.amount:
                text = f"{taken} of {limit.amount} is taken by the {limit.name}"
                self.report("no overspending", text)

    def _released(self, lease: LeaseRow) -> None:
        now, cloud = self._world.true_time(), self._clouds[lease.provider]
        for machine in self._machines_of(lease.mark):
            if machine.exists(now) and not _lied(cloud):
                text = f"{lease.id} is released, while {machine.id} bills on"
                self.report("released means gone", text)

    def _taken_over(self, process: Process, lease: LeaseRow) -> None:
        owner = self._owner(lease.owner)
        if owner is None or owner is process or owner.ended or owner.killed:
            return
        now = self._world.wall_clock()
        overdue = now > lease.deadline
        if overdue or self._unwell(owner) or lease.state is LeaseState.LATE_WATCH:
            return
        if not any(m.lost_at > self._world.true_time() for m in self._machines_of(lease.mark)):
            return
        text = f"{process.name} took {lease.id} from {owner.name}, which is alive and well"
        self.report("no friendly fire", text)

    def _unwell(self, process: Process) -> bool:
        """Whether it was, or may have seemed, dead to others a while ago."""
        return self._world.time < process.unwell_until + OWNER_TTL * 1.5

    def _owner(self, owner: str) -> Process | None:
        assert self._sql is not None
        row = self._sql.execute("SELECT started FROM owners WHERE id = ?", [owner]).fetchone()
        return None if row is None else self._world.processes[int(row["started"]) - 1]

    def _machines_of(self, mark: str) -> Iterator[RentedMachine]:
        for cloud in self._clouds.values():
            for machine in cloud.machines.values():
                if machine.mark == mark and not machine.foreign:
                    yield machine

    def event(self, process: Process, text: str) -> None:
        """A broker told its caller something."""
        name, _, rest = text.partition(" failed: ")
        if rest and name.isidentifier() and name != "a":
            self.report("every task ends well", f"{process.name}: {text}")

    def result(self, result: Result, wanted: bytes | None) -> None:
        """A caller got a result.

        Args:
            wanted: what the one file had to hold that was to be brought back.
        """
        brought = True
        if wanted is not None and result.ok:
            file = result.files.get("out.bin")
            brought = file is not None and file.path.read_bytes() == wanted
        self._results.append((result, brought))

    # ---- at the end -----------------------------------------------------------------------

    def healed(self) -> None:
        """From now on nothing fails any more; without a fault, nothing ever did."""
        if self._schedule.faults:
            self._healed = self._world.time

    def judge(self, ledger: Ledger) -> None:
        """Everything has come to its end: what does not hold?"""
        for process in self._world.processes:
            if not process.ended:
                self.report("every wait ends", f"{process.name} still waits")
            if process.error is not None:
                error = f"{type(process.error).__name__}: {process.error}"
                self.report("every task ends well", f"{process.name} ended with {error}")
        for line in violations(ledger.leases(open_only=False), ledger.events()):
            self.report("the ledger keeps its rules", line)
        for lease in ledger.leases():
            self.report("everything is closed", f"{lease.id} is still {lease.state}")
        leases = {lease.mark: lease for lease in ledger.leases(open_only=False)}
        for cloud in self._clouds.values():
            for misuse in self._misuses(cloud):
                self.report("one create, one start", f"{cloud.name}: {misuse}")
            for machine in cloud.machines.values():
                if machine.foreign:
                    self._foreign(cloud, machine)
                else:
                    self._machine(cloud, machine, leases)
        runs = {run.job_id: run for cloud in self._clouds.values() for run in cloud.runs}
        for result, brought in self._results:
            self._result(result, brought, runs)

    def _misuses(self, cloud: ScriptedCloud) -> Sequence[str]:
        """What broke the provider contract."""
        return cloud.misuses

    def _foreign(self, cloud: ScriptedCloud, machine: RentedMachine) -> None:
        if not machine.exists(self._world.true_time()):
            self.report("no friendly fire", f"{cloud.name}: {machine.id}, not ours, is gone")

    def _machine(
        self, cloud: ScriptedCloud, machine: RentedMachine, leases: dict[str, LeaseRow]
    ) -> None:
        lease = leases.get(machine.mark or "")
        if lease is None:
            self.report("nothing is lost", f"{machine.id} of {cloud.name} has no lease")
            return
        free = max(START + self._healed, machine.created_at, self._free_from[lease.id])
        if machine.ended_at > free + BOUND:
            ended = "never" if machine.exists(self._world.true_time()) else "late"
            text = f"{machine.id} of {cloud.name} ended {ended}: {machine.ended_at - free:.0f} s"
            self.report("nothing runs on", text)
        self._money(cloud, machine, lease)

    def _money(self, cloud: ScriptedCloud, machine: RentedMachine, lease: LeaseRow) -> None:
        bill = machine.billed(self._world.true_time(), cloud.facts)
        quantum = lease.hourly * (cloud.facts.billing_quantum / 3600)
        told_true = machine.price.hourly <= self._agreed[lease.id]
        clock_true = not any(f.what == "clock_jumps" for _, f in self._schedule.faults)
        alone = lease.machine_id == machine.id
        if not (told_true and clock_true and alone):
            return
        in_time = lease.deadline + cloud.facts.release_margin
        reserved = self._reserved[lease.id]
        if machine.ended_at <= in_time and bill > reserved + quantum:
            text = f"{lease.id} reserved {reserved}, and was billed {bill}"
            self.report("no overspending", text)
        if lease.settled_at is not None:
            if not abs((lease.spent - bill).amount) <= Money("0.000001").amount:
                text = f"{lease.id} is settled at {lease.spent}, and was billed {bill}"
                self.report("costs are true", text)
        elif lease.spent + quantum + Money("0.000002") < bill and not _lied(cloud):
            self.report("costs are true", f"{lease.id} counts {lease.spent}, and was billed {bill}")

    def _result(self, result: Result, brought: bool, runs: dict[str, JobRun]) -> None:
        run = runs.get(result.job_id)
        if result.state is JobState.EXITED:
            true = run is not None and run.outcome is not None
            if not true or run is None or run.outcome is None:
                self.report("results are true", f"{result.job_id} exited, but never ran")
            elif run.outcome.exit_code != result.exit_code:
                text = (
                    f"{result.job_id} exited with {run.outcome.exit_code}, not {result.exit_code}"
                )
                self.report("results are true", text)
        if result.ok and not brought:
            self.report("results are true", f"{result.job_id} succeeded without its file")


def _lied(cloud: ScriptedCloud) -> bool:
    """Whether a cloud has said that there is nothing while there was."""
    return any(verb.startswith(LIES) for verb in cloud.told)
