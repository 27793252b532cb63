"""Our bounded promise over one machine, as the ledger keeps it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from gpubroker.model.money import Money

OnOwnerDeath = Literal["release", "adopt"]
"""What becomes of a lease whose broker has died: it is released, or, where a job runs on it, whoever
finds it goes on with the job, delivers its result, and releases it then."""


class LeaseState(enum.StrEnum):
    """Where a lease is in its life."""

    REQUESTED = "requested"  #: intent and reservation are durable; the create may have left
    PROVISIONING = "provisioning"  #: the vendor accepted; the machine boots or is set up
    READY = "ready"  #: probed and set up; no job yet
    BUSY = "busy"  #: a job runs on it
    IDLE = "idle"  #: held, with no job on it
    RELEASING = "releasing"  #: release was requested; destroyed until proven gone
    RELEASED = "released"  #: proven gone; settled
    REFUSED = "refused"  #: the vendor refused the create; nothing was ever there
    UNKNOWN = "unknown"  #: asked, and the answer was lost: it may exist and bill
    LATE_WATCH = "late watch"  #: never seen; its mark is still looked for, part of the money held
    QUARANTINED = "quarantined"  #: cannot be released; still tried for ever, alarmed
    ORPHANED = "orphaned"  #: the vendor has it and nobody holds it

    @property
    def open(self) -> bool:
        """Whether it still needs attention: everything but refused and released."""
        return self not in (LeaseState.REFUSED, LeaseState.RELEASED)


class ReleaseState(enum.StrEnum):
    """How far giving the machine back has come."""

    HELD = "held"  #: the lease is still in use
    REQUESTED = "requested"  #: asked for and durable, not yet acknowledged; it is retried for ever
    ACKNOWLEDGED = "acknowledged"  #: the provider accepted the destroy
    PROVEN = "proven"  #: complete inventories showed it gone


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """One lease as the ledger has it. Times are Unix seconds.

    Attributes:
        epoch: raised each time the lease changes hands; a writer with an older one is refused.
        owner: id of the broker that holds it.
        reserved: USD held against budgets until it is settled. spent: USD settled.
        deadline: when the machine must be gone, whatever else happens.
        acknowledged_at: when the provider accepted the destroy.
        settled_at: when what the vendor billed was put on record as spent; until then that is what
            was counted here. counted: USD that had been counted until then.
        drain_reason: why it is to be given up as soon as no job runs on it; empty if it is not.
        on_owner_death: what becomes of it when its broker dies.
        pool: the name of the pool that it was asked for; empty if it was for none.
        idle_until: when it is given up unless somebody takes it first: it is parked, with no job on
            it, for any process that shares its pool. ``None`` where it is in somebody's hands.
    """

    id: str
    request_id: str
    provider: str
    state: LeaseState
    epoch: int
    owner: str
    mark: str
    title: str
    offer_id: str
    machine_id: str | None
    hourly: Money
    quantum: float
    reserved: Money
    spent: Money
    created_at: float
    deadline: float
    accepted_at: float | None = None
    ready_at: float | None = None
    release_requested_at: float | None = None
    release_reason: str = ""
    acknowledged_at: float | None = None
    ended_at: float | None = None
    settled_at: float | None = None
    problem: str = ""
    tags: tuple[str, ...] = ()
    counted: Money | None = None
    drain_reason: str = ""
    on_owner_death: OnOwnerDeath = "release"
    pool: str = ""
    idle_until: float | None = None

    @property
    def has_files(self) -> bool:
        """Whether another process may go on with it, and so finds what it needs beside the ledger."""
        return self.on_owner_death == "adopt" or bool(self.pool)

    @property
    def parked(self) -> bool:
        """Whether whoever shares its pool may take it."""
        wanted = self.release_requested_at is None and not self.drain_reason
        return self.state is LeaseState.IDLE and self.idle_until is not None and wanted

    @property
    def release_state(self) -> ReleaseState:
        """How far giving the machine back has come."""
        if not self.state.open or self.state is LeaseState.LATE_WATCH:
            return ReleaseState.PROVEN
        if self.acknowledged_at is not None:
            return ReleaseState.ACKNOWLEDGED
        return ReleaseState.HELD if self.release_requested_at is None else ReleaseState.REQUESTED


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent:
    """One row of the append-only event log."""

    number: int
    lease_id: str
    at: float
    epoch: int
    kind: str
    source: LeaseState | None
    target: LeaseState | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as the ledger has it. Times are Unix seconds.

    Attributes:
        state: ``running``, or how it ended, in the words of `JobState`; the name of an error where
            its broker had to leave it.
    """

    id: str
    lease_id: str
    title: str
    state: str
    exit_code: int | None
    started_at: float
    ended_at: float | None
    tags: tuple[str, ...] = ()
