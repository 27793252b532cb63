from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.policy.windows import date_of, day_of, month_of

HOUR = 3600.0

#: Zones with awkward midnights: half hours, changes at midnight, a day that was left out.
zones = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "America/Santiago",
        "America/Havana",
        "Asia/Beirut",
        "Pacific/Apia",
        "Pacific/Kiritimati",
        "America/St_Johns",
    ]
)
moments = st.floats(0, 4_000_000_000)


def moment(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.fixture
def no_zone_data() -> Iterator[None]:
    """No zone database on this system."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(before)
    ZoneInfo.clear_cache()


class TestDay:
    @pytest.mark.parametrize(
        ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]
    )
    def test_a_day_on_which_clocks_change_has_its_true_length(self, day: str, hours: int) -> None:
        """In Berlin the last Sunday of March has 23 hours, that of October 25."""
        since, until = day_of(moment(f"{day}T12:00"), "Europe/Berlin")

        assert since == moment(f"{day}T00:00")
        assert until - since == hours * HOUR

    def test_both_passes_through_the_repeated_hour_are_the_same_day(self) -> None:
        """02:30 happens twice on 25 October; both count against that day's budget."""
        first = moment("2026-10-25T02:30")

        assert day_of(first, "Europe/Berlin") == day_of(first + HOUR, "Europe/Berlin")

    def test_midnight_belongs_to_the_day_that_begins(self) -> None:
        """The interval is half-open: its end is the next day's start."""
        since, until = day_of(moment("2026-06-01T00:00"), "Europe/Berlin")

        assert since == moment("2026-06-01T00:00")
        assert day_of(until, "Europe/Berlin")[0] == until

    def test_the_named_zone_decides_which_day_it_is(self) -> None:
        """Half an hour before midnight UTC is tomorrow already in Berlin."""
        late = moment("2026-06-01T23:30", "UTC")

        assert day_of(late, "UTC")[0] == moment("2026-06-01T00:00", "UTC")
        assert day_of(late, "Europe/Berlin")[0] == moment("2026-06-02T00:00")

    def test_the_default_zone_needs_no_zone_data(self, no_zone_data: None) -> None:
        """A container without a zone database can still have a daily budget in UTC."""
        assert day_of(86_400.0 * 2 + 5, "UTC") == (86_400.0 * 2, 86_400.0 * 3)

    @given(moments, zones)
    def test_every_moment_is_in_its_own_day(self, now: float, zone: str) -> None:
        """Wherever clocks jump, a day holds the moment it was asked for."""
        since, until = day_of(now, zone)

        assert since <= now < until

    @given(moments, zones)
    def test_days_neither_overlap_nor_leave_a_gap(self, now: float, zone: str) -> None:
        """Where one budget ends the next one begins."""
        since, until = day_of(now, zone)

        assert day_of(until, zone)[0] == until
        assert day_of(since, zone) == (since, until)

    def test_clocks_that_go_back_over_midnight_begin_no_day_twice(self) -> None:
        """In St. John's they once did at one past midnight: the date changed three times."""
        first = moment("2006-10-29T00:00", "America/St_Johns")
        again = first + 120  # 23:02 of the day before, by the clock

        assert day_of(again, "America/St_Johns") == day_of(first, "America/St_Johns")
        assert date_of(again, "America/St_Johns").isoformat() == "2006-10-29"


class TestMonth:
    @pytest.mark.parametrize(
        ("month", "hours"),
        [("2026-02", 28 * 24), ("2028-02", 29 * 24), ("2026-03", 743), ("2026-10", 745)],
    )
    def test_a_month_has_its_true_length(self, month: str, hours: int) -> None:
        """Leap years and the hours that clocks skip or repeat included."""
        since, until = month_of(moment(f"{month}-15T12:00"), "Europe/Berlin")

        assert since == moment(f"{month}-01T00:00")
        assert until - since == hours * HOUR

    @given(moments, zones)
    def test_months_hold_their_moments_and_neither_overlap_nor_leave_a_gap(
        self, now: float, zone: str
    ) -> None:
        """Where one budget ends the next one begins."""
        since, until = month_of(now, zone)

        assert since <= now < until
        assert month_of(until, zone)[0] == until
        assert month_of(since, zone) == (since, until)

    @given(moments, zones)
    def test_days_make_up_months(self, now: float, zone: str) -> None:
        """No day is part of two months."""
        since, until = month_of(now, zone)
        begins, ends = day_of(now, zone)

        assert since <= begins
        assert ends <= until
