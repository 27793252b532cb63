"""A lease that another process has rented, in this broker's hands."""

from __future__ import annotations

import anyio

from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.lease_files import KeptLease
from gpubroker.lifecycle.leasing.running import LetGo
from gpubroker.lifecycle.link import Link
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.leases import LeaseRow
from gpubroker.model.machines import Machine


def restored(
    parts: Parts,
    supervisor: Supervisor,
    taken: LeaseRow,
    kept: KeptLease,
    link: Link | None,
    machine: Machine | None = None,
) -> Hold:
    """See to a lease that has just become this broker's. Does not await.

    Args:
        link: the way to its machine, where that is reached over SSH.
        machine: as a listing shows it, where there is one at hand.
    """
    provider = parts.providers[taken.provider]
    hold = Hold(taken, provider, kept.offer, kept.image, now=parts.now())
    hold.life_ends = kept.ends_at or taken.deadline
    hold.machine = machine or Machine(id=taken.machine_id or "", provider=provider.name)
    hold.answered.set()
    if link is not None:
        hold.link, given_up = link, anyio.CancelScope()
        hold.use(given_up)
        supervisor.start(link.keep, given_up)
    supervisor.hold(hold)
    return hold


async def reached(parts: Parts, hold: Hold) -> None:
    """Return once there is a way to the machine; its deadline, or a sweep, ends the waiting.

    Raises:
        LetGo: this broker has let go of the lease meanwhile.
    """
    readings, provider = parts.readings[hold.row.provider], hold.provider
    with anyio.CancelScope() as given_up:
        hold.use(given_up)
        try:
            while "inventory" in provider.hooks:
                reading = await readings.next()
                machine = reading.find(hold.row.machine_id, hold.row.mark)
                if reading.error is not None or machine is None:
                    continue
                hold.machine = machine
                # It has run before: its log has shown all that it ever will.
                if hold.link is None or not await hold.link.reach(provider, machine, float("inf")):
                    return
        finally:
            hold.disuse(given_up)
    if hold.left:
        raise LetGo(hold.row.id)
