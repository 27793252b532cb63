"""``gpubroker adopt``: after the loss of a ledger, release what carries its marks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import typer

from gpubroker.broker import AsyncBroker
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.proof import all_proven, prove
from gpubroker.cli.screen import Page, Table, say, show, show_json
from gpubroker.errors import InvalidValue, ProviderError
from gpubroker.lifecycle.reaping.lost_ledger import Search
from gpubroker.model.codec import to_plain
from gpubroker.model.durations import parse_seconds
from gpubroker.model.leases import ReleaseState
from gpubroker.policy.strays import Stray
from gpubroker.settings import Settings


@dataclass(frozen=True, slots=True)
class Consent:
    """What may be adopted without a question: what is ours, and single machines by their ids."""

    yes: bool
    unverified: tuple[str, ...]


def adopt(settings: Settings, consent: Consent, *, proof_wait: str, as_json: bool) -> int:
    """Adopt what was agreed to; 125 if something of ours is left, or a provider did not answer."""
    within = parse_seconds("proof-wait", proof_wait)
    search = anyio.run(_search, settings)
    for name, problem in search.problems.items():
        say(f"{name} gave no complete list: {problem}")
    unknown = {*consent.unverified} - {stray.machine.id for stray in search.found}
    if unknown:
        raise InvalidValue("unverified", ", ".join(sorted(unknown)), "no such machine was found")
    if not as_json:
        show(_page(search.found))
    chosen = _chosen(search.found, consent)
    try:
        states = anyio.run(_adopt, settings, chosen, within)
    except Stopped as stopped:
        say(f"{stopped}; what was adopted is on record, and `gpubroker reap` goes on")
        return stopped.code
    if as_json:
        show_json(
            {
                **to_plain(Search, search),
                "leases": {lease: str(state) for lease, state in states.items()},
            }
        )
    elif states:
        show(Page(tables=[Table(["lease", "release"], [[k, str(v)] for k, v in states.items()])]))
    left = [stray for stray in search.found if not stray.doubt and stray not in chosen]
    done = len(states) == len(chosen) and all_proven(states)
    return 125 if left or search.problems or not done else 0


async def _search(settings: Settings) -> Search:
    async with AsyncBroker(settings=settings, sweep=False, close_wait=1.0) as broker:
        return await broker.strays()


def _chosen(found: Sequence[Stray], consent: Consent) -> list[Stray]:
    ours = [stray for stray in found if not stray.doubt]
    chosen: list[Stray] = []
    question = "Release what carries our mark? No other ledger with this key must be in use."
    if ours and (consent.yes or _agreed(question, "--yes")):
        chosen += ours
    for stray in found:
        machine = stray.machine
        question = f"Release {machine.provider} {machine.id}, though {stray.doubt}?"
        if stray.doubt and (
            machine.id in consent.unverified or _agreed(question, f"--unverified {machine.id}")
        ):
            chosen.append(stray)
    return chosen


def _agreed(question: str, option: str) -> bool:
    if sys.stdin.isatty():
        return typer.confirm(question, err=True)
    say(f"not without being told to: {option}")
    return False


async def _adopt(
    settings: Settings, chosen: Sequence[Stray], within: float
) -> dict[str, ReleaseState]:
    async def work() -> dict[str, ReleaseState]:
        leases: list[str] = []
        async with AsyncBroker(settings=settings, sweep=False, close_wait=1.0) as broker:
            for stray in chosen:
                machine = stray.machine
                try:
                    row = await broker.adopt(
                        machine.provider, machine.id, unverified=bool(stray.doubt)
                    )
                except (InvalidValue, ProviderError) as problem:
                    say(str(problem))
                else:
                    leases.append(row.id)
            return await prove(broker, leases, within=within)

    return await Stop().watch(work) if chosen else {}


def _page(found: Sequence[Stray]) -> Page:
    if not found:
        return Page(["no machine carries a mark that is not in this ledger"])
    rows = [
        [
            stray.machine.provider,
            stray.machine.id,
            str(stray.machine.state),
            "" if stray.machine.hourly is None else f"{stray.machine.hourly}",
            stray.ledger_id,
            f"unverified: {stray.doubt}" if stray.doubt else "ours",
        ]
        for stray in found
    ]
    return Page(tables=[Table(["provider", "machine", "state", "per hour", "ledger", ""], rows)])
