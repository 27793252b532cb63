"""After the loss of a ledger: machines that carry a mark, but are in it no more."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpubroker.errors import InvalidValue
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.reaping.reap import Reaper
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.marks import Mark
from gpubroker.model.money import Money
from gpubroker.policy.strays import Stray, strays
from gpubroker.policy.sweeping import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found at all providers.

    Attributes:
        found: machines with a mark that the ledger has no lease for.
        problems: by provider, why it gave no complete list; nothing was concluded of it.
    """

    found: list[Stray] = field(default_factory=list[Stray])
    problems: dict[str, str] = field(default_factory=dict[str, str])


async def search(parts: Parts) -> Search:
    """Look for strays at every provider that can list its machines."""
    result = Search()
    for name, provider in sorted(parts.providers.items()):
        if "inventory" not in provider.hooks or not provider.has_account:
            continue
        found = await _strays(parts, name)
        if isinstance(found, str):
            result.problems[name] = found
        else:
            result.found.extend(found)
    return result


async def _strays(parts: Parts, name: str) -> list[Stray] | str:
    """What there is at one provider, or why it cannot be told."""
    reading = await parts.readings[name].next()  # before the ledger: a new lease is in both
    if reading.error is not None:
        return str(reading.error)
    machines = list(reading.machines.values())
    marks = {mark for machine in machines if (mark := Mark.find(machine.mark)) is not None}
    recorded = await parts.ledger(
        lambda ledger: {mark for mark in marks if ledger.lease_of_mark(str(mark)) is not None}
    )
    leases = await parts.ledger(lambda ledger: ledger.leases())
    return strays(
        machines,
        recorded=lambda mark: mark in recorded,
        held={row.machine_id for row in leases if row.provider == name and row.machine_id},
        verifies=lambda mark: mark.verifies(parts.mark_key),
        in_use=parts.may_be_in_use,
    )


async def adopt(
    parts: Parts, reaper: Reaper, provider: str, machine_id: str, *, unverified: bool
) -> LeaseRow:
    """Write a row for a stray, and start its release.

    Raises:
        InvalidValue: there is no such stray; or it may be somebody else's, and `unverified` is not
            set.
    """
    found = await _strays(parts, provider) if provider in parts.readings else []
    if isinstance(found, str):
        raise InvalidValue("machine", machine_id, f"{provider} gave no complete list: {found}")
    stray = next((stray for stray in found if stray.machine.id == machine_id), None)
    if stray is None:
        raise InvalidValue("machine", machine_id, f"{provider} lists none that is to be adopted")
    if stray.doubt and not unverified:
        raise InvalidValue("machine", machine_id, f"it may be somebody else's: {stray.doubt}")
    row = _row(parts, stray)
    former = stray.ledger_id if not stray.doubt and stray.ledger_id != parts.ledger_id else None
    await parts.ledger.insist(
        lambda ledger: ledger.adopt(row, row.deadline, machine_id, former=former)
    )
    if former is not None:
        parts.former_ids.add(former)
    return await reaper.release(row, Finding.UNRECORDED, stray.machine)


def _row(parts: Parts, stray: Stray) -> LeaseRow:
    machine = stray.machine
    now = parts.now()
    return LeaseRow(
        id=parts.new_id("lease"),
        request_id="",
        provider=machine.provider,
        state=LeaseState.ORPHANED,
        epoch=1,
        owner=parts.identity.id,
        # A mark in doubt must not make other machines that carry it ours.
        mark=f"doubtful {machine.provider} {machine.id}"
        if stray.doubt
        else str(Mark.find(machine.mark)),
        title="unknown machine",
        offer_id="",
        machine_id=machine.id,
        hourly=machine.hourly or Money(0),
        quantum=parts.providers[machine.provider].facts.billing_quantum,
        reserved=Money(0),
        spent=Money(0),
        created_at=machine.created_at or now,
        deadline=now,
    )
