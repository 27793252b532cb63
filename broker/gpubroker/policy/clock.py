"""How old something is by a wall clock that may have been set forward meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Step(NamedTuple):
    """The wall clock went forward by itself: it was set, or the computer slept.

    Attributes:
        before: Unix time that it would show without this step, when that was noticed.
        seconds: by how much it went forward.
    """

    before: float
    seconds: float


def age(since: float, at: float, steps: Iterable[Step] = ()) -> float:
    """Seconds from `since` to `at`, both in Unix time, without the steps between them.

    What slept meanwhile may be older than that, and is never younger.
    """
    return at - since - sum(step.seconds for step in steps if since <= step.before <= at)
