"""Which limits hold for a lease, how full they are, and what follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.budget import (
    AtLimit,
    Budget,
    Claim,
    Limit,
    Limits,
    Usage,
    alert_name,
    endings,
    limits,
    machine_limits,
    reached,
    usage,
)
from gpubroker.policy.pricing import cost_so_far

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
#: One of everything that can be limited.
EVERYTHING = Budget(
    lease=Money(1),
    day=Money(2),
    month=Money(3),
    machines=4,
    provider={"acme": Limits(day=Money(5), machines=6), "other": Limits(day=Money(7))},
    tag={"night": Limits(month=Money(8), total=Money(9), machines=10), "day": Limits(day=Money(1))},
)

money = st.integers(0, 10**9).map(Money.from_micros)
fractions = st.sets(st.sampled_from([0.1, 0.25, 0.5, 0.8, 0.95, 1.0]))


def a_lease(**columns: object) -> LeaseRow:
    row = LeaseRow(
        id="lease-1",
        request_id="request-1",
        provider="acme",
        state=LeaseState.IDLE,
        epoch=1,
        owner="broker-1",
        mark="mark-1",
        title="1x RTX 4090",
        offer_id="offer-1",
        machine_id="m1",
        hourly=Money("0.36"),
        quantum=1.0,
        reserved=Money(1),
        spent=ZERO,
        created_at=NOON,
        deadline=NOON + HOUR,
    )
    return replace(row, **columns)  # type: ignore[arg-type]


leases = st.builds(
    a_lease,
    id=st.sampled_from(["lease-1", "lease-2"]),
    request_id=st.sampled_from(["request-1", "request-2"]),
    provider=st.sampled_from(["acme", "other"]),
    state=st.sampled_from(list(LeaseState)),
    tags=st.sets(st.sampled_from(["night", "day"])).map(tuple),
    hourly=money,
    reserved=money,
    created_at=st.floats(NOON - 90 * 86_400, NOON),
)


class TestWhichLimitsHold:
    def test_a_lease_counts_to_all_that_it_belongs_to_and_to_nothing_else(self) -> None:
        """Its job, itself, its day and month, its provider and its tags."""
        claim = Claim(
            at=NOON,
            request_id="r",
            lease_id="l",
            provider="acme",
            tags=("night", "unlimited"),
            allowance=Money("0.5"),
        )

        names = {limit.name: limit.amount for limit in limits(EVERYTHING, claim)}
        machines = machine_limits(EVERYTHING, ["acme"], ("night",))

        assert names == {
            "budget of this job": Money("0.5"),
            "budget of this lease": Money(1),
            "budget of this day": Money(2),
            "budget of this month": Money(3),
            "budget of this day for acme": Money(5),
            "budget of this month for tag night": Money(8),
            "budget for tag night": Money(9),
        }
        assert [limit.machines for limit in machines] == [4, 6, 10]

    def test_a_lease_without_a_name_has_spent_nothing_of_its_own_limit(self) -> None:
        """What is only planned must not be measured by what other leases have cost."""
        (limit,) = limits(Budget(lease=Money(1)), Claim(at=NOON, request_id="r"))

        assert not limit.counts(a_lease())

    @given(leases)
    def test_a_limit_that_holds_for_a_lease_counts_it(self, lease: LeaseRow) -> None:
        """Whatever it is and whenever it was made: nothing is checked that would not be counted."""
        held = limits(EVERYTHING, Claim.of(lease, allowance=Money(1)))

        assert all(limit.counts(lease) for limit in held)

    @given(leases)
    def test_no_limit_of_the_next_month_counts_it(self, lease: LeaseRow) -> None:
        """Windows are half-open: what belongs to one does not belong to the next."""
        for limit in limits(Budget(day=Money(1), month=Money(1)), Claim.of(lease)):
            assert limit.until is not None
            later = limits(
                Budget(day=Money(1), month=Money(1)), Claim(at=limit.until, request_id="r")
            )
            following = next(other for other in later if other.name == limit.name)

            assert following.since == limit.until
            assert not following.counts(lease)

    @pytest.mark.parametrize("name", ["day", "month", "total"])
    @pytest.mark.parametrize("amount", [5, "5", Money(-1)])
    def test_limits_are_amounts_of_money(self, name: str, amount: object) -> None:
        """Else it would come out when a machine is wanted."""
        with pytest.raises(InvalidValue, match=f"budget.{name} = "):
            Limits(**{name: amount})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("given_", "problem"),
        [
            ({"timezone": "Mars"}, "unknown time zone"),
            ({"alert_at": (0.5, 1.5)}, "must be above 0, and at most 1"),
            ({"alert_at": (0.0,)}, "must be above 0, and at most 1"),
            ({"machines": -1}, "number of machines"),
            ({"day": 5}, r"budget.day = 5: .*Money\('5'\)"),
            ({"tag": {"nightly": Limits(month=Money(40))}, "job": Money(-1)}, "budget.job"),
            ({"at_limit": "panic"}, "unknown action"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, given_: dict[str, object], problem: str) -> None:
        """A limit that somebody believes in must not be one that never holds."""
        with pytest.raises(InvalidValue, match=problem):
            Budget(**given_)  # type: ignore[arg-type]

    def test_a_provider_is_bounded_by_its_own_limit_or_by_one_for_everything(self) -> None:
        """A limit on tags or on machines alone bounds no money."""
        assert Budget(month=Money(1)).bounds("acme")
        assert Budget(provider={"acme": Limits(day=Money(1))}).bounds("acme")
        assert not Budget(provider={"acme": Limits(day=Money(1))}).bounds("other")
        assert not Budget(provider={"acme": Limits(machines=1)}).bounds("acme")
        assert not Budget(machines=1, tag={"night": Limits(day=Money(1))}).bounds("acme")


class TestHowFullTheyAre:
    @given(st.lists(leases), money, money, st.floats(0, 10 * HOUR))
    def test_what_is_spent_is_settled_and_counted_together(
        self, running: list[LeaseRow], settled: Money, reserved: Money, later: float
    ) -> None:
        """To the micro-dollar, of those alone that the limit counts."""
        limit = Limit("x", Money(1), provider="acme", tag="night")

        found = usage(limit, settled, reserved, running, NOON + later)

        counted = [
            cost_so_far(lease, NOON + later)
            for lease in running
            if lease.provider == "acme" and "night" in lease.tags
        ]
        assert found.spent == sum(counted, settled)
        assert found.spent.amount * 10**6 % 1 == 0

    @given(money, money, fractions)
    def test_fractions_are_reached_in_order_and_only_by_what_is_spent(
        self, spent: Money, amount: Money, alert_at: set[float]
    ) -> None:
        """The whole limit is always one of them; nothing is reached by spending nothing."""
        found = reached(Usage(Limit("x", amount), spent, spent), alert_at)

        assert list(found) == sorted(found)
        assert all(spent >= amount * fraction for fraction in found)
        assert (1.0 in found) == (spent > ZERO and spent >= amount)

    @given(money, money, money, fractions)
    def test_what_was_reached_stays_reached(
        self, spent: Money, more: Money, amount: Money, alert_at: set[float]
    ) -> None:
        """Spending more never takes an alert back."""
        limit = Limit("x", amount)
        before = reached(Usage(limit, spent, spent), alert_at)
        after = reached(Usage(limit, spent + more, spent), alert_at)

        assert set(before) <= set(after)

    def test_an_alert_is_of_one_window_one_amount_and_one_fraction(self) -> None:
        """Tomorrow's, a raised limit's and the next fraction's are other alerts."""
        limit = Limit("budget of this day", Money(1), since=0.0, until=86_400.0)
        others = [
            (replace(limit, since=86_400.0, until=172_800.0), 0.5),
            (replace(limit, amount=Money(2)), 0.5),
            (limit, 0.8),
            (Limit("budget of this job", Money(1), request_id="a"), 0.5),
            (Limit("budget of this job", Money(1), request_id="b"), 0.5),
        ]

        names = {alert_name(of, fraction) for of, fraction in [(limit, 0.5), *others]}

        assert len(names) == 6


class TestWhatFollows:
    @given(st.lists(leases, max_size=4), money, money, st.sampled_from(AtLimit))
    def test_only_what_a_spent_limit_counts_ends(
        self, running: list[LeaseRow], spent: Money, amount: Money, at_limit: AtLimit
    ) -> None:
        """And only where that was asked for, and only what costs money."""
        limit = Limit("x", amount, provider="acme")

        found = endings([Usage(limit, spent, spent)], running, at_limit)

        if at_limit is AtLimit.REFUSE or spent < amount or not spent:
            assert found == []
        for ending in found:
            assert ending.lease.provider == "acme"
            assert ending.lease.hourly > ZERO
            assert ending.at_once or ending.lease.state is LeaseState.BUSY
            assert ending.at_once or at_limit is AtLimit.DRAIN

    def test_draining_lets_a_running_job_end(self) -> None:
        """And ends at once what has none; who was asked already is not asked again."""
        full = [Usage(Limit("x", Money(1)), Money(1), Money(1))]
        busy = a_lease(state=LeaseState.BUSY)
        asked = a_lease(id="lease-3", state=LeaseState.BUSY, drain_reason="x")

        found = endings(full, [busy, a_lease(id="lease-2"), asked], AtLimit.DRAIN)

        assert [(e.lease.id, e.at_once) for e in found] == [("lease-1", False), ("lease-2", True)]

    def test_what_is_on_its_way_out_is_left_alone(self) -> None:
        """A release that was asked for stands."""
        full = [Usage(Limit("x", Money(1)), Money(2), Money(2))]
        going = [
            a_lease(state=LeaseState.RELEASING),
            a_lease(state=LeaseState.QUARANTINED),
            a_lease(state=LeaseState.LATE_WATCH),
            a_lease(state=LeaseState.UNKNOWN, release_requested_at=NOON),
            a_lease(hourly=ZERO),
        ]

        assert endings(full, going, AtLimit.RELEASE) == []
