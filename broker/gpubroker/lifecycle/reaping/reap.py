"""Sweeps: compare a provider's machines with the ledger, and put right what is wrong.

The same pass runs at every broker start, every 30 s while leases are open, and in
``gpubroker reap``. It is safe to run any number of times, in any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from gpubroker.errors import (
    BrokerClosed,
    ErrorKind,
    LedgerError,
    ProviderError,
    Scope,
    StaleOwner,
)
from gpubroker.ledger.rows import Owner
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.owner import HEARTBEAT
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.readings import Reading
from gpubroker.lifecycle.reaping.adoption import Adopter, CannotAdopt, tidy
from gpubroker.lifecycle.reaping.spending import Spending
from gpubroker.lifecycle.releasing.prices import risen
from gpubroker.lifecycle.releasing.release import (
    found,
    release_machine,
    resolve_unknown,
    watch_over,
)
from gpubroker.lifecycle.releasing.settling import Settling
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.lifecycle.releasing.surplus import end_surplus
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.policy.budget import AtLimit
from gpubroker.policy.retry import Retry
from gpubroker.policy.sweeping import Finding, Scene, Verdict, brake, can_be_adopted, sweep
from gpubroker.policy.transitions import HELD, USED

SWEEP_EVERY = 30.0
"""Seconds between two sweeps of a broker that has leases open."""

LOOK_AGAIN_FOR_OWNERS = HEARTBEAT + 5.0
"""Seconds after which an owner that lives has been heard of again, whatever kept it."""

#: The same while a machine in use seems to be down: somebody may be waiting for its job.
_LOOK_AGAIN = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep of one provider found.

    Attributes:
        complete: whether the provider gave a complete list. If not, nothing was concluded.
        verdicts: everything that was found, strangers' machines included.
        started: ids of the leases whose release this sweep started.
        adopted: ids of those that this broker goes on with, since a job runs on them.
    """

    provider: str
    complete: bool
    problem: str = ""
    verdicts: tuple[Verdict, ...] = ()
    started: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()


class Reaper:
    """Sweeps all providers of one open broker."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self.spending = Spending(parts, supervisor)
        self.adopter = Adopter(parts, supervisor)
        self._settling = Settling(parts)
        self._doubted: dict[tuple[Finding, str], tuple[int, float]] = {}
        #: By owner: until when its word counted, as the last sweep read it.
        self._heard: dict[str, float] = {}
        self._surplus: set[str] = set()
        self._alarmed: set[str] = set()
        #: How many leases had been held at the last look at what nothing more is added to.
        self._looked_after = -1
        self._releasing = supervisor.releasing
        self._released = anyio.Event()
        self.done = anyio.Event()

    async def loop(self) -> None:
        """Sweep now, and then every 30 s while anything is open; and whenever the clock jumps."""
        while True:
            jumped = self._supervisor.jumped
            try:
                if not self.done.is_set() or await self._anything_open():
                    await self.sweep_all()
                else:
                    await self._account(idle=True)
            except Exception as error:  # noqa: BLE001 - it must go on for as long as the broker lives
                problem = f"{type(error).__name__}: {error}"
                self._parts.emit(EventKind.ALARM, f"a sweep failed: {problem}")
            self.done.set()
            lost = any(finding in (Finding.DOWN, Finding.VANISHED) for finding, _ in self._doubted)
            with anyio.move_on_after(_LOOK_AGAIN if lost else SWEEP_EVERY):
                await jumped.wait()
                # What was missing before may only have slept: it gets another look.
                self._doubted.clear()

    async def _anything_open(self) -> bool:
        return await self._parts.ledger.insist(lambda ledger: ledger.anything_open())

    async def sweep_all(self) -> list[Swept]:
        """One pass over every provider, all at once; then a look at what they bill."""
        results: list[Swept] = []

        async def one(name: str) -> None:
            results.append(await self.sweep(name))

        leases = await self._parts.ledger.insist(lambda ledger: ledger.leases())
        held = {lease.provider for lease in leases}
        async with anyio.create_task_group() as tasks:
            for name, provider in self._parts.providers.items():
                # Without an account there is nothing to list, unless there was one.
                if "inventory" in provider.hooks and (provider.has_account or name in held):
                    tasks.start_soon(one, name)
            for name in held - self._parts.providers.keys():
                results.append(await self._without_provider(name, leases))
        tidy(self._parts)
        await self._account()
        return sorted(results, key=lambda swept: swept.provider)

    async def _account(self, *, idle: bool = False) -> None:
        """Put what was billed on record, and see what that makes of the limits.

        Args:
            idle: nothing is open, so that nothing is spent but by what was booked or has just ended.
        """
        booked, held = await self._settling.settle_all(), self._supervisor.ever_held
        if booked or not idle or held != self._looked_after:
            self._looked_after = held if idle else -1
            await self.spending.look()

    async def _without_provider(self, name: str, leases: Sequence[LeaseRow]) -> Swept:
        """Raise the alarm for machines that cannot be looked at, and quarantine the orphans."""
        left = [l for l in leases if l.provider == name and l.state is not LeaseState.LATE_WATCH]
        broken = {plugin.name: plugin.problem for plugin in self._parts.broken}
        problem = broken.get(name, "it is not installed here")
        for lease in [lease for lease in left if lease.id not in self._alarmed]:
            self._alarmed.add(lease.id)
            text = f"{lease.id} cannot be looked after, and may bill: {name}: {problem}"
            self._parts.emit(EventKind.ALARM, text, provider=name, lease_id=lease.id)
        owners, now = await self._owners(), self._parts.now()
        started: list[str] = []
        for lease in left:
            dead = self._alive(owners.get(lease.owner), now) is False
            if dead and lease.machine_id is not None and lease.id not in self._releasing:
                with suppress(StaleOwner):
                    started.append((await self.release(lease, Finding.OWNER_DEAD)).id)
        return Swept(provider=name, complete=False, problem=problem, started=tuple(started))

    async def sweep(self, name: str) -> Swept:
        """One pass over one provider: its list first, the ledger second."""
        parts = self._parts
        reading = await parts.readings[name].next()
        if reading.error is not None:
            return Swept(provider=name, complete=False, problem=str(reading.error))
        scene = await self._scene(name, reading)
        verdicts = sweep(scene)
        sure: set[tuple[Finding, str]] = set()
        acting = [verdict for verdict in verdicts if self._is_sure(verdict, scene, sure)]
        held = sum(lease.state in HELD for lease in scene.leases)
        acting, withheld = brake(acting, held)
        if withheld:
            text = (
                f"{len(withheld)} more of {held} machines seem lost at once; they wait their turn"
            )
            parts.emit(EventKind.ALARM, text, provider=name)
        started: list[str] = []
        adopted: list[str] = []
        for verdict in acting:
            try:
                if verdict.lease is not None and await self._adopt(verdict):
                    adopted.append(verdict.lease.id)
                    continue
                lease = await self._carry_out(verdict)
            except (StaleOwner, LedgerError, BrokerClosed) as error:
                parts.emit(EventKind.FOUND, str(error), provider=name)
                continue
            if lease is not None:
                started.append(lease.id)
        await self._compare_prices(reading)
        # What was not found again has cleared itself up.
        self._doubted = {
            key: n
            for key, n in self._doubted.items()
            if key in sure or key[1].split("/")[0] != name
        }
        at = reading.wall
        await parts.ledger.insist(lambda ledger: ledger.put_swept(name, at))
        return Swept(
            provider=name,
            complete=True,
            verdicts=tuple(verdicts),
            started=tuple(started),
            adopted=tuple(adopted),
        )

    async def _adopt(self, verdict: Verdict) -> bool:
        """Go on with an orphan's job, where that is wanted and can be done."""
        lease, orphaned = verdict.lease, (Finding.OWNER_DEAD, Finding.OWNER_MISSING)
        if verdict.finding not in orphaned or lease is None or lease.id in self._supervisor.holds:
            return False
        if not can_be_adopted(lease, self._parts.now()):
            return False
        try:
            await self.adopter.adopt(lease, str(verdict.finding), verdict.machine)
        except (CannotAdopt, OSError) as problem:
            text = f"{lease.id} is released and not adopted: {problem}"
            self._parts.emit(EventKind.ALARM, text, provider=lease.provider, lease_id=lease.id)
            return False
        return True

    async def _owners(self) -> dict[str, Owner]:
        return await self._parts.ledger.insist(lambda ledger: ledger.owners())

    def _alive(self, owner: Owner | None, now: float) -> bool | None:
        """Whether an owner lives; one whose word has moved since the last sweep does.

        Whatever its clock says, or ours: hosts may disagree about the time.
        """
        alive = self._parts.identity.alive(owner, now)
        if alive is None and owner is not None:
            before = self._heard.get(owner.id)
            if before is not None and before != owner.expires_at:
                return True
        return alive

    async def _compare_prices(self, reading: Reading) -> None:
        """End what has become dearer than agreed: after its job, or at once where limits say so."""
        parts = self._parts
        at_once = parts.budget.at_limit is AtLimit.RELEASE
        for hold in tuple(self._supervisor.holds.values()):
            machine = reading.machines.get(hold.row.machine_id or "")
            # Before it is used, whoever waits for it compares.
            if machine is None or hold.row.state not in USED or hold.release_reason is not None:
                continue
            if machine.provider != hold.row.provider:
                continue
            until = parts.now() if at_once else hold.row.deadline
            try:
                dearer = await risen(parts, hold, machine, until=until)
            except LedgerError as error:
                parts.emit(EventKind.ALARM, f"a price could not be booked: {error}")
                continue
            if dearer is not None and at_once:
                self._supervisor.request_release(hold, dearer)
            elif dearer is not None:
                await self._supervisor.drain(hold, dearer)

    async def _scene(self, name: str, reading: Reading) -> Scene:
        parts = self._parts
        # What is in hand before the ledger is read or after it: a lease may be done in between.
        in_hand = {*self._supervisor.holds, *self._releasing}
        machines = list(reading.machines.values())
        leases = await parts.ledger.insist(lambda ledger: ledger.leases(provider=name))
        owners = await self._owners()
        # A machine that an open lease has by its id is nobody else's, whatever its mark says.
        known = {lease.machine_id for lease in leases}
        strangers = (Mark.find(machine.mark) for machine in machines if machine.id not in known)
        marks = [str(mark) for mark in strangers if mark is not None]
        closed = await parts.ledger.insist(
            lambda ledger: {
                mark: lease
                for mark in marks
                if (lease := ledger.lease_of_mark(mark)) is not None and not lease.state.open
            }
        )
        now = parts.now()
        alive = {id_: self._alive(owner, now) for id_, owner in owners.items()}
        self._heard |= {id_: owner.expires_at for id_, owner in owners.items()}
        return Scene(
            provider=name,
            facts=parts.providers[name].facts,
            machines=machines,
            read_at=reading.wall,
            steps=reading.steps,
            leases=leases,
            closed=closed,
            alive=lambda lease: alive.get(lease.owner),
            ours=parts.ours,
            own=parts.identity.id,
            in_hand={*in_hand, *self._supervisor.holds, *self._releasing},
            now=now,
        )

    def _is_sure(self, verdict: Verdict, scene: Scene, seen: set[tuple[Finding, str]]) -> bool:
        """Whether to act now. What rests on something missing must be found in two passes."""
        doubtful = {Finding.OWNER_MISSING: 2, Finding.DOWN: 2}
        if scene.facts.absence_readings > 1:
            doubtful |= dict.fromkeys(
                (Finding.VANISHED, Finding.NEVER_SEEN), scene.facts.absence_readings
            )
        wanted = doubtful.get(verdict.finding)
        if wanted is None:
            return True
        subject = verdict.lease.id if verdict.lease else ""
        key = (verdict.finding, f"{scene.provider}/{subject}")
        seen.add(key)
        times, last = self._doubted.get(key, (0, float("-inf")))
        # Two looks in quick succession are one look; an owner must have had time to say something.
        apart = scene.facts.absence_interval
        if verdict.finding is Finding.OWNER_MISSING:
            apart = max(apart, LOOK_AGAIN_FOR_OWNERS)
        running = anyio.current_time()
        if running - last >= apart:
            times, last = times + 1, running
        self._doubted[key] = (times, last)
        return times >= wanted

    async def _carry_out(self, verdict: Verdict) -> LeaseRow | None:
        """Act on one verdict; returns the lease whose release was started, if one was."""
        lease, machine = verdict.lease, verdict.machine
        match verdict.finding:
            case Finding.FOREIGN:
                return None
            case Finding.UNRECORDED:
                assert machine is not None
                text = f"{machine.id} carries our mark but is not in this ledger; `gpubroker adopt` ends it"
                self._parts.emit(EventKind.ALARM, text, provider=machine.provider)
                return None
            case Finding.DUPLICATE:
                assert machine is not None
                if machine.id not in self._surplus:
                    self._surplus.add(machine.id)
                    self._supervisor.start(end_surplus, self._parts, machine)
                return None
            case Finding.WATCH_OVER:
                assert lease is not None
                await watch_over(self._parts, lease)
                return None
            case Finding.VANISHED | Finding.DOWN if lease and lease.id in self._supervisor.holds:
                hold = self._supervisor.holds[lease.id]
                if machine is None and await _answers(hold):
                    text = f"{lease.machine_id} is not listed any more, but it answers: it is kept"
                    self._parts.emit(EventKind.FOUND, text, provider=lease.provider)
                    return None
                if hold.release_reason is not None:
                    return None
                hold.lost = True
                loss = _loss(machine, spot=hold.offer.spot)
                now = self._parts.now()
                self._parts.recall.attempt_failed(loss, hold.offer, hold.image, Retry(), now)
                self._supervisor.request_release(hold, str(loss))
                return lease
            case _:
                assert lease is not None
                if lease.id in self._supervisor.holds:
                    return None
                return await self.release(lease, verdict.finding, machine)

    async def release(
        self, lease: LeaseRow, why: Finding | str, machine: Machine | None = None
    ) -> LeaseRow:
        """Take a lease over that this broker does not hold, and start its release.

        Raises:
            StaleOwner: somebody else was quicker.
        """
        parts = self._parts
        now = parts.now()
        mine = parts.identity.id
        await self._supervisor.beat()
        was_open = lease.state.open
        lease = await parts.ledger.insist(
            lambda ledger: ledger.take_over(lease, mine, now, str(why))
        )
        if was_open and not lease.state.open:
            return lease  # it was proven gone since this sweep read its row
        if lease.state in HELD and why in (Finding.OWNER_DEAD, Finding.OWNER_MISSING):
            orphan = lease
            lease = await parts.ledger.insist(
                lambda ledger: ledger.move(orphan, LeaseState.ORPHANED, now, "orphaned", str(why))
            )
        if lease.state is LeaseState.REQUESTED:
            asked = lease
            lease = await parts.ledger.insist(
                lambda ledger: ledger.move(asked, LeaseState.UNKNOWN, now, "answer lost", str(why))
            )
        flagged = lease
        lease = await parts.ledger.insist(
            lambda ledger: ledger.request_release(flagged, now, str(why))
        )
        text = f"{lease.id} ({lease.title}, {lease.machine_id or 'no machine known'}): {why}"
        parts.emit(EventKind.FOUND, text, provider=lease.provider, lease_id=lease.id)
        self._supervisor.note_release(lease.id)
        self._supervisor.start(self._finish, lease, machine)
        return lease

    async def _finish(self, lease: LeaseRow, machine: Machine | None) -> None:
        parts = self._parts

        def on_change(_: LeaseRow) -> None:
            return None

        try:
            if lease.state in (LeaseState.RELEASED, LeaseState.REFUSED):
                # Listed again after it was closed: its mark is ours, so it goes once more.
                assert machine is not None
                lease = await found(parts, lease, machine, on_change)
            elif lease.state in (LeaseState.UNKNOWN, LeaseState.LATE_WATCH):
                if machine is not None:
                    lease = await found(parts, lease, machine, on_change)
                else:
                    lease, machine = await resolve_unknown(parts, lease, on_change)
            if machine is None and lease.machine_id is not None:
                machine = Machine(id=lease.machine_id, provider=lease.provider)
            if machine is not None and lease.state.open:
                await release_machine(parts, lease, machine, on_change)
        except StaleOwner as error:
            parts.emit(EventKind.FOUND, str(error), lease_id=lease.id)
        finally:
            self._releasing.discard(lease.id)
            self._released.set()

    async def finish(self) -> None:
        """Wait for the first sweep, and for every release that sweeps have started."""
        await self.done.wait()
        while self._releasing:
            self._released = anyio.Event()
            await self._released.wait()
        await self.spending.look()


async def _answers(hold: Hold) -> bool:
    """Whether a machine that is not listed is there all the same."""
    return hold.link is not None and await hold.link.answers(hold.provider, hold.machine)


def _loss(machine: Machine | None, *, spot: bool) -> ProviderError:
    """What the loss of a machine in use says of the offer that it came from."""
    if machine is None:
        text = "the machine vanished"
    else:
        said = f": {machine.progress}" if machine.progress else ""
        text = f"the machine is {machine.state}{said}"
    if spot and machine is not None and machine.state is MachineState.STOPPED:
        return ProviderError(text, kind=ErrorKind.CAPACITY, scope=Scope.OFFER)
    return ProviderError(text, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)
