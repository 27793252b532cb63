"""A simulated process on trio. The only module of the simulation that imports trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from gpubroker.testing.simulation.world import Process


def run(process: Process, main: Callable[[Process], Awaitable[None]]) -> None:
    """Run `main` to its end, or to that of the process."""
    clock = _Clock(process)

    async def until_over() -> None:
        try:
            await main(process)
        finally:
            clock.over = True

    try:
        trio.run(until_over, clock=clock)
    except trio.TrioInternalError:
        # What a clock that raises looks like: the process was killed where it waited, or spins.
        process.check_alive()
        raise


class _Clock(trio.abc.Clock):
    """trio asks it how long to wait when nothing can run: that is where it hands over."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.over = False  #: what is left is trio's own, and it wakes itself through a socket

    def start_clock(self) -> None:
        """It is the world that starts it."""

    def current_time(self) -> float:
        """Seconds since the beginning of the world."""
        return self._process.world.time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """None at all, once it is this process's turn again."""
        self._process.check_alive()
        if deadline > self._process.world.time and not self.over:
            self._process.wait(deadline)
        return 0.0
