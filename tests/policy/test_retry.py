from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, InvalidValue
from gpubroker.policy.retry import Retry, Rule, Step, asked_for, elsewhere, here, stop

seeds = st.integers(0, 2**32)
failures = st.integers(1, 10_000)
kinds = st.sampled_from(ErrorKind)
seconds = st.floats(0, 1e6)
rules = st.builds(
    Rule,
    tries=st.integers(0, 20),
    first=seconds,
    cap=seconds,
    then=st.sampled_from([Step.ELSEWHERE, Step.STOP]),
    cooldown=seconds,
)
ordinary = kinds.filter(lambda kind: kind is not ErrorKind.CREATE_UNKNOWN)


class Highest(random.Random):
    """Draws the upper end each time: shows the ceiling under the jitter."""

    def uniform(self, a: float, b: float) -> float:
        return b


class TestRules:
    def test_tries_here_compose_with_what_follows(self) -> None:
        """``here(3) | elsewhere(60)`` keeps the tries of one and the rest of the other."""
        rule = here(3, first=2.0, cap=9.0) | elsewhere(cooldown=120.0)

        assert rule == Rule(tries=3, first=2.0, cap=9.0, then=Step.ELSEWHERE, cooldown=120.0)
        assert (here(1) | stop()).then is Step.STOP

    @pytest.mark.parametrize("first", [elsewhere, stop])
    def test_nothing_comes_after_going_away(self, first: Callable[[], Rule]) -> None:
        """``elsewhere() | …`` could never reach its second part, so it is refused."""
        with pytest.raises(InvalidValue, match="only tries at the same offer"):
            _ = first() | here(1)

    @pytest.mark.parametrize(
        ("field", "make"),
        [
            ("tries", lambda: here(0)),
            ("tries", lambda: here(-1)),
            ("tries", lambda: Rule(tries=-1)),
            ("first", lambda: here(1, first=-1.0)),
            ("first", lambda: here(1, first=math.nan)),
            ("cap", lambda: here(1, cap=math.inf)),
            ("cooldown", lambda: elsewhere(cooldown=-0.1)),
            ("cooldown", lambda: stop(cooldown=math.inf)),
            ("then", lambda: Rule(then=Step.HERE)),
            ("max_attempts", lambda: Retry(max_attempts=0)),
            ("retry", lambda: Retry({ErrorKind.CREATE_UNKNOWN: here(1)})),
        ],
    )
    def test_a_senseless_rule_is_refused_when_it_is_made(
        self, field: str, make: Callable[[], Any]
    ) -> None:
        """Not at the first failure, in the middle of the night."""
        with pytest.raises(InvalidValue) as caught:
            make()

        assert caught.value.field == field

    def test_an_unknown_kind_is_refused_with_the_nearest_one(self) -> None:
        """A rule for a kind that does not exist would never be followed."""
        unknown: Any = "capacty"

        with pytest.raises(InvalidValue, match="did you mean 'capacity'"):
            Retry({unknown: stop()})

    def test_one_rule_leaves_the_others_as_they_are(self) -> None:
        """Kinds that are not named follow the default."""
        retry = Retry({ErrorKind.CAPACITY: here(3) | stop()})

        for kind in ErrorKind:
            same = retry.rule(kind) == Retry().rule(kind)
            assert same == (kind is not ErrorKind.CAPACITY)


class TestSteps:
    @given(ordinary, rules, failures)
    def test_the_same_offer_is_tried_as_often_as_said_and_no_more(
        self, kind: ErrorKind, rule: Rule, count: int
    ) -> None:
        """Its own number of tries, then the step that the rule names, for ever."""
        step = Retry({kind: rule}).step(kind, count)

        assert (step is Step.HERE) == (count <= rule.tries)
        assert step in (Step.HERE, rule.then)

    @given(kinds, failures)
    def test_what_is_marked_stop_is_never_tried_again(self, kind: ErrorKind, count: int) -> None:
        """A refused key, an empty account, a bad request: not here and not elsewhere."""
        retry = Retry({kind: stop()})

        assert retry.step(kind, count) is Step.STOP
        if Retry().rule(kind).then is Step.STOP:
            assert Retry().step(kind, count) is Step.STOP

    @given(failures)
    def test_a_create_whose_answer_was_lost_is_never_sent_again(self, count: int) -> None:
        """Two machines may be the price of one more try."""
        assert Retry().step(ErrorKind.CREATE_UNKNOWN, count) is not Step.HERE


class TestPauses:
    @given(ordinary, rules, failures, seeds)
    def test_a_pause_lies_between_nothing_and_the_cap(
        self, kind: ErrorKind, rule: Rule, count: int, seed: int
    ) -> None:
        """However many failures."""
        pause = Retry({kind: rule}).pause(kind, count, None, random.Random(seed))

        assert 0.0 <= pause <= min(rule.cap, rule.first * 2.0 ** min(count - 1, 30))

    @given(ordinary, rules, failures)
    def test_pauses_grow_in_expectation(self, kind: ErrorKind, rule: Rule, count: int) -> None:
        """Half the ceiling is expected, and one failure more never lowers the ceiling."""
        retry = Retry({kind: rule})

        assert retry.pause(kind, count, None, Highest()) <= retry.pause(
            kind, count + 1, None, Highest()
        )

    def test_the_ceiling_doubles_up_to_the_cap(self) -> None:
        """1, 2, 4, 8, 16, then 30 seconds for ever."""
        retry = Retry({ErrorKind.CAPACITY: here(9)})
        pauses = [retry.pause(ErrorKind.CAPACITY, n, None, Highest()) for n in range(1, 8)]

        assert pauses == [1, 2, 4, 8, 16, 30, 30]

    def test_jitter_spreads_over_the_whole_range(self) -> None:
        """Brokers that fail together do not come back together; half the ceiling on average."""
        retry, source = Retry({ErrorKind.CAPACITY: here(9)}), random.Random(1)
        pauses = [retry.pause(ErrorKind.CAPACITY, 9, None, source) for _ in range(400)]

        assert min(pauses) < 3
        assert max(pauses) > 27
        assert 13.5 < sum(pauses) / 400 < 16.5

    @given(ordinary, rules, failures, seeds, st.floats(0, 300))
    def test_what_the_provider_asked_for_is_obeyed(
        self, kind: ErrorKind, rule: Rule, count: int, seed: int, asked: float
    ) -> None:
        """It is never asked again sooner than it said."""
        assert Retry({kind: rule}).pause(kind, count, asked, random.Random(seed)) >= asked

    @given(kinds, failures, seeds, st.floats())
    def test_no_provider_can_put_a_request_off_for_ever(
        self, kind: ErrorKind, count: int, seed: int, asked: float
    ) -> None:
        """Five minutes are obeyed, whatever number it is, and no more."""
        assert 0.0 <= Retry().pause(kind, count, asked, random.Random(seed)) <= 300.0

    @pytest.mark.parametrize(
        ("said", "obeyed"),
        [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (17.5, 17.5), (301.0, 300.0), (math.inf, 300.0)],
    )
    def test_how_much_of_a_wait_is_obeyed(self, said: float, obeyed: float) -> None:
        """Between nothing and five minutes; what is no number counts as not said."""
        assert asked_for(said) == obeyed
