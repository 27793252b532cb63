"""Virtual time for synchronous brokers: a loop in a thread, whose clock obeys its callers.

It moves only while a call is in progress. Between two calls it stands still, however long the
caller takes, so that what a test sees does not depend on how quick the computer is.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from gpubroker.sync import Broker
from gpubroker.testing.virtual_time import JumpingSelector, VirtualEventLoop


class ObedientEventLoop(VirtualEventLoop):
    """An asyncio event loop whose virtual time passes only inside `call_in_progress`."""

    def _make_selector(self) -> JumpingSelector:
        self._obedient = _ObedientSelector(self._waiting)
        return self._obedient

    @contextmanager
    def call_in_progress(self) -> Generator[None]:
        """Time may pass. Entered and left in the loop's own thread, so it stops at once."""
        self._obedient.calls += 1
        try:
            yield
        finally:
            self._obedient.calls -= 1


class _ObedientSelector(JumpingSelector):
    """Jumps while anybody waits for it; otherwise it waits for somebody, in real time."""

    def __init__(self, waiting: Callable[[], list[str]]) -> None:
        super().__init__(waiting)
        self.calls = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        at_once = timeout is not None and timeout <= 0
        if self.calls or at_once:
            return super().select(timeout)
        return super(JumpingSelector, self).select(None)


class VirtualThread:
    """One such loop in a thread, shared by all brokers of a test so that they share its time."""

    def __enter__(self) -> Self:
        self._context = start_blocking_portal(
            "asyncio", {"loop_factory": ObedientEventLoop}, name="gpubroker-virtual"
        )
        self._host = self._context.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.__exit__(kind, error, trace)

    @contextmanager
    def portal(self) -> Generator[BlockingPortal]:
        """A broker's own way into the loop; it may be stopped without stopping the others'."""
        opened: Future[BlockingPortal] = Future()

        async def stay() -> None:
            async with BlockingPortal() as portal:
                opened.set_result(portal)
                await portal.sleep_until_stopped()

        ended = self._host.start_task_soon(stay)
        portal = opened.result()
        try:
            yield portal
        finally:
            self._host.call(portal.stop)
            ended.result()


class VirtualBroker(Broker):
    """A `gpubroker.Broker` in virtual time.

    Args:
        thread: where its event loop is.
        options: those of `gpubroker.Broker`.
    """

    def __init__(self, thread: VirtualThread, **options: Any) -> None:
        super().__init__(**options)
        self._thread = thread

    def _start_portal(self) -> AbstractContextManager[BlockingPortal]:
        return self._thread.portal()
