from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind
from gpubroker.policy.backoff import QUARANTINE_AFTER, delay, quarantines

seeds = st.integers(0, 2**32)
failures = st.integers(1, 10_000)


class Highest(random.Random):
    """Draws the upper end each time: shows the ceiling under the jitter."""

    def uniform(self, a: float, b: float) -> float:
        return b


class TestDelay:
    @given(failures, seeds)
    def test_waiting_is_never_nothing_and_never_more_than_the_cap(
        self, count: int, seed: int
    ) -> None:
        """However many failures, it is between a tenth of a second and a minute."""
        assert 0.1 <= delay(count, random.Random(seed)) <= 60.0

    @given(failures)
    def test_the_ceiling_never_falls(self, count: int) -> None:
        """One failure more never allows less waiting."""
        assert delay(count, Highest()) <= delay(count + 1, Highest())

    def test_the_ceiling_doubles_up_to_the_cap(self) -> None:
        """1, 2, 4 … 32, then 60 seconds for ever."""
        assert [delay(n, Highest()) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]

    def test_first_and_cap_are_what_the_caller_says(self) -> None:
        """Both ends of the growth can be set."""
        assert [delay(n, Highest(), first=5, cap=8) for n in (1, 2, 3)] == [5, 8, 8]

    @given(failures, seeds, st.floats(0, 300))
    def test_what_the_provider_asked_for_is_obeyed(
        self, count: int, seed: int, asked: float
    ) -> None:
        """It never asks again sooner than it was told to."""
        assert delay(count, random.Random(seed), retry_after=asked) >= asked

    @given(failures, seeds, st.floats())
    def test_no_provider_can_put_a_release_off_for_ever(
        self, count: int, seed: int, asked: float
    ) -> None:
        """Five minutes of ``retry_after`` are obeyed, whatever number it is, and no more."""
        waiting = delay(count, random.Random(seed), retry_after=asked)

        assert 0.1 <= waiting <= 300.0

    def test_jitter_spreads_over_the_whole_range(self) -> None:
        """Brokers that fail together do not come back together."""
        source = random.Random(1)
        waits = [delay(10, source) for _ in range(400)]

        assert min(waits) < 6
        assert max(waits) > 54

    @pytest.mark.parametrize("asked", [math.nan, -1.0, -math.inf])
    def test_a_senseless_retry_after_changes_nothing(self, asked: float) -> None:
        """Not-a-number and negative waits count as not said."""
        assert delay(3, Highest(), retry_after=asked) == delay(3, Highest())


class TestQuarantine:
    @pytest.mark.parametrize(
        ("kind", "failing_for", "alarm"),
        [
            (ErrorKind.TRANSIENT, 0.0, False),
            (ErrorKind.TRANSIENT, QUARANTINE_AFTER - 0.001, False),
            (ErrorKind.TRANSIENT, QUARANTINE_AFTER, True),
            (ErrorKind.RATE_LIMIT, QUARANTINE_AFTER, True),
            (ErrorKind.AUTH, 0.0, True),
        ],
    )
    def test_an_alarm_is_raised_after_a_minute_or_at_once_for_a_refused_key(
        self, kind: ErrorKind, failing_for: float, alarm: bool
    ) -> None:
        """Nothing mends a refused key by itself; anything else gets sixty seconds."""
        assert quarantines(kind, failing_for) is alarm
