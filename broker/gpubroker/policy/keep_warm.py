"""How long an idle machine is kept: while its next use is worth more than what idling costs.

A machine that is given up and needed again costs a cold start: boot and set-up, billed. So keeping
it for a gap of g seconds costs g, and giving it up costs the cold start's seconds, at one price.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from gpubroker.errors import InvalidValue

_REMEMBERED: Final = 512
#: So many gaps must have been seen before anything is learnt from them.
_FEWEST: Final = 8
#: So many cold starts must lie between the oldest and the newest of them: rare long gaps are what
#: keeping machines costs, and a second full of short ones tells nothing of them.
_LONG: Final = 20
#: A gap counts half as much as one that is so many gaps newer.
_HALF_LIFE: Final = 128
#: What a gap counts that followed on a wholly different one; one that did on the same counts 1 more.
_ANY: Final = 0.1
#: What must be saved, as a part of break-even's cost, for another time than its own to be chosen.
_WORTH: Final = 0.05


class Gap(NamedTuple):
    """How long a machine was not needed, and what had been seen when that began.

    Attributes:
        seconds: how long it was.
        after: the logarithm of the gap that had ended last before it began; 0 if none had.
        until: when it ended.
    """

    seconds: float
    after: float
    until: float


@dataclass(slots=True)
class Gaps:
    """The gaps between the uses of a pool's machines, whatever became of the machines.

    A use takes the machine that has been idle for the shortest time; so the gap that it ends is
    known even where the machine had been given up before. Times are Unix seconds, in order.

    Attributes:
        seen: the gaps that have ended, the newest last.
        idle: when the machines that nobody has taken since became idle, the newest last, and
            what the gap before that was, as in `Gap.after`.
    """

    seen: deque[Gap] = field(default_factory=lambda: deque[Gap](maxlen=_REMEMBERED))
    idle: deque[tuple[float, float]] = field(
        default_factory=lambda: deque[tuple[float, float]](maxlen=_REMEMBERED)
    )

    @property
    def before(self) -> float:
        """The logarithm of the gap that has ended last; 0 before there is one."""
        return math.log1p(self.seen[-1].seconds) if self.seen else 0.0

    def began(self, at: float) -> None:
        """Somebody began to use a machine."""
        if self.idle:
            since, after = self.idle.pop()
            self.seen.append(Gap(max(0.0, at - since), after, at))

    def ended(self, at: float) -> None:
        """A machine became idle."""
        self.idle.append((at, self.before))


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


@dataclass(frozen=True, slots=True)
class learnt:  # noqa: N801
    """Keep it for the time that would have cost least in the gaps that were seen, if it is clear.

    Gaps count the more, the newer they are, and the more alike the gaps were that they followed
    on: uses come in bursts. With few gaps or little time seen, or where little would be saved, it
    is `break_even`; and no machine is kept for longer than that. After a change of traffic it has
    relearnt when the new gaps outweigh the old, some 128 of them later.
    """

    def __call__(self, gaps: Gaps, cold_start: float) -> float:
        if len(gaps.seen) < _FEWEST or _span(gaps) < _LONG * cold_start:
            return cold_start
        seen = _weighed(gaps)
        longer, idling = math.fsum(weight for _, weight in seen), 0.0
        least, keep = longer * cold_start, 0.0
        for seconds, weight in seen:
            if seconds > cold_start:
                break
            longer -= weight
            idling += weight * seconds
            cost = idling + longer * (seconds + cold_start)
            if cost < least:
                least, keep = cost, seconds
        even = idling + longer * 2 * cold_start
        return keep if least < even * (1 - _WORTH) else cold_start


def _span(gaps: Gaps) -> float:
    return gaps.seen[-1].until - gaps.seen[0].until


def _weighed(gaps: Gaps) -> list[tuple[float, float]]:
    """The gaps in seconds, the shortest first, and what each counts for the one that begins."""
    now, fades, age = gaps.before, 0.5 ** (1 / _HALF_LIFE), 1.0
    weighed: list[tuple[float, float]] = []
    for seconds, after, _ in reversed(gaps.seen):
        weighed.append((seconds, age * (_ANY + math.exp(-0.5 * (after - now) ** 2))))
        age *= fades
    return sorted(weighed)
