"""``gpubroker reap``: sweep, release what nobody holds, and wait for the proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.proof import all_proven, prove
from gpubroker.cli.render import reap_page
from gpubroker.cli.screen import say, show, show_json
from gpubroker.lifecycle.reaping.reap import LOOK_AGAIN_FOR_OWNERS, SWEEP_EVERY, Swept
from gpubroker.model.codec import to_plain
from gpubroker.model.durations import parse_seconds
from gpubroker.model.events import Event, EventKind
from gpubroker.model.leases import ReleaseState
from gpubroker.policy.sweeping import Finding
from gpubroker.settings import Settings

#: What may be only late, and so is acted on when a second pass finds it again.
_DOUBTFUL: Final = (Finding.OWNER_MISSING, Finding.VANISHED, Finding.NEVER_SEEN)
_BETWEEN_PASSES: Final = 5.0
_LOOK_EVERY: Final = 0.5
#: What whoever watches over machines should read, however it is run.
_TOLD: Final = (EventKind.ALARM, EventKind.FOUND, EventKind.NOTE)


@dataclass(frozen=True, slots=True)
class Reaped:
    """One round: the sweeps of it, and how far the releases that they started have come."""

    sweeps: list[Swept]
    adopted: list[str]
    releases: dict[str, ReleaseState]

    @property
    def well(self) -> bool:
        """Whether every provider answered, and everything started is proven gone."""
        return all(swept.complete for swept in self.sweeps) and all_proven(self.releases)


def reap(settings: Settings, *, loop: bool, proof_wait: str, as_json: bool) -> int:
    """Reap once, or until interrupted; 125 if a provider gave no answer or a proof is missing."""
    within = parse_seconds("proof-wait", proof_wait)

    def tell(event: Event) -> None:
        if event.kind in _TOLD:
            say(f"{event.kind}: {event.text}")

    async def work() -> bool:
        async with AsyncBroker(
            settings=settings, sweep=False, on_event=tell, close_wait=1.0
        ) as broker:
            while loop:
                try:
                    _show(await _round(broker, within), as_json=as_json)
                except Exception as error:  # noqa: BLE001 - who watches over machines never stops
                    say(f"this round failed, the next one follows: {type(error).__name__}: {error}")
                await anyio.sleep(SWEEP_EVERY)
            reaped = await _round(broker, within)
            reaped = replace(
                reaped, releases=reaped.releases | await _see_to(broker, reaped, within)
            )
            _show(reaped, as_json=as_json)
            return reaped.well

    try:
        return 0 if anyio.run(Stop().watch, work) else 125
    except Stopped as stopped:
        say(f"{stopped}; the releases that were started are on record")
        return stopped.code


async def _round(broker: AsyncBroker, within: float) -> Reaped:
    sweeps = await broker.sweep()
    started = [lease for swept in sweeps for lease in swept.started]
    adopted = [lease for swept in sweeps for lease in swept.adopted]
    doubts = _doubts(sweeps)
    if doubts:
        silent = Finding.OWNER_MISSING in doubts
        pause = LOOK_AGAIN_FOR_OWNERS if silent else _BETWEEN_PASSES
        say(f"looking again in {pause:g} s, before anything is concluded")
        await anyio.sleep(pause)
        sweeps = await broker.sweep()
        started += [lease for swept in sweeps for lease in swept.started]
        adopted += [lease for swept in sweeps for lease in swept.adopted]
    releases = await prove(broker, dict.fromkeys(started), within=within)
    return Reaped(sweeps, adopted, releases)


def _doubts(sweeps: list[Swept]) -> set[Finding]:
    return {
        verdict.finding
        for swept in sweeps
        for verdict in swept.verdicts
        if verdict.finding in _DOUBTFUL
        and (verdict.lease is None or verdict.lease.id not in (*swept.started, *swept.adopted))
    }


async def _see_to(broker: AsyncBroker, reaped: Reaped, within: float) -> dict[str, ReleaseState]:
    """Wait for adopted jobs to be delivered, and for the proof that their machines are gone."""
    swept = anyio.current_time()
    while True:
        rows = [row for row in await broker.leases() if row.id in reaped.adopted]
        if all(row.release_state is not ReleaseState.HELD for row in rows):
            return await prove(broker, reaped.adopted, within=within)
        await anyio.sleep(_LOOK_EVERY)
        if anyio.current_time() - swept > SWEEP_EVERY:
            swept = anyio.current_time()
            await broker.sweep()  # a machine that went away delivers nothing


def _show(reaped: Reaped, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "sweeps": [to_plain(Swept, swept) for swept in reaped.sweeps],
                "releases": {lease: str(state) for lease, state in reaped.releases.items()},
            }
        )
    else:
        show(reap_page(reaped.sweeps, reaped.releases, reaped.adopted))
