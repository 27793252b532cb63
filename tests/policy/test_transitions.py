from __future__ import annotations

import pytest

from gpubroker.model.leases import LeaseState as S
from gpubroker.policy.transitions import HELD, TRANSITIONS, allowed

#: The specification: from each state, where a lease can go next.
TABLE = {
    S.REQUESTED: {S.PROVISIONING, S.REFUSED, S.UNKNOWN, S.RELEASING},
    S.UNKNOWN: {S.PROVISIONING, S.RELEASING, S.LATE_WATCH},
    S.PROVISIONING: {S.READY, S.RELEASING, S.ORPHANED},
    S.READY: {S.BUSY, S.IDLE, S.RELEASING, S.ORPHANED},
    S.BUSY: {S.IDLE, S.RELEASING, S.ORPHANED},
    S.IDLE: {S.BUSY, S.RELEASING, S.ORPHANED},
    S.ORPHANED: {S.RELEASING},
    S.LATE_WATCH: {S.RELEASING, S.RELEASED},
    S.RELEASING: {S.RELEASED, S.QUARANTINED},
    S.QUARANTINED: {S.RELEASING, S.RELEASED},
    S.RELEASED: {S.RELEASING},
    S.REFUSED: {S.RELEASING},
}


def reachable(start: S) -> set[S]:
    seen: set[S] = set()
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting += TRANSITIONS[state]
    return seen


class TestTable:
    def test_the_table_is_the_specification(self) -> None:
        """These edges and no others."""
        assert {source: set(targets) for source, targets in TRANSITIONS.items()} == TABLE

    @pytest.mark.parametrize("source", S)
    def test_only_edges_of_the_table_are_allowed(self, source: S) -> None:
        """`allowed` says what the table says, for every pair."""
        assert {target for target in S if allowed(source, target)} == TABLE[source]

    def test_every_state_can_be_reached(self) -> None:
        """From an intent, every state; no state is there for nothing."""
        assert reachable(S.REQUESTED) == set(S)

    @pytest.mark.parametrize("state", S)
    def test_every_state_leads_to_an_end(self, state: S) -> None:
        """Wherever a lease is, its machine can be released: no state is a trap."""
        assert S.RELEASED in reachable(state)

    def test_nothing_stays_in_the_state_it_is_in(self) -> None:
        """An edge to itself would be an event without a change."""
        assert not [state for state in S if allowed(state, state)]


class TestGroups:
    def test_refused_and_released_are_the_ends(self) -> None:
        """Only these two need no attention, and only a machine risen again leads out of them."""
        closed = {state for state in S if not state.open}

        assert closed == {S.RELEASED, S.REFUSED}
        assert all(TRANSITIONS[state] == {S.RELEASING} for state in closed)

    @pytest.mark.parametrize("state", sorted(HELD))
    def test_what_is_held_can_be_released_and_orphaned(self, state: S) -> None:
        """Neither a dead owner nor a release request finds a lease that it cannot end."""
        assert {S.RELEASING, S.ORPHANED} <= TRANSITIONS[state]

    def test_a_release_never_leads_back_to_use(self) -> None:
        """Once releasing, a lease is never ready, busy or idle again."""
        assert not reachable(S.RELEASING) & {*HELD, S.REQUESTED, S.UNKNOWN}
