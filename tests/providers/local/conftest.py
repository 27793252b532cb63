"""Real leases on this machine, in a state directory of the test's own."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import (
    AccountSettings,
    Job,
    JobIO,
    Machine,
    Money,
    Offer,
    Order,
    Outcome,
    OutputFile,
    Requirements,
)
from gpubroker.transport.receive import Receiver
from gpubroker_local import create, processes
from gpubroker_local.provider import LocalProvider


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both event loops."""
    return str(request.param)


@dataclass
class Ran:
    """What came back from one job."""

    outcome: Outcome
    stdout: bytes
    stderr: bytes
    files: Mapping[str, OutputFile]
    missing: list[str]

    @property
    def text(self) -> str:
        return self.stdout.decode()


@dataclass
class House:
    """One state directory, and providers that share it."""

    root: Path
    events: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    @property
    def options(self) -> dict[str, str]:
        return {"directory": str(self.leases), "lock_directory": str(self.root / "locks")}

    def provider(self, **options: str) -> LocalProvider:
        settings = AccountSettings("local", {**self.options, **options})
        return create(settings, lambda kind, text: self.events.append((kind, text)))

    def order(self, *, lifetime: float = 60.0, env: Mapping[str, str] | None = None) -> Order:
        number = next(iter(self._numbers))
        return Order(
            mark=f"mark-{number}",
            lease_id=f"lease-{number}",
            image=None,
            disk=1,
            ports=(),
            env=env or {},
            price_ceiling=Money(1),
            deadline=time.time() + lifetime,
        )

    async def offer(self, provider: LocalProvider, **wanted: Any) -> Offer:
        return (await provider.quote(Requirements(**wanted)))[0]

    async def rent(
        self, provider: LocalProvider, *, lifetime: float = 60.0, **wanted: Any
    ) -> Machine:
        offer = await self.offer(provider, **wanted)
        return await provider.provision(offer, self.order(lifetime=lifetime))

    def io(self, **parts: Any) -> tuple[JobIO, Receiver]:
        number = next(iter(self._numbers))
        receiver = Receiver(self.root / "out", token=str(number))
        given: dict[str, Any] = {"job_id": f"job-{number}", "env": {}, **parts}
        return JobIO(receiver=receiver, **given), receiver

    async def run(
        self,
        provider: LocalProvider,
        machine: Machine,
        command: str | list[str],
        *,
        io: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> Ran:
        job_io, receiver = self.io(**(io or {}))
        outcome = await provider.run(machine, Job(command, **parts), job_io)
        return Ran(
            outcome=outcome,
            stdout=job_io.kept("stdout"),
            stderr=job_io.kept("stderr"),
            files=receiver.commit(),
            missing=job_io.missing,
        )

    def folders(self) -> list[str]:
        """What is in the state directory."""
        return sorted(path.name for path in self.leases.iterdir())

    def runner_of(self, machine: Machine) -> int:
        return int((self.leases / machine.id / "runner.lock").read_text())

    def alive(self) -> list[int]:
        """Every process that belongs to a lease of this directory."""
        return [
            pid
            for pid, owned in processes.marked()
            if owned[processes.FOLDER].startswith(str(self.leases))
        ]


@pytest.fixture
async def house(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[House]:
    """A place for leases; whatever a test leaves in it is released, and must then be gone."""
    house = House(tmp_path)
    yield house
    provider = house.provider()
    for machine in await provider.inventory():
        await provider.release(machine)
    assert await provider.inventory() == []
    assert house.alive() == []


async def until(condition: Any, *, seconds: float = 10.0) -> None:
    """Wait for something that another process does."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Any:
    return until


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture(name="is_running")
def is_running_fixture() -> Any:
    return is_running


@pytest.fixture
def rss() -> Any:
    """The most memory that a process has used, in MB."""

    def read(pid: int | None = None) -> float:
        text = Path(f"/proc/{pid or os.getpid()}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    return read
