from __future__ import annotations

import random
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, Scope
from gpubroker.policy.cooldown import Cooldown
from gpubroker.policy.waiting import FIRST, LONGEST, MOMENT, next_round

NOW: Final = 1_000_000.0
rounds = st.integers(1, 10_000)
seeds = st.integers(0, 2**32)
times = st.floats(0, 1e6)


class Lowest(random.Random):
    """Draws the lower end each time."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Highest(random.Random):
    """Draws the upper end each time."""

    def uniform(self, a: float, b: float) -> float:
        return b


def resting(lasts: float, kind: ErrorKind = ErrorKind.RATE_LIMIT) -> Cooldown:
    return Cooldown(
        provider="acme",
        scope=Scope.PROVIDER,
        key="",
        kind=kind,
        reason="too many requests",
        failures=1,
        since=NOW,
        until=NOW + lasts,
    )


cooldowns = st.lists(
    st.builds(resting, lasts=st.floats(-100, 1e5), kind=st.sampled_from(ErrorKind)), max_size=4
)


class TestPace:
    def test_it_slows_down_from_five_seconds_to_a_minute(self) -> None:
        """5, 10, 20, 40, then every minute, each up to half as long again."""
        low = [next_round(n, 0, 1e6, (), NOW, Lowest()) for n in range(1, 7)]
        high = [next_round(n, 0, 1e6, (), NOW, Highest()) for n in range(1, 7)]

        assert low == [5, 10, 20, 40, 60, 60]
        assert high == [7.5, 15, 30, 60, 90, 90]

    @given(rounds, seeds)
    def test_a_pause_is_never_nothing_and_never_without_end(self, count: int, seed: int) -> None:
        """However often the market was asked."""
        pause = next_round(count, 0.0, 1e6, (), NOW, random.Random(seed))

        assert pause is not None
        assert FIRST <= pause <= LONGEST * 1.5

    @given(rounds, seeds)
    def test_pauses_never_shrink_in_expectation(self, count: int, seed: int) -> None:
        """With the same draw, a later round waits at least as long."""
        one = next_round(count, 0, 1e6, (), NOW, random.Random(seed))
        next_one = next_round(count + 1, 0, 1e6, (), NOW, random.Random(seed))

        assert one is not None
        assert next_one is not None
        assert one <= next_one

    def test_waiting_programs_do_not_ask_in_step(self) -> None:
        """Two that began together part."""
        pauses = {next_round(1, 0, 1e6, (), NOW, random.Random(seed)) for seed in range(50)}

        assert len(pauses) == 50


class TestDeadline:
    @given(rounds, times, times, cooldowns, seeds)
    def test_nothing_waits_past_its_deadline(
        self, count: int, waited: float, wait: float, cooled: list[Cooldown], seed: int
    ) -> None:
        """The last pause ends with the wait itself; after that it is given up."""
        pause = next_round(count, waited, wait, cooled, NOW, random.Random(seed))

        if wait - waited < MOMENT:
            assert pause is None
        else:
            assert pause is not None
            assert 0 < pause <= wait - waited

    @given(st.floats(0.1, 10_000), cooldowns, seeds)
    def test_waiting_ends(self, wait: float, cooled: list[Cooldown], seed: int) -> None:
        """So many rounds and no more, the last of them at the deadline."""
        source, waited, count = random.Random(seed), 0.0, 0
        while True:
            count += 1
            pause = next_round(count, waited, wait, cooled, NOW + waited, source)
            if pause is None:
                break
            waited += pause
            assert count < 10 + wait / FIRST

        assert waited >= wait - MOMENT

    def test_a_rest_too_short_for_any_clock_is_no_wait(self) -> None:
        """Sums of pauses miss the deadline by a rounding: that asked the market without end."""
        assert next_round(9, 99.99999999999999, 100.0, [], NOW, Lowest()) is None


class TestQuotas:
    @given(rounds, st.floats(0.1, 3600), seeds)
    def test_a_provider_that_asked_for_a_pause_gets_it(
        self, count: int, asked: float, seed: int
    ) -> None:
        """The market is not asked again before it may be."""
        pause = next_round(count, 0.0, 1e6, [resting(asked)], NOW, random.Random(seed))

        assert pause is not None
        assert pause >= NOW + asked - NOW

    def test_the_first_of_several_may_be_asked_first(self) -> None:
        """One that may be asked in a minute does not wait for one that may in an hour."""
        cooled = [resting(3600), resting(61)]

        assert next_round(1, 0, 1e6, cooled, NOW, Lowest()) == 61

    def test_a_pause_longer_than_what_is_left_is_not_waited_for(self) -> None:
        """Others may have something before the deadline."""
        assert next_round(1, 0, 100, [resting(3600)], NOW, Lowest()) == 5

    def test_no_other_failure_sets_the_pace(self) -> None:
        """A broken host or a lack of capacity says nothing about quotas."""
        cooled = [resting(50, kind) for kind in ErrorKind if kind is not ErrorKind.RATE_LIMIT]

        assert next_round(1, 0, 1e6, cooled, NOW, Lowest()) == 5
