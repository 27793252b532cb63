from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.ledger.rows import lease_from, lease_values
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.model.offers import Price
from gpubroker.policy.pricing import (
    DEFAULT_LIFETIME,
    SHORTEST_LIFETIME,
    held_after_destroy,
    is_surprising,
    lifetime_within,
    more_for,
    spent,
    worst_case,
)

NOW: Final = 1_763_918_400.123456
PAID: Final = ProviderFacts(paid=True)

moments = st.floats(1_500_000_000, 4_000_000_000)
dollars = st.decimals(0, 100, places=9).map(Money)
per_gb = st.just(Money(0)) | st.decimals(0, 1, places=4).map(Money)
prices = st.builds(Price, machine=dollars, disk=dollars, upload=per_gb, download=per_gb)
quanta = st.sampled_from([0.001, 0.5, 1.0, 60.0, 3600.0]) | st.floats(0.1, 7200)
facts = st.builds(
    ProviderFacts,
    paid=st.just(True),
    billing_quantum=quanta,
    release_margin=st.floats(0, 3600),
)
lifetimes = st.floats(1, 30 * 86_400)


def lease(price: Price, quantum: float = 1.0, created_at: float = NOW) -> LeaseRow:
    """A lease as it comes back from the ledger, whole micro-dollars and all."""
    row = LeaseRow(
        id="lease-1",
        request_id="request-1",
        provider="acme",
        state=LeaseState.PROVISIONING,
        epoch=1,
        owner="broker-1",
        mark="",
        title="",
        offer_id="",
        machine_id=None,
        hourly=price.hourly,
        quantum=quantum,
        reserved=Money(0),
        spent=Money(0),
        created_at=created_at,
        deadline=created_at + 3600,
    )
    return lease_from(lease_values(row))


class TestPrice:
    @pytest.mark.parametrize(
        ("hourly", "seconds", "quantum", "cost"),
        [
            ("3.60", 1, 1, "0.001"),
            ("3.60", 0, 1, "0"),
            ("3.60", 0.2, 1, "0.001"),
            ("3.60", 1.000001, 1, "0.001"),
            ("3.60", 1.000002, 1, "0.002"),
            ("3.60", 61, 60, "0.12"),
            ("1", 3600, 3600, "1"),
            ("1", 3601, 3600, "2"),
            ("1", -5, 1, "0"),
            ("3.60", 0.3, 0.1, "0.0003"),
        ],
    )
    def test_every_quantum_begun_is_billed(
        self, hourly: str, seconds: float, quantum: float, cost: str
    ) -> None:
        """Seconds are rounded up to whole quanta, and nothing else is rounded."""
        price = Price(machine=Money(hourly))

        assert price.for_seconds(seconds, quantum=quantum) == Money(cost)

    @given(moments, st.integers(0, 10**7))
    def test_the_difference_of_two_times_is_not_longer_than_it_is(
        self, start: float, tenths: int
    ) -> None:
        """Unix time as a float is no finer than a microsecond; that must not cost a quantum."""
        end = start + tenths / 10
        price = Price(machine=Money(36_000))

        assert price.for_seconds(end - start, quantum=0.1) == Money(tenths)

    def test_the_disk_is_part_of_it(self) -> None:
        """A machine that does nothing costs its disk as well."""
        price = Price(machine=Money("3.00"), disk=Money("0.60"))

        assert price.hourly == Money("3.60")
        assert price.for_seconds(10) == Money("0.01")

    @pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
    def test_only_finite_times_cost_something(self, seconds: float) -> None:
        """Forever has no price."""
        with pytest.raises(InvalidValue, match=r"seconds = .*: must be a finite number"):
            Price(machine=Money(1)).for_seconds(seconds)

    @given(prices, st.floats(0, 10**8), st.floats(0, 10**8), quanta)
    def test_longer_is_never_cheaper(
        self, price: Price, one: float, other: float, quantum: float
    ) -> None:
        """Cost only grows with time."""
        shorter, longer = sorted((one, other))

        assert price.for_seconds(shorter, quantum=quantum) <= price.for_seconds(
            longer, quantum=quantum
        )


class TestWorstCase:
    @given(prices, lifetimes, facts, moments, st.floats(0, 1), st.floats(0, 600))
    def test_a_lease_never_costs_more_than_was_reserved_for_it(
        self,
        price: Price,
        lifetime: float,
        provider: ProviderFacts,
        created_at: float,
        share: float,
        answered_after: float,
    ) -> None:
        """Whenever it ends within its lifetime and the margin, the reservation covers it."""
        row = lease(price, provider.billing_quantum, created_at)
        last = created_at + lifetime + provider.release_margin
        until = created_at + (last - created_at) * share
        reserved = worst_case(price, lifetime, provider)

        assert spent(row, until) <= reserved
        assert spent(row, last) <= reserved
        assert spent(replace(row, accepted_at=created_at + answered_after), last) <= reserved

    @given(prices, lifetimes, facts)
    def test_a_reservation_is_whole_micro_dollars(
        self, price: Price, lifetime: float, provider: ProviderFacts
    ) -> None:
        """What the ledger writes is what was checked against the limits."""
        reserved = worst_case(price, lifetime, provider)

        assert Money.from_micros(reserved.micros) == reserved

    def test_the_time_a_destroy_takes_is_part_of_it(self) -> None:
        """An hour at 1 dollar, and two minutes to go."""
        assert worst_case(Price(machine=Money(1)), 3600, PAID) == Money("1.033334")

    def test_traffic_that_is_billed_has_an_allowance(self) -> None:
        """20 GB in and 5 GB out, at their prices, on top of the time."""
        billed = Price(machine=Money(1), upload=Money("0.02"), download=Money("0.01"))
        time_alone = worst_case(Price(machine=Money(1)), 3600, PAID)

        assert worst_case(billed, 3600, PAID) == time_alone + Money("0.30")

    def test_quanta_are_paid_whole(self) -> None:
        """Hourly billing makes an hour and two minutes cost two hours."""
        hourly = ProviderFacts(paid=True, billing_quantum=3600)

        assert worst_case(Price(machine=Money(1)), 3600, hourly) == Money(2)


class TestLifetimeWithin:
    def test_an_hour_where_nothing_is_said(self) -> None:
        """The default lifetime; longer where the job needs longer, with time to boot."""
        price = Price(machine=Money(1))

        def chosen(needed: float) -> float | None:
            return lifetime_within(price, PAID, wanted=None, needed=needed, left=None)

        assert chosen(0) == DEFAULT_LIFETIME
        assert chosen(7200) == 7200 + 900

    def test_what_the_caller_set_is_never_changed(self) -> None:
        """A lifetime that was asked for is taken as it is, or not at all."""
        price = Price(machine=Money(1))

        def chosen(left: str) -> float | None:
            return lifetime_within(price, PAID, wanted=7200, needed=0, left=Money(left))

        assert chosen("2.10") == 7200
        assert chosen("2.00") is None

    def test_a_small_budget_makes_a_default_lifetime_shorter(self) -> None:
        """Ten cents at a dollar an hour pay for six minutes, the margin among them."""
        left = Money("0.10")
        price = Price(machine=Money(1))
        lifetime = lifetime_within(price, PAID, wanted=None, needed=0, left=left)

        assert lifetime is not None
        assert 200 < lifetime <= 240
        assert worst_case(price, lifetime, PAID) <= left

    def test_what_does_not_pay_for_the_job_pays_for_nothing(self) -> None:
        """A machine that must go before the job can end is not worth renting."""
        price = Price(machine=Money(1))

        def chosen(needed: float, left: str) -> float | None:
            return lifetime_within(price, PAID, wanted=None, needed=needed, left=Money(left))

        assert chosen(600, "0.10") is None
        assert chosen(0, "0.04") is None
        assert chosen(0, "0") is None

    def test_a_free_machine_needs_no_budget(self) -> None:
        """Nothing left is enough for what costs nothing."""
        free = Price(machine=Money(0))

        assert lifetime_within(free, PAID, wanted=None, needed=0, left=Money(0)) == DEFAULT_LIFETIME

    @given(
        prices,
        facts,
        st.none() | lifetimes,
        st.floats(0, 86_400),
        st.decimals(0, 1000, places=6).map(Money),
    )
    def test_it_never_exceeds_what_is_left(
        self,
        price: Price,
        provider: ProviderFacts,
        wanted: float | None,
        needed: float,
        left: Money,
    ) -> None:
        """The worst case of what it answers always fits, and it is always long enough."""
        lifetime = lifetime_within(price, provider, wanted=wanted, needed=needed, left=left)

        if lifetime is not None:
            assert worst_case(price, lifetime, provider) <= left
            assert lifetime == wanted if wanted is not None else lifetime >= SHORTEST_LIFETIME
            assert wanted is not None or lifetime >= needed

    @given(prices, facts, st.floats(0, 86_400), st.decimals(0, 1000, places=6).map(Money))
    def test_it_refuses_only_what_cannot_be_paid(
        self, price: Price, provider: ProviderFacts, needed: float, left: Money
    ) -> None:
        """``None`` means that not even the shortest useful lifetime fits."""
        assume(lifetime_within(price, provider, wanted=None, needed=needed, left=left) is None)

        assert worst_case(price, max(SHORTEST_LIFETIME, needed), provider) > left


class TestSurprise:
    @pytest.mark.parametrize(
        ("counted", "billed", "surprising"),
        [("1", "1.34", False), ("1", "1.35", True), ("0", "0.01", False), ("0", "0.02", True)],
    )
    def test_a_bill_far_above_what_was_counted_is_one(
        self, counted: str, billed: str, surprising: bool
    ) -> None:
        """A third more is traffic, and a cent is rounding."""
        assert is_surprising(Money(counted), Money(billed)) is surprising


class TestSpent:
    def test_it_costs_from_when_the_create_was_sent(self) -> None:
        """The vendor bills while it takes its time to answer; a late create, from when it came."""
        row = lease(Price(machine=Money("3.60")))

        assert spent(row, NOW + 100) == Money("0.10")
        assert spent(replace(row, accepted_at=NOW + 50), NOW + 100) == Money("0.10")
        assert spent(replace(row, accepted_at=NOW + 3600), NOW + 3700) == Money("0.10")

    def test_it_costs_until_the_destroy_is_acknowledged(self) -> None:
        """What comes after is not billed; what comes before is not known yet."""
        row = replace(lease(Price(machine=Money("3.60"))), acknowledged_at=NOW + 100)

        assert spent(row, NOW + 1000) == Money("0.10")
        assert spent(row, NOW + 10) == Money("0.01")


class TestMoreTime:
    @given(prices, facts, st.lists(st.floats(1, 100_000), min_size=1, max_size=4))
    def test_a_longer_lease_never_costs_more_than_was_reserved_for_it(
        self, price: Price, facts: ProviderFacts, steps: list[float]
    ) -> None:
        """However often its deadline is moved: until it is gone, it has cost less than is held."""
        row = lease(price, facts.billing_quantum)
        row = replace(row, reserved=worst_case(price, 3600, facts))

        for step in steps:
            until = row.deadline + step
            more = more_for(row, until, facts.release_margin)
            row = replace(row, deadline=until, reserved=row.reserved + more)

        assert spent(row, row.deadline + facts.release_margin).micros_up <= row.reserved.micros_up


class TestAfterTheDestroy:
    @given(prices, facts, st.floats(0, 3600))
    def test_what_is_held_pays_for_a_machine_that_is_missed_at_first(
        self, price: Price, facts: ProviderFacts, lived: float
    ) -> None:
        """Never more than before, and enough for it to bill on for twice as long as is expected."""
        row = lease(price, facts.billing_quantum)
        row = replace(row, reserved=worst_case(price, 3600, facts))
        at = row.created_at + lived

        held = held_after_destroy(row, facts.release_margin, at)

        longest = min(at + 2 * facts.release_margin, row.deadline + facts.release_margin)
        assert held <= row.reserved
        assert spent(row, longest).micros <= held.micros
