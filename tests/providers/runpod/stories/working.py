"""Work at the emulated RunPod: the pod that does it, and what goes on beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import anyio

from gpubroker import AsyncBroker, BrokerError
from gpubroker_runpod.emulator import RunPodEmulator

T = TypeVar("T")


def the_pod(cloud: RunPodEmulator) -> str:
    """The only pod that there is."""
    (row,) = cloud.machines()
    return str(row["id"])


def home(cloud: RunPodEmulator) -> Path:
    """The home folder of the only pod that there is."""
    return cloud.folder(the_pod(cloud)) / "home"


async def all_released(broker: AsyncBroker, cloud: RunPodEmulator) -> None:
    """Nothing is left of what this broker has rented, and nothing is paid for any more."""
    for lease in await broker.leases(open_only=False):
        await broker.wait_released(lease.id, timeout=15)
    assert cloud.machines() == []
    assert cloud.billing_now() == ()


async def sweeping(broker: AsyncBroker) -> None:
    """Look for machines that are lost more often than every half a minute."""
    while True:
        await broker.sweep()
        await anyio.sleep(0.1)


async def beside(other: Callable[[], Coroutine[Any, Any, None]], main: Awaitable[T]) -> T:
    """What comes of the second, with the first going on until then."""
    results: list[T] = []
    failures: list[Exception] = []
    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            try:
                results.append(await main)
            except BrokerError as error:
                failures.append(error)  # as it is, and not inside of a group
            tasks.cancel_scope.cancel()
    for failure in failures:
        raise failure
    return results[0]
