"""Ctrl-C, SIGTERM and a closed terminal: the first gives up in order, the second leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import anyio

T = TypeVar("T")
_SIGNALS: Final = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to terminate",
    signal.SIGHUP: "the terminal was closed",
}


class Stopped(Exception):
    """The work was stopped from outside, by somebody who wanted that.

    Attributes:
        code: what to exit with.
    """

    def __init__(self, code: int, why: str) -> None:
        self.code = code
        super().__init__(why)


class Stop:
    """Stops one piece of work, once.

    Args:
        on_stop: called first of all, with why; here goes what must be on record before anything
            else may happen.
    """

    def __init__(self, on_stop: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._on_stop = on_stop
        self._scope: anyio.CancelScope | None = None
        self._stopped: Stopped | None = None

    async def now(self, code: int, why: str) -> None:
        """Stop the work. Once it is stopped, this does nothing."""
        if self._stopped is not None:
            return
        self._stopped = Stopped(code, why)
        try:
            if self._on_stop is not None:
                await self._on_stop(why)
        finally:
            if self._scope is not None:
                self._scope.cancel()

    async def watch(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> T:
        """Do `work`; a signal stops it, and a second one ends the process.

        Args:
            beside: goes on until the work has ended.

        Raises:
            Stopped: it was stopped, and has ended.
        """
        outcome: list[T] = []
        problem: Exception | None = None
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, signals)
                if beside is not None:
                    tasks.start_soon(beside)
                with anyio.CancelScope() as self._scope:
                    try:
                        outcome.append(await work())
                    except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                        problem = error
                tasks.cancel_scope.cancel()
        if self._stopped is not None:
            raise self._stopped from problem
        if problem is not None:
            raise problem
        return outcome[0]

    async def _listen(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for number in signals:
            if self._stopped is not None:
                os._exit(128 + number)
            await self.now(128 + number, _SIGNALS[number])
