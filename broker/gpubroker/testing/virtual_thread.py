"""Virtual time for synchronous brokers: a loop in a thread, whose clock obeys its callers.

It moves only while a call is in progress. Between two calls it stands still, however long the
caller takes, so that what a test sees does not depend on how quick the computer is.

Calls that are still in progress when it ends are cut off, and named.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from gpubroker.sync import Broker
from gpubroker.testing.virtual_time import JumpingSelector, VirtualEventLoop, await_frames


class ObedientEventLoop(VirtualEventLoop):
    """An asyncio event loop whose virtual time passes only inside `call_in_progress`."""

    def _make_selector(self) -> JumpingSelector:
        self._obedient = _ObedientSelector(self._waiting)
        return self._obedient

    @contextmanager
    def call_in_progress(self) -> Generator[None]:
        """Time may pass. Entered and left in the loop's own thread, so it stops at once."""
        task = asyncio.current_task(self)
        assert task is not None
        self._obedient.calls.append(task)
        try:
            yield
        finally:
            self._obedient.calls.remove(task)

    def let_time_pass(self) -> None:
        """From now on, whoever waits: what is cut off may take a while to end."""
        self._obedient.ending = True

    def under_way(self) -> list[str]:
        """What callers wait for, such as ``Broker.run``. Called in the loop's own thread."""
        return sorted(_called(task) for task in self._obedient.calls)


class _ObedientSelector(JumpingSelector):
    """Jumps while anybody waits for it; otherwise it waits for somebody, in real time."""

    def __init__(self, waiting: Callable[[], list[str]]) -> None:
        super().__init__(waiting)
        self.calls: list[asyncio.Task[Any]] = []
        self.ending = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        at_once = timeout is not None and timeout <= 0
        if self.calls or self.ending or at_once:
            return super().select(timeout)
        return super(JumpingSelector, self).select(None)


async def _calls_under_way() -> list[str]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ObedientEventLoop)
    return loop.under_way()


async def _time_passes() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ObedientEventLoop)
    loop.let_time_pass()


def _called(task: asyncio.Task[Any]) -> str:
    for frame, _ in await_frames(task.get_coro()):
        if frame.f_code.co_qualname.startswith("Async"):
            return frame.f_code.co_qualname.removeprefix("Async")
    return "the way into a broker or a lease"


class VirtualThread:
    """One such loop in a thread, shared by all brokers of a test so that they share its time."""

    ended = False

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
        self.ended = True
        with suppress(RuntimeError):  # the loop has ended by itself
            self._host.call(_time_passes)
            self._host.call(self._host.stop, True)
        self._context.__exit__(kind, error, trace)

    def under_way(self) -> list[str]:
        """The calls of other threads that have not come back."""
        with suppress(RuntimeError):  # the loop has ended by itself
            return self._host.call(_calls_under_way)
        return []

    def portal(self) -> AbstractContextManager[BlockingPortal]:
        """A broker's own way into the loop; it may be stopped without stopping the others'."""
        return _Way(self._host)


class _Way(AbstractContextManager[BlockingPortal]):
    # Not a generator, which would want to be left when it is collected, with the loop long gone.

    def __init__(self, host: BlockingPortal) -> None:
        self._host = host

    def __enter__(self) -> BlockingPortal:
        opened: Future[BlockingPortal] = Future()

        async def stay() -> None:
            async with BlockingPortal() as portal:
                opened.set_result(portal)
                await portal.sleep_until_stopped()

        self._ended = self._host.start_task_soon(stay)
        self._portal = opened.result()
        return self._portal

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._host.call(self._portal.stop)
            self._ended.result()


class VirtualBroker(Broker):
    """A `gpubroker.Broker` in virtual time.

    Args:
        thread: where its event loop is.
        options: those of `gpubroker.Broker`.
    """

    def __init__(self, thread: VirtualThread, **options: Any) -> None:
        super().__init__(**options)
        self._thread = thread

    def close(self, patience: float | None = None) -> None:
        """As `gpubroker.Broker.close`; nothing is left to close where the clouds were first."""
        if self._thread.ended:
            self._portal = None
        super().close(patience)

    def _start_portal(self) -> AbstractContextManager[BlockingPortal]:
        return self._thread.portal()
