from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.testing.emulation import (
    DailyQuota,
    FaultSchedule,
    RateWindow,
    RateWindows,
    Thresholds,
)


class TestFaultSchedule:
    @given(nth=st.integers(1, 6), times=st.integers(1, 6), calls=st.integers(0, 15))
    def test_a_rule_meets_just_the_calls_that_it_is_for(
        self, nth: int, times: int, calls: int
    ) -> None:
        """From the nth on, so many in a row."""
        schedule = FaultSchedule(("create", "list"), ("drop",))
        rule = schedule.add("create", "drop", nth=nth, times=times)

        met = [schedule.take("create", {}) is rule for _ in range(calls)]

        assert met == [nth <= number < nth + times for number in range(1, calls + 1)]
        assert rule.met == sum(met)

    def test_other_endpoints_are_not_counted(self) -> None:
        """The nth call is the nth one to that endpoint."""
        schedule = FaultSchedule(("create", "list"), ("drop",))
        rule = schedule.add("create", "drop", nth=2)

        assert schedule.take("create", {}) is None
        assert schedule.take("list", {}) is None
        assert schedule.take("create", {}) is rule

    def test_the_first_of_two_rules_counts(self) -> None:
        """The other one has seen the call all the same."""
        schedule = FaultSchedule(("create",), ("drop", "hang"))
        first = schedule.add("create", "drop")
        second = schedule.add("create", "hang", nth=2)

        assert schedule.take("create", {}) is first
        assert schedule.take("create", {}) is second

    def test_a_rule_may_be_about_one_resource(self) -> None:
        """Named by what the path holds."""
        schedule = FaultSchedule(("show",), ("drop",))
        rule = schedule.add("show", "drop", parameters={"id": "7"}, times=None)

        assert schedule.take("show", {"id": "8"}) is None
        assert schedule.take("show", {"id": "7"}) is rule

    def test_a_misspelt_name_is_refused(self) -> None:
        """A fault that never happens would make a test that cannot fail."""
        schedule = FaultSchedule(("create",), ("drop",))

        with pytest.raises(ValueError, match="nothing here is called 'dorp'; did you mean 'drop'"):
            schedule.add("create", "dorp")


class TestThresholds:
    @given(gaps=st.lists(st.floats(0, 5), min_size=1, max_size=30))
    def test_what_passes_is_never_closer_than_the_threshold(self, gaps: list[float]) -> None:
        """And what comes late enough always passes."""
        limits = Thresholds({"list": 2.0}, factor=0.5)
        now, last = 0.0, None
        for gap in gaps:
            now += gap
            wait = limits.wait("list", "me", now)
            if last is not None and now < last + 1.0:
                assert wait == pytest.approx(last + 1.0 - now)
            else:
                assert wait == 0
                last = now

    def test_each_identity_and_each_endpoint_has_its_own(self) -> None:
        """Others are not slowed down."""
        limits = Thresholds({"list": 2.0, "create": 4.0})
        limits.wait("list", "me", 0.0)

        assert limits.wait("list", "you", 0.0) == 0
        assert limits.wait("create", "me", 0.0) == 0
        assert limits.wait("other", "me", 0.0) == limits.wait("other", "me", 0.0) == 0


class TestDailyQuota:
    def test_begins_anew_at_midnight(self) -> None:
        """Of UTC."""
        quota = DailyQuota(limit=10)
        quota.use(10, 86_399.0)

        assert quota.remaining(86_399.5) == 0
        assert quota.resets_at(86_399.5) == 86_400
        assert quota.remaining(86_400.0) == 10


class TestRateWindows:
    @given(gaps=st.lists(st.floats(0, 20), min_size=1, max_size=60))
    def test_no_window_ever_lets_more_pass_than_its_quota(self, gaps: list[float]) -> None:
        """And what is refused is refused because one of them is used up."""
        windows = (RateWindow("minute", 3, 60), RateWindow("hour", 8, 3_600))
        rates = RateWindows(windows)
        passed: list[float] = []
        now = 1_000_000.0
        for gap in gaps:
            now += gap
            used_up = rates.count(now)
            if used_up is None:
                passed.append(now)
            else:
                assert rates.remaining(used_up, now) == 0
        for window in windows:
            turns = [int(at // window.seconds) for at in passed]
            assert all(turns.count(turn) <= window.quota for turn in turns)

    def test_a_window_begins_anew_when_it_is_said_to(self) -> None:
        """To the second."""
        rates = RateWindows((RateWindow("minute", 1, 60),))
        window = rates.windows[0]
        rates.count(90.0)

        assert rates.resets_in(window, 90.0) == 30
        assert rates.count(119.9) is window
        assert rates.count(120.0) is None

    def test_is_told_in_two_headers(self) -> None:
        """As the draft has it."""
        rates = RateWindows((RateWindow("minute", 60, 60), RateWindow("hour", 3_000, 3_600)))
        rates.count(7_230.0)

        assert rates.headers(7_230.0) == {
            "RateLimit": '"minute";r=59;t=30, "hour";r=2999;t=3570',
            "RateLimit-Policy": '"minute";q=60;w=60, "hour";q=3000;w=3600',
        }
