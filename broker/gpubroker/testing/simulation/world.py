"""Simulated time, and processes that are stopped, paused and killed in it like real ones.

Every process has an event loop of its own, in a thread of its own, and one thread runs at a time:
where a loop would wait, it hands over to whoever is next. So a paused process stands still in the
middle of whatever it did, a killed one never takes another step, and nothing is left to chance.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from gpubroker.testing.virtual_time import BackendName

#: Unix seconds at which every simulation begins.
START: Final = 1_800_000_000.0

#: So often may a process wait for less time than its clock can show.
_SPINS: Final = 1000


class Killed(SystemExit):
    """The process ends here and now: whoever raises this has no next step."""


class Spinning(Exception):
    """A process goes on for ever, and no time goes by."""


class World:
    """Time, what happens at which time, and who does what.

    Attributes:
        time: seconds since the beginning.
        jumped: seconds by which the wall clocks of all hosts are ahead of the true time.
        log: one line for everything that happened.
        running: whose step it is.
        numbers: for whatever needs an order of its own.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.jumped = 0.0
        self.log: list[str] = []
        self.processes: list[Process] = []
        self.running: Process | None = None
        self.numbers = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = threading.Semaphore(0)
        self._until = 0.0

    def true_time(self) -> float:
        """Unix seconds, as the vendors have it."""
        return START + self.time

    def wall_clock(self) -> float:
        """Unix seconds, as processes read it."""
        return START + self.time + self.jumped

    def waker(self, event: anyio.Event) -> Callable[[], None]:
        """Sets an event of the process whose step it is, from whichever one that is later."""
        process = self.running
        assert process is not None
        return lambda: process.post(event.set)

    @property
    def ended_at(self) -> float:
        """When the last process ended."""
        return max((p.ended_at for p in self.processes), default=0.0)

    def note(self, who: str, what: str) -> None:
        """Write a line into the log."""
        self.log.append(f"{self.time:10.3f}  {who}  {what}")

    def at(self, moment: float, happens: Callable[[], None]) -> None:
        """Let something happen at a time, before any process takes its step of that time."""
        heapq.heappush(self._agenda, (moment, next(self.numbers), happens))

    def start(self, process: Process) -> None:
        """A process begins now."""
        self.processes.append(process)
        process.begin(self.time)

    def run(self, until: float) -> None:
        """Let time pass, up to and including a moment."""
        self._until = until
        while True:
            process = self._next()
            moment = process.wakes_at if process is not None else math.inf
            if self._agenda and self._agenda[0][0] <= min(moment, until):
                due, _, happens = heapq.heappop(self._agenda)
                self.time = max(self.time, due)
                happens()
            elif process is not None and moment <= until:
                self.time = max(self.time, moment)
                self.running = process
                process.step()
                self._turn.acquire()
            else:
                break
        self.time = until

    def _next(self) -> Process | None:
        return min(
            (p for p in self.processes if not p.ended),
            key=lambda p: (p.wakes_at, p.number),
            default=None,
        )

    def horizon(self, process: Process) -> float:
        """The time before which nobody but this process has anything to do."""
        others = [p.wakes_at for p in self.processes if p is not process and not p.ended]
        agenda = self._agenda[0][0] if self._agenda else math.inf
        return min([agenda, self._until, *others])

    def hand_over(self) -> None:
        """Called in the thread of a process: somebody else's turn."""
        self._turn.release()


def _undisturbed(process: Process, what: str, after: bool) -> None:
    """Nothing happens to a process at an operation, where nothing else is said."""
    del process, what, after


class Process:
    """One program, from its start to its end.

    Attributes:
        number: its place among all processes, from 1.
        operations: how often it has touched the ledger or a provider.
        ledger_busy_until: world time before which others hold its ledger. ledger_broken_until:
            likewise, before which that cannot be used at all.
        ended: it takes no more steps.
        spins: how often in a row it has waited for no time at all.
        error: what it ended with, if it was neither its own end nor a kill.
    """

    def __init__(
        self,
        world: World,
        name: str,
        host: str,
        backend: BackendName,
        main: Callable[[Process], Awaitable[None]],
    ) -> None:
        self.world = world
        self.name = name
        self.host = host
        self.number = len(world.processes) + 1
        self.wakes_at = math.inf
        self.operations = 0
        self.spins = 0
        self.ended = False
        self.ended_at = 0.0
        self.killed = False
        self.paused_until = 0.0
        self.ledger_busy_until = 0.0
        self.ledger_broken_until = 0.0
        self.error: BaseException | None = None
        self.on_operation: Callable[[Process, str, bool], None] = _undisturbed
        self._backend: BackendName = backend
        self._main = main
        self._mail: list[Callable[[], None]] = []
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def unwell_until(self) -> float:
        """The last moment at which it was paused, or without its ledger."""
        return max(self.paused_until, self.ledger_busy_until, self.ledger_broken_until)

    # ---- the world's side -----------------------------------------------------------------

    def begin(self, moment: float) -> None:
        """Take the first step at a time."""
        self.wakes_at = moment
        self._thread.start()

    def step(self) -> None:
        """Go on until it hands over. Called by the world alone."""
        self._go.release()

    def kill(self) -> None:
        """End it: whatever it was about to do, it does not."""
        if not self.ended:
            self.killed = True
            self.world.note(self.name, "is killed")
            # One more step, in which the thread ends and nothing else happens.
            self.wakes_at = self.world.time

    def pause(self, seconds: float) -> None:
        """Stop it for a while; then it goes on as if nothing had happened."""
        if not self.ended and not self.killed:
            self.world.note(self.name, f"is paused for {seconds:g} s")
            self.paused_until = max(self.paused_until, self.world.time + seconds)
            self.wakes_at = max(self.wakes_at, self.paused_until)

    def post(self, notice: Callable[[], None]) -> None:
        """Have something called in the thread of this process, as soon as it can be."""
        if not self.ended:
            self._mail.append(notice)
            self.wakes_at = max(self.paused_until, min(self.wakes_at, self.world.time))

    # ---- the thread's side ----------------------------------------------------------------

    def wait(self, until: float) -> None:
        """Hand over until a time, or until something was posted.

        Raises:
            Killed: there is no time after this one.
        """
        world = self.world
        self.check_alive()
        if until <= world.time and not self._mail:
            self.spins += 1
            if self.spins > _SPINS:
                raise Spinning(f"{self.name} waits for no time at all, again and again")
            return
        if not self._mail:
            self.spins = 0
            if world.time < until < world.horizon(self):
                world.time = until
                return
            self._sleep(until)
        for notice in self._taken():
            notice()

    def stand_still(self) -> None:
        """Stop in the middle of a step for as long as it is paused."""
        if self.world.time < self.paused_until:
            self._sleep(self.paused_until)

    def _sleep(self, until: float) -> None:
        self.check_alive()
        self.wakes_at = until
        self.world.hand_over()
        self._go.acquire()
        self.check_alive()

    def _taken(self) -> list[Callable[[], None]]:
        mail, self._mail = self._mail, []
        return mail

    def check_alive(self) -> None:
        """Raises `Killed` in one that was killed."""
        if self.killed:
            raise Killed

    def operation(self, what: str, *, after: bool = False) -> None:
        """Say that it is about to touch the world outside, or just did: it may end or stop there.

        Raises:
            Killed: it ended here.
        """
        self.check_alive()
        if not after:
            self.operations += 1
        self.on_operation(self, what, after)
        self.check_alive()
        self.stand_still()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.check_alive()
            if self._backend == "asyncio":
                from gpubroker.testing.simulation.loop_asyncio import run
            else:
                from gpubroker.testing.simulation.loop_trio import run
            run(self, self._main)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the oracle's to judge
            if not self.killed:
                self.error = error
        finally:
            self.ended = True
            self.ended_at = self.world.time
            self.wakes_at = math.inf
            self.world.hand_over()
