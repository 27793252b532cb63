"""Going on where a broker that is gone has left off: its lease, its running job, its result.

Safe to interrupt at any moment and to begin again, by anybody: the machine starts a job once,
its output is kept there from the first byte on, and outputs are put into place whole.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from gpubroker.errors import BrokerError, InvalidValue, LedgerError, MachineLost, StaleOwner
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.lease_files import KeptJob
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.lifecycle.leasing.restoring import reached, restored
from gpubroker.lifecycle.leasing.running import LetGo
from gpubroker.lifecycle.link import Link
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.events import EventKind
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow
from gpubroker.model.machines import Machine
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import Result
from gpubroker.policy.sweeping import can_be_adopted
from gpubroker.transport.job_io import OutputCallback

#: Seconds after which a folder whose lease never got a row is of no use to anybody.
_ROWLESS: Final = 86_400.0


class CannotAdopt(BrokerError):
    """A lease cannot be adopted here, and why."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A lease that was taken over with its running job."""

    hold: Hold
    job: KeptJob


class Adopter:
    """Adopts leases for one open broker."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._turn = anyio.Lock()

    async def adopt(self, lease: LeaseRow, why: str, machine: Machine | None) -> None:
        """Take an orphan over, and have its job's result delivered by a task of the broker's own.

        Raises:
            CannotAdopt, StaleOwner, BrokerClosed: as `_take` does.
        """
        async with self._turn:
            adopted = await self._take(lease, why, machine, unattended=True)
        self._supervisor.start(self._see_to, adopted)

    async def _take(
        self, lease: LeaseRow, why: str, machine: Machine | None = None, *, unattended: bool
    ) -> Adopted:
        """Make this broker the owner of a lease and its job. From here on the old one is stale.

        Args:
            unattended: nobody here waits for the job; a broker that closes leaves it running.

        Raises:
            CannotAdopt: it is for others, or for nobody, to go on with it. Nothing has changed.
            StaleOwner: somebody else was quicker.
            BrokerClosed: the broker is closing.
        """
        parts, now = self._parts, self._parts.now()
        provider, files = parts.providers.get(lease.provider), parts.files
        kept = None if files is None else files.lease(lease.id)
        job = None if files is None else files.job(lease.id)
        if not can_be_adopted(lease, now):
            raise CannotAdopt("no job runs on it that is to be adopted")
        if provider is None or not provider.facts.reattaches:
            raise CannotAdopt(f"{lease.provider} cannot go on with a job that another began")
        if kept is None or job is None:
            raise CannotAdopt("what is needed for that lies with the broker that rented it")
        self._supervisor.check_open()
        await self._supervisor.beat()
        detail = f"{why}: going on with {job.id}"
        mine = parts.identity.id
        link = Link.restore(kept, job) if provider.facts.ssh else None
        try:
            taken = await parts.ledger.insist(
                lambda ledger: ledger.take_over(lease, mine, now, detail)
            )
        except BaseException:
            if link is not None:
                link.discard()
            raise
        hold = restored(parts, self._supervisor, taken, kept, link, machine)
        hold.unattended = unattended
        text = f"{taken.id} ({taken.title}, {taken.machine_id}): {detail}"
        parts.emit(EventKind.FOUND, text, provider=taken.provider, lease_id=taken.id)
        return Adopted(hold, job)

    async def _see_to(self, adopted: Adopted) -> None:
        hold = adopted.hold
        try:
            lease = await self._lease(adopted, release_wait=0.0)
            await self._deliver(lease, adopted, keep_output=True)
        except LetGo:
            text = f"{adopted.job.id} is left running on {hold.row.id}; `gpubroker reap` goes on"
            self._tell(hold, EventKind.NOTE, text)
            return
        except StaleOwner as error:
            self._tell(hold, EventKind.FOUND, str(error))
        except MachineLost:
            pass  # said already, and nothing is left to be delivered
        except Exception as error:  # noqa: BLE001 - whatever it is, the machine costs money
            self._tell(hold, EventKind.ALARM, f"{adopted.job.id} was not delivered: {error}")
        self._supervisor.request_release(hold, f"{adopted.job.id} has been seen to its end")

    async def attach(
        self, lease: LeaseRow, release_wait: float, on_output: OutputCallback | None
    ) -> Result:
        """Take a lease over for somebody who waits for its job here, and give it up at the end.

        One that a sweep of this very broker has adopted is let go of first.

        Raises:
            CannotAdopt: it is for others, or for nobody, to go on with it.
            InvalidValue: its owner lives.
            StaleOwner: somebody else was quicker.
            MachineLost, ProviderError, OSError: there is no result.
        """
        async with self._turn:
            await self._check_orphaned(lease)
            now = await self._parts.ledger.insist(lambda ledger: ledger.lease(lease.id))
            adopted = await self._take(now or lease, "attached to", unattended=False)
        handle = await self._lease(adopted, release_wait=release_wait)
        async with handle:
            result = await self._deliver(handle, adopted, on_output=on_output)
        return handle.final(result)

    async def _check_orphaned(self, lease: LeaseRow) -> None:
        """Make sure that nobody waits for a lease's job."""
        parts, holds = self._parts, self._supervisor.holds
        mine = holds.get(lease.id)
        if mine is None:
            owners = await parts.ledger.insist(lambda ledger: ledger.owners())
            if parts.identity.alive(owners.get(lease.owner), parts.now()):
                raise InvalidValue("lease", lease.id, "its owner lives, and goes on with it")
        elif mine.unattended and mine.release_reason is None:
            mine.leave()
            del holds[lease.id]
        else:
            raise InvalidValue("lease", lease.id, "this broker holds it itself")

    async def _lease(self, adopted: Adopted, *, release_wait: float) -> AsyncLease:
        """An adopted lease, as its user sees it."""
        hold, request = adopted.hold, adopted.hold.row.request_id
        record = await self._parts.ledger.insist(lambda ledger: ledger.record(request))
        return AsyncLease(
            self._parts,
            self._supervisor,
            hold,
            requirements=Requirements(),
            record=record or DecisionRecord(id=request, wanted="", asked_at=hold.row.created_at),
            acquire_seconds=0.0,
            release_wait=release_wait,
        )

    async def _deliver(
        self,
        lease: AsyncLease,
        adopted: Adopted,
        *,
        on_output: OutputCallback | None = None,
        keep_output: bool = False,
    ) -> Result:
        """Follow the job from its first byte of output to its end, and have its result safe.

        Raises:
            LetGo: this broker has let go of the lease.
            LeaseReleased, MachineLost, ProviderError, StaleOwner, OSError: there is no result.
        """
        hold, kept = adopted.hold, adopted.job
        await reached(self._parts, hold)
        job = Job(
            [kept.title],
            outputs=kept.outputs,
            output_dir=kept.output_dir,
            timeout=kept.timeout,
            output_limit=kept.output_limit,
        )
        result = await lease.go_on(kept.id, job, on_output=on_output, keep_output=keep_output)
        text = f"{kept.id}: {result.failure or 'exit code 0'}"
        if result.files or keep_output:
            text += f"; its files are in {kept.output_dir}"
        row, at = hold.row, self._parts.now()
        try:
            hold.update(
                await self._parts.ledger(lambda ledger: ledger.note(row, at, "delivered", text))
            )
        except LedgerError as error:
            self._tell(hold, EventKind.ALARM, f"the delivery could not be recorded: {error}")
        self._tell(hold, EventKind.FOUND, f"delivered {text}")
        return result

    def _tell(self, hold: Hold, kind: EventKind, text: str) -> None:
        self._parts.emit(kind, text, provider=hold.row.provider, lease_id=hold.row.id)


def tidy(parts: Parts) -> None:
    """Remove what was kept for the heirs of leases that are over."""
    now = parts.now()
    for lease_id, made_at in () if parts.files is None else parts.files.made():
        with suppress(LedgerError):
            lease = parts.ledger.at_once(partial(Ledger.lease, lease_id=lease_id))
            # One without a row may be about to get it.
            over = now - made_at > _ROWLESS if lease is None else not lease.state.open
            if over and parts.files is not None:
                parts.files.remove(lease_id)
