"""The ledger's own rules, replayed over what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpubroker.model.leases import LeaseRow, LeaseState, LedgerEvent
from gpubroker.model.money import Money
from gpubroker.policy.transitions import USED, allowed


def violations(leases: Sequence[LeaseRow], events: Iterable[LedgerEvent]) -> list[str]:
    """What does not hold, one line each; nothing if all is well."""
    by_lease: dict[str, list[LedgerEvent]] = {}
    for event in events:
        by_lease.setdefault(event.lease_id, []).append(event)
    found = [line for lease in leases for line in _of_lease(lease, by_lease.pop(lease.id, []))]
    found += [f"{lease_id}: has events, but no row" for lease_id in by_lease]
    return [*found, *_shared(leases)]


def _shared(leases: Sequence[LeaseRow]) -> Iterable[str]:
    """Two open leases of one machine: the release of either would end the other's."""
    first: dict[tuple[str, str], str] = {}
    for lease in leases:
        if lease.machine_id is not None and lease.state.open:
            holder = first.setdefault((lease.provider, lease.machine_id), lease.id)
            if holder != lease.id:
                yield f"{lease.id}: has the same machine as {holder}: {lease.machine_id}"


def _of_lease(lease: LeaseRow, events: Sequence[LedgerEvent]) -> Iterable[str]:
    if not events:
        yield f"{lease.id}: has no events"
        return
    state, epoch = events[0].target, events[0].epoch
    if state not in (LeaseState.REQUESTED, LeaseState.ORPHANED):
        yield f"{lease.id}: begins as {state}"
    for event in events[1:]:
        if event.epoch < epoch:
            yield f"{lease.id}: event {event.number} was written by a stale owner"
        if event.epoch > epoch and event.kind != "taken over":
            yield (
                f"{lease.id}: event {event.number} has epoch {event.epoch}, but nobody took it over"
            )
        epoch = max(epoch, event.epoch)
        if event.target is None:
            continue
        if event.source != state:
            yield f"{lease.id}: event {event.number} leaves {event.source}, but it was {state}"
        if event.source is not None and not allowed(event.source, event.target):
            yield f"{lease.id}: event {event.number} takes no edge: {event.source} -> {event.target}"
        state = event.target
    if state != lease.state:
        yield f"{lease.id}: is {lease.state}, but its events lead to {state}"
    if epoch != lease.epoch:
        yield f"{lease.id}: has epoch {lease.epoch}, but its events end with {epoch}"
    if lease.state in USED and lease.release_requested_at is not None:
        yield f"{lease.id}: is {lease.state}, although its release was asked for"
    yield from _money(lease, {event.kind for event in events})


def _money(lease: LeaseRow, kinds: set[str]) -> Iterable[str]:
    if not lease.state.open and lease.reserved != Money(0):
        yield f"{lease.id}: is {lease.state}, but still holds {lease.reserved}"
    if lease.state is LeaseState.RELEASED and not kinds & {"acknowledged", "watch over"}:
        yield f"{lease.id}: is released, but its destroy was never acknowledged"
    if lease.state is LeaseState.REFUSED and lease.spent != Money(0):
        yield f"{lease.id}: was refused, but cost {lease.spent}"
