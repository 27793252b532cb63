"""Machines that nobody reaches: they run what was ordered, and their log says what became of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gpubroker import (
    AccountSettings,
    AsyncBroker,
    Budget,
    Channel,
    Emit,
    Event,
    Job,
    JobIO,
    JobState,
    Machine,
    MachineState,
    Money,
    NoOfferFits,
    Offer,
    Order,
    Outcome,
    Plugin,
    Price,
    ProviderFacts,
    Requirements,
    Settings,
    SetupFailed,
    hookimpl,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH client here"),
]


class Remote:
    """A vendor of one machine that cannot be reached."""

    facts = ProviderFacts(
        paid=True,
        ssh=True,
        poll_interval=0.01,
        absence_readings=1,
        absence_interval=0.0,
        visibility_horizon=0.0,
    )

    def __init__(self, offer: Offer, *, code_of_setup: int = 0, silent: int = 0) -> None:
        self.offer = offer
        self.order: Order | None = None
        self.asked: list[tuple[str, tuple[str, ...], Channel | None]] = []
        self.gone = False
        self._code_of_setup = code_of_setup
        self._silent = silent

    def factory(self, settings: AccountSettings, emit: Emit) -> Remote:
        """What the broker calls."""
        del settings, emit
        return self

    @property
    def machine(self) -> Machine:
        """The machine as it is listed."""
        assert self.order is not None
        return Machine(id="m1", state=MachineState.RUNNING, mark=self.order.mark, ssh=False)

    @hookimpl
    async def quote(self) -> Sequence[Offer]:
        return [self.offer]

    @hookimpl
    async def provision(self, order: Order) -> Machine:
        self.order = order
        return self.machine

    @hookimpl
    async def inventory(self) -> Sequence[Machine]:
        return [] if self.order is None or self.gone else [self.machine]

    @hookimpl
    async def logs(self) -> str:
        assert self.order is not None
        self._silent -= 1
        return "starting" if self._silent >= 0 else f"began {self.order.nonce}\n"

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO, channel: Channel | None) -> Outcome:
        del machine
        self.asked.append((io.purpose, job.argv, channel))
        if io.purpose == "probe":
            await io.output("stdout", b"NVIDIA GeForce RTX 4090, 24564\n")
        if io.purpose == "job":
            await io.output("stdout", b"done\n")
        code = self._code_of_setup if io.purpose == "setup" else 0
        return Outcome(state=JobState.EXITED, exit_code=code)

    @hookimpl
    async def release(self) -> None:
        self.gone = True


CARD = Offer(
    id="1", price=Price(machine=Money("0.40")), gpu="RTX 4090", count=1, vram=24.0, disk=100.0
)


def broker_on(cloud: Remote, folder: Path, events: list[Event]) -> AsyncBroker:
    return AsyncBroker(
        settings=Settings(ledger=folder / "ledger.db", budget=Budget(job=Money(5))),
        plugins=[Plugin("remote", cloud.factory, "test", given=True)],
        on_event=events.append,
    )


@pytest.fixture
def events() -> list[Event]:
    """What the broker reported."""
    return []


async def test_a_job_travels_with_its_order(tmp_path: Path, events: list[Event]) -> None:
    """Everything is in the order, and then asked for in its order, with no channel."""
    cloud = Remote(CARD)
    wanted = Requirements(gpu="RTX 4090", setup="make ready")

    async with broker_on(cloud, tmp_path, events) as broker:
        result = await broker.run(["train", "--fast"], wanted)

    assert result.ok
    assert result.text == "done\n"
    assert result.host_identity is None
    assert cloud.order is not None
    planned = [(job.purpose, job.argv, None) for job in cloud.order.jobs]
    assert [purpose for purpose, *_ in planned] == ["probe", "setup", "job"]
    assert cloud.asked == planned
    assert any("not reached over SSH" in event.text for event in events)


async def test_it_counts_as_up_once_its_log_shows_the_nonce(
    tmp_path: Path, events: list[Event]
) -> None:
    """What the vendor says of a machine is not enough: its own log must say that it has begun."""
    cloud = Remote(CARD, silent=3)

    async with broker_on(cloud, tmp_path, events) as broker:
        result = await broker.run("true", Requirements(gpu="RTX 4090"))

    assert result.ok
    assert any("does not show that it has begun" in event.text for event in events)


@pytest.mark.parametrize("what", ["files", "outputs", "secrets", "lease"])
async def test_a_machine_that_is_not_reached_for_certain_is_not_rented_for_such_work(
    tmp_path: Path, events: list[Event], what: str
) -> None:
    """It would be paid for while nobody can use it."""
    cloud = Remote(replace(CARD, ssh=False))
    job = {
        "files": Job("true", files={"a": b""}),
        "outputs": Job("true", outputs="a"),
        "secrets": Job("true", secrets={"TOKEN": "t"}),
        "lease": None,
    }[what]

    async def work(broker: AsyncBroker) -> None:
        if job is not None:
            await broker.run(job, Requirements(gpu="RTX 4090"))
            return
        async with broker.lease(Requirements(gpu="RTX 4090")):
            raise AssertionError("there is a machine")

    async with broker_on(cloud, tmp_path, events) as broker:
        with pytest.raises(NoOfferFits, match="a way for files, outputs, secrets or several jobs"):
            await work(broker)
        fits = (await broker.quote(Requirements(gpu="RTX 4090"))).ranked
        result = await broker.run("true", Requirements(gpu="RTX 4090"))

    assert len(fits) == 1  # what is to run on it is not known yet
    assert result.ok


@pytest.mark.parametrize("purpose", ["files", "outputs", "secrets", "lease"])
async def test_work_that_needs_a_way_there_is_not_part_of_the_order(
    tmp_path: Path, events: list[Event], purpose: str
) -> None:
    """A plugin that finds no jobs in its order must rent a machine that is reached."""
    cloud = Remote(CARD)
    job = {
        "files": Job("true", files={"a": b""}),
        "outputs": Job("true", outputs="a"),
        "secrets": Job("true", secrets={"TOKEN": "t"}),
        "lease": Job("true"),
    }[purpose]

    async with broker_on(cloud, tmp_path, events) as broker:
        if purpose == "lease":
            async with broker.lease(Requirements(gpu="RTX 4090")) as lease:
                await lease.run(job)
        else:
            await broker.run(job, Requirements(gpu="RTX 4090"))

    assert cloud.order is not None
    assert cloud.order.jobs == ()


async def test_a_set_up_that_fails_ends_it(tmp_path: Path, events: list[Event]) -> None:
    """The job is not asked for any more, and the machine is given up."""
    cloud = Remote(CARD, code_of_setup=3)

    async with broker_on(cloud, tmp_path, events) as broker:
        with pytest.raises(SetupFailed):
            await broker.run("true", Requirements(gpu="RTX 4090", setup="false"))

    assert [purpose for purpose, *_ in cloud.asked] == ["probe", "setup"]
    assert cloud.gone
