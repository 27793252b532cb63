"""A pool of machines: used again, given up in time, and never more of them than allowed."""

from __future__ import annotations

import anyio
import pytest

from gpubroker import Requirements
from gpubroker.policy.keep_warm import fixed
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def test_a_warm_machine_is_used_again_and_given_up_when_idle(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Two jobs in a row use one machine; after its idle limit it is gone."""
    cloud.boot_takes(30)
    cloud.job_takes(5)

    async with broker_on(cloud) as broker, broker.pool(A_4090, keep_warm=fixed(60)) as pool:
        first = await pool.run(["x"])
        await anyio.sleep(50)
        second = await pool.run(["y"])
        status = await pool.status()
        await anyio.sleep(61)
        gone = len(cloud.running)

        assert await broker.verify() == []
    assert first.ok
    assert second.ok
    assert first.lease_id == second.lease_id
    assert (status.warm, status.busy) in ((1, 0),)
    assert gone == 0
    assert len(cloud.creates) == 1
