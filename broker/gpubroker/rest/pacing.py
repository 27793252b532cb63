"""How often an endpoint is asked: a least pause between two requests, and what a 429 adds to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio

#: No server may put off a destroy for longer, whatever it asks for.
_LONGEST_HOLD: Final = 300.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often one endpoint, or several that share an allowance, may be asked.

    Attributes:
        name: what the allowance is called; requests with the same name share it.
        interval: least seconds between the starts of two requests.
        urgent: never waits for requests of other names, however many there are.
    """

    name: str
    interval: float = 0.0
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """When one endpoint may be asked next, in seconds of a clock that never goes back."""

    free_at: float = -math.inf

    def pause(self, now: float) -> float:
        """Seconds to wait from `now`."""
        return max(0.0, self.free_at - now)

    def asked(self, now: float, interval: float) -> Lane:
        """After a request that begins at `now`."""
        return self.held(now + interval)

    def held(self, until: float) -> Lane:
        """After the server said when it wants to be asked again; nothing makes that earlier."""
        return Lane(max(self.free_at, until))


@dataclass
class Pacer:
    """Makes requests wait for their turn: first come, first served within each name.

    Attributes:
        even: ``False`` lets every request begin at once, save where a server said "not before".
    """

    even: bool = True
    clock: Callable[[], float] = anyio.current_time
    _lanes: dict[str, Lane] = field(default_factory=dict[str, Lane])
    _queues: dict[str, anyio.Lock] = field(default_factory=dict[str, anyio.Lock])

    async def turn(self, pace: Pace, patience: float) -> float:
        """Wait until `pace` allows a request, and count one as begun.

        Args:
            patience: most seconds to wait at the head of the queue.

        Returns:
            0; or the seconds still to be waited, where they are more than `patience`: then
            nothing was counted.
        """
        async with self._queues.setdefault(pace.name, anyio.Lock()):
            while (pause := self._lane(pace).pause(self.clock())) > 0:
                if pause > patience:
                    return pause
                # What is waited for may be put off meanwhile, so it is looked at again.
                await anyio.sleep(pause)
            self.sent(pace)
        return 0.0

    def sent(self, pace: Pace) -> None:
        """Count a request from now on: connecting took its time, of which the server knows nothing."""
        interval = pace.interval if self.even else 0.0
        self._lanes[pace.name] = self._lane(pace).asked(self.clock(), interval)

    def hold(self, pace: Pace, seconds: float) -> None:
        """Ask nothing under this name for so long; five minutes at the most."""
        pause = min(seconds, _LONGEST_HOLD)
        self._lanes[pace.name] = self._lane(pace).held(self.clock() + pause)

    def _lane(self, pace: Pace) -> Lane:
        return self._lanes.get(pace.name, Lane())
