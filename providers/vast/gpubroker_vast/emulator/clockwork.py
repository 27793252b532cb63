"""What happens by itself: queued starts, and an account that runs out of credit."""

from __future__ import annotations

import asyncio
from typing import Final

from gpubroker import Money
from gpubroker_vast.emulator.world import World

_TICK: Final = 0.2


async def clockwork(world: World) -> None:
    """Look again and again, until cancelled."""
    while True:
        await asyncio.sleep(_TICK)
        contracts = world.lives.contracts.values()
        if world.credit() <= Money():
            # Running instances are stopped; their disks go on to cost, below zero.
            for contract in list(contracts):
                if contract.intended == "running" and contract.destroyed_at is None:
                    world.lives.stop(contract)
        elif any(contract.queued for contract in contracts):
            world.lives.retry_queued()
