"""The result of something that goes on in the background."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Later(Generic[T]):
    """What a call gives, once it has; to be awaited where it is needed."""

    def __init__(self) -> None:
        self._done = anyio.Event()
        self._values: list[T] = []
        self._error: Exception | None = None

    async def work(self, call: Callable[[], Awaitable[T]]) -> None:
        """Do it. What it raises is raised by `result`."""
        try:
            self._values.append(await call())
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error
        finally:
            self._done.set()

    async def result(self) -> T:
        """Wait for it."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._values[0]
