"""What must hold of a pool besides, judged by the clouds' own books and by the ledger's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from gpubroker.ledger.ledger import Ledger
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Order
from gpubroker.model.money import Money
from gpubroker.model.results import JobState
from gpubroker.policy.budget import Limit
from gpubroker.testing.books import JobRun, RentedMachine
from gpubroker.testing.scripted import ScriptedCloud
from gpubroker.testing.simulation.oracle import BOUND, Oracle
from gpubroker.testing.simulation.pooled.calls import Call
from gpubroker.testing.simulation.pooled.schedule import PooledSchedule
from gpubroker.testing.simulation.world import START, Process, World

#: Seconds for which a machine may be kept, at the most, where that is for as long as breaks even:
#: the longest cold start that any vendor here allows.
_BREAK_EVEN: Final = 400.0

#: States of a lease of which nothing was there, as far as anybody could see.
_WRITTEN_OFF: Final = (LeaseState.LATE_WATCH, LeaseState.RELEASED, LeaseState.REFUSED)

#: What nobody but its owner does to a lease.
_OWNERS_ALONE: Final = ("begin_job", "end_job", "park", "extend", "request_release")


class PooledOracle(Oracle):
    """Watches one simulation of a pool."""

    def __init__(
        self,
        world: World,
        clouds: dict[str, ScriptedCloud],
        schedule: PooledSchedule,
        name: str,
    ) -> None:
        super().__init__(world, clouds, schedule)
        self._plan = schedule.pool
        self._name = name
        self._calls: list[Call] = []
        #: By lease that is parked: the true time at which its idle limit is over.
        self._parked: dict[str, float] = {}
        #: By lease: the true time at which it was last given back.
        self._used: dict[str, float] = {}
        self._written_off: set[str] = set()

    # ---- while it runs --------------------------------------------------------------------

    def called(self, process: Process, borrowing: int | None = None) -> Call:
        """Somebody wants a job done."""
        call = Call(len(self._calls), process, borrowing)
        self._calls.append(call)
        return call

    def borrowed(self) -> int:
        """Somebody has borrowed a machine, and it is this number's."""
        return next(self._world.numbers)

    def used(self, lease_id: str) -> None:
        """Somebody who had borrowed a machine gives it back."""
        self._used[lease_id] = self._world.true_time()

    def waited(self, call: Call, began: float, seconds: float) -> None:
        """Somebody who came at `began`, in seconds from the beginning, has waited for a machine."""
        if seconds > self._plan.wait + 1.0 and call.process.unwell_until < began:
            text = f"{call.process.name} waited for {seconds:.0f} s, not {self._plan.wait:g}"
            self.report("nobody waits for too long", text)

    def request(self, process: Process, cloud: ScriptedCloud, subject: Order | str) -> None:
        """A create or a destroy is about to reach a cloud."""
        super().request(process, cloud, subject)
        if isinstance(subject, Order):
            self._room(process)
        else:
            self._ours(process, cloud, subject)

    def _room(self, process: Process) -> None:
        """Is there room for one more machine?"""
        now = self._world.true_time()
        rows = {row["mark"]: row for row in self.rows("pool = :pool", pool=self._name)}
        there = [
            machine.id
            for mark, row in rows.items()
            if row["acknowledged_at"] is None and row["id"] not in self._written_off
            for machine in self._machines_of(mark)
            if machine.exists(now)
        ]
        if len(there) >= self._plan.max_machines:
            text = f"{process.name} asks for one more machine than {', '.join(there)}"
            self.report("no more machines than allowed", text)

    def _ours(self, process: Process, cloud: ScriptedCloud, machine_id: str) -> None:
        machine = cloud.machines.get(machine_id)
        mark = None if machine is None else machine.mark
        for row in self.rows("mark = :mark AND machine_id = :id", mark=mark, id=machine_id):
            held = row["state"] in ("ready", "busy", "idle") and row["release_requested_at"] is None
            owner = self._owner(row["owner"])
            if held and owner is not None and owner is not process:
                text = f"{process.name} destroyed {machine_id}, which {owner.name} has"
                self.report("a stale owner changes nothing", text)

    def commit(self, process: Process, operation: str, arguments: tuple[Any, ...]) -> None:
        """Something was written to the ledger."""
        super().commit(process, operation, arguments)
        lease = arguments[0] if arguments else None
        if not isinstance(lease, LeaseRow):
            return
        [row] = self.rows("id = :id", id=lease.id)
        if row["state"] in _WRITTEN_OFF:
            self._written_off.add(lease.id)
        owner = self._owner(row["owner"])
        if operation in _OWNERS_ALONE and owner is not None and owner is not process:
            text = f"{process.name} wrote {operation} of {lease.id}, which {owner.name} has"
            self.report("a stale owner changes nothing", text)
        if operation == "extend":
            self._extended(lease, row, arguments[3])
        elif operation == "park":
            self._parked[lease.id] = max(self._true(row["idle_until"]), self._world.true_time())
        elif row["idle_until"] is None or row["state"] == LeaseState.BUSY:
            self._parked.pop(lease.id, None)

    def _true(self, wall: float) -> float:
        """The true time at which wall clocks show a time, as they go now."""
        return float(wall) - self._world.jumped

    def _extended(self, lease: LeaseRow, row: Any, limits: Sequence[Limit]) -> None:
        if row["release_requested_at"] is not None:
            return
        self._reserved[lease.id] = Money.from_micros(row["reserved"])
        self._free_from[lease.id] = self._true(row["deadline"])
        self._budgets(lease, limits)

    def _budgets(self, lease: LeaseRow, limits: Sequence[Any]) -> None:
        """Is more taken than a limit allows? Of the pool's own, by its machines alone."""
        for limit in limits:
            if limit.tag is None:
                super()._budgets(lease, [limit])
                continue
            rows = self.rows(
                "pool = :pool AND created_at >= :since AND created_at < :until",
                pool=self._name,
                since=limit.since,
                until=limit.until,
            )
            taken = Money.from_micros(sum(row["reserved"] + row["spent"] for row in rows))
            if taken > limit.amount:
                text = f"{taken} of {limit.amount} is taken by the {limit.name}"
                self.report("no overspending", text)

    def event(self, process: Process, text: str) -> None:
        """A broker told its caller something."""
        super().event(process, text)
        error = text.removeprefix(f"pool {self._name}: ").partition(":")[0]
        if error != text.partition(":")[0] and not error.startswith("Ledger"):
            self.report("every task ends well", f"{process.name}: {text}")

    # ---- at the end -----------------------------------------------------------------------

    def judge(self, ledger: Ledger) -> None:
        """Everything has come to its end: what does not hold?"""
        for lease_id, until in self._parked.items():
            self._free_from[lease_id] = min(self._free_from[lease_id], until)
        super().judge(ledger)
        leases = {lease.mark: lease for lease in ledger.leases(open_only=False)}
        for cloud in self._clouds.values():
            runs: dict[str, list[JobRun]] = {}
            for run in cloud.runs:
                runs.setdefault(run.machine_id, []).append(run)
            for machine in cloud.machines.values():
                of_machine = runs.get(machine.id, [])
                self._one_at_a_time(machine, of_machine)
                lease = leases.get(machine.mark or "")
                if not machine.foreign and lease is not None:
                    self._idle(machine, lease, of_machine)
        self._answers()

    def _misuses(self, cloud: ScriptedCloud) -> Sequence[str]:
        # How many jobs a machine may have at once is the pool's to say.
        return [text for text in cloud.misuses if not text.startswith("two jobs at once")]

    def _one_at_a_time(self, machine: RentedMachine, runs: Sequence[JobRun]) -> None:
        """Nobody starts a job where others run, or may run still: those whose end nobody has seen.

        What a borrower has started before, on the same machine, is the borrower's to know.
        """
        for number, run in enumerate(runs):
            mine = self._call(run)
            others = [
                other
                for other in runs[:number]
                if other.outcome is None or (other.ended_at or math.inf) > run.started_at
                if mine.borrowing is None or self._call(other).borrowing != mine.borrowing
            ]
            theirs = [o for o in others if self._call(o).process is not mine.process]
            if theirs or len(others) >= self._plan.jobs_per_machine:
                ids = ", ".join(other.job_id for other in others)
                self.report("one owner at a time", f"{run.job_id} on {machine.id}, beside {ids}")

    def _call(self, run: JobRun) -> Call:
        return self._calls[int(run.job.argv[1])]

    def _idle(self, machine: RentedMachine, lease: LeaseRow, runs: Sequence[JobRun]) -> None:
        """A machine that nobody has used for its idle limit, and a while, is gone."""
        if self._plan.min_warm or any(run.outcome is None for run in runs):
            return
        uses = [run.ended_at for run in runs if run.ended_at is not None]
        last = max([machine.up_at, START + self._healed, self._used.get(lease.id, 0.0), *uses])
        kept = _BREAK_EVEN if self._plan.kept is None else self._plan.kept
        if last < math.inf and machine.ended_at > last + kept + BOUND:
            text = f"{machine.id} was idle for {machine.ended_at - last:.0f} s, and not {kept:g}"
            self.report("idle machines go", text)

    def _answers(self) -> None:
        """What a machine has reported has come to who wanted it, once."""
        reported: dict[int, list[JobRun]] = {}
        for cloud in self._clouds.values():
            for run in cloud.runs:
                if run.outcome is not None and run.outcome.state is not JobState.NOT_STARTED:
                    reported.setdefault(self._call(run).number, []).append(run)
        for call in self._calls:
            if call.unknown:
                self.report(
                    "callers hear what they can act on", f"{call.process.name}: {call.error}"
                )
        for number, runs in reported.items():
            call = self._calls[number]
            if len(runs) > 1:
                ids = ", ".join(run.job_id for run in runs)
                self.report("one job, one result", f"{call.process.name}'s ended as {ids}")
            lost = [run.job_id for run in runs if run.job_id not in call.results]
            if lost and not (call.left or call.process.killed):
                text = f"{call.process.name} never got that of {', '.join(lost)}: {call.error}"
                self.report("no result is lost", text)
