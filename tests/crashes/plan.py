"""Which trials there are: every point of every scenario first, and then as often as time allows."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

BACKENDS: Final = ("asyncio", "trio")
#: Every so many of the trials beyond the first round, the victim only stands still for a while.
_PAUSES: Final = 4

Points = Mapping[str, Mapping[str, int]]
"""By scenario: its points, and how often each is reached where nothing befalls it."""


@dataclass(frozen=True, slots=True)
class Blow:
    """What befalls a victim, and where.

    Attributes:
        occurrence: counted from 1.
        pause: it stands still until a reaper has acted, and then goes on; else it is killed.
    """

    point: str
    occurrence: int = 1
    pause: bool = False

    @property
    def signal(self) -> signal.Signals:
        """How the victim does it to itself."""
        return signal.SIGSTOP if self.pause else signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Trial:
    """One victim; written as its name, everything that it takes to repeat it."""

    scenario: str
    blow: Blow
    backend: str
    seed: int

    def __str__(self) -> str:
        verb = "pause" if self.blow.pause else "kill"
        where = f"{self.blow.point}#{self.blow.occurrence}"
        return f"{self.scenario}|{where}|{verb}|{self.backend}|{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Trial:
        """The trial of a name.

        Raises:
            ValueError: it is none.
        """
        found = re.fullmatch(r"([^|]+)\|(.+)#(\d+)\|(kill|pause)\|(asyncio|trio)\|(\d+)", text)
        if found is None:
            raise ValueError(f"not a trial: {text!r}")
        scenario, point, occurrence, verb, backend, seed = found.groups()
        blow = Blow(point, int(occurrence), verb == "pause")
        return cls(scenario, blow, backend, int(seed))


def can_pause(point: str) -> bool:
    """Whether somebody else can act while a victim stands still there.

    Inside a transaction it holds the lock of an SQLite ledger: whoever wants to write waits for it.
    """
    return not point.endswith("before its commit")


def plan(points: Points, costs: Mapping[str, int], number: int, seed: int = 0) -> list[Trial]:
    """So many trials.

    Each point has its first one before any has a second; where there are more points than trials,
    a different part of them for each seed. Dear scenarios are repeated less often.
    """
    chance = random.Random(f"{seed}")
    every = [(name, point) for name, of_one in points.items() for point in of_one]
    chance.shuffle(every)
    blows = [(name, Blow(point)) for name, point in every[:number]]
    again = _repeats(points, costs, chance)
    while len(blows) < number:
        blows.append(next(again))
    return [
        Trial(name, blow, BACKENDS[(index + seed) % 2], seed * 1_000_000 + index)
        for index, (name, blow) in enumerate(blows)
    ]


def _repeats(
    points: Points, costs: Mapping[str, int], chance: random.Random
) -> Iterator[tuple[str, Blow]]:
    names = list(points)
    weights = [len(points[name]) / costs[name] for name in names]
    count = 0
    while True:
        (name,) = chance.choices(names, weights)
        point = chance.choice(list(points[name]))
        count += 1
        pause = count % _PAUSES == 0 and can_pause(point)
        yield name, Blow(point, chance.randint(1, points[name][point]), pause)
