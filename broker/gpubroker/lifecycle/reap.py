"""Sweeps: compare a provider's machines with the ledger, and put right what is wrong.

The same pass runs at every broker start, every 30 s while leases are open, and in
``gpubroker reap``. It is safe to run any number of times, in any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from gpubroker.errors import (
    ErrorKind,
    LedgerError,
    ProviderError,
    Scope,
    StaleOwner,
)
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.readings import Reading
from gpubroker.lifecycle.release import (
    found,
    release_machine,
    resolve_unknown,
    watch_over,
)
from gpubroker.lifecycle.settling import Settling
from gpubroker.lifecycle.supervise import Supervisor
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.policy.backoff import delay
from gpubroker.policy.retry import Retry
from gpubroker.policy.sweeping import Finding, Scene, Verdict, brake, sweep
from gpubroker.policy.transitions import HELD

SWEEP_EVERY = 30.0
"""Seconds between two sweeps of a broker that has leases open."""


#: The same while a machine in use seems to be down: somebody may be waiting for its job.
_LOOK_AGAIN = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep of one provider found.

    Attributes:
        complete: whether the provider gave a complete list. If not, nothing was concluded.
        verdicts: everything that was found, strangers' machines included.
        started: ids of the leases whose release this sweep started.
    """

    provider: str
    complete: bool
    problem: str = ""
    verdicts: tuple[Verdict, ...] = ()
    started: tuple[str, ...] = ()


class Reaper:
    """Sweeps all providers of one open broker."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._settling = Settling(parts)
        self._doubted: dict[tuple[Finding, str], tuple[int, float]] = {}
        self._surplus: set[str] = set()
        self._releasing: set[str] = set()
        self._released = anyio.Event()
        self.done = anyio.Event()

    async def loop(self) -> None:
        """Sweep now, and then every 30 s while anything is open."""
        while True:
            try:
                if not self.done.is_set() or await self._anything_open():
                    await self.sweep_all()
                else:
                    await self._settling.settle_all()
            except LedgerError as error:
                self._parts.emit(EventKind.ALARM, f"a sweep failed: {error}")
            self.done.set()
            down = any(finding is Finding.DOWN for finding, _ in self._doubted)
            await anyio.sleep(_LOOK_AGAIN if down else SWEEP_EVERY)

    async def _anything_open(self) -> bool:
        return bool(await self._parts.ledger.insist(lambda ledger: ledger.leases(limit=1)))

    async def sweep_all(self) -> list[Swept]:
        """One pass over every provider, all at once; then what they billed is put on record."""
        results: list[Swept] = []

        async def one(name: str) -> None:
            results.append(await self.sweep(name))

        held = {
            lease.provider
            for lease in await self._parts.ledger.insist(lambda ledger: ledger.leases())
        }
        async with anyio.create_task_group() as tasks:
            for name, provider in self._parts.providers.items():
                # Without an account there is nothing to list, unless there was one.
                if "inventory" in provider.hooks and (provider.has_account or name in held):
                    tasks.start_soon(one, name)
        await self._settling.settle_all()
        return sorted(results, key=lambda swept: swept.provider)

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
        for verdict in acting:
            try:
                lease = await self._carry_out(verdict)
            except (StaleOwner, LedgerError) as error:
                parts.emit(EventKind.FOUND, str(error), provider=name)
                continue
            if lease is not None:
                started.append(lease.id)
        # What was not found again has cleared itself up.
        self._doubted = {
            key: n
            for key, n in self._doubted.items()
            if key in sure or key[1].split("/")[0] != name
        }
        at = reading.wall
        await parts.ledger.insist(lambda ledger: ledger.put_swept(name, at))
        return Swept(provider=name, complete=True, verdicts=tuple(verdicts), started=tuple(started))

    async def _scene(self, name: str, reading: Reading) -> Scene:
        parts = self._parts
        # What is in hand before the ledger is read or after it: a lease may be done in between.
        in_hand = {*self._supervisor.holds, *self._releasing}
        machines = list(reading.machines.values())
        marks = [str(mark) for m in machines if (mark := Mark.find(m.mark)) is not None]
        leases = await parts.ledger.insist(
            lambda ledger: [lease for lease in ledger.leases() if lease.provider == name]
        )
        owners = await parts.ledger.insist(lambda ledger: ledger.owners())
        closed = await parts.ledger.insist(
            lambda ledger: {
                mark: lease
                for mark in marks
                if (lease := ledger.lease_of_mark(mark)) is not None and not lease.state.open
            }
        )
        now = parts.now()
        return Scene(
            provider=name,
            facts=parts.providers[name].facts,
            machines=machines,
            read_at=reading.wall,
            leases=leases,
            closed=closed,
            alive=lambda lease: parts.identity.alive(owners.get(lease.owner), now),
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
        # Two looks in quick succession are one look.
        if scene.now - last >= scene.facts.absence_interval:
            times, last = times + 1, scene.now
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
                    self._supervisor.start(self._end_surplus, machine)
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
        lease = await parts.ledger.insist(
            lambda ledger: ledger.take_over(lease, mine, now, str(why))
        )
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
        self._releasing.add(lease.id)
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

    async def _end_surplus(self, machine: Machine) -> None:
        """Destroy a second machine of one intent. The lease has its own, and is left alone."""
        parts, failures = self._parts, 0
        text = f"{machine.id} is a second machine of one create; it is destroyed, its cost unknown"
        parts.emit(EventKind.ALARM, text, provider=machine.provider)
        while True:
            try:
                await parts.providers[machine.provider].release(machine)
            except ProviderError as error:
                failures += 1
                await anyio.sleep(delay(failures, parts.source, retry_after=error.retry_after))
            else:
                return

    async def finish(self) -> None:
        """Wait for the first sweep, and for every release that sweeps have started."""
        await self.done.wait()
        while self._releasing:
            self._released = anyio.Event()
            await self._released.wait()


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
