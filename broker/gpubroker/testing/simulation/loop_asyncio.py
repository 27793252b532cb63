"""A simulated process on asyncio."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from gpubroker.testing.simulation.world import Process
from gpubroker.testing.virtual_time import VirtualEventLoop


def run(process: Process, main: Callable[[Process], Awaitable[None]]) -> None:
    """Run `main` to its end, or to that of the process."""
    loop = _Loop(process)
    # Tasks of a killed process are left as they are, and nobody is to hear of that.
    loop.set_exception_handler(_ignored)
    try:
        loop.run_until_complete(_awaited(main(process)))
    finally:
        loop.close()


def _ignored(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    del loop, context


async def _awaited(what: Awaitable[None]) -> None:
    await what


class _Loop(VirtualEventLoop):
    """An event loop that hands over where it would wait."""

    def __init__(self, process: Process) -> None:
        self._process = process
        asyncio.SelectorEventLoop.__init__(self, _Waiting(process))

        def make(
            loop: asyncio.AbstractEventLoop,
            coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
            **options: Any,
        ) -> asyncio.Future[Any]:
            task = _Task(coroutine, loop=loop, **options)
            task.number = next(process.world.numbers)
            return task

        self.set_task_factory(make)

    def time(self) -> float:
        """Seconds since the beginning of the world."""
        return self._process.world.time


class _Task(asyncio.Task[Any]):
    """anyio keeps tasks in sets: their order must not depend on where in memory they lie."""

    number = 0

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Waiting(selectors.DefaultSelector):
    """Where a real selector would wait, this one hands over."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        process = self._process
        if timeout is None:
            process.wait(math.inf)
        elif timeout > 0:
            process.wait(process.world.time + timeout)
        else:
            process.check_alive()
        return []
