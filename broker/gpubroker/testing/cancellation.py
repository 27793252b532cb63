"""Cancelling a coroutine at each point where it can be cancelled, one after the other.

A task can be cancelled only where it hands control to the event loop. The scenario is run again
and again, cancelled at the first such point, at the second, and so on, until it ends before the
point is reached::

    point = 0
    while await cancel_at(point, scenario):
        assert everything is as promised
        point += 1

Only the task that runs the scenario is counted, not tasks that it starts; these are cancelled
with it where they are in its scopes.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal, TypeVar

import anyio

from gpubroker.errors import InvalidValue

T = TypeVar("T")

Scenario = Callable[[], Coroutine[Any, Any, T]]


async def count_suspensions(scenario: Scenario[object]) -> int:
    """Run `scenario` to its end and count how often it handed control to the event loop."""
    seen = 0

    def count(point: int) -> None:
        nonlocal seen
        seen = point + 1

    await _watched(scenario(), count)
    return seen


async def cancel_at(
    point: int,
    scenario: Scenario[object],
    *,
    times: int = 1,
    through: Literal["scope", "task"] = "scope",
) -> bool:
    """Run `scenario` and cancel it where it suspends for the `point`-th time, counted from 0.

    Args:
        scenario: called once, without arguments.
        times: cancel again at each of the following suspensions, so many times in all. It may
            suspend again only where it shields itself or swallows the first cancellation.
        through: ``"scope"`` cancels an anyio scope around it (another one further out each
            time); ``"task"`` calls ``cancel()`` of its own asyncio task, as ``wait_for`` and
            asyncio's ``timeout`` do.

    Returns:
        Whether that point was reached. If not, the scenario ran to its end undisturbed.

    Raises:
        Exception: whatever the scenario raises, other than its cancellation.
        InvalidValue: ``through="task"`` on trio, which has no such thing.
    """
    if through == "task":
        return await _cancel_task_at(point, scenario, times)
    scopes = [anyio.CancelScope() for _ in range(times)]  # outermost first
    reached = False

    def cancel(now: int) -> None:
        nonlocal reached
        reached = reached or now == point
        if point <= now < point + times:
            scopes[times - 1 - (now - point)].cancel()

    async def inside(depth: int) -> None:
        if depth == times:
            await _watched(scenario(), cancel)
            return
        with scopes[depth]:
            await inside(depth + 1)

    await inside(0)
    return reached


async def _cancel_task_at(point: int, scenario: Scenario[object], times: int) -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise InvalidValue("through", "task", "only asyncio cancels tasks natively") from None
    reached = False

    def cancel(now: int) -> None:
        nonlocal reached
        reached = reached or now == point
        if point <= now < point + times:
            task.cancel()

    async def inside() -> None:
        await _watched(scenario(), cancel)

    task = asyncio.create_task(inside())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:  # not ours: the test itself is cancelled
        task.cancel()
        raise
    if not (reached and task.cancelled()):
        task.result()
    return reached


@types.coroutine
def _watched(
    coroutine: Coroutine[Any, Any, T], suspends: Callable[[int], None]
) -> Generator[Any, Any, T]:
    """Drive a coroutine in the current task, and call `suspends` before each of its suspensions.

    What `suspends` cancels is cancelled at that very suspension: both event loops look for
    pending cancellations when the task has handed over control.
    """
    point = 0
    answer: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            wants = coroutine.send(answer) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            result: T = stop.value
            return result
        suspends(point)
        point += 1
        answer = thrown = None
        try:
            answer = yield wants
        except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
            thrown = error
