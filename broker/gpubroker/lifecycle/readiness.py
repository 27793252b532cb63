"""Wait for a machine to come up, and make sure that it is what was ordered."""

from __future__ import annotations

import anyio

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.events import EventKind
from gpubroker.model.machines import Machine, MachineState


async def wait_until_running(parts: Parts, hold: Hold) -> None:
    """Return once the provider says that the machine runs, at the price that was agreed.

    A free provider's machine is ready when ``provision`` returns.

    Raises:
        ProviderError: it broke, vanished, made no progress for the provider's boot time-out, or
            costs more than agreed.
    """
    facts = hold.provider.facts
    if not facts.paid:
        return
    progress, since, absent = "", anyio.current_time(), 0
    while True:
        reading = await parts.readings[hold.provider.name].next()
        machine = reading.find(hold.row.machine_id, hold.row.mark)
        if reading.error is not None:
            if reading.error.kind is ErrorKind.AUTH:
                raise reading.error
        elif machine is None:
            visible = reading.wall - hold.row.created_at >= facts.visibility_horizon
            absent = absent + 1 if visible else 0
            if absent >= facts.absence_readings:
                raise _broken("the machine vanished while it booted")
        else:
            absent = 0
            hold.machine = machine
            if machine.progress != progress:
                progress, since = machine.progress, anyio.current_time()
                parts.emit(
                    EventKind.BOOTING, progress, provider=hold.provider.name, lease_id=hold.row.id
                )
            if machine.state is MachineState.RUNNING:
                await _check_price(parts, hold, machine)
                return
            if machine.state in (MachineState.BROKEN, MachineState.STOPPED):
                raise _broken(
                    f"the machine is {machine.state}: {machine.progress or 'no reason given'}"
                )
        if anyio.current_time() - since > facts.boot_timeout:
            raise _broken(f"no progress for {facts.boot_timeout:g} s while booting")


async def _check_price(parts: Parts, hold: Hold, machine: Machine) -> None:
    """Book the delivered price; one above the agreed one is not accepted."""
    agreed = hold.offer.price.hourly
    if machine.hourly is None or machine.hourly <= agreed:
        return
    lease, delivered = hold.row, machine.hourly
    text = f"agreed on {agreed}/h, delivered at {delivered}/h"
    hold.update(
        await parts.ledger(
            lambda ledger: ledger.note(lease, parts.now(), "price rose", text, hourly=delivered)
        )
    )
    raise ProviderError(f"the price rose: {text}", kind=ErrorKind.CAPACITY, scope=Scope.OFFER)


def _broken(message: str) -> ProviderError:
    return ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)
