"""The planner: traffic replayed through the pools' own rules, and what that would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Price
from gpubroker.policy.keep_warm import fixed, learnt
from gpubroker.policy.outlook import Outlook, outlook, recommended, strategies
from gpubroker.policy.replay import Arrival, Ground, Replayed, Strategy, clairvoyant, replay
from gpubroker.policy.schedule import Schedule
from gpubroker.policy.usage import Usage, parse_usage

DAY = 86_400.0
SINCE, UNTIL = Usage().span
#: A cent a second.
PRICE = Price(machine=Money("35.64"), disk=Money("0.36"))

ON_DEMAND = Strategy(name="on demand", keep=fixed(0))
ALWAYS_ON = Strategy(name="always on", keep=fixed(0), warm=1)

arrivals = st.lists(
    st.builds(Arrival, st.integers(0, 86_400).map(float), st.integers(0, 900).map(float)),
    min_size=1,
    max_size=40,
).map(sorted)
any_strategy = st.sampled_from(
    list(strategies(300, Schedule.parse("daily 08:00-09:30; daily 17:00-18:00")))
)


def ground(cold_start: float = 100.0, most: int = 4, until: float = DAY) -> Ground:
    return Ground(since=0, until=until, cold_start=cold_start, resume=cold_start / 4, most=most)


def requests(*moments: float, seconds: float = 10) -> list[Arrival]:
    return [Arrival(at, seconds) for at in moments]


class TestReplay:
    def test_on_demand_each_request_has_a_machine_of_its_own(self) -> None:
        """It waits for the boot, and nothing is billed when it is done."""
        found = replay(requests(0, 1_000), ON_DEMAND, ground())

        assert found == Replayed(
            waits=[100, 100],
            latencies=[110, 110],
            held=[110, 110],
            cold=2,
            working=20,
            stopped=0,
        )

    def test_a_machine_that_is_kept_serves_the_next_request_at_once(self) -> None:
        """And is given up when the rule says so."""
        found = replay(requests(0, 200), Strategy(name="", keep=fixed(300)), ground())

        assert found.waits == [100, 0]
        assert found.held == [210 + 300]
        assert found.cold == 1

    def test_always_on_is_billed_from_beginning_to_end(self) -> None:
        """Whether anybody comes or not."""
        found = replay(requests(5_000), ALWAYS_ON, ground())

        assert found.waits == [0]
        assert found.held == [DAY]

    def test_requests_queue_where_no_more_machines_may_be(self) -> None:
        """In the order in which they came."""
        found = replay(requests(0, 1, 2), ON_DEMAND, ground(most=1))

        assert found.waits == [100, 109, 118]
        assert len(found.held) == 1

    def test_who_waits_takes_whichever_machine_is_free_first(self) -> None:
        """One that somebody else has done with may be quicker than a boot."""
        found = replay(requests(0, 95), ON_DEMAND, ground())

        assert found.waits == [100, 15]

    def test_a_schedule_has_a_machine_warm_when_its_window_opens(self) -> None:
        """And none when it has closed."""
        scheduled = Strategy(
            name="", keep=fixed(0), warm=1, schedule=Schedule.parse("daily 08:00-09:00")
        )

        found = replay(requests(8 * 3600, 12 * 3600), scheduled, ground())

        assert found.waits == [0, 100]
        assert found.held == [100 + 3600, 110]

    @given(arrivals, st.floats(0, 600))
    def test_outside_its_windows_a_schedule_keeps_nothing_warm(
        self, traffic: list[Arrival], cold_start: float
    ) -> None:
        """What it pays beyond the windows is the work, and the boots for it."""
        schedule = Schedule.parse("daily 10:00-10:01")
        scheduled = Strategy(name="", keep=learnt(), warm=1, schedule=schedule)

        found = replay(traffic, scheduled, ground(cold_start))

        window = 60 + 2 * cold_start
        assert found.overhead <= (found.cold + 1) * cold_start + window * 4 + 1e-6

    def test_stopped_machines_come_back_sooner_and_keep_their_disks(self) -> None:
        """The disk is billed from the first stop to the end."""
        stops = Strategy(name="", keep=fixed(0), stops=True)

        found = replay(requests(0, 1_000), stops, ground())

        assert found.waits == [100, 25]
        assert found.stopped == pytest.approx((1_000 - 110) + (DAY - 1_035))

    @given(arrivals, any_strategy, st.floats(0, 600), st.integers(1, 4))
    def test_everybody_is_served_and_only_work_boots_and_idling_are_billed(
        self, traffic: list[Arrival], strategy: Strategy, cold_start: float, most: int
    ) -> None:
        """No request is lost, and no second of work is free."""
        found = replay(traffic, strategy, ground(cold_start, most))

        assert len(found.waits) == len(traffic)
        assert min(found.waits) >= 0
        assert found.working == math.fsum(each.seconds for each in traffic)
        assert found.overhead >= -1e-6
        assert found.cold <= len(traffic)

    @given(arrivals, any_strategy)
    def test_the_same_traffic_gives_the_same_answer(
        self, traffic: list[Arrival], strategy: Strategy
    ) -> None:
        """There is no chance in it."""
        assert replay(traffic, strategy, ground()) == replay(traffic, strategy, ground())

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ({"most": 0}, "machines"),
            ({"until": 0.0}, "until"),
            ({"cold_start": -1.0}, "cold_start"),
        ],
    )
    def test_ground_that_makes_no_sense_is_refused(
        self, words: dict[str, float], problem: str
    ) -> None:
        """With the name of what is wrong."""
        with pytest.raises(InvalidValue, match=problem):
            ground(**words)  # type: ignore[arg-type]


class TestClairvoyant:
    def test_it_keeps_machines_for_gaps_shorter_than_a_cold_start(self) -> None:
        """A boot for the first request, a gap of 40 s, and a boot again."""
        assert clairvoyant(requests(0, 50, 1_000), 100) == 100 + 40 + 100


class TestOutlook:
    def test_costs_are_exact_sums_of_what_each_machine_is_billed(self) -> None:
        """Two machines for 110 s, at a cent a second."""
        found = outlook(requests(0, 1_000), ON_DEMAND, ground(), PRICE)

        assert found.day == Money("2.20")
        assert found.image == Money("1.10")
        assert found.month == Money("66.9625")
        assert found.hours == pytest.approx(220 / 3600)
        assert found.overhead == 1.0

    def test_a_machine_is_billed_in_whole_quanta(self) -> None:
        """By the hour, 110 s are an hour."""
        found = outlook(requests(0), ON_DEMAND, ground(), PRICE, quantum=3600)

        assert found.day == Money("36.00")

    def test_disks_of_stopped_machines_are_paid_for(self) -> None:
        """For the rest of the day, here."""
        stops = Strategy(name="", keep=fixed(0), stops=True)

        found = outlook(requests(0), stops, ground(), PRICE)

        disk = Price(machine=ZERO, disk=PRICE.disk).for_seconds(DAY - 110)
        assert found.day.micros == (Money("1.10") + disk).micros
        assert not found.built

    def test_percentiles_are_of_requests_that_there_were(self) -> None:
        """Of four, the second is the median, and the last is what 95 of 100 wait at most."""
        found = outlook(requests(0, 1, 2, 3), ON_DEMAND, ground(most=1), PRICE)

        assert (found.wait_p50, found.wait_p95) == (109, 127)
        assert (found.latency_p50, found.latency_p95) == (119, 137)

    def test_no_requests_are_nothing_to_plan_for(self) -> None:
        """Rather than costs that mean nothing."""
        with pytest.raises(InvalidValue, match="no requests"):
            outlook([], ON_DEMAND, ground(), PRICE)


class TestRecommendation:
    OUTLOOKS: Sequence[Outlook] = [
        outlook(
            list(Usage(per_day=20).arrivals()),
            each,
            Ground(since=SINCE, until=UNTIL, cold_start=100, resume=25, most=4),
            PRICE,
        )
        for each in strategies(300, None)
    ]

    def test_it_is_the_cheapest_that_pools_can_do(self) -> None:
        """What is not built is never recommended."""
        best = recommended(self.OUTLOOKS)

        assert best is not None
        assert best.built
        assert best.month == min(each.month for each in self.OUTLOOKS if each.built)

    def test_a_longest_wait_may_make_it_a_dearer_one(self) -> None:
        """Only a machine that is always on lets nobody wait here."""
        best = recommended(self.OUTLOOKS, longest_wait=90)

        assert best is not None
        assert best.strategy == "always on"

    def test_there_may_be_none(self) -> None:
        """A wait that nothing can keep to."""
        assert recommended([each for each in self.OUTLOOKS if each.cold > 0.5], 1.0) is None


class TestUsage:
    def test_a_pattern_reads_as_people_say_it(self) -> None:
        """The order of its parts does not matter."""
        usage = parse_usage("9 to 18 h, mon-fri, 100 a day, 60 s each", "Europe/Berlin")

        assert (usage.per_day, usage.seconds) == (100, 60)
        assert str(usage.when) == "mon-fri 09:00-18:00"
        assert str(usage.schedule) == "mon-fri 09:00-18:00"

    def test_requests_come_within_the_hours_and_as_many_as_were_said(self) -> None:
        """Four weeks of them, and the same ones each time."""
        usage = parse_usage("10 a day, 09:30-18:00, mon-fri", "Europe/Berlin")

        coming = list(usage.arrivals())

        assert len(coming) == 200
        assert coming == sorted(coming) == list(usage.arrivals())
        assert all(usage.schedule.open_at(each.at) for each in coming)

    def test_less_than_one_a_day_comes_on_some_days(self) -> None:
        """One every other day, for four weeks."""
        assert len(list(Usage(per_day=0.5).arrivals())) == 14

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("lots", "unknown day"),
            ("100 an hour", "must be such as '100 a day, 60 s each"),
            ("0 a day", "must be above 0"),
            ("9999999 a day", "at most"),
            ("9 to 30 h", "must be a time from 00:00 to 24:00"),
            ("0s each", "must be more than no time"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_its_reason(self, text: str, problem: str) -> None:
        """In one sentence."""
        with pytest.raises(InvalidValue, match=problem):
            parse_usage(text)
