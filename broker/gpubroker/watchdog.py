"""Names the plugin that blocks the event loop."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Watchdog:
    """Times every step of a plugin's coroutine between two of its real suspensions.

    A step that returns late is reported when it returns; a thread reports one that does not
    return at all. Only real time counts, whatever clock the event loop runs on.

    Args:
        limit: seconds that one step may take.
        report: called with the label of the plugin's hook and the seconds it has blocked so far,
            from the event loop's thread or from the watching one.
    """

    def __init__(self, limit: float, report: Callable[[str, float], None]) -> None:
        self._limit = limit
        self._report = report
        self._step: tuple[str, float] | None = None
        self._reported: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start watching from a thread, which ends with the process at the latest."""
        self._thread = threading.Thread(target=self._watch, name="gpubroker-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    async def watched(self, label: str, awaitable: Awaitable[T]) -> T:
        """Await a plugin's answer, watching each step of the way."""
        return await self._stepped(label, awaitable)

    @types.coroutine
    def _stepped(self, label: str, awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
        steps: Any = awaitable.__await__()
        resume: Callable[[Any], Any] = steps.send
        argument: Any = None
        while True:
            began = self._step = (label, time.monotonic())
            try:
                yielded = resume(argument)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._step = None
                blocked = time.monotonic() - began[1]
                if blocked > self._limit and self._reported != began:
                    self._report(label, blocked)
            try:
                argument = yield yielded
                resume = steps.send
            except BaseException as error:  # noqa: BLE001 - cancellations are passed on as well
                resume, argument = steps.throw, error

    def _watch(self) -> None:
        while not self._stop.wait(self._limit / 2):
            step = self._step
            if step is None or step == self._reported:
                continue
            blocked = time.monotonic() - step[1]
            if blocked > self._limit:
                self._reported = step
                self._report(step[0], blocked)
