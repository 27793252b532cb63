"""What may be written of a lease, by whom, and what is on record of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from gpubroker.errors import LedgerBusy, LedgerError, LedgerUnusable, StaleOwner
from gpubroker.ledger.ledger import Ledger, OverLimit
from gpubroker.ledger.rows import Owner
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.leases import LeaseRow
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.money import Money
from gpubroker.policy.budget import Limit
from gpubroker.policy.transitions import HELD, TRANSITIONS

from .conftest import NewLease, both_engines

pytestmark = both_engines

#: A way to each state, from an intent.
PATHS: dict[S, list[S]] = {
    S.REQUESTED: [],
    S.PROVISIONING: [S.PROVISIONING],
    S.READY: [S.PROVISIONING, S.READY],
    S.BUSY: [S.PROVISIONING, S.READY, S.BUSY],
    S.IDLE: [S.PROVISIONING, S.READY, S.IDLE],
    S.UNKNOWN: [S.UNKNOWN],
    S.LATE_WATCH: [S.UNKNOWN, S.LATE_WATCH],
    S.ORPHANED: [S.PROVISIONING, S.ORPHANED],
    S.RELEASING: [S.RELEASING],
    S.QUARANTINED: [S.RELEASING, S.QUARANTINED],
    S.RELEASED: [S.RELEASING, S.RELEASED],
    S.REFUSED: [S.REFUSED],
}


def follow(ledger: Ledger, row: LeaseRow, steps: list[S]) -> LeaseRow:
    for step in steps:
        row = ledger.move(row, step, 1001.0, "step")
    return row


def brought_to(ledger: Ledger, row: LeaseRow, state: S) -> LeaseRow:
    ledger.reserve(row, [])
    return follow(ledger, row, PATHS[state])


class TestReserve:
    def test_the_row_comes_back_as_it_was_written(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Every column, money and tags included."""
        row = new_lease("1.234567", tags=("night", "batch"), problem="none", machine_id="m")

        ledger.reserve(row, [])

        assert ledger.lease(row.id) == row
        assert ledger.lease_of_mark(row.mark) == row
        assert ledger.leases() == [row]
        assert ledger.lease("another") is None

    def test_money_is_rounded_up_to_micro_dollars(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """What is held must cover what can be billed."""
        ledger.reserve(new_lease("0.0000001", hourly=Money("0.3333333")), [])

        (row,) = ledger.leases()
        assert (row.reserved, row.hourly) == (Money("0.000001"), Money("0.333334"))

    def test_a_limit_of_a_request_counts_its_own_leases(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Attempts of one job share one budget; those of another have theirs."""
        limit = Limit("job", Money("2.50"), request_id="request-1")
        ledger.reserve(new_lease(), [limit])
        ledger.reserve(new_lease(request_id="request-2"), [limit])
        ledger.reserve(new_lease(), [limit])

        with pytest.raises(
            OverLimit, match=r"job: \$1.00 more would exceed \$2.50, of which \$2.00"
        ):
            ledger.reserve(new_lease(), [limit])

        assert ledger.committed(limit) == Money(2)
        assert len(ledger.leases()) == 3

    def test_a_limit_of_a_window_is_half_open(self, ledger: Ledger, new_lease: NewLease) -> None:
        """The first moment counts, the end does not."""
        limit = Limit("day", Money(10), since=1000.0, until=2000.0)
        for created_at in (999.9, 1000.0, 1999.9, 2000.0):
            ledger.reserve(new_lease(created_at=created_at), [])

        assert ledger.committed(limit) == Money(2)

    def test_a_limit_without_a_window_counts_everything(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """An end that is not said is no end: a limit never counts nothing by mistake."""
        ledger.reserve(new_lease(), [])
        ledger.reserve(new_lease(created_at=5000.0), [])

        assert ledger.committed(Limit("total", Money(10))) == Money(2)
        assert ledger.committed(Limit("since", Money(10), since=2000.0)) == Money(1)
        assert ledger.committed(Limit("until", Money(10), until=2000.0)) == Money(1)

    def test_what_was_settled_counts_and_what_was_set_free_does_not(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Committed is what is reserved and what is spent, whatever the state."""
        limit = Limit("total", Money("1.50"))
        row = brought_to(ledger, new_lease(), S.RELEASING)
        ledger.move(row, S.RELEASED, 2000.0, "released", reserved=Money(0), spent=Money("0.40"))

        ledger.reserve(new_lease("1.10"), [limit])

        assert ledger.committed(limit) == Money("1.50")
        with pytest.raises(OverLimit):
            ledger.reserve(new_lease("0.000001"), [limit])

    def test_the_tightest_of_several_limits_decides(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """All of them must allow it; what one refuses leaves no trace."""
        wide, tight = Limit("day", Money(9)), Limit("job", Money("0.99"))

        with pytest.raises(OverLimit) as over:
            ledger.reserve(new_lease(), [wide, tight])

        assert over.value.limit is tight
        assert (ledger.leases(open_only=False), ledger.events()) == ([], [])

    def test_fractions_of_a_micro_dollar_do_not_slip_under_a_limit(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """What is checked is what is written: the amount rounded up."""
        limit = Limit("total", Money("1.0000011"))
        ledger.reserve(new_lease("0.5000001"), [limit])

        with pytest.raises(OverLimit):
            ledger.reserve(new_lease("0.5000001"), [limit])

        assert ledger.committed(limit) <= limit.amount

    @pytest.mark.parametrize("columns", [{"id": "lease-1"}, {"mark": "mark-1"}])
    def test_an_id_and_a_mark_are_used_once(
        self, ledger: Ledger, new_lease: NewLease, columns: dict[str, str]
    ) -> None:
        """A second row is refused for good: trying again would not mend it."""
        ledger.reserve(new_lease(), [])

        with pytest.raises(LedgerError, match=r"(?i)unique") as refused:
            ledger.reserve(new_lease(**columns), [])

        assert not isinstance(refused.value, (LedgerBusy, LedgerUnusable))
        assert len(ledger.leases()) == len(ledger.events()) == 1

    def test_a_negative_reservation_is_refused(self, ledger: Ledger, new_lease: NewLease) -> None:
        """It would make room for others."""
        with pytest.raises(LedgerError):
            ledger.reserve(new_lease("-1"), [])

        assert ledger.leases() == []


class TestMove:
    @pytest.mark.parametrize("source", S)
    def test_only_edges_of_the_table_are_taken(
        self, ledger: Ledger, new_lease: NewLease, source: S
    ) -> None:
        """From each state each target that the table lacks is refused, and nothing is written."""
        row = brought_to(ledger, new_lease(), source)
        before = ledger.events()

        for target in set(S) - TRANSITIONS[source]:
            with pytest.raises(LedgerError, match=f"is {source}; it cannot become {target}"):
                ledger.move(row, target, 1002.0, "x", machine_id="changed")

        assert ledger.lease(row.id) == row
        assert ledger.events() == before

    @pytest.mark.parametrize(
        ("source", "target"), [(s, t) for s in S for t in sorted(TRANSITIONS[s])]
    )
    def test_each_edge_writes_one_event(
        self, ledger: Ledger, new_lease: NewLease, source: S, target: S
    ) -> None:
        """The new state, the columns and the event come together."""
        row = brought_to(ledger, new_lease(), source)
        before = len(ledger.events())

        moved = ledger.move(row, target, 1002.0, "why", "in detail", machine_id="m-1")

        (event,) = ledger.events(row.id)[before:]
        assert moved == ledger.lease(row.id) == replace(row, state=target, machine_id="m-1")
        assert (event.source, event.target, event.kind) == (source, target, "why")
        assert (event.at, event.epoch, event.detail) == (1002.0, 1, "in detail")

    def test_a_failing_write_leaves_neither_state_nor_event(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """A column that cannot be written takes the whole edge back."""
        row = brought_to(ledger, new_lease(), S.PROVISIONING)

        with pytest.raises(LedgerError):
            ledger.move(row, S.READY, 1002.0, "ready", spent=Money(-1))

        assert ledger.lease(row.id) == row
        assert len(ledger.events()) == 2

    def test_a_lease_that_is_not_there_cannot_move(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Its id is named."""
        with pytest.raises(LedgerError, match="there is no lease lease-1"):
            ledger.move(new_lease(), S.PROVISIONING, 1.0, "x")


#: Everything that a holder can write.
WRITES: Final[dict[str, Callable[[Ledger, LeaseRow], Any]]] = {
    "move": lambda ledger, row: ledger.move(row, S.BUSY, 1.0, "x"),
    "note": lambda ledger, row: ledger.note(row, 1.0, "x", problem="x"),
    "request_release": lambda ledger, row: ledger.request_release(row, 1.0, "x"),
    "take_over": lambda ledger, row: ledger.take_over(row, "third", 1.0, "x"),
    "begin_job": lambda ledger, row: ledger.begin_job(row, "j", "t", [], 1.0),
    "end_job": lambda ledger, row: ledger.end_job(row, "j", "exited", 0, 1.0),
}


class TestOwnership:
    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_who_lost_a_lease_can_change_nothing(
        self, ledger: Ledger, new_lease: NewLease, write: Callable[[Ledger, LeaseRow], Any]
    ) -> None:
        """Each kind of write with an old epoch is refused, whatever the state."""
        stale = brought_to(ledger, new_lease(), S.READY)
        current = ledger.take_over(stale, "broker-2", 1002.0, "owner dead")
        before = ledger.events()

        with pytest.raises(StaleOwner, match="taken over"):
            write(ledger, stale)

        assert ledger.lease(stale.id) == current
        assert ledger.events() == before

    def test_taking_over_raises_the_epoch_and_keeps_the_state(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """The lease is the same; who may write has changed, and that is on record."""
        row = brought_to(ledger, new_lease(), S.READY)

        taken = ledger.take_over(row, "broker-2", 1002.0, "owner dead")

        assert (taken.owner, taken.epoch, taken.state) == ("broker-2", 2, S.READY)
        assert [(e.kind, e.epoch) for e in ledger.events()[-2:]] == [
            ("step", 1),
            ("taken over", 2),
        ]

    def test_only_one_of_two_takes_a_lease_over(
        self, open_ledger: Callable[[], Ledger], new_lease: NewLease
    ) -> None:
        """Two sweeps that read the same row: the slower one finds it gone."""
        first, second = open_ledger(), open_ledger()
        row = brought_to(first, new_lease(), S.READY)

        first.take_over(row, "broker-2", 1002.0, "owner dead")
        with pytest.raises(StaleOwner):
            second.take_over(row, "broker-3", 1002.0, "owner dead")

    def test_an_older_copy_of_the_row_is_good_enough_for_the_owner(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """The state is read again; only a change of hands makes a copy stale."""
        old = brought_to(ledger, new_lease(), S.PROVISIONING)
        ledger.move(old, S.READY, 1002.0, "ready")

        assert ledger.move(old, S.BUSY, 1003.0, "busy").state is S.BUSY

    def test_owners_of_open_leases_are_known(self, ledger: Ledger, new_lease: NewLease) -> None:
        """With their newest heartbeat; those that hold nothing are of no interest."""
        one = Owner(id="broker-1", host="h", pid=1, started="s", expires_at=5.0)
        ledger.put_owner(one)
        ledger.put_owner(replace(one, id="idle"))
        ledger.reserve(new_lease(), [])

        ledger.put_owner(replace(one, expires_at=65.0))

        assert ledger.owners() == {"broker-1": replace(one, expires_at=65.0)}


class TestReleaseRequest:
    @pytest.mark.parametrize("state", sorted({*HELD, S.ORPHANED}))
    def test_what_has_a_machine_is_releasing_at_once(
        self, ledger: Ledger, new_lease: NewLease, state: S
    ) -> None:
        """One edge, with when and why."""
        row = brought_to(ledger, new_lease(), state)

        asked = ledger.request_release(row, 1002.0, "done")

        assert asked.state is S.RELEASING
        assert (asked.release_requested_at, asked.release_reason) == (1002.0, "done")
        assert ledger.events()[-1].kind == "release requested"

    @pytest.mark.parametrize("state", [S.REQUESTED, S.UNKNOWN, S.LATE_WATCH])
    def test_what_has_no_machine_yet_keeps_its_state_and_the_request(
        self, ledger: Ledger, new_lease: NewLease, state: S
    ) -> None:
        """It is carried out as soon as the machine is known."""
        row = brought_to(ledger, new_lease(), state)

        asked = ledger.request_release(row, 1002.0, "done")

        assert (asked.state, asked.release_requested_at) == (state, 1002.0)

    @pytest.mark.parametrize("state", [s for s in S if s.open])
    def test_the_first_request_stands(self, ledger: Ledger, new_lease: NewLease, state: S) -> None:
        """Asking again changes nothing and writes nothing."""
        row = brought_to(ledger, new_lease(), state)
        asked = ledger.request_release(row, 1002.0, "done")
        before = ledger.events()

        again = ledger.request_release(asked, 1003.0, "changed my mind")

        assert again == asked
        assert ledger.events() == before

    @pytest.mark.parametrize("state", [S.RELEASED, S.REFUSED])
    def test_what_is_closed_stays_closed(
        self, ledger: Ledger, new_lease: NewLease, state: S
    ) -> None:
        """A request that comes too late is no event."""
        row = brought_to(ledger, new_lease(), state)
        before = ledger.events()

        assert ledger.request_release(row, 1002.0, "done") == row
        assert ledger.events() == before

    @pytest.mark.parametrize("target", [S.READY, S.BUSY, S.IDLE])
    def test_a_lease_is_of_no_use_once_its_release_was_asked_for(
        self, ledger: Ledger, new_lease: NewLease, target: S
    ) -> None:
        """The answer to the create may still be noted, but no job starts on the machine."""
        row = brought_to(ledger, new_lease(), S.REQUESTED)
        ledger.request_release(row, 1001.5, "done")
        accepted = ledger.move(row, S.PROVISIONING, 1002.0, "accepted", machine_id="m")

        with pytest.raises(LedgerError, match=r"its release was asked for"):
            follow(ledger, accepted, PATHS[target][1:])

        assert ledger.request_release(accepted, 1004.0, "again").state is S.RELEASING


class TestJobs:
    def test_a_job_makes_the_lease_busy_and_then_idle(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Start and end are edges, with the job's title and how it ended."""
        row = brought_to(ledger, new_lease(), S.READY)

        busy = ledger.begin_job(row, "job-1", "python train.py", ["night"], 1002.0)
        idle = ledger.end_job(busy, "job-1", "exited", 3, 1003.0)

        assert (busy.state, idle.state) == (S.BUSY, S.IDLE)
        assert [e.detail for e in ledger.events()[-2:]] == ["python train.py", "exited 3"]

    def test_a_job_that_ends_while_the_lease_is_released_does_not_stop_the_release(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Its end is noted; the state stays what it is."""
        busy = brought_to(ledger, new_lease(), S.BUSY)
        releasing = ledger.request_release(busy, 1002.0, "done")

        ended = ledger.end_job(busy, "job-1", "cancelled", None, 1003.0)

        assert ended == releasing
        assert ledger.events()[-1].detail == "cancelled"

    def test_a_job_is_written_once(self, ledger: Ledger, new_lease: NewLease) -> None:
        """The same job id cannot start twice, on whatever lease."""
        row = ledger.begin_job(brought_to(ledger, new_lease(), S.READY), "job-1", "x", [], 1.0)
        idle = ledger.end_job(row, "job-1", "exited", 0, 2.0)

        with pytest.raises(LedgerError):
            ledger.begin_job(idle, "job-1", "x", [], 3.0)

        assert ledger.lease(row.id) == idle


class TestHostileText:
    def test_text_that_is_no_unicode_does_not_stop_a_release(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """A vendor's error may hold half a surrogate pair: it is written as a question mark."""
        row = brought_to(ledger, new_lease(title="\udcff job"), S.RELEASING)

        moved = ledger.move(row, S.QUARANTINED, 1.0, "failed", "bad \ud800", problem="\udcff!")

        assert (moved.problem, ledger.events()[-1].detail) == ("?!", "bad ?")
        assert moved.title == "? job"

    def test_text_without_end_is_cut(self, ledger: Ledger, new_lease: NewLease) -> None:
        """A vendor's error may be a gigabyte; its beginning says enough."""
        row = brought_to(ledger, new_lease(), S.RELEASING)

        moved = ledger.note(row, 1.0, "failed", "x" * 100_000, problem="y" * 100_000)

        assert len(moved.problem) < 5000
        assert len(ledger.events()[-1].detail) < 5000

    def test_a_name_is_never_an_instruction(self, ledger: Ledger, new_lease: NewLease) -> None:
        """Values travel beside the statement, not inside it."""
        row = new_lease(title="'); DROP TABLE leases; --", provider='"x" OR 1=1')

        ledger.reserve(row, [])

        assert ledger.lease(row.id) == row
        assert ledger.lease("' OR ''='") is None


class TestAdopted:
    def test_a_machine_without_a_row_gets_one(self, ledger: Ledger, new_lease: NewLease) -> None:
        """Written as found, so that its release can be asked for."""
        row = new_lease("0", state=S.ORPHANED, machine_id="m-1")

        ledger.adopt(row, 1002.0, "m-1")

        assert ledger.leases() == [row]
        assert ledger.request_release(row, 1003.0, "adopted").state is S.RELEASING
        assert [e.kind for e in ledger.events()] == ["found", "release requested"]

    def test_a_machine_is_adopted_once(self, ledger: Ledger, new_lease: NewLease) -> None:
        """The second time is an error, not a wait."""
        row = new_lease("0", state=S.ORPHANED, machine_id="m-1")
        ledger.adopt(row, 1002.0, "m-1")

        with pytest.raises(LedgerError) as refused:
            ledger.adopt(replace(row, id="lease-99"), 1003.0, "m-1")

        assert not isinstance(refused.value, (LedgerBusy, LedgerUnusable))


class TestRecords:
    def test_the_newest_version_of_a_record_counts(self, ledger: Ledger) -> None:
        """It is written again as the request goes on."""
        record = DecisionRecord(id="request-1", wanted="any machine", asked_at=5.0)
        ledger.put_record(record)
        ledger.put_record(replace(record, why="because"))
        ledger.put_record(replace(record, id="request-0", asked_at=4.0))

        assert ledger.record("request-1") == replace(record, why="because")
        assert ledger.record() == replace(record, why="because")
        assert ledger.record("another") is None

    def test_when_each_provider_was_swept_last(self, ledger: Ledger) -> None:
        """To the last digit, and no other fact among them."""
        ledger.put_swept("acme", 1.0)
        ledger.put_swept("acme", 1_763_918_400.123456)
        ledger.put_swept("other", 2.0)

        assert ledger.swept() == {"acme": 1_763_918_400.123456, "other": 2.0}

    def test_leases_come_newest_first(self, ledger: Ledger, new_lease: NewLease) -> None:
        """Open ones only, unless all are asked for."""
        old = brought_to(ledger, new_lease(created_at=1.0), S.RELEASED)
        middle, new = new_lease(created_at=2.0), new_lease(created_at=3.0)
        for row in (new, middle):
            ledger.reserve(row, [])

        assert ledger.leases() == [new, middle]
        assert ledger.leases(open_only=False) == [new, middle, old]
        assert ledger.leases(limit=1) == [new]

    def test_whether_any_is_open(self, ledger: Ledger, new_lease: NewLease) -> None:
        """What is released or refused is not."""
        brought_to(ledger, new_lease(), S.RELEASED)
        assert not ledger.anything_open()

        ledger.reserve(new_lease(), [])

        assert ledger.anything_open()

    def test_the_leases_of_one_provider(self, ledger: Ledger, new_lease: NewLease) -> None:
        """No other provider's among them, and closed ones only where all are asked for."""
        brought_to(ledger, new_lease(provider="other"), S.READY)
        closed = brought_to(ledger, new_lease(provider="acme"), S.REFUSED)
        held = brought_to(ledger, new_lease(provider="acme"), S.READY)

        assert ledger.leases(provider="acme") == [held]
        everything = ledger.leases(provider="acme", open_only=False)
        assert sorted(row.id for row in everything) == sorted([closed.id, held.id])

    def test_a_lease_is_undisturbed_while_it_is_open_and_nobody_asked_for_it(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """Its owner learns by its absence, or by a newer epoch, that it has to look."""
        quiet, taken, asked, drained, closed = (
            brought_to(ledger, new_lease(owner="me"), state)
            for state in (S.BUSY, S.READY, S.READY, S.BUSY, S.RELEASED)
        )
        brought_to(ledger, new_lease(owner="another"), S.BUSY)
        again = ledger.take_over(taken, "me", 1003.0, "x")
        ledger.request_release(asked, 1003.0, "enough")
        ledger.request_drain(drained, 1003.0, "enough")

        assert ledger.undisturbed("me") == {quiet.id: quiet.epoch, taken.id: again.epoch}
        assert closed.id not in ledger.undisturbed("me")
