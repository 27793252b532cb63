from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.leases import LeaseRow
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.model.money import Money
from gpubroker.policy.sweeping import Finding, Scene, Verdict, brake, can_be_adopted, sweep
from gpubroker.policy.transitions import HELD

F: Final = Finding
KEY: Final = b"k" * 32
LEDGER: Final = "aaaaaaaa"
NOW: Final = 1_000_000.0
FACTS: Final = ProviderFacts(paid=True, visibility_horizon=60, late_create_watch=86_400)

ALIVE, DEAD, SILENT = True, False, None


def mark(number: int, key: bytes = KEY, ledger: str = LEDGER) -> str:
    return str(Mark.make(key, ledger, number.to_bytes(10, "big")))


def lease(state: S = S.READY, number: int = 1, **changes: Any) -> LeaseRow:
    """A lease of ten minutes ago, with an hour to live and a machine where its state has one."""
    unanswered = state in (S.REQUESTED, S.UNKNOWN, S.LATE_WATCH, S.REFUSED)
    row = LeaseRow(
        id=f"lease-{number}",
        request_id="request-1",
        provider="acme",
        state=state,
        epoch=1,
        owner="broker-other",
        mark=mark(number),
        title="1x RTX 4090",
        offer_id="offer",
        machine_id=None if unanswered else f"machine-{number}",
        hourly=Money(1),
        quantum=1.0,
        reserved=Money(1),
        spent=Money(0),
        created_at=NOW - 600,
        deadline=NOW + 3000,
        accepted_at=None if unanswered else NOW - 590,
        ended_at=None if state.open else NOW - 100,
    )
    return replace(row, **changes)


def machine(number: int = 1, **changes: Any) -> Machine:
    return replace(Machine(id=f"machine-{number}", provider="acme", mark=mark(number)), **changes)


def scene(
    leases: Sequence[LeaseRow] = (),
    machines: Sequence[Machine] = (),
    *,
    closed: Sequence[LeaseRow] = (),
    alive: Callable[[LeaseRow], bool | None] = lambda _: True,
    **changes: Any,
) -> Scene:
    looked_at = Scene(
        provider="acme",
        facts=FACTS,
        machines=machines,
        read_at=NOW,
        leases=leases,
        closed={row.mark: row for row in closed},
        alive=alive,
        ours=lambda found: found.ledger_id == LEDGER and found.verifies(KEY),
        own="broker-own",
        now=NOW,
    )
    return replace(looked_at, **changes)


def findings(looked_at: Scene) -> list[tuple[Finding, str | None, str | None]]:
    """Each verdict as its finding, its lease's id and its machine's."""
    return [
        (v.finding, v.lease.id if v.lease else None, v.machine.id if v.machine else None)
        for v in sweep(looked_at)
    ]


def finding(state: S, alive: bool | None, *, listed: bool, **changes: Any) -> Finding | None:
    """What is found of one lease."""
    row = lease(state, **changes)
    verdicts = sweep(scene([row], [machine()] if listed else [], alive=lambda _: alive))
    assert all(v.lease is row for v in verdicts)
    return verdicts[0].finding if verdicts else None


#: state found -> what is known of its owner -> listed or not -> what is to be done
RECOVERY: Final = [
    # The create may be on its way as long as its sender lives, or may live.
    (S.REQUESTED, ALIVE, True, None),
    (S.REQUESTED, ALIVE, False, None),
    (S.REQUESTED, SILENT, True, F.OWNER_MISSING),
    (S.REQUESTED, SILENT, False, F.OWNER_MISSING),
    (S.REQUESTED, DEAD, True, F.FOUND),
    (S.REQUESTED, DEAD, False, F.NEVER_SEEN),
    # The answer was lost: who asked looks for the machine himself, and may want to use it.
    (S.UNKNOWN, ALIVE, True, None),
    (S.UNKNOWN, ALIVE, False, None),
    (S.UNKNOWN, SILENT, True, F.OWNER_MISSING),
    (S.UNKNOWN, SILENT, False, F.OWNER_MISSING),
    (S.UNKNOWN, DEAD, True, F.FOUND),
    (S.UNKNOWN, DEAD, False, F.NEVER_SEEN),
    # Given up, and watched by everybody.
    (S.LATE_WATCH, ALIVE, True, F.FOUND),
    (S.LATE_WATCH, ALIVE, False, None),
    (S.LATE_WATCH, DEAD, True, F.FOUND),
    (S.LATE_WATCH, DEAD, False, None),
    # In use: a living owner's business, unless the machine is not there any more.
    *((state, ALIVE, True, None) for state in sorted(HELD)),
    # Its owner looks for itself; whoever else misses the machine must not judge.
    *((state, ALIVE, False, None) for state in sorted(HELD)),
    *((state, SILENT, False, F.VANISHED) for state in sorted(HELD)),
    *((state, SILENT, True, F.OWNER_MISSING) for state in sorted(HELD)),
    *((state, DEAD, True, F.OWNER_DEAD) for state in sorted(HELD)),
    # Being released: destroy again, prove, close.
    (S.RELEASING, ALIVE, True, None),
    (S.RELEASING, ALIVE, False, None),
    (S.RELEASING, SILENT, True, F.OWNER_MISSING),
    (S.RELEASING, DEAD, True, F.OWNER_DEAD),
    (S.RELEASING, DEAD, False, F.OWNER_DEAD),
    (S.QUARANTINED, ALIVE, True, None),
    (S.QUARANTINED, SILENT, True, F.OWNER_MISSING),
    (S.QUARANTINED, DEAD, True, F.OWNER_DEAD),
    (S.ORPHANED, ALIVE, True, None),
    (S.ORPHANED, SILENT, True, F.OWNER_MISSING),
    (S.ORPHANED, DEAD, True, F.OWNER_DEAD),
]


class TestRecovery:
    @pytest.mark.parametrize(("state", "alive", "listed", "found"), RECOVERY)
    def test_each_state_found_after_a_crash_has_its_verdict(
        self, state: S, alive: bool | None, listed: bool, found: Finding | None
    ) -> None:
        """The table above is the recovery table."""
        assert finding(state, alive, listed=listed) is found

    def test_the_table_covers_every_open_state(self) -> None:
        """No state may be found that nobody has thought of."""
        assert {state for state, *_ in RECOVERY} == {state for state in S if state.open}

    def test_a_machine_of_a_lost_answer_is_found_by_its_mark(self) -> None:
        """Its id is not on record; the label may hold other text around the mark."""
        labelled = machine(mark=f"my pod {mark(1)} (gpubroker)")
        looked_at = scene([lease(S.UNKNOWN)], [labelled], alive=lambda _: False)

        assert findings(looked_at) == [(F.FOUND, "lease-1", "machine-1")]

    @pytest.mark.parametrize("state", [S.RELEASED, S.REFUSED])
    def test_the_machine_of_a_closed_lease_is_released_once_more(self, state: S) -> None:
        """A late create, or a vendor that brought it back."""
        assert findings(scene([], [machine()], closed=[lease(state)])) == [
            (F.RISEN, "lease-1", "machine-1")
        ]

    def test_a_list_older_than_the_closing_raises_nobody(self) -> None:
        """It was asked for before the machine was proven gone, so it shows it rightly."""
        closed = lease(S.RELEASED, ended_at=NOW + 5)

        assert findings(scene([], [machine()], closed=[closed], read_at=NOW)) == []

    def test_a_valid_mark_without_a_lease_is_reported(self) -> None:
        """The orphan of a lost ledger: said at once, released on command only."""
        assert findings(scene([], [machine()])) == [(F.UNRECORDED, None, "machine-1")]

    def test_a_second_machine_of_the_same_mark_is_reported(self) -> None:
        """The vendor made two of one create: the one on record is kept, the other is seen."""
        twin = machine(id="twin")

        assert findings(scene([lease()], [machine(), twin])) == [(F.DUPLICATE, None, "twin")]

    def test_nothing_is_said_of_twins_before_one_is_on_record(self) -> None:
        """Whoever resolves the lost answer takes one of them; until then neither is too many."""
        looked_at = scene([lease(S.UNKNOWN)], [machine(), machine(id="twin")])

        assert findings(looked_at) == []

    def test_of_several_machines_the_choice_does_not_depend_on_their_order(self) -> None:
        """Two sweeps of the same account find the same machine."""
        pair = [machine(id="b"), machine(id="a")]

        def found(machines: list[Machine]) -> list[tuple[Finding, str | None, str | None]]:
            return findings(scene([lease(S.UNKNOWN)], machines, alive=lambda _: False))

        assert found(pair) == found(pair[::-1]) == [(F.FOUND, "lease-1", "a")]

    def test_a_machine_that_goes_by_another_id_has_not_vanished(self) -> None:
        """Its mark shows it: that is no reason to release what somebody uses."""
        assert findings(scene([lease()], [machine(id="renamed")])) == []


class TestPools:
    @pytest.mark.parametrize("alive", [DEAD, SILENT])
    @pytest.mark.parametrize(
        "changes",
        [
            {"idle_until": NOW - 1},
            {"idle_until": None},
            {"idle_until": NOW + 9, "deadline": NOW - 1},
            {"idle_until": NOW + 9, "release_requested_at": NOW - 5},
            {"idle_until": NOW + 9, "drain_reason": "the price rose"},
        ],
    )
    def test_what_is_parked_ends_with_its_idle_limit(
        self, alive: bool | None, changes: dict[str, Any]
    ) -> None:
        """Until then whoever shares its pool may take it, though its owner is gone."""
        parked = {"pool": "images", "idle_until": NOW + 9}

        assert finding(S.IDLE, alive, listed=True, **parked) is None
        assert finding(S.BUSY, alive, listed=True, **parked) is not None
        assert finding(S.IDLE, alive, listed=True, **{**parked, **changes}) is not None


class TestTime:
    @pytest.mark.parametrize("state", [S.REQUESTED, S.UNKNOWN])
    def test_nothing_is_missing_before_it_has_to_be_visible(self, state: S) -> None:
        """A list made within the visibility horizon does not count."""
        assert finding(state, DEAD, listed=False, created_at=NOW - 59) is None
        assert finding(state, DEAD, listed=False, created_at=NOW - 60) is F.NEVER_SEEN

    def test_a_held_machine_vanishes_only_after_the_horizon(self) -> None:
        """Counted from the answer, which may be long after the question."""
        assert finding(S.PROVISIONING, SILENT, listed=False, accepted_at=NOW - 59) is not F.VANISHED
        assert finding(S.PROVISIONING, SILENT, listed=False, accepted_at=NOW - 60) is F.VANISHED

    def test_it_is_the_age_of_the_list_that_counts(self) -> None:
        """A list that was asked for long ago knows nothing of what came after."""
        looked_at = scene([lease(accepted_at=NOW - 90)], [], read_at=NOW - 50)

        assert findings(looked_at) == []

    def test_a_dead_owner_needs_no_horizon(self) -> None:
        """Its machine is given up even while the list cannot show it yet."""
        assert finding(S.PROVISIONING, DEAD, listed=False, accepted_at=NOW) is F.OWNER_DEAD

    def test_the_watch_for_a_late_create_ends(self) -> None:
        """After a day without a sign the money is free again; not a moment earlier."""
        assert finding(S.LATE_WATCH, ALIVE, listed=False, created_at=NOW - 86_400) is None
        assert finding(S.LATE_WATCH, ALIVE, listed=False, created_at=NOW - 86_401) is F.WATCH_OVER
        assert finding(S.LATE_WATCH, ALIVE, listed=True, created_at=NOW - 90_000) is F.FOUND

    @pytest.mark.parametrize("state", sorted(s for s in S if s.open and s is not S.LATE_WATCH))
    def test_past_its_deadline_a_lease_is_taken_from_a_living_owner(self, state: S) -> None:
        """A hung program does not keep a machine; it gets the release margin to do it itself."""
        late = NOW - FACTS.release_margin

        assert finding(state, ALIVE, listed=True, deadline=late) is None
        assert finding(state, ALIVE, listed=True, deadline=late - 1) is F.OVERDUE


class TestOwnLeases:
    def test_what_this_broker_holds_is_in_better_hands(self) -> None:
        """Its own tasks see to its leases, late ones included."""
        own = [
            lease(state, number, owner="broker-own", deadline=NOW - 9999)
            for number, state in enumerate(sorted(HELD | {S.RELEASING, S.REQUESTED, S.UNKNOWN}))
        ]
        there = [machine(number) for number in range(len(own))]

        assert findings(scene(own, there, alive=lambda _: False)) == []

    def test_an_own_machine_that_vanished_is_reported_all_the_same(self) -> None:
        """Only the list can tell the task that uses it."""
        assert findings(scene([lease(owner="broker-own")], [])) == [(F.VANISHED, "lease-1", None)]

    @pytest.mark.parametrize("word", [MachineState.STOPPED, MachineState.BROKEN])
    def test_an_own_machine_in_use_that_is_down_is_reported(self, word: MachineState) -> None:
        """Outbid, or its host broke; one that still boots is looked after by whoever waits."""
        down = machine(state=word)

        for state in (S.READY, S.BUSY, S.IDLE):
            own = lease(state, owner="broker-own")
            assert findings(scene([own], [down])) == [(F.DOWN, "lease-1", "machine-1")]
        booting = lease(S.PROVISIONING, owner="broker-own")
        assert findings(scene([booting], [down])) == []

    @pytest.mark.parametrize("state", sorted(s for s in S if s.open and s is not S.LATE_WATCH))
    def test_an_own_lease_that_no_task_sees_to_is_released(self, state: S) -> None:
        """A task that broke must not leave a machine behind for as long as the program runs."""
        own = lease(state, owner="broker-own")
        there = [machine()]

        assert findings(scene([own], there, in_hand=frozenset({own.id}))) == []
        assert findings(scene([own], there, in_hand=frozenset())) == [
            (F.RELEASE, "lease-1", "machine-1")
        ]

    def test_a_machine_that_is_being_released_here_is_no_stranger(self) -> None:
        """A release that a sweep started is no news to the next sweep."""
        taken = [lease(S.RELEASING, 1), lease(S.LATE_WATCH, 2)]
        looked_at = scene(
            taken,
            [machine(1), machine(2)],
            alive=lambda _: False,
            in_hand=frozenset({"lease-1", "lease-2"}),
        )

        assert findings(looked_at) == []


class TestStrangers:
    @pytest.mark.parametrize(
        "label",
        [
            None,
            "",
            "my training run",
            "gb1-short",
            mark(1, key=b"another key, of thirty-two bytes"),
            mark(1, ledger="bbbbbbbb"),
            mark(1)[:-1] + ("a" if mark(1)[-1] != "a" else "b"),
        ],
    )
    def test_a_machine_that_is_not_provably_ours_is_reported_and_no_more(
        self, label: str | None
    ) -> None:
        """No mark, a forged one, one of another ledger: never a reason to destroy."""
        assert findings(scene([lease()], [machine(), machine(2, mark=label)])) == [
            (F.FOREIGN, None, "machine-2")
        ]

    def test_a_forged_lease_row_orders_no_strangers_destruction(self) -> None:
        """Whoever can write the ledger file but has no key cannot point it at a machine."""
        forged = mark(7, key=b"not the key, but thirty-two long")
        row = lease(S.UNKNOWN, mark=forged)
        looked_at = scene([row], [machine(7, mark=forged)], alive=lambda _: False)

        assert findings(looked_at) == [
            (F.NEVER_SEEN, "lease-1", None),
            (F.FOREIGN, None, "machine-7"),
        ]

    def test_the_recorded_id_is_ours_whatever_its_label_says(self) -> None:
        """The create's own answer named it; a vendor may have lost the label."""
        assert findings(scene([lease()], [machine(mark=None)], alive=lambda _: False)) == [
            (F.OWNER_DEAD, "lease-1", "machine-1")
        ]

    def test_tombstones_are_not_there(self) -> None:
        """A vendor may list what is destroyed for an hour."""
        gone = machine(state=MachineState.GONE)

        own = lease(owner="broker-own")
        assert findings(scene([own], [gone])) == [(F.VANISHED, "lease-1", None)]
        assert findings(scene([], [gone], closed=[lease(S.RELEASED)])) == []


numbers = st.integers(0, 3)
rows = st.builds(
    lease,
    st.sampled_from([s for s in S if s.open]),
    numbers,
    owner=st.sampled_from(["broker-own", "broker-other"]),
    created_at=st.sampled_from([NOW - 100_000, NOW - 600, NOW - 30]),
    deadline=st.sampled_from([NOW - 1000, NOW + 1000]),
    machine_id=st.sampled_from([None, "machine-0", "machine-1", "machine-2"]),
    mark=st.sampled_from([mark(n) for n in range(4)] + [mark(0, key=b"?" * 32)]),
)
labels = st.none() | st.sampled_from(
    [mark(n) for n in range(4)]
    + [mark(n, key=b"?" * 32) for n in range(2)]
    + [mark(0, ledger="bbbbbbbb"), "something else"]
)
listed = st.builds(
    Machine,
    id=st.integers(0, 5).map(lambda n: f"machine-{n}"),
    mark=labels,
    state=st.sampled_from(MachineState),
)


def seen(
    leases: list[LeaseRow],
    machines: list[Machine],
    closed: list[LeaseRow],
    life: list[bool | None],
    in_hand: frozenset[str] | None,
) -> Scene:
    def alive(row: LeaseRow) -> bool | None:
        return life[int(row.id[-1])]

    return scene(leases, machines, closed=closed, alive=alive, in_hand=in_hand)


scenes = st.builds(
    seen,
    leases=st.lists(rows, max_size=4, unique_by=lambda row: row.id),
    machines=st.lists(listed, max_size=5, unique_by=lambda m: m.id),
    closed=st.lists(
        st.builds(lease, st.sampled_from([S.RELEASED, S.REFUSED]), numbers),
        max_size=2,
        unique_by=lambda row: row.mark,
    ),
    life=st.lists(st.sampled_from([True, False, None]), min_size=4, max_size=4),
    in_hand=st.none() | st.frozensets(st.sampled_from([f"lease-{n}" for n in range(4)])),
)

#: Verdicts that only tell; every other one leads to a release of its machine.
TOLD: Final = {F.FOREIGN, F.UNRECORDED, F.NEVER_SEEN, F.WATCH_OVER}


class TestProperties:
    @given(scenes)
    def test_no_stranger_is_ever_released(self, looked_at: Scene) -> None:
        """What leads to a release is on record by its id, or its mark verifies."""
        recorded = {row.machine_id for row in (*looked_at.leases, *looked_at.closed.values())}

        for verdict in sweep(looked_at):
            if verdict.machine is not None and verdict.finding not in TOLD:
                found = Mark.find(verdict.machine.mark)
                ours = found is not None and looked_at.ours(found)
                assert ours or verdict.machine.id in recorded

    @given(scenes)
    def test_an_owner_that_lives_keeps_what_is_not_late(self, looked_at: Scene) -> None:
        """Only a machine that is gone, or time, takes a lease from a living owner."""
        for verdict in sweep(looked_at):
            row = verdict.lease
            if row is None or verdict.finding is F.RISEN or row.owner == looked_at.own:
                continue
            if looked_at.alive(row) is True and row.state is not S.LATE_WATCH:
                held_here = row.id in (looked_at.in_hand or ())
                allowed = (F.VANISHED, F.DOWN) if held_here else (F.OVERDUE,)
                assert verdict.finding in allowed

    @given(scenes)
    def test_one_lease_has_one_verdict(self, looked_at: Scene) -> None:
        """Two acts on one lease in one pass would race each other."""
        leases = [v.lease.id for v in sweep(looked_at) if v.lease and v.finding is not F.RISEN]

        assert len(leases) == len(set(leases))

    @given(scenes)
    def test_no_machine_is_overlooked(self, looked_at: Scene) -> None:
        """Every machine listed is an open lease's, or something is said of it."""
        said = {v.machine.id for v in sweep(looked_at) if v.machine}
        ids = {row.machine_id for row in looked_at.leases}
        marks = {row.mark for row in looked_at.leases}

        for present in looked_at.machines:
            found = Mark.find(present.mark)
            leased = present.id in ids or (found is not None and str(found) in marks)
            assert leased or present.id in said or present.state is MachineState.GONE


class TestBrake:
    MISSING: Final = (F.VANISHED, F.OWNER_MISSING)

    @given(
        st.lists(st.builds(Verdict, st.sampled_from(F), st.none(), st.none()), max_size=60),
        st.integers(0, 500),
    )
    def test_one_pass_ends_no_more_than_a_fifth_for_want_of_a_sign(
        self, verdicts: list[Verdict], held: int
    ) -> None:
        """Three, or 20 % of what is held; all the rest waits for another pass."""
        kept, withheld = brake(verdicts, held)
        acted_on = sum(v.finding in self.MISSING for v in kept)
        wanted = sum(v.finding in self.MISSING for v in verdicts)

        assert acted_on == min(wanted, max(3, held // 5))
        assert all(v.finding in self.MISSING for v in withheld)

    @given(st.lists(st.builds(Verdict, st.sampled_from(F)), max_size=60), st.integers(0, 500))
    def test_every_verdict_is_kept_or_withheld(self, verdicts: list[Verdict], held: int) -> None:
        """In the order in which they came, none lost and none made up."""
        kept, withheld = brake(verdicts, held)
        positions = {id(v): n for n, v in enumerate(verdicts)}

        for part in (kept, withheld):
            assert [positions[id(v)] for v in part] == sorted(positions[id(v)] for v in part)
        assert {id(v) for v in (*kept, *withheld)} == set(positions)

    @pytest.mark.parametrize(
        ("held", "missing", "acted_on"),
        [(0, 2, 2), (4, 4, 3), (10, 10, 3), (19, 19, 3), (20, 20, 4), (100, 100, 20), (100, 5, 5)],
    )
    def test_how_many_that_is(self, held: int, missing: int, acted_on: int) -> None:
        """A provider that loses sight of everything costs three machines, or a fifth."""
        verdicts = [Verdict(F.VANISHED, lease(number=n)) for n in range(missing)]

        kept, withheld = brake(verdicts, held)

        assert (len(kept), len(withheld)) == (acted_on, missing - acted_on)

    def test_certain_findings_are_never_braked(self) -> None:
        """Dead owners and overdue machines cost money now."""
        verdicts = [Verdict(F.OWNER_DEAD, lease(number=n)) for n in range(50)]

        assert brake(verdicts, held=50) == (verdicts, [])


class TestAdoption:
    @pytest.mark.parametrize("state", list(S))
    def test_only_a_running_job_is_adopted(self, state: S) -> None:
        """Without one there is nothing to deliver, and its machine only costs money."""
        row = lease(state, on_owner_death="adopt")

        assert can_be_adopted(row, NOW) is (state is S.BUSY)

    @pytest.mark.parametrize(
        "changes",
        [
            {"on_owner_death": "release"},
            {"release_requested_at": NOW - 1},
            {"deadline": NOW},
        ],
    )
    def test_nothing_is_adopted_that_is_to_end(self, changes: dict[str, Any]) -> None:
        """Neither by its owner's will, nor once its release was asked for, nor past its deadline."""
        row = replace(lease(S.BUSY, on_owner_death="adopt"), **changes)

        assert not can_be_adopted(row, NOW)
