"""Any sequence of operations on a ledger leaves a history that holds, within its limit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gpubroker.errors import LedgerError
from gpubroker.ledger.ledger import Ledger, OverLimit
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseRow
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.budget import Limit

LIMIT: Final = Limit("total", Money(10))
shares = st.fractions(0, 1)
picks = st.integers(0, 10**6)


class Histories(RuleBasedStateMachine):
    """Brokers that hold copies of rows, new and stale, and do whatever comes to their minds.

    What the ledger refuses is no fault: a refusal must only leave no trace.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(None, entropy=b"12345")
        self.copies: list[LeaseRow] = []
        self.at = 1000.0
        self.requested: dict[str, float] = {}

    def teardown(self) -> None:
        self.ledger.close()

    def tick(self) -> float:
        self.at += 1.0
        return self.at

    def keep(self, row: LeaseRow) -> None:
        self.copies.append(row)

    @rule(cents=st.integers(0, 400), machine=st.none() | st.integers(0, 10**9))
    def reserve(self, cents: int, machine: int | None) -> None:
        number = len(self.ledger.leases(open_only=False))
        row = LeaseRow(
            id=f"lease-{number}",
            request_id="request-1",
            provider="acme",
            state=S.REQUESTED,
            epoch=1,
            owner="broker-1",
            mark=f"mark-{number}",
            title="",
            offer_id="",
            machine_id=None if machine is None else f"m-{number}-{machine}",
            hourly=Money(1),
            quantum=1.0,
            reserved=Money(cents) / 100,
            spent=ZERO,
            created_at=self.tick(),
            deadline=self.at + 3600,
        )
        before = self.ledger.committed(LIMIT)
        try:
            self.ledger.reserve(row, [LIMIT])
        except OverLimit:
            assert before + row.reserved > LIMIT.amount
        else:
            self.keep(row)

    def attempt(self, pick: int, act: Callable[[LeaseRow], LeaseRow]) -> None:
        """Do something with one of the copies, however old."""
        copy = self.copies[pick % len(self.copies)]
        before = self.ledger.lease(copy.id), len(self.ledger.events())
        try:
            row = act(copy)
        except LedgerError:
            assert (self.ledger.lease(copy.id), len(self.ledger.events())) == before
        else:
            self.keep(row)
            assert self.ledger.lease(copy.id) == row

    @precondition(lambda self: self.copies)
    @rule(pick=picks, state=st.sampled_from([s for s in S if s is not S.RELEASED]))
    def move(self, pick: int, state: S) -> None:
        columns: dict[str, Any] = {} if state.open else {"reserved": ZERO}
        self.attempt(
            pick, lambda row: self.ledger.move(row, state, self.tick(), "moved", **columns)
        )

    @precondition(lambda self: self.copies)
    @rule(pick=picks)
    def acknowledge(self, pick: int) -> None:
        self.attempt(pick, lambda row: self.ledger.note(row, self.tick(), "acknowledged"))

    @precondition(lambda self: self.copies)
    @rule(pick=picks, share=shares)
    def settle(self, pick: int, share: Fraction) -> None:
        """Close a lease as its drivers do, at a cost that its reservation covers."""
        lease = self.ledger.lease(self.copies[pick % len(self.copies)].id)
        assert lease is not None
        acknowledged = {e.kind for e in self.ledger.events(lease.id)} & {"acknowledged"}
        if lease.state is S.LATE_WATCH:
            kind, cost = "watch over", ZERO
        elif acknowledged:
            micros = lease.reserved.micros * share.numerator // share.denominator
            kind, cost = "released", lease.spent + Money.from_micros(micros)
        else:
            return
        self.attempt(
            pick,
            lambda row: self.ledger.move(
                row, S.RELEASED, self.tick(), kind, reserved=ZERO, spent=cost
            ),
        )

    @precondition(lambda self: self.copies)
    @rule(pick=picks)
    def take_over(self, pick: int) -> None:
        self.attempt(pick, lambda row: self.ledger.take_over(row, "broker-2", self.tick(), "dead"))

    @precondition(lambda self: self.copies)
    @rule(pick=picks)
    def request_release(self, pick: int) -> None:
        self.attempt(pick, lambda row: self.ledger.request_release(row, self.tick(), "done"))

    @precondition(lambda self: self.copies)
    @rule(pick=picks)
    def begin_job(self, pick: int) -> None:
        job = f"job-{self.tick()}"
        self.attempt(pick, lambda row: self.ledger.begin_job(row, job, "x", [], self.at))

    @precondition(lambda self: self.copies)
    @rule(pick=picks)
    def end_job(self, pick: int) -> None:
        self.attempt(pick, lambda row: self.ledger.end_job(row, "job", "exited", 0, self.tick()))

    @precondition(lambda self: self.copies)
    @rule(pick=picks)
    def note(self, pick: int) -> None:
        self.attempt(pick, lambda row: self.ledger.note(row, self.tick(), "noted", problem="x"))

    @invariant()
    def the_history_holds(self) -> None:
        assert violations(self.ledger.leases(open_only=False), self.ledger.events()) == []

    @invariant()
    def the_limit_holds(self) -> None:
        assert self.ledger.committed(LIMIT) <= LIMIT.amount

    @invariant()
    def a_release_request_stands(self) -> None:
        for row in self.ledger.leases(open_only=False):
            if row.id in self.requested:
                assert row.release_requested_at == self.requested[row.id]
            if row.release_requested_at is not None:
                self.requested[row.id] = row.release_requested_at
                assert row.state not in (S.READY, S.BUSY, S.IDLE)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)


@pytest.mark.deep
def test_many_more_histories() -> None:
    """The same, more often."""
    many = settings(max_examples=200, stateful_step_count=40, deadline=None)

    run_state_machine_as_test(Histories, settings=many)
