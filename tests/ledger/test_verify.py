"""Replaying a ledger against its own rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseRow, LedgerEvent
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.money import ZERO, Money

from .conftest import NewLease, both_engines


def event(
    number: int, source: S | None, target: S | None, kind: str = "x", epoch: int = 1
) -> LedgerEvent:
    return LedgerEvent(
        number=number,
        lease_id="lease-1",
        at=float(number),
        epoch=epoch,
        kind=kind,
        source=source,
        target=target,
    )


#: A good life: asked, accepted, used, released, proven.
LIFE: Final = (
    event(1, None, S.REQUESTED, "intent"),
    event(2, S.REQUESTED, S.PROVISIONING, "accepted"),
    event(3, S.PROVISIONING, S.READY, "ready"),
    event(4, S.READY, S.RELEASING, "release requested"),
    event(5, None, None, "acknowledged"),
    event(6, S.RELEASING, S.RELEASED, "released"),
)


@pytest.fixture
def row(new_lease: NewLease) -> LeaseRow:
    """The row that `LIFE` leads to."""
    return new_lease("0", state=S.RELEASED, spent=Money("0.40"), machine_id="m-1")


def refused(ledger: Ledger, row: LeaseRow) -> LeaseRow:
    return ledger.move(row, S.REFUSED, 2.0, "refused", reserved=ZERO)


def taken_over(ledger: Ledger, row: LeaseRow) -> LeaseRow:
    return ledger.take_over(row, "broker-2", 2.0, "owner dead")


def watched(ledger: Ledger, row: LeaseRow) -> LeaseRow:
    row = ledger.move(row, S.UNKNOWN, 2.0, "answer lost")
    row = ledger.move(row, S.LATE_WATCH, 3.0, "never seen")
    return ledger.move(row, S.RELEASED, 4.0, "watch over", reserved=ZERO)


def asked_for(ledger: Ledger, row: LeaseRow) -> LeaseRow:
    return ledger.request_release(row, 2.0, "done")


class TestGoodHistories:
    def test_a_whole_life_holds(self, row: LeaseRow) -> None:
        """Nothing to complain of."""
        assert violations([row], LIFE) == []
        assert violations([], []) == []

    def test_events_of_several_leases_may_be_interleaved(self, row: LeaseRow) -> None:
        """Each lease has its own history."""
        other = replace(row, id="lease-2", mark="mark-2", machine_id="m-2")
        both = [
            one for e in LIFE for one in (e, replace(e, lease_id="lease-2", number=e.number + 9))
        ]

        assert violations([row, other], both) == []

    @both_engines
    @pytest.mark.parametrize("steps", [refused, taken_over, watched, asked_for])
    def test_what_the_ledger_writes_holds(
        self, ledger: Ledger, new_lease: NewLease, steps: Callable[[Ledger, LeaseRow], LeaseRow]
    ) -> None:
        """Refusals, take-overs, late watches, requests: each as it is really written."""
        new = new_lease()
        ledger.reserve(new, [])
        steps(ledger, new)

        assert violations(ledger.leases(open_only=False), ledger.events()) == []

    @both_engines
    def test_an_adopted_machine_holds(self, ledger: Ledger, new_lease: NewLease) -> None:
        """Its life begins as an orphan."""
        found = new_lease("0", state=S.ORPHANED, machine_id="m-1")
        ledger.adopt(found, 1.0, "m-1")
        ledger.request_release(found, 2.0, "adopted")

        assert violations(ledger.leases(), ledger.events()) == []


#: what is planted into the row -> into its events -> what is said
PLANTED: Final[list[tuple[dict[str, Any], tuple[LedgerEvent, ...], str]]] = [
    ({}, (), "has no events"),
    ({}, LIFE[1:], "begins as provisioning"),
    ({}, LIFE[:2] + LIFE[3:], "event 4 leaves ready, but it was provisioning"),
    (
        {},
        (*LIFE[:3], event(4, S.READY, S.RELEASED), LIFE[4]),
        "event 4 takes no edge: ready -> released",
    ),
    ({}, LIFE[:-1], "is released, but its events lead to releasing"),
    ({"state": S.RELEASING}, LIFE, "is releasing, but its events lead to released"),
    (
        {"epoch": 2},
        (*LIFE[:2], event(9, None, None, "taken over", epoch=2), *LIFE[2:]),
        "event 3 was written by a stale owner",
    ),
    ({"epoch": 2}, LIFE, "has epoch 2, but its events end with 1"),
    (
        {"epoch": 2},
        (*LIFE[:5], replace(LIFE[5], epoch=2)),
        "event 6 has epoch 2, but nobody took it over",
    ),
    ({"reserved": Money(1)}, LIFE, "is released, but still holds $1.00"),
    ({}, LIFE[:4] + LIFE[5:], "is released, but its destroy was never acknowledged"),
    (
        {"state": S.REFUSED},
        (LIFE[0], event(2, S.REQUESTED, S.REFUSED)),
        "was refused, but cost $0.40",
    ),
    (
        {"state": S.READY, "release_requested_at": 3.5, "spent": ZERO},
        LIFE[:3],
        "is ready, although its release was asked for",
    ),
]


class TestViolations:
    @pytest.mark.parametrize(("columns", "events", "said"), PLANTED)
    def test_each_broken_rule_is_found(
        self, row: LeaseRow, columns: dict[str, Any], events: tuple[LedgerEvent, ...], said: str
    ) -> None:
        """One planted fault, one line that names the lease and what is wrong."""
        assert f"lease-1: {said}" in violations([replace(row, **columns)], events)

    def test_events_without_a_row_are_found(self) -> None:
        """A lease whose row was deleted is not forgotten: its machine may still be there."""
        assert violations([], LIFE) == ["lease-1: has events, but no row"]

    def test_two_open_leases_of_one_machine_are_found(self, new_lease: NewLease) -> None:
        """The release of one would end the other's machine."""
        one, two = (new_lease(state=S.REQUESTED, machine_id="m-1") for _ in range(2))
        events = [
            replace(LIFE[0], lease_id=lease.id, number=n) for n, lease in enumerate((one, two))
        ]

        assert violations([one, two], events) == ["lease-2: has the same machine as lease-1: m-1"]
        assert violations([one, replace(two, provider="other")], events) == []
        assert violations([replace(one, machine_id=None), two], events) == []
