"""What emulated machines go through, as tasks of the emulator's event loop."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any


class LifeTasks:
    """One task for the life of each machine, and any number beside them."""

    def __init__(self) -> None:
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        #: What went wrong in them: faults of the emulator itself, as text.
        self.bugs: list[str] = []

    def drive(self, machine: str, work: Coroutine[Any, Any, None]) -> None:
        """Let a machine's life go on in another way than so far."""
        before = self._lives.get(machine)

        async def drive() -> None:
            if before is not None:
                before.cancel()
                await asyncio.gather(before, return_exceptions=True)
            await work

        task = self._lives[machine] = self._start(drive())
        # Ended while it waited for what went before, the work itself was never begun.
        task.add_done_callback(lambda _: work.close())

    def soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the lives of machines, until `close`."""
        task = self._start(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        return task

    async def close(self) -> None:
        """Cancel all of them, and wait until they have ended."""
        tasks = [*self._lives.values(), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[None]) -> None:
        """Write down what a task has raised, since nobody waits for it: a test sees it at the end."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.bugs.append("".join(traceback.format_exception(error)))
