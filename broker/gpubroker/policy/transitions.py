"""The lease state table: which edges there are, and nothing else.

Each edge is taken by one conditional update and one event row in the same transaction
(`gpubroker.ledger`). Names of recovery states follow ``LeaseState``.
"""

from __future__ import annotations

from typing import Final

from gpubroker.model.leases import LeaseState

_S = LeaseState

TRANSITIONS: Final[dict[LeaseState, frozenset[LeaseState]]] = {
    _S.REQUESTED: frozenset({_S.PROVISIONING, _S.REFUSED, _S.UNKNOWN, _S.RELEASING}),
    _S.PROVISIONING: frozenset({_S.READY, _S.RELEASING, _S.ORPHANED}),
    _S.READY: frozenset({_S.BUSY, _S.IDLE, _S.RELEASING, _S.ORPHANED}),
    _S.BUSY: frozenset({_S.IDLE, _S.RELEASING, _S.ORPHANED}),
    _S.IDLE: frozenset({_S.BUSY, _S.RELEASING, _S.ORPHANED}),
    # The answer to the create was lost. Only its mark, or time, can tell.
    _S.UNKNOWN: frozenset({_S.PROVISIONING, _S.RELEASING, _S.LATE_WATCH}),
    _S.LATE_WATCH: frozenset({_S.RELEASING, _S.RELEASED}),
    _S.ORPHANED: frozenset({_S.RELEASING}),
    _S.RELEASING: frozenset({_S.RELEASED, _S.QUARANTINED}),
    _S.QUARANTINED: frozenset({_S.RELEASING, _S.RELEASED}),
    # A machine with the mark of a closed lease was listed again: it is released once more.
    _S.RELEASED: frozenset({_S.RELEASING}),
    _S.REFUSED: frozenset({_S.RELEASING}),
}

#: States in which the lease is of use to its holder.
HELD: Final = frozenset({_S.PROVISIONING, _S.READY, _S.BUSY, _S.IDLE})

#: States in which it is ready for jobs: none is entered once its release was asked for.
USED: Final = frozenset({_S.READY, _S.BUSY, _S.IDLE})


def allowed(source: LeaseState, target: LeaseState) -> bool:
    """Whether the table has this edge."""
    return target in TRANSITIONS[source]
