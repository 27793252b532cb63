"""Second machines of one create: destroyed, and put on record with what they cost."""

from __future__ import annotations

from contextlib import suppress

import anyio

from gpubroker.errors import ProviderError, StaleOwner
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.events import EventKind
from gpubroker.model.machines import Machine
from gpubroker.model.marks import Mark
from gpubroker.policy.backoff import delay


async def end_surplus(parts: Parts, machine: Machine) -> None:
    """Destroy a second machine of one intent. The lease has its own, and is left alone."""
    failures, seen = 0, parts.now()
    text = f"{machine.id} is a second machine of one create; it is destroyed"
    parts.emit(EventKind.ALARM, text, provider=machine.provider)
    while True:
        try:
            await parts.providers[machine.provider].release(machine)
        except ProviderError as error:
            failures += 1
            await anyio.sleep(delay(failures, parts.source, retry_after=error.retry_after))
        else:
            break
    hours = max(0.0, parts.now() - (machine.created_at or seen)) / 3600
    cost = "unknown" if machine.hourly is None else f"about {machine.hourly * hours}"
    await _note(parts, machine, f"{machine.id} was destroyed; its cost: {cost}")


async def _note(parts: Parts, machine: Machine, text: str) -> None:
    """Put it on record with the lease whose mark it carries, which counts no cost but its own."""
    mark = Mark.find(machine.mark)
    lease = await parts.ledger.insist(lambda ledger: ledger.lease_of_mark(str(mark)))
    if lease is not None:
        row, now = lease, parts.now()
        with suppress(StaleOwner):  # it is told all the same
            await parts.ledger.insist(lambda ledger: ledger.note(row, now, "surplus", text))
    id_ = None if lease is None else lease.id
    parts.emit(EventKind.ALARM, text, provider=machine.provider, lease_id=id_)
