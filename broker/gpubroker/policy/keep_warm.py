"""How long an idle machine is kept: while its next use is worth more than what idling costs.

A machine that is given up and needed again costs a cold start: boot and set-up, billed. So keeping
it for a gap of g seconds costs g, and giving it up costs the cold start's seconds, at one price.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

from gpubroker.errors import InvalidValue

_REMEMBERED: Final = 512


@dataclass(slots=True)
class Gaps:
    """The gaps between the uses of a pool's machines, whatever became of the machines.

    A use takes the machine that has been idle for the shortest time; so the gap that it ends is
    known even where the machine had been given up before. Times are Unix seconds, in order.

    Attributes:
        seen: the gaps, in seconds, the newest last.
        idle: when the machines that nobody has taken since became idle, the newest last.
    """

    seen: deque[float] = field(default_factory=lambda: deque[float](maxlen=_REMEMBERED))
    idle: deque[float] = field(default_factory=lambda: deque[float](maxlen=_REMEMBERED))

    def began(self, at: float) -> None:
        """Somebody began to use a machine."""
        if self.idle:
            self.seen.append(max(0.0, at - self.idle.pop()))

    def ended(self, at: float) -> None:
        """A machine became idle."""
        self.idle.append(at)


class KeepWarm(Protocol):
    """A rule for how long a machine is kept that has just become idle."""

    def __call__(self, gaps: Gaps, cold_start: float) -> float:
        """Seconds to keep it, counted from when it became idle.

        Args:
            gaps: what was seen of the pool's traffic up to now.
            cold_start: seconds that the next cold start is expected to be billed.
        """
        ...


@dataclass(frozen=True, slots=True)
class fixed:  # noqa: N801 - reads as a word of policy: keep_warm=fixed(300)
    """Keep it for so many seconds, always."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            raise InvalidValue("seconds", self.seconds, "must be a number of seconds, 0 or more")

    def __call__(self, gaps: Gaps, cold_start: float) -> float:
        del gaps, cold_start
        return self.seconds


@dataclass(frozen=True, slots=True)
class break_even:  # noqa: N801
    """Keep it until idling has cost as much as the next cold start will.

    Whatever comes, that never costs more than twice what knowing the future would have.
    """

    def __call__(self, gaps: Gaps, cold_start: float) -> float:
        del gaps
        return cold_start
