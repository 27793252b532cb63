"""Cancelling at every suspension point."""

from __future__ import annotations

import asyncio
from typing import Literal

import anyio
import pytest

from gpubroker.errors import InvalidValue
from gpubroker.testing import cancel_at, count_suspensions, run_virtual

pytestmark = pytest.mark.anyio


class Walk:
    """Three suspensions, noting how far it got and how it ended."""

    def __init__(self) -> None:
        self.steps = 0
        self.endings: list[str] = []

    async def __call__(self) -> None:
        try:
            await anyio.sleep(0)
            self.steps = 1
            await anyio.sleep(5)
            self.steps = 2
            with anyio.move_on_after(7):
                await anyio.sleep_forever()
            self.steps = 3
        except BaseException as error:
            self.endings.append(type(error).__name__)
            raise


async def test_suspensions_are_counted() -> None:
    """A scenario that hands over control three times is counted as three, and runs to its end."""
    walk = Walk()

    assert await count_suspensions(walk) == 3

    assert walk.steps == 3


async def test_each_point_is_hit_once_and_then_no_more() -> None:
    """Cancelled at point n the scenario gets past n suspensions; past the last it is untouched."""
    got: list[tuple[int, int]] = []

    point = 0
    while True:
        walk = Walk()
        if not await cancel_at(point, walk):
            break
        assert walk.endings == ["CancelledError"] or walk.endings == ["Cancelled"]
        got.append((point, walk.steps))
        point += 1

    assert got == [(0, 0), (1, 1), (2, 2)]
    assert (walk.steps, walk.endings) == (3, [])


async def test_nothing_is_left_cancelled_behind() -> None:
    """After a cancelled scenario the test's own task goes on undisturbed."""
    await cancel_at(1, Walk())

    start = anyio.current_time()
    await anyio.sleep(10)

    assert anyio.current_time() == start + 10


async def test_the_scenario_may_answer_a_cancellation_with_an_error() -> None:
    """What a scenario raises in place of its cancellation is raised to the test."""

    async def scenario() -> None:
        try:
            await anyio.sleep(1)
        finally:
            raise KeyError("instead")

    with pytest.raises(KeyError, match="instead"):
        await cancel_at(0, scenario)


async def test_a_shield_holds() -> None:
    """Inside a shield the cancellation arrives only after the shielded part."""
    done: list[str] = []

    async def scenario() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
            done.append("shielded")
        await anyio.sleep(3)
        done.append("never")

    assert await cancel_at(0, scenario)
    assert done == ["shielded"]


async def test_child_tasks_are_cancelled_too() -> None:
    """A cancellation of the scenario reaches the tasks that it started."""
    ended: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep(100)
            ended.append("in peace")
        finally:
            ended.append("over")

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            await anyio.sleep(50)

    assert await cancel_at(0, scenario)
    assert ended == ["over"]


@pytest.mark.parametrize("through", ["scope", "task"])
def test_a_second_cancellation_hits_the_clean_up(through: Literal["scope", "task"]) -> None:
    """Cancelled twice, clean-up that suspends is cancelled at its own next suspension."""
    ended: list[str] = []

    async def scenario() -> None:
        try:
            await anyio.sleep(100)
        finally:
            try:
                await asyncio.sleep(1)
                ended.append("cleaned up")
            except asyncio.CancelledError:
                ended.append("cancelled again")
                raise

    async def twice() -> bool:
        return await cancel_at(0, scenario, times=2, through=through)

    assert run_virtual("asyncio", twice)
    assert ended == ["cancelled again"]


def test_a_native_cancellation_comes_once() -> None:
    """On asyncio a single ``cancel()`` of a task leaves its clean-up alone, unlike a scope."""
    ended: list[str] = []

    async def scenario() -> None:
        try:
            await anyio.sleep(100)
        finally:
            await asyncio.sleep(1)
            ended.append("cleaned up")

    async def once() -> bool:
        return await cancel_at(0, scenario, through="task")

    assert run_virtual("asyncio", once)
    assert ended == ["cleaned up"]


def test_native_cancellation_visits_every_point() -> None:
    """Through ``cancel()`` of its task, too, every suspension point is hit, then none."""

    async def visit() -> list[int]:
        steps: list[int] = []
        walk = Walk()
        while await cancel_at(len(steps), walk, through="task"):
            steps.append(walk.steps)
            walk = Walk()
        assert walk.endings == []
        return steps

    assert run_virtual("asyncio", visit) == [0, 1, 2]


def test_native_cancellation_needs_asyncio() -> None:
    """Asking for a native cancellation on trio is refused, saying why."""

    async def scenario() -> bool:
        return await cancel_at(0, Walk(), through="task")

    with pytest.raises(InvalidValue, match="asyncio"):
        run_virtual("trio", scenario)


async def test_a_scenario_that_never_suspends_has_no_points() -> None:
    """Without a suspension there is nothing to count and nothing to cancel."""

    async def scenario() -> None:
        return

    assert await count_suspensions(scenario) == 0
    assert not await cancel_at(0, scenario)
