"""Fixtures: both event loops in virtual time, and a scripted cloud with one offer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpubroker.hookspecs import AccountSettings
from gpubroker.model.jobs import Job, Purpose
from gpubroker.model.machines import Machine, Order
from gpubroker.model.money import Money
from gpubroker.model.results import OutputFile
from gpubroker.testing import (
    ScriptedCloud,
    ScriptedPlugin,
    VirtualWallClock,
    offer,
    virtual_backend,
)
from gpubroker.testing.virtual_time import VirtualBackend
from gpubroker.transport.job_io import JobIO
from gpubroker.transport.receive import Receiver


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> VirtualBackend:
    """Each event loop, in virtual time."""
    return virtual_backend(request.param)


@pytest.fixture
def now() -> VirtualWallClock:
    """Wall time that moves with the event loop."""
    return VirtualWallClock()


@pytest.fixture
def cloud(now: VirtualWallClock) -> ScriptedCloud:
    """A cloud that rents out RTX 4090s for 36 cents per hour: 0.0001 USD per second."""
    return ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.36", id="a", disk_price="0.036")])


@pytest.fixture
def plugin(cloud: ScriptedCloud) -> ScriptedPlugin:
    """A broker's way to that cloud."""
    return plugin_of(cloud)


def plugin_of(cloud: ScriptedCloud) -> ScriptedPlugin:
    """What a broker's factory call makes."""
    return cloud.factory(AccountSettings(name=cloud.name), lambda kind, text: None)


def make_order(mark: str = "mark-1", ceiling: str = "1.00") -> Order:
    """An order with this mark and price ceiling."""
    return Order(
        mark=mark,
        lease_id="lease",
        image=None,
        disk=10,
        ports=(),
        env={},
        price_ceiling=Money(ceiling),
        deadline=1_900_000_000.0,
    )


Rent = Callable[..., Awaitable[Machine]]


@pytest.fixture
def rent(plugin: ScriptedPlugin) -> Rent:
    """Rents offer ``a`` with a mark and a price ceiling."""

    async def rent(mark: str = "mark-1", ceiling: str = "1.00") -> Machine:
        return await plugin.provision(offer(id="a"), make_order(mark, ceiling))

    return rent


class Transfer:
    """A job's way back, and what came back on it."""

    def __init__(self, job: Job, job_id: str, *, purpose: Purpose = "job") -> None:
        self.output: list[tuple[str, bytes]] = []
        self.receiver = Receiver(job.output_dir, token=job_id, room=0)
        self.io = JobIO(
            job_id=job_id,
            env={**job.env, **job.secrets},
            receiver=self.receiver,
            purpose=purpose,
            on_output=lambda stream, data: self.output.append((stream, data)),
        )

    def files(self) -> dict[str, OutputFile]:
        """The outputs that came back, in place."""
        return self.receiver.commit()


MakeTransfer = Callable[..., Transfer]


@pytest.fixture
def transfer() -> MakeTransfer:
    """Makes a job's way back."""
    return Transfer


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where outputs go."""
    return tmp_path / "results"
