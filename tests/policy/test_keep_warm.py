"""How long idle machines are kept: what each rule promises, whatever the traffic."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.policy.keep_warm import Gaps, KeepWarm, break_even, fixed, learnt

COLD_START = 300.0

lengths = st.lists(st.floats(0, 10_000), max_size=60)
colds = st.floats(0, 3_600)


def seen(*lengths: float) -> Gaps:
    """What one machine has left behind whose uses were so far apart."""
    gaps, now = Gaps(), 0.0
    for length in lengths:
        gaps.ended(now)
        now += length
        gaps.began(now)
    return gaps


def idled(lengths: list[float], rule: KeepWarm, cold_start: float) -> float:
    """Seconds paid for in these gaps: idle, and booting where the machine was given up before."""
    gaps, now, paid = Gaps(), 0.0, 0.0
    for length in lengths:
        gaps.ended(now)
        kept = rule(gaps, cold_start)
        paid += length if length <= kept else kept + cold_start
        now += length
        gaps.began(now)
    return paid


class TestGaps:
    def test_a_use_takes_the_machine_that_was_idle_for_the_shortest_time(self) -> None:
        """The older ones then grow idle for longer, and can be given up."""
        gaps = Gaps()
        gaps.ended(0)
        gaps.ended(50)

        gaps.began(60)
        gaps.began(100)

        assert [gap.seconds for gap in gaps.seen] == [10, 100]

    def test_a_first_use_ends_no_gap(self) -> None:
        """There was no machine that it could have taken."""
        gaps = Gaps()

        gaps.began(5)

        assert not gaps.seen

    def test_what_is_remembered_is_bounded(self) -> None:
        """However long a pool lives."""
        gaps = seen(*[1.0] * 2_000)

        assert len(gaps.seen) == 512

    def test_a_copy_in_another_process_knows_the_same(self) -> None:
        """What was seen can be handed on."""
        gaps = seen(10, 20, 4_000)
        gaps.ended(9_000)

        assert pickle.loads(pickle.dumps(gaps)) == gaps


class TestFixed:
    def test_it_keeps_for_the_time_that_was_said(self) -> None:
        """Whatever is seen, and whatever a cold start costs."""
        assert fixed(90)(seen(1, 2, 3), COLD_START) == 90

    @pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
    def test_only_a_time_that_ends_can_be_said(self, seconds: float) -> None:
        """A machine that is kept for ever is a leak."""
        with pytest.raises(InvalidValue, match="seconds"):
            fixed(seconds)


class TestBreakEven:
    @given(lengths, colds)
    def test_it_never_costs_more_than_twice_what_knowing_the_future_would(
        self, lengths: list[float], cold_start: float
    ) -> None:
        """For any gaps at all: that is what the rule is for."""
        clairvoyant = sum(min(length, cold_start) for length in lengths)

        assert idled(lengths, break_even(), cold_start) <= 2 * clairvoyant * (1 + 1e-9)


class TestLearnt:
    @given(lengths, colds)
    def test_no_machine_is_kept_for_longer_than_a_cold_start_takes(
        self, lengths: list[float], cold_start: float
    ) -> None:
        """It can only give machines up sooner than break-even does."""
        assert 0 <= learnt()(seen(*lengths), cold_start) <= cold_start

    @given(st.lists(st.floats(0, 10_000), max_size=7), colds)
    def test_with_few_gaps_it_is_break_even(self, lengths: list[float], cold_start: float) -> None:
        """Nothing is learnt from next to nothing."""
        assert learnt()(seen(*lengths), cold_start) == cold_start

    @given(lengths, colds)
    def test_the_same_history_gives_the_same_answer(
        self, lengths: list[float], cold_start: float
    ) -> None:
        """Deciding changes nothing, so processes that saw the same decide the same."""
        gaps = seen(*lengths)

        once = learnt()(gaps, cold_start)

        assert learnt()(gaps, cold_start) == once == learnt()(seen(*lengths), cold_start)

    def test_a_rush_alone_teaches_nothing(self) -> None:
        """Hundreds of short gaps within minutes do not tell how long the next quiet will be."""
        assert learnt()(seen(*[1.0] * 500), COLD_START) == COLD_START

    def test_machines_that_are_never_needed_soon_are_given_up_at_once(self) -> None:
        """Where every gap is longer than a cold start, idling only costs."""
        assert learnt()(seen(*[5_000.0] * 20), COLD_START) == 0

    def test_machines_that_are_always_needed_soon_are_kept_that_long(self) -> None:
        """No idling is paid for beyond the longest gap of a burst."""
        gaps = seen(*[20.0, 20.0, 20.0, 5_000.0] * 20, 20.0)

        assert learnt()(gaps, COLD_START) == 20

    def test_the_gap_before_tells_what_to_expect(self) -> None:
        """Uses come in pairs here: after a long gap the machine is needed again soon."""
        in_the_middle = seen(*[150.0, 5_000.0] * 30)
        after_both = seen(*[150.0, 5_000.0] * 30, 150.0)

        assert learnt()(in_the_middle, COLD_START) == 150
        assert learnt()(after_both, COLD_START) == 0

    def test_a_change_of_traffic_is_relearnt(self) -> None:
        """Long gaps of the past do not outweigh the short ones of today."""
        quiet, busy = [5_000.0] * 512, [100.0] * 150

        assert idled(quiet + busy, learnt(), COLD_START) - idled(quiet, learnt(), COLD_START) < (
            1.3 * sum(busy)
        )
