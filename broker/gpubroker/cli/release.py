"""``gpubroker release``: give machines up, whoever holds them, and wait for the proof."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.durations import shown
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.proof import all_proven, prove
from gpubroker.cli.screen import Page, Table, say, show, show_json
from gpubroker.errors import InvalidValue, ProviderError, StaleOwner
from gpubroker.model.durations import parse_seconds
from gpubroker.model.leases import ReleaseState
from gpubroker.model.machines import Machine
from gpubroker.policy.sweeping import Finding
from gpubroker.settings import Settings


@dataclass(frozen=True, slots=True)
class Selection:
    """What to release: some leases by id, or all; and machines that are not in the ledger."""

    leases: tuple[str, ...]
    all: bool
    account: bool
    yes: bool


def release(settings: Settings, chosen: Selection, *, proof_wait: str, as_json: bool) -> int:
    """Release what was chosen; 125 if something is not proven gone in time."""
    within = parse_seconds("proof-wait", proof_wait)
    if bool(chosen.leases) == chosen.all:
        raise InvalidValue("lease", " ".join(chosen.leases), "name some leases, or say --all")
    if chosen.account and not chosen.all:
        raise InvalidValue("account", "", "goes with --all only")
    strangers: list[Machine] = []
    if chosen.account:
        strangers = anyio.run(_unrecorded, settings)
        if strangers and not _agreed(strangers, yes=chosen.yes):
            say("nothing was released")
            return 125
    try:
        states = anyio.run(_release, settings, chosen, strangers, within)
    except Stopped as stopped:
        say(f"{stopped}; what was asked for is on record, and `gpubroker reap` goes on")
        return stopped.code
    if as_json:
        show_json({"leases": {lease: str(state) for lease, state in states.items()}})
    else:
        show(_page(states, within))
    return 0 if all_proven(states) else 125


async def _unrecorded(settings: Settings) -> list[Machine]:
    """Machines that carry this ledger's mark, but are not in it."""
    async with AsyncBroker(settings=settings, sweep=False, close_wait=1.0) as broker:
        sweeps = await broker.sweep()
    for swept in sweeps:
        if not swept.complete:
            say(f"{swept.provider} gave no complete list: {swept.problem}")
    found = (v for swept in sweeps for v in swept.verdicts if v.finding is Finding.UNRECORDED)
    return [verdict.machine for verdict in found if verdict.machine is not None]


def _agreed(machines: list[Machine], *, yes: bool) -> bool:
    import sys

    import typer

    one = len(machines) == 1
    counted = "1 machine carries" if one else f"{len(machines)} machines carry"
    say(f"{counted} this ledger's mark, but {'is' if one else 'are'} not in it:")
    for machine in machines:
        price = "" if machine.hourly is None else f", {machine.hourly}/h"
        say(f"  {machine.provider} {machine.id} ({machine.state}{price})")
    if yes:
        return True
    if not sys.stdin.isatty():
        say("not releasing them without being told to: add --yes")
        return False
    return typer.confirm("Release what is not in the ledger too?", err=True)


async def _release(
    settings: Settings, chosen: Selection, strangers: list[Machine], within: float
) -> dict[str, ReleaseState]:
    async def work() -> dict[str, ReleaseState]:
        async with AsyncBroker(settings=settings, sweep=False, close_wait=1.0) as broker:
            leases = list(dict.fromkeys(chosen.leases))
            if chosen.all:
                leases = [row.id for row in await broker.leases()]
            for lease_id in leases:
                try:
                    await broker.release(lease_id, reason="gpubroker release")
                except StaleOwner as quicker:
                    say(str(quicker))
            for machine in strangers:
                try:
                    leases.append((await broker.adopt(machine.provider, machine.id)).id)
                except (InvalidValue, ProviderError) as problem:
                    say(str(problem))
            return await prove(broker, leases, within=within)

    return await Stop().watch(work)


def _page(states: dict[str, ReleaseState], within: float) -> Page:
    if not states:
        return Page(["nothing to release"])
    rows = [[lease, _said(state)] for lease, state in states.items()]
    left = sum(state is not ReleaseState.PROVEN for state in states.values())
    closing = [f"{left} NOT proven gone after {shown(within)}; `gpubroker reap` goes on"]
    return Page(tables=[Table(["lease", "release"], rows)], closing=closing if left else [])


def _said(state: ReleaseState) -> str:
    return "proven gone" if state is ReleaseState.PROVEN else f"{state}, NOT proven gone"
