"""Waiting, visibly and not for ever, for the proof that machines are gone."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.model.leases import ReleaseState


async def prove(
    broker: AsyncBroker, leases: Iterable[str], *, within: float
) -> dict[str, ReleaseState]:
    """How far the release of each of these leases has come, after `within` seconds at the most."""
    ends = anyio.current_time() + within
    states: dict[str, ReleaseState] = {}
    for lease_id in leases:
        left = max(ends - anyio.current_time(), 0.001)
        states[lease_id] = await broker.wait_released(lease_id, timeout=left)
    return states


def all_proven(states: dict[str, ReleaseState]) -> bool:
    """Whether every one is proven gone."""
    return all(state is ReleaseState.PROVEN for state in states.values())
