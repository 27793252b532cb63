"""Virtual time: a simulated day takes as long as the work in it, and nothing is patched.

Both event loops get a clock that stands still while anything can run, and jumps to the next
timer when nothing can: on trio its own ``MockClock``, on asyncio an event loop whose ``time()``
jumps. Both clocks begin at 0.

It is sound only while nothing leaves the event loop: threads, processes and sockets live in real
time, and no jump waits for them. Where nothing can run and no timer is set, the program would
wait for ever: that is `VirtualDeadlock`.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import selectors
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, TypeVarTuple, Unpack, cast

import anyio

if TYPE_CHECKING:
    from trio.abc import Clock

BackendName = Literal["asyncio", "trio"]
VirtualBackend = tuple[BackendName, dict[str, Any]]

#: Real seconds to wait for something outside the loop, before a standstill is called a deadlock.
PATIENCE: Final = 0.5

_MACHINERY: Final = ("anyio", "asyncio", "trio")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualDeadlock(RuntimeError):
    """Nothing can run and no timer is set: in virtual time that would last for ever."""

    def __init__(self, waiting: list[str]) -> None:
        self.waiting = waiting
        where = "".join(f"\n  {task}" for task in waiting)
        super().__init__(f"nothing can run and no timer is set; waiting for ever:{where}")


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time: ``loop_factory=VirtualEventLoop``.

    Raises:
        VirtualDeadlock: from whatever runs the loop, when nothing can happen any more.
    """

    def __init__(self) -> None:
        self._jumping = self._make_selector()
        super().__init__(self._jumping)

    def _make_selector(self) -> JumpingSelector:
        return JumpingSelector(self._waiting)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now

    @property
    def _clock_resolution(self) -> float:
        # asyncio runs what is due before now and this; half a year on, a real clock's nanosecond
        # is less than the next number, and what is due now would never be.
        return max(1e-9, math.ulp(self.time()))

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """What asyncio has read off the real clock counts for nothing."""

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer; one that is set for never is not a timer that time could jump to."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def _waiting(self) -> list[str]:
        return sorted(
            f"{task.get_name()} at {place(await_frames(task.get_coro()))}"
            for task in asyncio.all_tasks(self)
        )


class JumpingSelector(selectors.DefaultSelector):
    """Where a real selector would wait for the next timer, this one moves the clock to it."""

    def __init__(self, waiting: Callable[[], list[str]]) -> None:
        super().__init__()
        self.now = 0.0
        self._waiting = waiting

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else PATIENCE)
        if timeout is None and not ready:
            raise VirtualDeadlock(self._waiting())
        if timeout and not ready:
            self.now += timeout
        return ready


class VirtualWallClock:
    """Wall time that moves with the event loop's time: the ``now`` of a broker under test.

    Calling it gives Unix seconds. It is `start` at the first call inside an event loop. When a
    loop has ended the clock stands still until it is called in the next one, so that one clock
    may see several loops in turn, as it must where a restart is simulated.

    Args:
        start: Unix seconds.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._base = start
        self._zero = 0.0
        self._loop_time: Callable[[], float] = lambda: 0.0
        self._loop: object = None

    def __call__(self) -> float:
        loop = _current_loop()
        if loop is not None and loop is not self._loop:
            self._bind(loop)
        return self._base + (self._loop_time() - self._zero)

    def _bind(self, loop: asyncio.AbstractEventLoop | Clock) -> None:
        """Go on from the last reading, with the time of the loop that runs now."""
        self._base += self._loop_time() - self._zero
        self._loop = loop
        self._loop_time = (
            loop.time if isinstance(loop, asyncio.AbstractEventLoop) else loop.current_time
        )
        self._zero = self._loop_time()

    def jump(self, seconds: float) -> None:
        """Shift the wall clock and not the event loop: a laptop that slept, or a clock set anew.

        Args:
            seconds: how far forward; back, if negative.
        """
        self()
        self._base += seconds


def _current_loop() -> asyncio.AbstractEventLoop | Clock | None:
    """What tells the time here: asyncio's loop, trio's clock, or nothing."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
    try:
        return None if trio is None else cast("Clock", trio.lowlevel.current_clock())
    except RuntimeError:
        return None


def in_virtual_time() -> bool:
    """Whether the event loop that runs here jumps over waiting."""
    loop = _current_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        return isinstance(loop, VirtualEventLoop)
    testing = sys.modules.get("trio.testing")
    return testing is not None and isinstance(loop, testing.MockClock)


def virtual_backend(name: BackendName) -> VirtualBackend:
    """An event loop in virtual time, as the ``anyio_backend`` fixture wants it.

    Make one for every test: trio's clock cannot be used twice::

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return virtual_backend(request.param)

    On trio a standstill cancels the whole run, since trio has no way to raise an error from
    outside: the test fails with ``Cancelled``, and the log says why. Code inside a shield that
    has no deadline cannot be reached, and hangs all the same.

    Args:
        name: ``"asyncio"`` or ``"trio"``.
    """
    if name == "asyncio":
        return "asyncio", {"loop_factory": VirtualEventLoop}
    from gpubroker.testing.trio_standstill import virtual_trio_options

    return "trio", virtual_trio_options()


def virtual_backends() -> list[VirtualBackend]:
    """Both event loops in virtual time, each to be used once."""
    return [virtual_backend("asyncio"), virtual_backend("trio")]


def run_virtual(
    backend: BackendName, function: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts
) -> T:
    """Run an async function to its end, in virtual time.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        function: called with `args`.

    Returns:
        What the function returns.

    Raises:
        VirtualDeadlock: nothing could run any more and no timer was set.
    """
    name, options = virtual_backend(backend)
    try:
        return anyio.run(function, *args, backend=name, backend_options=options)
    except BaseException as error:
        waiting = _standstill(options)
        if waiting is not None:
            raise VirtualDeadlock(waiting) from error
        raise


def _standstill(options: Mapping[str, Any]) -> list[str] | None:
    """What trio's run was waiting for, if it was cancelled because nothing could happen."""
    for instrument in options.get("instruments", ()):
        if instrument.waiting is not None:
            waiting: list[str] = instrument.waiting
            return waiting
    return None


def place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Where a suspended task waits, outside the event loop's own code; frames outermost first."""
    where = "no place of its own"
    for frame, line in frames:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _MACHINERY:
            where = f"{frame.f_code.co_filename}:{line}"
    return where


def await_frames(coroutine: object) -> Iterator[tuple[FrameType, int]]:
    """Where a suspended coroutine is, outermost first."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if isinstance(frame, FrameType):
            yield frame, frame.f_lineno
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
