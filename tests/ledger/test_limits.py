"""Limits as the ledger counts them, alerts told once, and what each job has cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubroker.ledger.ledger import Ledger, NoPlace, OverLimit
from gpubroker.model.leases import LeaseRow
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.money import Money
from gpubroker.policy.budget import Budget, Limit, MachineLimit
from gpubroker.policy.pricing import cost_so_far

from .conftest import ENTROPY, NewLease
from .earlier import take_back
from .test_leases import PATHS, follow

micros = st.integers(0, 10**9)


@st.composite
def claims(draw: st.DrawFn) -> dict[str, object]:
    """What makes one lease count to one limit and not to another."""
    return {
        "request_id": draw(st.sampled_from(["r1", "r2"])),
        "provider": draw(st.sampled_from(["acme", "other"])),
        "tags": tuple(draw(st.sets(st.sampled_from(["night", "a%", "a_"])))),
        "created_at": draw(st.integers(0, 10)) * 1.0,
        "reserved": Money.from_micros(draw(micros)),
    }


limits = st.builds(
    Limit,
    name=st.just("x"),
    amount=micros.map(Money.from_micros),
    request_id=st.sampled_from([None, "r1"]),
    since=st.sampled_from([None, 3.0]),
    until=st.sampled_from([None, 7.0]),
    lease_id=st.sampled_from([None, "lease-1", ""]),
    provider=st.sampled_from([None, "acme"]),
    tag=st.sampled_from([None, "night", "a%"]),
)


class TestLimits:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(claims(), max_size=5), st.lists(limits, max_size=3))
    def test_the_ledger_counts_what_the_policy_counts_and_never_exceeds_it(
        self, asked: list[dict[str, object]], given_: list[Limit]
    ) -> None:
        """At every commit what is taken of each limit is within it; each lease is counted rightly."""
        with closing(Ledger(None, entropy=ENTROPY)) as ledger:
            for number, columns in enumerate(asked):
                row = _row(number, columns)
                holding = [limit for limit in given_ if limit.counts(row)]
                before = {limit: ledger.committed(limit) for limit in holding}
                fits = all(before[limit] + row.reserved <= limit.amount for limit in holding)
                if fits:
                    ledger.reserve(row, holding)
                else:
                    with pytest.raises(OverLimit):
                        ledger.reserve(row, holding)
                there = ledger.leases()
                for limit in given_:
                    mine = [lease.reserved for lease in there if limit.counts(lease)]
                    assert ledger.committed(limit) == sum(mine, Money(0))
                assert all(ledger.committed(limit) <= limit.amount for limit in holding) or not fits

    def test_usage_tells_what_is_spent_from_what_is_held(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Settled, counted so far of an open lease, and both with what is reserved."""
        done = new_lease("1.00")
        ledger.reserve(done, [])
        done = follow(ledger, done, PATHS[S.RELEASING])
        ledger.move(done, S.RELEASED, 1001.0, "x", reserved=Money(0), spent=Money("0.30"))
        ledger.reserve(new_lease("2.00"), [])

        (found,), running = ledger.usages(lambda _: [Limit("x", Money(5))], 1000.0 + 900)

        assert (found.spent, found.committed) == (Money("0.40"), Money("2.30"))
        assert [cost_so_far(lease, 1900.0) for lease in running] == [Money("0.10")]

    @settings(deadline=None, max_examples=60)
    @given(st.lists(claims(), max_size=5), st.lists(limits, max_size=3))
    def test_a_usage_counts_every_open_lease_that_its_limit_counts(
        self, asked: list[dict[str, object]], given_: list[Limit]
    ) -> None:
        """Also where only the leases of one request, or one lease, are looked at for a limit."""
        with closing(Ledger(None, entropy=ENTROPY)) as ledger:
            for number, columns in enumerate(asked):
                ledger.reserve(_row(number, columns), [])

            usages, running = ledger.usages(lambda _: given_, 1900.0)

            for limit, found in zip(given_, usages, strict=True):
                mine = [cost_so_far(lease, 1900.0) for lease in running if limit.counts(lease)]
                assert (found.limit, found.spent) == (limit, sum(mine, Money(0)))
                assert found.committed == ledger.committed(limit)

    @pytest.mark.parametrize("state", list(S))
    def test_a_place_is_taken_until_its_destroy_is_acknowledged(
        self, ledger: Ledger, new_lease: NewLease, state: S
    ) -> None:
        """By what may exist, and by what cannot be released; not by what was never seen."""
        one = MachineLimit("machines at a time", 1)
        row = new_lease()
        ledger.reserve(row, [], [one])
        row = follow(ledger, row, PATHS[state])

        free = state in (S.RELEASED, S.REFUSED, S.LATE_WATCH)

        if free:
            ledger.reserve(new_lease(), [], [one])
            return
        with pytest.raises(NoPlace, match="machines at a time: 1 of 1 are held"):
            ledger.reserve(new_lease(), [], [one])
        ledger.note(row, 1002.0, "acknowledged", acknowledged_at=1002.0)
        ledger.reserve(new_lease(), [], [one])

    def test_places_are_counted_by_provider_and_by_tag(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Others do not stand in the way."""
        ledger.reserve(new_lease(tags=("night",)), [])

        ledger.reserve(new_lease(), [], [MachineLimit("x", 1, provider="other")])
        ledger.reserve(new_lease(), [], [MachineLimit("x", 1, tag="day")])
        with pytest.raises(NoPlace):
            ledger.reserve(new_lease(), [], [MachineLimit("x", 1, tag="night")])
        with pytest.raises(NoPlace):
            ledger.reserve(new_lease(), [], [MachineLimit("x", 3, provider="acme")])

    def test_tags_of_an_earlier_version_count(
        self, path: Path, open_ledger: Callable[[], Ledger], new_lease: NewLease
    ) -> None:
        """The table of tags is filled from the leases that there are."""
        with closing(Ledger(path, entropy=ENTROPY)) as ledger:
            ledger.reserve(new_lease("1.00", tags=("night", "batch")), [])
            ledger.reserve(new_lease("2.00"), [])
        take_back(path, 3)

        ledger = open_ledger()

        assert ledger.committed(Limit("x", Money(9), tag="night")) == Money(1)
        assert ledger.committed(Limit("x", Money(9), tag="batch")) == Money(1)
        assert ledger.committed(Limit("x", Money(9), tag="day")) == Money(0)


def _row(number: int, columns: dict[str, object]) -> LeaseRow:
    values: dict[str, object] = {
        "id": f"lease-{number}",
        "state": S.REQUESTED,
        "epoch": 1,
        "owner": "broker-1",
        "mark": f"mark-{number}",
        "title": "1x RTX 4090",
        "offer_id": "offer-1",
        "machine_id": None,
        "hourly": Money("0.40"),
        "quantum": 1.0,
        "spent": Money(0),
        "deadline": 4600.0,
    }
    return LeaseRow(**{**values, **columns})  # type: ignore[arg-type]


class TestAlerts:
    def test_of_several_processes_one_tells(self, open_ledger: Callable[[], Ledger]) -> None:
        """Whoever is first; what is new besides is told all the same."""
        first, second = open_ledger(), open_ledger()

        assert first.claim_alerts(["a", "b"], 1.0) == {"a", "b"}
        assert second.claim_alerts(["a", "b", "c"], 2.0) == {"c"}
        assert first.claim_alerts(["c"], 3.0) == set()
        first.unclaim_alert("c")
        assert second.claim_alerts(["a", "c"], 4.0) == {"c"}


class TestJobs:
    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), max_size=5),
        st.integers(0, 5000),
        st.integers(0, 10**7),
    )
    def test_the_jobs_of_a_lease_add_up_to_its_cost(
        self, spells: list[tuple[int, int]], rest: int, billed: int
    ) -> None:
        """While it runs, when it has ended, and when the vendor has billed something else."""
        with closing(Ledger(None, entropy=ENTROPY)) as ledger:
            asked = {"request_id": "r", "provider": "acme", "created_at": 1000.0}
            row = _row(1, {**asked, "reserved": Money(9)})
            ledger.reserve(row, [])
            row, at = follow(ledger, row, PATHS[S.READY]), 1001.0
            for number, (idle, busy) in enumerate(spells):
                row = ledger.begin_job(row, f"job-{number}", "train", (), at := at + idle)
                row = ledger.end_job(row, f"job-{number}", "exited", 0, at := at + busy)
                _check_sum(ledger, at)
            row = ledger.request_release(row, at := at + rest, "done")
            spent = cost_so_far(row, at)
            row = ledger.move(row, S.RELEASED, at, "x", reserved=Money(0), spent=spent)
            _check_sum(ledger, at)
            settled = ledger.settle(row, Money.from_micros(billed), at)
            _check_sum(ledger, at)

        assert (settled.counted, settled.spent.micros) == (spent, billed)


def _check_sum(ledger: Ledger, at: float) -> None:
    found = ledger.costs("job", Budget(), now=at)

    assert sum((line.spent for line in found.lines), Money(0)) == found.spent


def test_bills_are_compared_over_a_time_and_by_provider(
    ledger: Ledger, new_lease: NewLease
) -> None:
    """Only what was settled says anything, and only what was counted before."""
    for provider, counted, billed, at in (
        ("acme", "1.00", "1.10", 5000.0),
        ("acme", "2.00", "2.20", 6000.0),
        ("acme", "4.00", "9.00", 100.0),
        ("other", "8.00", "8.00", 6000.0),
    ):
        row = new_lease(provider=provider)
        ledger.reserve(row, [])
        row = follow(ledger, row, PATHS[S.RELEASING])
        row = ledger.move(row, S.RELEASED, 1.0, "x", reserved=Money(0), spent=Money(counted))
        ledger.settle(row, Money(billed), at)

    assert ledger.billed("acme", since=1000.0) == (Money(3), Money("3.30"))
