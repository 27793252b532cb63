"""When to ask the market again, for a request that may wait for capacity."""

from __future__ import annotations

import random
from collections.abc import Iterable

from gpubroker.errors import ErrorKind
from gpubroker.policy.cooldown import Cooldown

FIRST = 5.0
"""Seconds before the market is asked again for the first time."""

MOMENT = 0.001
"""Seconds that are not worth waiting for: a clock may not even show that they went by."""

LONGEST = 60.0
"""Seconds between two times that the market is asked."""


def next_round(
    rounds: int,
    waited: float,
    wait: float,
    cooldowns: Iterable[Cooldown],
    now: float,
    source: random.Random,
) -> float | None:
    """Seconds until the market should be asked again; ``None`` to give up.

    The pause grows with each round and is spread by up to a half, so that many waiting programs
    do not ask in step. It lasts at least until the first of the providers that asked for a pause
    may be asked again, if that is within the time that is left.

    Args:
        rounds: how often it was asked so far, at least once.
        waited: seconds since the request began. wait: seconds that it may wait in all.
    """
    left = wait - waited
    if left < MOMENT:
        return None
    pause = min(LONGEST, FIRST * 2.0 ** min(rounds - 1, 30)) * source.uniform(1.0, 1.5)
    asked = [c.until - now for c in cooldowns if c.kind is ErrorKind.RATE_LIMIT and c.until > now]
    if asked and min(asked) <= left:
        pause = max(pause, min(asked))
    return min(pause, left)
