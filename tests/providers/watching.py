"""What happens at an emulated vendor: counted, waited for, and done by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import httpx

from gpubroker import AsyncBroker, Event, EventKind, LeaseRow, Requirements, Swept
from gpubroker.testing.emulation import EmulatedVendor, RequestRecord

Cloud = EmulatedVendor[Any, Any]

QUICK: Final = {"poll_interval": "0.05", "absence_interval": "0.05"}
"""Settings of a provider that looks often."""


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is true; fail where it is not within so many seconds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)


async def look(broker: AsyncBroker, provider: str) -> Swept:
    """One sweep, as far as it is of a provider."""
    (found,) = [swept for swept in await broker.sweep() if swept.provider == provider]
    return found


async def row_of(broker: AsyncBroker, lease_id: str) -> LeaseRow:
    """What is on record of a lease."""
    (row,) = [row for row in await broker.leases(open_only=False) if row.id == lease_id]
    return row


@asynccontextmanager
async def booting(broker: AsyncBroker, cloud: Cloud, count: int) -> AsyncGenerator[None]:
    """So many machines that do not get beyond their boot; given up at the end, all at once."""
    cloud.next_machine("slow-boot", times=None, seconds=60)

    async def rent() -> None:
        async with broker.lease(Requirements(vram=8)):
            raise AssertionError("none of them ends its boot")

    async with anyio.create_task_group() as tasks:
        for number in range(1, count + 1):
            tasks.start_soon(rent)
            await until(partial(_bill, cloud, number))
        yield
        tasks.cancel_scope.cancel()


def _bill(cloud: Cloud, count: int) -> bool:
    return len(cloud.billing_now()) == count


def sent(cloud: Cloud, endpoint: str) -> list[RequestRecord]:
    """The requests to an endpoint so far, in order."""
    return [request for request in cloud.requests if request.endpoint == endpoint]


def texts(events: list[Event], kind: EventKind) -> list[str]:
    """What the events of a kind said."""
    return [event.text for event in events if event.kind is kind]


async def by_hand(cloud: Cloud, method: str, path: str, body: Any = None) -> Any:
    """What the vendor answers to the owner of the account, who uses another tool."""
    headers = {"Authorization": f"Bearer {cloud.key}", "User-Agent": "another-tool/1.0"}
    async with httpx.AsyncClient(base_url=cloud.url, headers=headers, trust_env=False) as client:
        answer = await client.request(method, path, json=body)
    return answer.json() if answer.content else None
