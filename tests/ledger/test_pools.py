"""Leases that several processes share: one of all who want an idle one gets it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import pytest

from gpubroker.errors import LedgerBusy, LedgerError, StaleOwner
from gpubroker.ledger.ledger import Ledger, NoPlace, OverLimit
from gpubroker.ledger.rows import Owner
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.model.places import Place
from gpubroker.policy.budget import Limit, MachineLimit
from gpubroker.policy.pool import Use

from .conftest import ENTROPY, NewLease, both_engines
from .test_races import children

LIMIT = MachineLimit("machines of pool images", 1, pool="images")


def ready(ledger: Ledger, new_lease: NewLease, **columns: object) -> LeaseRow:
    """A lease of the pool that has run a job."""
    lease = new_lease("0.10", pool="images", **columns)
    ledger.reserve(lease, [], [LIMIT])
    lease = ledger.move(lease, LeaseState.PROVISIONING, 1010.0, "accepted", machine_id=lease.id)
    lease = ledger.move(lease, LeaseState.READY, 1100.0, "ready", ready_at=1100.0)
    lease = ledger.begin_job(lease, f"job of {lease.id}", "x", (), 1100.0)
    return ledger.end_job(lease, f"job of {lease.id}", "exited", 0, 1200.0)


@both_engines
def test_of_sixteen_who_want_an_idle_lease_one_gets_it(place: Place, new_lease: NewLease) -> None:
    """Processes that try at the same moment; the others are told that somebody was quicker."""
    ledger = Ledger(place, entropy=ENTROPY)
    lease = ledger.park(ready(ledger, new_lease), 2000.0, 1200.0)
    gate, open_gate = os.pipe()

    def want(index: int) -> None:
        mine = Ledger(place, entropy=ENTROPY, busy=0.5)
        os.read(gate, 1)
        while True:
            with suppress(LedgerBusy):
                try:
                    mine.take(lease, f"broker-{index + 10}", 1300.0)
                except StaleOwner:
                    os._exit(7)
                return

    with children(want, 16) as pids:
        os.write(open_gate, b"x" * 16)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

    (row,) = ledger.pool("images")
    assert sorted(statuses) == [0] + [7] * 15
    assert row.epoch == 2
    assert row.idle_until is None
    assert violations(ledger.leases(open_only=False), ledger.events()) == []
    ledger.close()


@both_engines
def test_a_pool_has_no_more_leases_than_it_may(
    open_ledger: Callable[[], Ledger], new_lease: NewLease
) -> None:
    """Whoever asks; one whose destroy was acknowledged makes room."""
    one, other = open_ledger(), open_ledger()
    first = ready(one, new_lease)

    with pytest.raises(NoPlace):
        other.reserve(new_lease("0.10", pool="images"), [], [LIMIT])
    other.reserve(new_lease("0.10", pool="texts"), [], [])
    asked = one.request_release(first, 1300.0, "idle")
    one.note(asked, 1301.0, "acknowledged", acknowledged_at=1301.0)
    other.reserve(new_lease("0.10", pool="images"), [], [LIMIT])


def test_no_time_is_bought_at_a_price_that_holds_no_more(
    open_ledger: Callable[[], Ledger], new_lease: NewLease
) -> None:
    """Somebody has booked another one since the money was reckoned; who reads again may buy."""
    ledger = open_ledger()
    old = ready(ledger, new_lease)
    new = ledger.note(old, 1250.0, "price rose", hourly=Money("9"))

    kept = ledger.extend(old, old.deadline + 600, Money("0.01"), [], 1300.0)
    later = ledger.extend(new, old.deadline + 600, Money("1.50"), [], 1300.0)

    assert (kept.deadline, kept.reserved) == (old.deadline, old.reserved)
    assert later.deadline == old.deadline + 600


@both_engines
def test_after_its_idle_limit_a_lease_is_its_owners_alone(
    open_ledger: Callable[[], Ledger], new_lease: NewLease
) -> None:
    """Who may be about to give it up without asking, where the ledger cannot be written."""
    ledger = open_ledger()
    parked = ledger.park(ready(ledger, new_lease), 2000.0, 1200.0)

    with pytest.raises(LedgerError):
        ledger.take(parked, "another", 2000.0)
    own = ledger.take(parked, parked.owner, 2000.0)

    assert own.idle_until is None
    assert own.epoch == parked.epoch


@both_engines
def test_only_a_parked_lease_can_be_taken(
    open_ledger: Callable[[], Ledger], new_lease: NewLease
) -> None:
    """Not one in hand, nor one that is to be given up; and its former owner changes nothing more."""
    ledger = open_ledger()
    lease = ready(ledger, new_lease)
    with pytest.raises(StaleOwner):
        ledger.take(lease, "broker-2", 1300.0)
    parked = ledger.park(lease, 2000.0, 1200.0)

    taken = ledger.take(parked, "broker-2", 1300.0)
    with pytest.raises(StaleOwner):
        ledger.request_release(parked, 1301.0, "idle")
    again = ledger.park(taken, 3000.0, 1400.0)
    own = ledger.take(again, "broker-2", 1500.0)
    drained = ledger.request_drain(ledger.park(own, 3000.0, 1500.0), 1501.0, "the price rose")

    assert (taken.owner, taken.epoch, taken.parked) == ("broker-2", 2, False)
    assert own.epoch == 2
    with pytest.raises(LedgerError, match="given up"):
        ledger.take(drained, "broker-3", 1600.0)
    assert violations(ledger.leases(), ledger.events()) == []


@both_engines
def test_more_time_needs_the_money_for_it(
    open_ledger: Callable[[], Ledger], new_lease: NewLease
) -> None:
    """Under every limit; refused, everything is as it was."""
    ledger = open_ledger()
    lease = ready(ledger, new_lease)
    cap = Limit("cap", Money("0.30"))

    longer = ledger.extend(lease, 9000.0, Money("0.15"), [cap], 1300.0)
    with pytest.raises(OverLimit):
        ledger.extend(longer, 12_000.0, Money("0.06"), [cap], 1400.0)

    (row,) = ledger.pool("images")
    assert (row.deadline, row.reserved) == (9000.0, Money("0.25"))
    assert ledger.extend(longer, 8000.0, Money("0.01"), [], 1400.0) == row


@both_engines
def test_a_lease_is_busy_until_its_last_job_has_ended(
    open_ledger: Callable[[], Ledger], new_lease: NewLease
) -> None:
    """Jobs at the same time share its cost, each that since the end of the one before."""
    ledger = open_ledger()
    lease = ready(ledger, new_lease)
    lease = ledger.begin_job(lease, "one", "x", (), 1300.0)
    lease = ledger.begin_job(lease, "two", "y", (), 1310.0)

    first = ledger.end_job(lease, "two", "exited", 0, 1400.0)
    second = ledger.end_job(first, "one", "exited", 0, 1500.0)

    assert (first.state, second.state) == (LeaseState.BUSY, LeaseState.IDLE)
    assert ledger.pool_uses("images", 10) == [
        Use(lease.id, 1000.0, 1200.0),  # what the machine was rented for
        Use(lease.id, 1300.0, 1500.0),
        Use(lease.id, 1310.0, 1400.0),
    ]
    assert ledger.jobs_cost(lease.id) == Money("0.055556")
    assert ledger.cold_starts("images", 8) == [100.0]
    assert violations(ledger.leases(), ledger.events()) == []


@both_engines
def test_who_waits_is_known_to_others_of_the_host(open_ledger: Callable[[], Ledger]) -> None:
    """For as long as it says so, and not to itself."""
    ledger = open_ledger()
    for number, host in ((1, "here"), (2, "here"), (3, "there")):
        owner = Owner(id=f"b{number}", host=host, pid=1, started="", expires_at=2000.0)
        ledger.put_owner(owner)
        ledger.wait_in_pool("images", owner.id, 1000.0 + number, 1100.0)

    assert ledger.pool_waits("images", "b1", "here", 1050.0) == [1002.0]
    assert ledger.pool_waits("images", "b1", "here", 1100.0) == []
    assert ledger.pool_waits("texts", "b1", "here", 1050.0) == []


@both_engines
def test_finished_items_of_a_batch_are_found_again(open_ledger: Callable[[], Ledger]) -> None:
    """By the batch's name and the item; done again, the newer result counts."""
    ledger = open_ledger()
    ledger.put_item("batch-7", "0:abc", "{}", 1000.0)
    ledger.put_item("batch-7", "0:abc", "[]", 1001.0)
    ledger.put_item("batch-8", "0:abc", "1", 1001.0)

    assert open_ledger().items("batch-7") == {"0:abc": "[]"}
