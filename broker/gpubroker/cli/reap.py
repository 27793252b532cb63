"""``gpubroker reap``: sweep, release what nobody holds, and wait for the proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.proof import all_proven, prove
from gpubroker.cli.render import reap_page
from gpubroker.cli.screen import say, show, show_json
from gpubroker.lifecycle.reap import SWEEP_EVERY, Swept
from gpubroker.model.codec import to_plain
from gpubroker.model.durations import parse_seconds
from gpubroker.model.leases import ReleaseState
from gpubroker.policy.sweeping import Finding
from gpubroker.settings import Settings

#: What may be only late, and so is acted on when a second pass finds it again.
_DOUBTFUL: Final = (Finding.OWNER_MISSING, Finding.VANISHED, Finding.NEVER_SEEN)
_BETWEEN_PASSES: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reaped:
    """One round: the sweeps of it, and how far the releases that they started have come."""

    sweeps: list[Swept]
    releases: dict[str, ReleaseState]

    @property
    def well(self) -> bool:
        """Whether every provider answered, and everything started is proven gone."""
        return all(swept.complete for swept in self.sweeps) and all_proven(self.releases)


def reap(settings: Settings, *, loop: bool, proof_wait: str, as_json: bool) -> int:
    """Reap once, or until interrupted; 125 if a provider gave no answer or a proof is missing."""
    within = parse_seconds("proof-wait", proof_wait)

    async def work() -> bool:
        async with AsyncBroker(settings=settings, sweep=False, close_wait=1.0) as broker:
            while True:
                reaped = await _round(broker, within)
                _show(reaped, as_json=as_json)
                if not loop:
                    return reaped.well
                await anyio.sleep(SWEEP_EVERY)

    try:
        return 0 if anyio.run(Stop().watch, work) else 125
    except Stopped as stopped:
        say(f"{stopped}; the releases that were started are on record")
        return stopped.code


async def _round(broker: AsyncBroker, within: float) -> Reaped:
    sweeps = await broker.sweep()
    started = [lease for swept in sweeps for lease in swept.started]
    if _doubts(sweeps):
        say(f"looking again in {_BETWEEN_PASSES:g} s, before anything is concluded")
        await anyio.sleep(_BETWEEN_PASSES)
        sweeps = await broker.sweep()
        started += [lease for swept in sweeps for lease in swept.started]
    return Reaped(sweeps, await prove(broker, dict.fromkeys(started), within=within))


def _doubts(sweeps: list[Swept]) -> bool:
    return any(
        verdict.finding in _DOUBTFUL
        for swept in sweeps
        for verdict in swept.verdicts
        if verdict.lease is None or verdict.lease.id not in swept.started
    )


def _show(reaped: Reaped, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "sweeps": [to_plain(Swept, swept) for swept in reaped.sweeps],
                "releases": {lease: str(state) for lease, state in reaped.releases.items()},
            }
        )
    else:
        show(reap_page(reaped.sweeps, reaped.releases))
