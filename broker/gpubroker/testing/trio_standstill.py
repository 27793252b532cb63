"""Virtual time on trio, and what notices there that nothing can happen any more.

The only module here that imports trio when it is imported.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import trio.testing

from gpubroker.testing.virtual_time import PATIENCE, VirtualDeadlock, place


class StandstillWatch(trio.abc.Instrument):
    """Cancels the main task when nothing can run and no timer is set.

    trio itself would turn in circles for ever, with a clock that has nowhere to jump to.

    Attributes:
        waiting: what every task waited for at the standstill; ``None`` if there was none.
    """

    def __init__(self) -> None:
        self.waiting: list[str] | None = None
        self._idle_since: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Something could run."""
        del task
        self._idle_since = None

    def after_io_wait(self, timeout: float) -> None:
        """Nothing came from outside the loop either."""
        del timeout
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif self.waiting is None and now - self._idle_since > PATIENCE:
            seen = trio.lowlevel.current_statistics()
            if seen.tasks_runnable or seen.seconds_to_next_deadline != math.inf:
                self._idle_since = now
            else:
                self._cancel_main_task()

    def _cancel_main_task(self) -> None:
        root = trio.lowlevel.current_root_task()
        if root is None:
            return
        # Invariant of trio: of the init task's nurseries the innermost holds the main task alone.
        nursery = root.child_nurseries[-1]
        tasks = [task for main in nursery.child_tasks for task in (main, *_descendants(main))]
        self.waiting = sorted(f"{task.name} at {place(task.iter_await_frames())}" for task in tasks)
        logging.getLogger(__name__).error("%s", VirtualDeadlock(self.waiting))
        nursery.cancel_scope.cancel()


def _descendants(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield child
            yield from _descendants(child)


def virtual_trio_options() -> dict[str, Any]:
    """What ``trio.run`` takes to run once in virtual time."""
    return {
        "clock": trio.testing.MockClock(autojump_threshold=0),
        "instruments": [StandstillWatch()],
    }
