"""The hooks of the local provider, in the order in which the broker calls them."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from anyio import to_thread

from gpubroker import (
    Emit,
    ErrorKind,
    Job,
    JobIO,
    JobState,
    Machine,
    MachineState,
    Offer,
    Order,
    Outcome,
    Price,
    ProviderError,
    ProviderFacts,
    Requirements,
    Scope,
    TrustTier,
    hookimpl,
)
from gpubroker_local import ending, host, processes
from gpubroker_local.cards import Card, read_cards, simulated_cards
from gpubroker_local.environment import basic_environment, job_environment, ownership
from gpubroker_local.files import fetch, in_pieces, place
from gpubroker_local.jobs import JobFolder
from gpubroker_local.leases import LeaseExists, LeaseFolder, LeaseFolders, LeaseRecord, is_plain
from gpubroker_local.locks import CardLocks
from gpubroker_local.options import Options
from gpubroker_local.spawn import bury_all, start_runner, wait_ready


class LocalProvider:
    """This machine, as a provider."""

    def __init__(self, options: Options, emit: Emit) -> None:
        self.facts = ProviderFacts(
            paid=False,
            trust=TrustTier.OWN,
            runs_images=options.images,
            visibility_horizon=0.0,
            absence_readings=1,
            absence_interval=0.0,
            late_create_watch=0.0,
            boot_timeout=30.0,
            poll_interval=0.05,
            release_margin=5.0,
            stopping_bills=False,
            mark_limit=200,
            loopback=True,
            reattaches=True,
        )
        self._options = options
        self._leases = LeaseFolders(options.directory)
        self._locks = CardLocks(options.lock_directory)
        self._cards: list[Card] = []
        if sys.platform != "linux":
            emit(
                "limited",
                "on this system a release ends only what stayed in its job's process group",
            )

    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        """What this machine can do now; nothing if all cards are taken."""
        if requirements.count is None:
            return [self._offer("cpu", [])]
        count = int(requirements.count.low or 1)
        models: dict[tuple[str, float | None], list[Card]] = {}
        for card in await self._usable_cards():
            models.setdefault((card.gpu, card.vram), []).append(card)
        offers: list[Offer] = []
        for (gpu, vram), cards in models.items():
            async with self._locks.picking():
                free = [card for card in cards if self._locks.is_free(card.uuid)]
            if len(free) >= count:
                offers.append(self._offer(f"{count}x {gpu} {vram or 0:g}GB", free[:count]))
        return offers

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Start a lease's runner; the machine is ready when this returns."""
        if not is_plain(order.lease_id):
            raise _refused(f"lease id {order.lease_id!r} cannot be the name of a folder")
        held = await self._take_cards(offer)
        record = LeaseRecord(
            mark=order.mark,
            created_at=time.time(),
            deadline=order.deadline,
            gpu=offer.gpu,
            cards=tuple(held),
            simulated=offer.simulated,
            env=dict(order.env),
        )
        try:
            lease, pid, ready = self._start(order.lease_id, record, list(held.values()))
        finally:
            for descriptor in held.values():
                os.close(descriptor)
        try:
            await wait_ready(lease, ready)
        except ProviderError:
            await ending.end(lease, pid)
            raise
        finally:
            os.close(ready)
        return _machine(lease, record.mark, MachineState.RUNNING, record)

    @hookimpl
    async def inventory(self) -> list[Machine]:
        """Every lease of which anything lives, by the process table: one reading is proof."""
        bury_all()
        try:
            return await to_thread.run_sync(self._present)
        except OSError as problem:
            raise _unusable("the leases cannot be listed", problem) from problem

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        """Run a job in a folder of its own, or follow it if another process has started it."""
        lease = self._leases.named(machine.id)
        record = lease.record() if lease else None
        if lease is None or record is None or lease.runner() is None:
            raise ProviderError(
                f"there is no lease {machine.id} on this machine any more",
                kind=ErrorKind.HOST_BROKEN,
                scope=Scope.HOST,
            )
        if not is_plain(io.job_id):
            raise _refused(f"job id {io.job_id!r} cannot be the name of a folder")
        files = JobFolder(lease, io.job_id, in_home=io.in_home)
        try:
            if not files.was_submitted:
                if io.begun:
                    return Outcome(state=JobState.LOST, message="the job was never started")
                await self._submit(files, record, job, io)
            outcome = await files.follow(io)
        except BaseException:
            if not io.leave_running:
                files.cancel()
            raise
        if job.outputs:
            await in_pieces(fetch(job.outputs, files.folder, io))
        return outcome

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """End everything that belongs to the lease, whoever started it, and delete its folder."""
        lease = self._leases.named(machine.id)
        if lease is not None:
            await ending.end(lease, lease.runner() or 0)

    # ----------------------------------------------------------------------------------------

    async def _usable_cards(self) -> list[Card]:
        """The cards that no process of a lease uses without a lock: jobs may close theirs."""
        cards = await self._all_cards()
        used = await to_thread.run_sync(_cards_in_use) if cards else set[str]()
        return [card for card in cards if card.uuid not in used]

    async def _all_cards(self) -> list[Card]:
        if not self._cards:
            if self._options.simulate:
                self._cards = simulated_cards(self._options.simulate, self._options.directory)
            else:
                self._cards = await to_thread.run_sync(read_cards, abandon_on_cancel=True)
        return self._cards

    def _offer(self, offer_id: str, cards: list[Card]) -> Offer:
        card = cards[0] if cards else None
        return Offer(
            id=offer_id,
            price=Price(machine=self._options.price),
            gpu=card.gpu if card else None,
            count=len(cards),
            vram=card.vram if card else None,
            compute_capability=card.compute_capability if card else None,
            cuda=card.cuda if card else None,
            cpus=float(host.processors()),
            ram=host.memory(),
            disk=host.free_disk(self._options.directory),
            region="local",
            trust=TrustTier.OWN,
            host=platform.node(),
            simulated=bool(card and card.simulated),
            extra={"cards": ",".join(card.uuid for card in cards)},
        )

    async def _take_cards(self, offer: Offer) -> dict[str, int]:
        """Lock as many cards as the offer has: the ones it names, or others just like them."""
        if not offer.count:
            return {}
        named = offer.extra.get("cards", "").split(",")
        alike = [
            card.uuid
            for card in await self._usable_cards()
            if (card.gpu, card.vram) == (offer.gpu, offer.vram)
        ]
        async with self._locks.picking():
            held = self._locks.take(sorted(alike, key=lambda uuid: uuid not in named), offer.count)
        if held is None:
            raise ProviderError(
                f"{offer.title} is taken", kind=ErrorKind.CAPACITY, scope=Scope.OFFER
            )
        return held

    def _start(
        self, lease_id: str, record: LeaseRecord, held: list[int]
    ) -> tuple[LeaseFolder, int, int]:
        try:
            lease, lock = self._leases.create(lease_id, record)
        except LeaseExists as problem:
            raise _refused(str(problem)) from problem
        except OSError as problem:
            raise _unusable("no lease can be made", problem) from problem
        try:
            env = {**basic_environment(), **ownership(lease, record)}
            pid, ready = start_runner(lease, env, deadline=record.deadline, lock=lock, cards=held)
        except OSError as problem:
            lease.remove()
            raise _unusable("no lease can be made", problem) from problem
        finally:
            os.close(lock)
        return lease, pid, ready

    async def _submit(self, files: JobFolder, record: LeaseRecord, job: Job, io: JobIO) -> None:
        env = job_environment(
            files.lease,
            record,
            job_id=io.job_id,
            wanted=io.env,
            passed_on=self._options.pass_env,
        )
        try:
            await to_thread.run_sync(files.discard_earlier, io.beside.split())
            files.make()
            if job.files:
                await in_pieces(place(job.files, files.folder))
            files.submit(job.argv, env, timeout=job.timeout, limit=job.output_limit)
        except OSError as problem:
            raise ProviderError(
                f"the job cannot be placed: {problem.strerror or problem}",
                kind=ErrorKind.HOST_BROKEN,
                scope=Scope.HOST,
            ) from problem

    def _present(self) -> list[Machine]:
        """Locks first, processes after: what a runner started before it died is still seen."""
        machines: list[Machine] = []
        dead: dict[str, LeaseFolder] = {}
        for lease in self._leases.all():
            if lease.runner() is None:
                dead[str(lease.path)] = lease
            else:
                record = lease.record()
                mark = record.mark if record else None
                machines.append(_machine(lease, mark, MachineState.RUNNING, record))
        seen = {str(self._leases.directory / machine.id) for machine in machines}
        for _, owned in processes.marked():
            path = Path(owned[processes.FOLDER])
            if path.parent == self._leases.directory and str(path) not in seen:
                seen.add(str(path))
                dead.pop(str(path), None)
                lease = LeaseFolder(path)
                mark = owned.get(processes.MARK)
                machines.append(_machine(lease, mark, MachineState.BROKEN, lease.record()))
        for lease in dead.values():
            lease.remove()
        self._leases.clear_accidents()
        return machines


def _machine(
    lease: LeaseFolder, mark: str | None, state: MachineState, record: LeaseRecord | None
) -> Machine:
    details: Mapping[str, str] = {"folder": str(lease.path)}
    if record and record.cards:
        details = {**details, "cards": ",".join(record.cards)}
    return Machine(
        id=lease.id,
        state=state,
        mark=mark,
        created_at=record.created_at if record else None,
        host=platform.node(),
        details=details,
    )


def _refused(message: str) -> ProviderError:
    return ProviderError(message, kind=ErrorKind.BAD_REQUEST, scope=Scope.OFFER)


def _unusable(what: str, problem: OSError) -> ProviderError:
    place = f" ({problem.filename})" if problem.filename else ""
    return ProviderError(
        f"{what}: {problem.strerror or problem}{place}",
        kind=ErrorKind.HOST_BROKEN,
        scope=Scope.PROVIDER,
    )


def _cards_in_use() -> set[str]:
    """Cards of leases that live on without a lock: a job may close what it inherited."""
    used: set[str] = set()
    for _, owned in processes.marked():
        used.update(owned.get(processes.CARDS, "").split(","))
    return used - {""}
