"""Ages by a wall clock that may have been set forward."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpubroker.policy.clock import Step, age

MOMENTS = st.floats(0, 1e9)
SECONDS = st.floats(1, 1e7)


@given(MOMENTS, SECONDS)
def test_without_a_step_it_is_the_difference(since: float, seconds: float) -> None:
    """A clock that nobody sets is believed."""
    assert age(since, since + seconds) == since + seconds - since


@given(since=MOMENTS, lived=SECONDS, jump=SECONDS, after=SECONDS)
def test_a_step_makes_nothing_older(since: float, lived: float, jump: float, after: float) -> None:
    """What was there before the clock was set is as old as the time that really passed."""
    before = since + lived

    found = age(since, before + jump + after, [Step(before, jump)])

    assert abs(found - (lived + after)) < 1e-3


@given(since=MOMENTS, jump=SECONDS, after=SECONDS)
def test_what_came_after_a_step_is_as_old_as_it_looks(
    since: float, jump: float, after: float
) -> None:
    """A step counts for nothing that began when it was over."""
    assert age(since, since + after, [Step(since - jump, jump)]) == since + after - since
