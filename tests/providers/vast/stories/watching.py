"""What happens at the emulated cloud: counted, waited for, and done by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import httpx

from gpubroker import AsyncBroker, Event, EventKind, Requirements, Swept
from gpubroker.testing.emulation import RequestRecord
from gpubroker_vast.emulator import VastEmulator

QUICK: Final = {"poll_interval": "0.05", "absence_interval": "0.05"}
"""Settings of a provider that looks often."""


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is true; fail where it is not within so many seconds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)


async def look(broker: AsyncBroker) -> Swept:
    """One sweep, as far as it is of the emulated cloud."""
    (found,) = [swept for swept in await broker.sweep() if swept.provider == "vast"]
    return found


@asynccontextmanager
async def booting(broker: AsyncBroker, cloud: VastEmulator, count: int) -> AsyncGenerator[None]:
    """So many machines that do not get beyond their boot; given up at the end, all at once."""
    cloud.next_instance("slow-boot", times=None, seconds=60)

    async def rent() -> None:
        async with broker.lease(Requirements(vram=8)):
            raise AssertionError("none of them ends its boot")

    async with anyio.create_task_group() as tasks:
        for number in range(1, count + 1):
            tasks.start_soon(rent)
            await until(partial(_bill, cloud, number))
        yield
        tasks.cancel_scope.cancel()


def _bill(cloud: VastEmulator, count: int) -> bool:
    return len(cloud.billing_now()) == count


def sent(cloud: VastEmulator, endpoint: str) -> list[RequestRecord]:
    """The requests to an endpoint so far, in order."""
    return [request for request in cloud.requests if request.endpoint == endpoint]


def asked_for(cloud: VastEmulator) -> list[str]:
    """The offers that creates were sent for, in order."""
    return [request.parameters["id"] for request in sent(cloud, "create")]


def texts(events: list[Event], kind: EventKind) -> list[str]:
    """What the events of a kind said."""
    return [event.text for event in events if event.kind is kind]


async def by_hand(cloud: VastEmulator, method: str, path: str, body: Any = None) -> Any:
    """What the vendor answers to the owner of the account, who uses another tool."""
    headers = {"Authorization": f"Bearer {cloud.key}"}
    async with httpx.AsyncClient(base_url=cloud.url, headers=headers, trust_env=False) as client:
        return (await client.request(method, path, json=body)).json()
