"""What a pool decides: nobody waits beside an idle machine, and nothing is kept for nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.policy.keep_warm import break_even
from gpubroker.policy.pool import (
    MachineView,
    PoolRules,
    PoolView,
    Standing,
    Use,
    Waiting,
    cold_start,
    decide,
    gaps,
)

NOW = 10_000.0


@dataclass(frozen=True)
class Hours:
    """Open, or not, until the next change."""

    open: bool

    def warm_wanted(self, now: float, cold_start: float) -> bool:
        return self.open

    def next_change(self, now: float) -> float:
        return now + 7.0


@st.composite
def machines(draw: st.DrawFn) -> list[MachineView]:
    """Up to five machines in any standing that can be."""
    found: list[MachineView] = []
    for number in range(draw(st.integers(0, 5))):
        standing = draw(st.sampled_from(Standing))
        since = NOW - draw(st.floats(0, 2000))
        found.append(
            MachineView(
                id=f"m{number}",
                standing=standing,
                own=draw(st.booleans()),
                uses=draw(st.integers(1, 3)) if standing is Standing.BUSY else 0,
                since=since,
                idle_until=since + draw(st.floats(0, 3000)) if standing == "parked" else None,
                retires_at=NOW + draw(st.sampled_from([-1.0, 100.0, 9000.0])),
                ends_at=NOW + draw(st.sampled_from([50.0, 10_000.0])),
                wrong=draw(st.sampled_from(["", "", "", "broken"])),
                reachable=draw(st.booleans()),
                taken=standing is Standing.BOOTING and draw(st.booleans()),
                fresh=standing is Standing.FREE and draw(st.booleans()),
            )
        )
    return found


RULES = st.builds(
    PoolRules,
    min_warm=st.integers(0, 2),
    max_machines=st.integers(2, 5),
    jobs_per_machine=st.integers(1, 3),
    schedule=st.sampled_from([None, Hours(True), Hours(False)]),
)
VIEWS = st.builds(
    PoolView,
    machines=machines(),
    waiting=st.lists(
        st.builds(
            Waiting,
            st.floats(NOW - 500, NOW),
            st.sampled_from([0.0, 60.0, 5000.0]),
            st.sampled_from([frozenset[str](), frozenset({"m0"})]),
        ),
        max_size=4,
    ),
    others=st.lists(st.floats(NOW - 500, NOW), max_size=2),
    rent_after=st.sampled_from([-math.inf, NOW + 5]),
)


def idle_own(view: PoolView) -> list[MachineView]:
    return [m for m in view.machines if m.own and m.idle]


@given(VIEWS, RULES)
def test_there_are_never_more_machines_than_allowed(view: PoolView, rules: PoolRules) -> None:
    """Those of others and those on their way out count, until they are gone."""
    steps = decide(view, rules, NOW)

    assert steps.rent == 0 or len(view.machines) + steps.rent <= rules.max_machines
    assert steps.rent >= 0
    assert not (steps.rent and view.rent_after > NOW)


@given(VIEWS, RULES)
def test_only_idle_machines_of_our_own_are_given_up(view: PoolView, rules: PoolRules) -> None:
    """One in use never is, and neither is one that has just been given to somebody."""
    steps = decide(view, rules, NOW)

    released = {machine for machine, _ in steps.release}
    given_to = {machine for _, machine in steps.give}
    assert released <= {m.id for m in idle_own(view)}
    assert not released & (given_to | set(steps.park))
    assert all(reason for _, reason in steps.release)


@given(VIEWS, RULES)
def test_nobody_waits_beside_a_machine_that_could_serve(view: PoolView, rules: PoolRules) -> None:
    """Unless others have waited for longer, or it does not live for long enough."""
    steps = decide(view, rules, NOW)

    served = [id(waiting) for waiting, _ in steps.give]
    uses = {m.id: m.uses for m in view.machines}
    for _, machine in steps.give:
        uses[machine] += 1
    left = [w for w in view.waiting if served.count(id(w)) == 0]
    if view.others or len(served) != len(set(served)):
        return
    for waiting in left:
        assert not [
            m
            for m in view.machines
            if m.own
            and m.standing in (Standing.FREE, Standing.PARKED, Standing.BUSY)
            and m.works(NOW)
            and uses[m.id] < rules.jobs_per_machine
            and NOW + waiting.needs <= m.ends_at
        ]


@given(VIEWS, RULES)
def test_whoever_waits_makes_something_happen(view: PoolView, rules: PoolRules) -> None:
    """A machine is given, taken, rented or on its way; or there is no place for one."""
    steps = decide(view, rules, NOW)

    if not view.waiting or view.rent_after > NOW:
        return
    coming = any(m.standing is Standing.BOOTING for m in view.machines)
    full = len(view.machines) >= rules.max_machines
    assert steps.give or steps.take or steps.rent or steps.release or coming or full
    assert steps.look_at <= NOW + 15


@given(VIEWS, RULES)
def test_no_machine_gets_more_jobs_than_it_takes(view: PoolView, rules: PoolRules) -> None:
    """And none that is wrong, retiring, somebody else's, or not ready gets any."""
    steps = decide(view, rules, NOW)

    by_id = {m.id: m for m in view.machines}
    for _, machine in steps.give:
        count = by_id[machine].uses + sum(m == machine for _, m in steps.give)
        assert count <= rules.jobs_per_machine
        assert by_id[machine].own
        assert by_id[machine].works(NOW)
        assert by_id[machine].standing in (Standing.FREE, Standing.PARKED, Standing.BUSY)


@given(VIEWS, RULES)
def test_what_is_kept_beyond_its_idle_limit_stays_there_for_others(
    view: PoolView, rules: PoolRules
) -> None:
    """An idle machine past its limit is given, left to others, given up, or kept for them."""
    steps = decide(view, rules, NOW)

    done = {m for _, m in steps.give} | {m for m, _ in steps.release}
    past = [m for m in idle_own(view) if m.idle_until is not None and m.idle_until <= NOW]
    assert {m.id for m in past} - done == set(steps.keep)
    assert not done & set(steps.keep)


def test_those_who_wait_for_machines_that_are_being_taken_take_no_more() -> None:
    """And more of them are taken for those who came since."""
    parked = [
        MachineView(id=f"p{n}", standing=Standing.PARKED, own=False, idle_until=NOW + 99)
        for n in range(2)
    ]
    coming = MachineView(id="m", standing=Standing.BOOTING, taken=True)
    rules = PoolRules(max_machines=3)

    alone = decide(PoolView(machines=[coming, *parked], waiting=[Waiting(NOW)]), rules, NOW)
    two = decide(
        PoolView(machines=[coming, *parked], waiting=[Waiting(NOW), Waiting(NOW)]), rules, NOW
    )

    assert alone.take == ()
    assert len(two.take) == 1


@given(VIEWS, RULES)
def test_outside_of_the_hours_nothing_idle_is_kept(view: PoolView, rules: PoolRules) -> None:
    """Whatever its idle limit says, and however many are to be warm within them."""
    rules = replace(rules, schedule=Hours(False))
    steps = decide(replace(view, others=()), rules, NOW)

    given_to = {machine for _, machine in steps.give}
    released = {machine for machine, _ in steps.release}
    assert released == {m.id for m in idle_own(view)} - given_to
    assert steps.rent <= len(view.waiting)


def test_what_is_warm_when_the_hours_end_is_given_up() -> None:
    """Though its idle limit is hours away."""
    warm = MachineView(id="m", standing=Standing.PARKED, since=NOW - 9, idle_until=NOW + 9999)
    rules = PoolRules(min_warm=1, schedule=Hours(False))

    steps = decide(PoolView(machines=[warm]), rules, NOW)

    assert [machine for machine, _ in steps.release] == ["m"]


@given(VIEWS, RULES)
def test_what_is_idle_past_its_limit_is_given_up(view: PoolView, rules: PoolRules) -> None:
    """All but as many as are to be warm: the pool scales to zero."""
    rules = replace(rules, schedule=None, min_warm=0)
    view = replace(view, waiting=())

    steps = decide(view, rules, NOW)

    over = {m.id for m in idle_own(view) if m.idle_until is not None and m.idle_until <= NOW}
    assert over <= {machine for machine, _ in steps.release}


@given(VIEWS, RULES)
def test_what_is_decided_once_is_decided_the_same_again(view: PoolView, rules: PoolRules) -> None:
    """Nothing but what it is told counts."""
    assert decide(view, rules, NOW) == decide(view, rules, NOW)


def test_machines_in_use_are_filled_first_and_then_the_one_that_was_used_last() -> None:
    """So that the others can go."""
    busy = MachineView(id="busy", standing=Standing.BUSY, uses=1)
    early = MachineView(id="early", standing=Standing.PARKED, since=NOW - 100, idle_until=NOW + 9)
    late = MachineView(id="late", standing=Standing.PARKED, since=NOW - 10, idle_until=NOW + 99)
    view = PoolView(machines=[early, late, busy], waiting=[Waiting(NOW), Waiting(NOW)])

    steps = decide(view, PoolRules(max_machines=3, jobs_per_machine=2), NOW)

    assert [machine for _, machine in steps.give] == ["busy", "late"]


def test_a_machine_that_is_not_well_gets_no_work() -> None:
    """It is given up, and who waits gets another one."""
    sick = MachineView(
        id="sick", standing=Standing.PARKED, since=NOW - 9, idle_until=NOW + 99, wrong="no answer"
    )

    steps = decide(
        PoolView(machines=[sick], waiting=[Waiting(NOW)]), PoolRules(max_machines=2), NOW
    )

    assert steps.give == ()
    assert steps.release == (("sick", "no answer"),)
    assert steps.rent == 1


def test_an_idle_machine_is_left_to_who_has_waited_for_longer() -> None:
    """For a moment: who does not come for it does not keep it from its work."""
    fresh = MachineView(id="m", standing=Standing.PARKED, since=NOW - 1, idle_until=NOW + 100)
    view = PoolView(machines=[fresh], waiting=[Waiting(NOW - 5)], others=[NOW - 10])

    at_first, later = decide(view, PoolRules(), NOW), decide(view, PoolRules(), NOW + 3)

    assert at_first.give == ()
    assert at_first.release == ()
    assert [machine for _, machine in later.give] == ["m"]


def test_a_machine_is_found_too_old_for_the_job_that_waits() -> None:
    """Where there is no place for another one, it makes room."""
    old = MachineView(id="old", standing=Standing.PARKED, idle_until=NOW + 500, ends_at=NOW + 1000)
    view = PoolView(machines=[old], waiting=[Waiting(NOW, needs=2000)])

    steps = decide(view, PoolRules(max_machines=1), NOW)

    assert [machine for machine, _ in steps.release] == ["old"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_warm": 2},
        {"max_machines": 0},
        {"jobs_per_machine": 0},
        {"lifetime": 5.0},
        {"schedule": "mon-fri 09:00-18:00"},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """By the name of the argument."""
    with pytest.raises(InvalidValue, match=next(iter(wrong))):
        PoolRules(**wrong)


def test_gaps_are_those_between_a_machines_uses() -> None:
    """Jobs that overlap on one machine are one use; whichever machine is free longest is last."""
    uses = [
        Use("a", 0, 10),
        Use("a", 5, 20),
        Use("b", 25, 30),
        Use("a", 25, 40),
        Use("a", 100, None),
    ]

    seen = gaps(uses)

    assert [gap.seconds for gap in seen.seen] == [5, 60]
    assert [at for at, _ in seen.idle] == [30]


def test_the_next_cold_start_is_taken_to_last_as_long_as_those_before() -> None:
    """One that took for ever does not count for more than another."""
    assert cold_start([100, 5000, 120], 60) == 120
    assert cold_start([], 60) == 60
    assert break_even()(gaps([]), 60) == 60
