"""When a pool may be warm: windows and cron expressions, in zones whose clocks jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.policy.schedule import Schedule, Window, parse_window

HOUR = 3600.0
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Days on which clocks change, in Berlin, in New York and, by half an hour, on Lord Howe Island.
CHANGES = ("2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04")


def moment(text: str, zone: str = BERLIN, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


zones = st.sampled_from([BERLIN, NEW_YORK, "Asia/Kolkata", "Australia/Lord_Howe", "UTC"])
near_changes = st.tuples(st.sampled_from(CHANGES), st.floats(-2 * 86_400, 2 * 86_400)).map(
    lambda found: moment(found[0], "UTC") + found[1]
)
moments = st.floats(0, 4e9) | near_changes
clocks = st.integers(0, 24 * 60 - 1).map(lambda m: f"{m // 60:02}:{m % 60:02}")
days = (
    st.just("daily")
    | st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map("-".join)
    | st.lists(st.sampled_from(DAYS), min_size=1, max_size=3).map(",".join)
)
windows = (
    st.tuples(days, clocks, clocks | st.just("24:00"))
    .filter(lambda parts: parts[1] != parts[2])
    .map(lambda parts: Window(*parts))
)
schedules = st.builds(Schedule, st.lists(windows, min_size=1, max_size=3).map(tuple), zones)


def shown_within(schedule: Schedule, now: float) -> bool:
    """Whether the clock on the wall shows a time in one of the windows."""
    wall = datetime.fromtimestamp(now, ZoneInfo(schedule.timezone)).replace(tzinfo=None)
    for window in schedule.windows:
        assert isinstance(window, Window)
        for back in (0, 1):
            day = (wall - timedelta(days=back)).replace(hour=0, minute=0, second=0, microsecond=0)
            opens, closes = (day + _past_midnight(text) for text in (window.opens, window.closes))
            if closes <= opens:
                closes += timedelta(days=1)
            if _is_on(window.days, day.weekday()) and opens <= wall < closes:
                return True
    return False


def _is_on(days: str, weekday: int) -> bool:
    first, dash, last = days.partition("-")
    if dash:
        start = DAYS.index(first)
        return (weekday - start) % 7 <= (DAYS.index(last) - start) % 7
    return days == "daily" or DAYS[weekday] in days.split(",")


def _past_midnight(clock: str) -> timedelta:
    hours, minutes = map(int, clock.split(":"))
    return timedelta(hours=hours, minutes=minutes)


class TestWindows:
    def test_office_hours_open_and_close_by_the_clock_of_their_zone(self) -> None:
        """Nine in Berlin is seven or eight in UTC, by the season."""
        schedule = Schedule.parse("mon-fri 09:00-18:00", BERLIN)

        for day in ("2026-03-27", "2026-03-30"):
            opens = moment(f"{day}T09:00")
            assert not schedule.open_at(opens - 1)
            assert schedule.open_at(opens)
            assert schedule.open_at(opens + 9 * HOUR - 1)
            assert not schedule.open_at(opens + 9 * HOUR)
        assert not schedule.open_at(moment("2026-03-28T12:00"))

    def test_a_window_may_go_past_midnight(self) -> None:
        """It belongs to the day on which it opens."""
        schedule = Schedule.parse("fri 22:00-02:00", BERLIN)

        assert schedule.open_at(moment("2026-06-06T01:59"))
        assert not schedule.open_at(moment("2026-06-06T02:00"))
        assert not schedule.open_at(moment("2026-06-05T01:00"))

    @pytest.mark.parametrize(
        ("text", "opens", "closes"),
        [
            ("sun 02:30-05:00", "2026-03-29T03:00", "2026-03-29T05:00"),
            ("sun 00:30-02:30", "2026-03-29T00:30", "2026-03-29T03:00"),
        ],
    )
    def test_a_time_that_the_clock_skips_is_when_it_jumps(
        self, text: str, opens: str, closes: str
    ) -> None:
        """In Berlin it goes from two to three on 29 March."""
        schedule = Schedule.parse(text, BERLIN)
        midnight = moment("2026-03-29T00:00")

        assert schedule.next_change(midnight) == moment(opens)
        assert schedule.next_change(moment(opens)) == moment(closes)

    def test_a_window_within_the_hour_that_is_skipped_does_not_open(self) -> None:
        """It would be over before it began."""
        schedule = Schedule.parse("sun 02:15-02:45", BERLIN)

        assert schedule.next_change(moment("2026-03-29T00:00")) == moment("2026-04-05T02:15")

    def test_a_window_opens_once_where_an_hour_comes_twice(self) -> None:
        """The clock shows 02:15 twice on 25 October: the first time counts."""
        schedule = Schedule.parse("sun 02:15-02:45", BERLIN)

        assert schedule.open_at(moment("2026-10-25T02:30"))
        assert not schedule.open_at(moment("2026-10-25T02:30", fold=1))

    @given(schedules, moments)
    def test_it_is_open_as_the_clock_on_the_wall_says(self, schedule: Schedule, now: float) -> None:
        """Except near an hour that comes twice, where a window opens once and not twice."""
        zone = ZoneInfo(schedule.timezone)
        day = datetime.fromtimestamp(now - 86_400, zone), datetime.fromtimestamp(now + 86_400, zone)
        if day[0].utcoffset() == day[1].utcoffset():
            assert schedule.open_at(now) == shown_within(schedule, now)
        else:
            assert schedule.open_at(now) <= any(
                shown_within(schedule, now + minutes * 60) for minutes in (0, -60, -30)
            )

    @given(schedules, moments)
    @example(Schedule.parse("daily 00:00-24:00", BERLIN), 1e9)
    def test_nothing_changes_before_the_next_change(self, schedule: Schedule, now: float) -> None:
        """Who sleeps until then misses nothing."""
        change = schedule.next_change(now)

        assert now < change <= now + 15 * 86_400
        for part in (0.25, 0.5, 0.999):
            assert schedule.open_at(now + (change - now) * part) == schedule.open_at(now)
        if not schedule.open_at(now):
            assert schedule.open_at(change)
        elif change < now + 2 * 86_400:
            assert not schedule.open_at(change)


class TestCron:
    def test_an_expression_opens_a_window_of_some_length(self) -> None:
        """Every weekday at nine, for nine hours."""
        schedule = Schedule.parse("0 9 * * mon-fri for 9h", BERLIN)

        assert schedule.next_change(moment("2026-03-28T12:00")) == moment("2026-03-30T09:00")
        assert schedule.next_change(moment("2026-03-30T09:00")) == moment("2026-03-30T18:00")
        assert schedule.open_at(moment("2026-03-30T09:00"))
        assert not schedule.open_at(moment("2026-03-30T18:00"))

    @given(moments, zones)
    def test_it_agrees_with_the_window_that_says_the_same(self, now: float, zone: str) -> None:
        """Away from the hours in which clocks change, in any zone."""
        by_cron = Schedule.parse("30 8 * * * for 2h", zone)
        by_window = Schedule.parse("daily 08:30-10:30", zone)

        assert by_cron.open_at(now) == by_window.open_at(now)
        assert by_cron.next_change(now) == by_window.next_change(now)

    def test_windows_that_overlap_are_one(self) -> None:
        """Every hour for ninety minutes is always."""
        schedule = Schedule.parse("0 * * * * for 90m")

        assert schedule.open_at(1e9)
        assert schedule.next_change(1e9) == 1e9 + 2 * 86_400


class TestWarm:
    def test_a_machine_is_started_in_time_for_the_window(self) -> None:
        """By default as long before it as a cold start takes."""
        schedule = Schedule.parse("mon-fri 09:00-18:00", BERLIN)
        opens = moment("2026-03-30T09:00")

        assert not schedule.warm_wanted(opens - 301, cold_start=300)
        assert schedule.warm_wanted(opens - 300, cold_start=300)
        assert schedule.warm_wanted(opens + 60, cold_start=300)

    def test_the_lead_can_be_said(self) -> None:
        """A quarter of an hour, whatever cold starts take."""
        schedule = Schedule.parse("mon-fri 09:00-18:00", BERLIN, lead=900)
        opens = moment("2026-03-30T09:00")

        assert schedule.warm_wanted(opens - 900, cold_start=30)
        assert not schedule.warm_wanted(opens - 901, cold_start=30)

    @given(st.floats(0, 3_600))
    def test_who_wakes_at_the_moment_to_start_finds_that_it_has_come(self, lead: float) -> None:
        """Whatever rounding does to the moment."""
        schedule = Schedule.parse("mon-fri 09:00-18:00", BERLIN)

        assert schedule.warm_wanted(moment("2026-03-30T09:00") - lead, cold_start=lead)

    @given(schedules, moments, st.floats(0, 3_600))
    def test_nothing_is_warm_outside_the_windows_and_the_lead_before_them(
        self, schedule: Schedule, now: float, cold_start: float
    ) -> None:
        """Quiet hours cost nothing."""
        opens = now if schedule.open_at(now) else schedule.next_change(now)

        assert schedule.open_at(opens)
        assert schedule.warm_wanted(now, cold_start) == (opens <= now + cold_start)


class TestText:
    @pytest.mark.parametrize(
        "text", ["mon-fri 09:00-18:00", "sat,sun 22:00-02:00", "daily 00:00-24:00"]
    )
    def test_a_window_reads_as_it_is_written(self, text: str) -> None:
        """In settings and on the command line."""
        assert str(parse_window(text)) == text

    def test_windows_are_apart_by_semicolons(self) -> None:
        """Or are a list, in a settings file."""
        both = "mon-fri 09:00-18:00; 0 9 * * sat for 2h"

        assert Schedule.parse(both) == Schedule.parse(both.split(";"))
        assert len(Schedule.parse(both).windows) == 2

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "must be a window such as 'mon-fri 09:00-18:00'"),
            ("mon-fri", "must be a window such as"),
            ("mon-frei 09:00-18:00", "unknown day; did you mean 'fri'"),
            ("mon 09:00-25:00", "must be a time from 00:00 to 24:00"),
            ("mon 09:61-10:00", "must be a time from 00:00 to 24:00"),
            ("mon 24:00-10:00", "must open before midnight"),
            ("mon 09:00-09:00", "the whole day is 00:00-24:00"),
            ("0 9 * * for 2h", "has five fields"),
            ("0 99 * * * for 2h", "is no cron expression: Bad hour"),
            ("0 0 31 4,6 * for 2h", "is no cron expression: Bad day-of-month"),
            ("0 9 * * * for ever", "must be seconds, or a time"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_its_reason(self, text: str, problem: str) -> None:
        """Before anything is rented by it."""
        with pytest.raises(InvalidValue, match=problem):
            Schedule.parse(text)

    @pytest.mark.parametrize(
        ("zone", "lead", "problem"),
        [("Europe/Berln", None, "unknown time zone"), ("UTC", -1.0, "0 or more")],
    )
    def test_zone_and_lead_are_checked_too(
        self, zone: str, lead: float | None, problem: str
    ) -> None:
        """A schedule that exists makes sense."""
        with pytest.raises(InvalidValue, match=problem):
            Schedule.parse("daily 09:00-10:00", zone, lead)

    def test_a_schedule_has_a_window(self) -> None:
        """One that is never open is no schedule."""
        with pytest.raises(InvalidValue, match="must have a window"):
            Schedule(())

    def test_the_default_zone_is_utc(self) -> None:
        """As for budgets."""
        assert Schedule.parse("daily 09:00-10:00").open_at(
            datetime(2026, 1, 1, 9, 30, tzinfo=UTC).timestamp()
        )
