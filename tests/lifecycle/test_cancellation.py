"""Cancelled at every await, once and twice, in both styles: nothing leaks, nothing hangs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import anyio
import pytest

from gpubroker import AsyncBroker, LeaseState, Requirements
from gpubroker.testing import ScriptedCloud, VirtualWallClock, cancel_at, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090", setup="prepare")


def slow_cloud(now: VirtualWallClock) -> ScriptedCloud:
    """A cloud where each step takes long enough to be cancelled in."""
    cloud = ScriptedCloud(
        now=now, offers=[offer("RTX 4090", "0.36", id="a"), offer("RTX 4090", "0.40", id="b")]
    )
    cloud.quote_takes(1)
    cloud.create_takes(2)
    cloud.boot_takes(7, progress_every=3)
    cloud.setup_takes(3)
    cloud.job_takes(4)
    cloud.release_takes(5)
    return cloud


Tell = Callable[[ScriptedCloud], None]
STORIES: dict[str, Tell] = {
    "all goes well": lambda cloud: None,
    "the create's reply is lost": lambda cloud: cloud.next_create_loses_reply(),
    "the destroy fails at first": lambda cloud: cloud.release_fails(times=2),
    "the first machine breaks": lambda cloud: cloud.boot_breaks(after=3),
    "new machines show up late": lambda cloud: cloud.visibility_lag(20),
}
#: The worst of them is for every run of the tests, the others for the deep one.
EACH = [pytest.param(story, marks=() if "lost" in story else pytest.mark.deep) for story in STORIES]


@pytest.mark.parametrize(
    ("through", "times"),
    [
        ("scope", 1),
        pytest.param("scope", 2, marks=pytest.mark.deep),
        pytest.param("task", 1, marks=pytest.mark.deep),
        ("task", 2),
    ],
)
@pytest.mark.parametrize("story", EACH)
async def test_cancelling_at_every_await_leaves_nothing_behind(
    anyio_backend: tuple[str, object],
    now: VirtualWallClock,
    broker_on: MakeBroker,
    tmp_path: Path,
    story: str,
    through: Literal["scope", "task"],
    times: int,
) -> None:
    """Wherever acquire, run or release is cancelled, all that was rented is given up and proven."""
    if through == "task" and anyio_backend[0] == "trio":
        pytest.skip("trio has no native cancellation of a task")
    point = 0
    while True:
        cloud = slow_cloud(now)
        STORIES[story](cloud)
        ledger = tmp_path / f"{point}.db"
        broker = broker_on(cloud, ledger=ledger, close_wait=7200)

        async def scenario(broker: AsyncBroker = broker) -> None:
            async with broker:
                await broker.run(["x"], A_4090)

        if not await cancel_at(point, scenario, times=times, through=through):
            break
        await assert_clean(cloud, broker_on, ledger, f"{story} at {point}")
        point += 1
    assert point > 8


@pytest.mark.parametrize("story", EACH)
async def test_an_open_broker_gives_up_what_a_cancelled_call_has_left(
    now: VirtualWallClock, broker_on: MakeBroker, tmp_path: Path, story: str
) -> None:
    """Wherever a call is cancelled, its broker releases what it had rented without being closed."""
    point, reached = 0, True
    while reached:
        cloud = slow_cloud(now)
        STORIES[story](cloud)
        ledger = tmp_path / f"{point}.db"
        async with broker_on(cloud, ledger=ledger, sweep=False) as broker:

            async def call(broker: AsyncBroker = broker) -> None:
                await broker.run(["x"], A_4090)

            reached = await cancel_at(point, call)
            await anyio.sleep(400)
            cloud.assert_nothing_running()
        point += 1
    assert point > 8


async def assert_clean(
    cloud: ScriptedCloud, broker_on: MakeBroker, ledger: Path, where: str
) -> None:
    """Nothing runs any more, now or ever, and the ledger keeps its own rules."""
    async with broker_on(cloud, ledger=ledger, seed=99) as later:
        await anyio.sleep(400)
        rows = await later.leases(open_only=False)
        problems = await later.verify()
    left = [row for row in rows if row.state.open and row.state is not LeaseState.LATE_WATCH]
    assert not left, where
    assert problems == [], where
    assert len(cloud.creates) <= 2, where
    try:
        cloud.assert_nothing_running()
        cloud.assert_contract_kept()
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from None


async def test_cancelling_the_caller_leaves_the_release_to_the_broker(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A cancelled `run` is over at once for its caller; the open broker goes on giving up."""
    cloud = slow_cloud(now)

    async with broker_on(cloud) as broker:
        with anyio.move_on_after(10):
            await broker.run(["x"], A_4090)
        (row,) = await broker.leases()
        state = await broker.wait_released(row.id, timeout=300)

    assert state == "proven"
    cloud.assert_nothing_running()


async def test_a_release_outlives_the_cancellation_of_all_around_the_broker(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """What is being given up is given up to the end, and not left to the next broker."""
    cloud = slow_cloud(now)

    with anyio.CancelScope() as around:
        async with broker_on(cloud, close_wait=600) as broker, broker.lease(A_4090):
            around.cancel()
            await anyio.sleep_forever()

    cloud.assert_nothing_running()


async def test_an_error_in_the_block_comes_out_as_itself(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """What the caller raises inside the broker's block is raised unchanged, not in a group."""
    cloud = slow_cloud(now)

    with pytest.raises(ZeroDivisionError):
        async with broker_on(cloud) as broker, broker.lease(A_4090):
            raise ZeroDivisionError

    cloud.assert_nothing_running()


async def test_even_system_exit_gives_the_machine_up(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """Leaving by `sys.exit` is leaving: the machine is given up on the way."""
    cloud = slow_cloud(now)

    with pytest.raises(SystemExit):
        async with broker_on(cloud) as broker, broker.lease(A_4090):
            sys.exit(3)

    cloud.assert_nothing_running()
