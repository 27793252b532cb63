"""The supervisor: sends creates and carries out releases, in tasks that no caller's scope owns.

A caller that is cancelled, interrupted or gone leaves a create that still gets its answer, and a
release that still gets done. Only closing the broker ends these tasks, and only after its time.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVarTuple

import anyio
from anyio.abc import TaskGroup

from gpubroker.errors import (
    BrokerClosed,
    CreateUnknown,
    LedgerError,
    ProviderError,
    StaleOwner,
)
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.owner import HEARTBEAT, OWNER_TTL
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.release import found, release_machine, resolve_unknown
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Machine, Order
from gpubroker.model.money import Money

Arguments = TypeVarTuple("Arguments")
Columns = Mapping[str, float | str | Money | None]


JUMP = 5.0
"""Seconds of difference between two clocks that are no drift any more."""

#: Seconds between two looks at the wall clock: timers do not count while a computer sleeps.
_CLOCK_CHECK = 5.0
#: What an intent becomes that somebody takes for one of which nothing came.
_CLOSED = (LeaseState.LATE_WATCH, LeaseState.RELEASED)


#: Seconds after which a machine that the ledger cannot be told of is given up.
_UNTOLD = 30.0


def _unheard(_: LeaseRow) -> None:
    """Nobody here holds the lease any more."""


def _named(failure: ProviderError | None, provider: str) -> Machine | None:
    """The machine that a refusal names all the same."""
    if failure is None or failure.machine_id is None:
        return None
    return Machine(id=failure.machine_id, provider=provider)


class Supervisor:
    """Owns every create in flight and every release under way of one broker.

    Attributes:
        holds: the leases in hand, by id.
        lost: ids of those that other processes have taken over.
        jumped: set, and then replaced, when the wall clock has jumped.
        ever_held: how many leases have been held here by now.
    """

    def __init__(self, parts: Parts, tasks: TaskGroup) -> None:
        self._parts = parts
        self._tasks = tasks
        #: In the order in which they were started, as they are ended.
        self._scopes: dict[anyio.CancelScope, None] = {}
        self._releases = 0
        self.closing = False
        self._idle = anyio.Event()
        self._changed = anyio.Event()
        self._occupied = anyio.Event()
        self._beat = 0.0
        self.jumped = anyio.Event()
        self.ever_held = 0
        self.holds: dict[str, Hold] = {}
        self.lost: set[str] = set()
        #: Ids of leases of others that this broker has taken over and is releasing.
        self.releasing: set[str] = set()

    # ---- background tasks -----------------------------------------------------------------

    def start(
        self, function: Callable[[*Arguments], Awaitable[object]], *arguments: *Arguments
    ) -> None:
        """Run `function` in a task that only `close` ends. Does not await."""
        self._tasks.start_soon(self._shielded, function, arguments)

    async def _shielded(
        self, function: Callable[[*Arguments], Awaitable[object]], arguments: tuple[*Arguments]
    ) -> None:
        with anyio.CancelScope(shield=True) as scope:
            self._scopes[scope] = None
            try:
                await function(*arguments)
            except Exception as error:  # noqa: BLE001 - one task's fault must not end the others
                problem = f"{type(error).__name__}: {error}"
                self._parts.emit(EventKind.ALARM, f"{function.__name__} failed: {problem}")
            finally:
                del self._scopes[scope]

    def close(self, patience: float, last: Callable[[], Awaitable[None]]) -> None:
        """Release everything but jobs that others go on with, and end all tasks once that is done or `patience` seconds are over.

        Does not await. What is not proven gone by then stays on record for the next sweep.

        Args:
            last: what else should come to its end; it gets a few seconds.
        """
        self.closing = True
        for hold in tuple(self.holds.values()):
            if hold.unattended and hold.release_reason is None:
                hold.leave()
                del self.holds[hold.row.id]
            else:
                self.request_release(hold, "the broker is closing")
        self._tasks.start_soon(self._end, patience, last)

    async def _end(self, patience: float, last: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope(shield=True):
            try:
                with anyio.move_on_after(patience):
                    while self._releases:
                        self._idle = anyio.Event()
                        await self._idle.wait()
                with anyio.move_on_after(min(patience, 5.0)):
                    await last()
                # Where the ledger cannot be had, the row expires by itself.
                with anyio.move_on_after(2.0):
                    await self._sign_off()
            finally:
                if self.holds:
                    left = ", ".join(f"{h.row.id} ({h.row.state})" for h in self.holds.values())
                    text = (
                        f"closing before these were proven gone: {left}; `gpubroker reap` goes on"
                    )
                    self._parts.emit(EventKind.ALARM, text)
                for hold in self.holds.values():
                    hold.wait_no_more()
                for scope in tuple(self._scopes):
                    scope.cancel()

    async def _sign_off(self) -> None:
        """Say on record that this broker holds nothing any more."""
        if self._beat > 0:
            owner = self._parts.identity.row(self._parts.now(), closed=True)
            await self._parts.ledger.insist(lambda ledger: ledger.put_owner(owner))

    # ---- creates --------------------------------------------------------------------------

    def create(self, hold: Hold, order: Order) -> None:
        """Send the one create of `hold`. Does not await; ``hold.answered`` tells when to look.

        Raises:
            BrokerClosed: the broker is closing: nobody would give the machine up again.
        """
        self.check_open()
        self.hold(hold)
        self.start(self._create, hold, order)

    def hold(self, hold: Hold) -> None:
        """See to it from now on that it is given up at its deadline, or at our end."""
        self.holds[hold.row.id] = hold
        self.ever_held += 1
        self.lost.discard(hold.row.id)  # it may have been ours before
        self._changed.set()
        self._occupied.set()

    def note_release(self, lease_id: str) -> None:
        """Count a lease of another's as one that is being released here, until it is discarded."""
        self.releasing.add(lease_id)
        self._occupied.set()

    async def occupied(self) -> None:
        """Return once a lease is held or released here: until then there is nothing to watch over."""
        while not (self.holds or self.releasing):
            if self._occupied.is_set():
                self._occupied = anyio.Event()
            await self._occupied.wait()

    def let_go(self, hold: Hold) -> None:
        """Another process has taken it over: it is theirs, with all that runs on it. Does not await."""
        hold.leave()
        hold.wait_no_more()
        self.lost.add(hold.row.id)
        self.holds.pop(hold.row.id, None)

    def check_open(self) -> None:
        """Nothing may be rented any more once closing has begun.

        Raises:
            BrokerClosed: it has.
        """
        if self.closing:
            raise BrokerClosed("the broker is closing")

    async def _create(self, hold: Hold, order: Order) -> None:
        machine: Machine | None = None
        try:
            try:
                machine = await hold.provider.provision(hold.offer, order)
            except ProviderError as error:
                hold.failure = error
            await self._record_answer(hold, machine)
        except StaleOwner:
            # Somebody took us for dead and closed the intent; nobody else knows this machine yet.
            if machine is not None:
                await self._abandon(hold, machine)
        finally:
            hold.answered.set()
            if hold.row.state is LeaseState.REFUSED:
                self.holds.pop(hold.row.id, None)

    async def _record_answer(self, hold: Hold, machine: Machine | None) -> None:
        lease, now, failure = hold.row, self._parts.now(), hold.failure
        text = "" if failure is None else str(failure)
        columns: Columns
        if machine is not None:
            target, kind = LeaseState.PROVISIONING, "accepted"
            text, columns = machine.id, {"machine_id": machine.id, "accepted_at": now}
        elif failure is not None and failure.machine_id is not None:
            target, kind = LeaseState.RELEASING, "refused, yet made"
            columns = {
                "machine_id": failure.machine_id,
                "accepted_at": now,
                "release_requested_at": now,
                "release_reason": text,
            }
        elif isinstance(failure, CreateUnknown):
            target, kind, columns = LeaseState.UNKNOWN, "answer lost", {"problem": text}
        else:
            target, kind = LeaseState.REFUSED, "refused"
            columns = {"ended_at": now, "reserved": Money(0), "problem": text}
        told = anyio.CancelScope()
        made = machine or _named(failure, lease.provider)
        if made is not None:
            self.start(self._give_up_untold, hold, made, told)
        try:
            hold.update(
                await self._parts.ledger.insist(
                    lambda ledger: ledger.move(lease, target, now, kind, text, **columns)
                )
            )
        finally:
            told.cancel()
        hold.machine = machine

    async def _give_up_untold(self, hold: Hold, machine: Machine, told: anyio.CancelScope) -> None:
        """A machine that the ledger cannot be told of is not kept: nobody else knows of it."""
        with told:
            while True:
                await anyio.sleep(_UNTOLD)
                self.request_release(hold, "the ledger cannot be written")
                await self._destroy_anyway(hold, machine)

    async def _abandon(self, hold: Hold, machine: Machine) -> None:
        """Give a machine up whose intent somebody else has closed meanwhile, and book its cost."""
        parts, now, mine = self._parts, self._parts.now(), self._parts.identity.id
        row = await parts.ledger.insist(lambda ledger: ledger.lease(hold.row.id))
        if row is not None and row.machine_id is None and row.state in _CLOSED:
            closed = row
            with suppress(StaleOwner):
                taken = await parts.ledger.insist(
                    lambda ledger: ledger.take_over(closed, mine, now, "answered late")
                )
                taken = await found(parts, taken, machine, _unheard)
                await release_machine(parts, taken, machine, _unheard)
                return
        while True:
            try:
                await hold.provider.release(machine)
            except ProviderError:
                await anyio.sleep(5.0)
            else:
                return

    # ---- releases -------------------------------------------------------------------------

    def request_release(self, hold: Hold, reason: str) -> None:
        """Ask for a release. Does not await: first in memory, then, if it can be had, durably.

        Where the ledger is held by another process for too long, the request is written by the
        task that carries it out. Asking again changes nothing.
        """
        if hold.release_reason is not None:
            return
        hold.release_reason = reason
        if not self._parts.identity.here:
            return  # the child of a fork leaves what its parent holds to its parent
        # First the task, then the record: whatever interrupts the latter, the former goes on.
        self._releases += 1
        try:
            self.start(self._release, hold)
        except RuntimeError:
            # The loop is ending and takes no task any more: whoever sweeps next goes on.
            self._releases -= 1
            hold.wait_no_more()
        hold.interrupt()
        lease, now = hold.row, self._parts.now()
        with suppress(LedgerError, BrokerClosed):  # `_release` insists on it
            hold.update(
                self._parts.ledger.at_once(
                    lambda ledger: ledger.request_release(lease, now, reason)
                )
            )
        if hold.row.state is LeaseState.REFUSED:
            return
        self._parts.emit(
            EventKind.RELEASING, reason, provider=hold.row.provider, lease_id=hold.row.id
        )

    async def drain(self, hold: Hold, reason: str) -> None:
        """Give a lease up as soon as no job runs on it: at once, or when its job has ended."""
        if hold.row.state is not LeaseState.BUSY:
            self.request_release(hold, reason)
            return
        # In memory first: the job may end while the record is written.
        hold.drain_reason = hold.drain_reason or reason
        lease, now = hold.row, self._parts.now()
        with suppress(LedgerError):
            await self._parts.ledger(lambda ledger: ledger.request_drain(lease, now, reason))

    async def _release(self, hold: Hold) -> None:
        try:
            await hold.answered.wait()
            if not hold.row.state.open:
                return
            machine = hold.machine
            # Until its idle limit another process may take it rightly.
            shared = (hold.row.idle_until or 0.0) - self._parts.now() if hold.row.parked else 0.0
            with anyio.move_on_after(max(5.0, shared)) as patience:
                await self.write_request(hold)
            if patience.cancelled_caught:
                if machine is not None and not await self._may_be_adopted(hold):
                    await self._destroy_anyway(hold, machine)
                await self.write_request(hold)
            if hold.row.state is LeaseState.UNKNOWN:
                _, machine = await resolve_unknown(self._parts, hold.row, hold.update)
                if machine is None:
                    return
                await self.write_request(hold)
            elif machine is None and hold.row.machine_id is not None:
                machine = Machine(id=hold.row.machine_id, provider=hold.row.provider)
            if machine is not None:
                await release_machine(self._parts, hold.row, machine, hold.update)
        except StaleOwner as error:
            self._parts.emit(EventKind.FOUND, str(error), lease_id=hold.row.id)
            current = await self._parts.ledger.insist(lambda ledger: ledger.lease(hold.row.id))
            # As it is, but not as if it were ours: with their epoch we could write again.
            hold.update(replace(current or hold.row, epoch=hold.row.epoch))
            hold.wait_no_more()
            self.lost.add(hold.row.id)
            self.holds.pop(hold.row.id, None)
        finally:
            self._releases -= 1
            if hold.done:
                self.holds.pop(hold.row.id, None)
            self._idle.set()

    async def _may_be_adopted(self, hold: Hold) -> bool:
        """Whether somebody may rightly take the lease for theirs by now, or has."""
        heard = abs(self._parts.now() - self._beat) < OWNER_TTL
        if hold.row.on_owner_death == "adopt" and not heard:
            return True
        if not hold.row.pool or hold.row.state is not LeaseState.IDLE:
            return False
        try:
            row = await self._parts.ledger(lambda ledger: ledger.lease(hold.row.id))
        except LedgerError as error:
            text = f"whether it is still ours cannot be read, so it may bill: {error}"
            self._parts.emit(EventKind.ALARM, text, lease_id=hold.row.id)
            return True
        return row is None or row.epoch != hold.row.epoch

    async def _destroy_anyway(self, hold: Hold, machine: Machine) -> None:
        """The ledger cannot be written, but the machine can be given up: it would bill on."""
        text = f"the ledger cannot be written; destroying {machine.id} all the same"
        self._parts.emit(EventKind.ALARM, text, lease_id=hold.row.id)
        with suppress(ProviderError):
            await hold.provider.release(machine)

    async def write_request(self, hold: Hold) -> None:
        """Have the request on record, however long the ledger is held by others."""
        lease, reason, asked_at = hold.row, hold.release_reason or "", self._parts.now()
        hold.update(
            await self._parts.ledger.insist(
                lambda ledger: ledger.request_release(lease, asked_at, reason)
            )
        )

    # ---- watching over what is held -------------------------------------------------------

    async def watch(self) -> None:
        """End what is past its deadline. Waits for nothing but time; while nothing is held, not at all.

        A lifetime is over by the wall clock, which goes on while a computer sleeps, or by the event
        loop's, which nobody can set back: whichever is first.
        """
        ahead = self._parts.now() - anyio.current_time()
        while True:
            now, running = self._parts.now(), anyio.current_time()
            jumped, ahead = now - running - ahead, now - running
            if abs(jumped) > JUMP:
                self._notice_jump(jumped)
                if any(hold.row.pool for hold in self.holds.values()):
                    # Its life may go on: only its reservation is renewed step by step.
                    await anyio.sleep(JUMP)
                    now, running = self._parts.now(), anyio.current_time()
            for hold in tuple(self.holds.values()):
                if now >= hold.row.deadline or running >= hold.ends_at:
                    self.request_release(hold, "its lifetime is over")
            ends = [
                min(h.row.deadline - now, h.ends_at - running)
                for h in self.holds.values()
                if not h.release_reason
            ]
            self._changed = anyio.Event()
            pause = max(0.05, min([_CLOCK_CHECK, *ends])) if self.holds else math.inf
            with anyio.move_on_after(pause):
                await self._changed.wait()

    def _notice_jump(self, seconds: float) -> None:
        """The computer has slept, or its clock was set: everything is looked at anew, at once."""
        self._parts.emit(EventKind.NOTE, f"the wall clock has jumped by {seconds:+.0f} s")
        jumped, self.jumped = self.jumped, anyio.Event()
        jumped.set()

    async def keep_alive(self) -> None:
        """While leases are held, say so on record, and notice those that were taken over."""
        while True:
            await self.occupied()
            try:
                await self.beat()
                await self._notice_losses()
            except LedgerError as error:
                self._parts.emit(EventKind.ALARM, f"no sign of life could be left: {error}")
            with anyio.move_on_after(HEARTBEAT):
                await self.jumped.wait()

    async def _notice_losses(self) -> None:
        """Let go of leases that another process has taken over, or asked to be given up."""
        owner = self._parts.identity.id
        undisturbed = await self._parts.ledger.insist(lambda ledger: ledger.undisturbed(owner))
        for hold in tuple(self.holds.values()):
            going = hold.release_reason is not None
            if going or undisturbed.get(hold.row.id) == hold.row.epoch:
                continue
            row = await self._row(hold.row.id)
            taken = row is None or row.epoch != hold.row.epoch
            if taken and hold.row.parked:
                self.let_go(hold)
            elif row is None or taken:
                hold.lost = hold.lost or bool(hold.row.pool)  # its job may be started elsewhere
                self.request_release(hold, "another process has taken it over")
            elif row.release_requested_at is not None:
                self.request_release(hold, row.release_reason)
            elif row.drain_reason:
                await self.drain(hold, row.drain_reason)

    async def _row(self, lease_id: str) -> LeaseRow | None:
        return await self._parts.ledger.insist(lambda ledger: ledger.lease(lease_id))

    async def beat(self, *, insist: bool = True) -> None:
        """Say on record that this broker lives, if that was not said just now.

        A lease whose owner is not on record would be taken for an orphan, so this comes first.

        Args:
            insist: however long it takes. What is not rented yet is worth no such patience.

        Raises:
            LedgerError: without `insist`: the ledger cannot be written.
        """
        if abs(self._parts.now() - self._beat) < HEARTBEAT:
            return
        now = self._parts.now()
        owner = self._parts.identity.row(now)
        write = self._parts.ledger.insist if insist else self._parts.ledger.__call__
        await write(lambda ledger: ledger.put_owner(owner))
        self._beat = now
