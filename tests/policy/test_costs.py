"""Costs by day, provider, tag and job add up to what the leases have cost."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpubroker.model.costs import CostsBy
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.costs import JobCost, cost_lines, held, shares
from gpubroker.policy.pricing import cost_so_far

from .test_budget import HOUR, NOON, a_lease, leases, money

jobs = st.lists(money, max_size=4).map(
    lambda costs: [JobCost(f"job-{n}", f"title {n}", cost) for n, cost in enumerate(costs)]
)


@given(leases, jobs, money, st.floats(0, 10 * HOUR))
def test_the_jobs_of_a_lease_add_up_to_what_it_has_cost(
    lease: LeaseRow, ran: list[JobCost], billed: Money, later: float
) -> None:
    """To the micro-dollar, whatever the vendor billed in the end."""
    row = replace(lease, spent=billed)

    found = shares(row, ran, NOON + later)

    assert [job for job, _ in found] == ran
    if ran:
        assert sum((share for _, share in found), ZERO) == cost_so_far(row, NOON + later)


@given(
    st.lists(st.tuples(leases, jobs), max_size=5),
    st.sampled_from(["day", "provider", "job"]),
    st.floats(0, 10 * HOUR),
)
def test_the_lines_add_up_to_the_whole(
    given_: list[tuple[LeaseRow, list[JobCost]]], by: CostsBy, later: float
) -> None:
    """Spent and reserved, by whatever they are added up, but by tags, of which there are several."""
    rows = [replace(lease, id=f"lease-{n}") for n, (lease, _) in enumerate(given_)]
    ran = {
        f"lease-{n}": [replace(job, id=f"{n}-{job.id}") for job in jobs]
        for n, (_, jobs) in enumerate(given_)
    }
    now = NOON + later

    lines = cost_lines(by, rows, ran, now, "Europe/Berlin")

    assert sum((line.spent for line in lines), ZERO) == sum(
        (cost_so_far(row, now) for row in rows), ZERO
    )
    assert sum((line.reserved for line in lines), ZERO) == sum(
        (held(row, now) for row in rows), ZERO
    )


@given(leases, st.floats(0, HOUR))
def test_spent_and_reserved_are_together_what_is_taken_of_limits(
    lease: LeaseRow, later: float
) -> None:
    """Unless it has cost more than was held for it already."""
    spent, more = cost_so_far(lease, NOON + later), held(lease, NOON + later)

    taken = lease.reserved + lease.spent
    assert spent + more == max(taken, spent, key=lambda amount: amount.amount)


def test_the_last_job_bears_what_comes_after_it() -> None:
    """Idling, giving the machine up, and what was billed besides."""
    lease = a_lease(state=LeaseState.RELEASED, spent=Money("0.50"), reserved=ZERO)
    ran = [JobCost("a", "train", Money("0.10")), JobCost("b", "test", Money("0.20"))]

    assert [share for _, share in shares(lease, ran, NOON)] == [Money("0.10"), Money("0.40")]


def test_a_day_is_that_of_the_named_zone() -> None:
    """What is rented half an hour before midnight in London counts to the next day in Berlin."""
    late = a_lease(created_at=NOON + 11.5 * HOUR)

    (london,) = cost_lines("day", [late], {}, NOON, "Europe/London")
    (berlin,) = cost_lines("day", [late], {}, NOON, "Europe/Berlin")

    assert (london.name, berlin.name) == ("2026-11-29", "2026-11-30")


def test_a_lease_is_part_of_the_line_of_each_of_its_tags() -> None:
    """And of a line without a name if it has none."""
    one = a_lease(state=LeaseState.RELEASED, spent=Money(1), tags=("a", "b"))
    none = replace(one, id="lease-2")

    lines = cost_lines("tag", [one, replace(none, tags=())], {}, NOON, "UTC")

    assert {line.name: line.spent for line in lines} == {"a": Money(1), "b": Money(1), "": Money(1)}
