"""Giving one machine up: destroy until acknowledged, then look until it is proven gone.

These drivers end only when their work is done; whoever starts them bounds them. They are safe to
run in several processes at once, and again after any interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Machine
from gpubroker.model.marks import Mark
from gpubroker.model.money import Money
from gpubroker.plugins import Provider
from gpubroker.policy.backoff import QUARANTINE_AFTER, delay, quarantines
from gpubroker.policy.pricing import held_after_destroy, held_unseen, spent, still_held

#: Failed inventories in a row after which an unproven release is an alarm: about a minute's worth.
_UNPROVEN_ALARM = 6


async def release_machine(
    parts: Parts,
    lease: LeaseRow,
    machine: Machine,
    on_change: Callable[[LeaseRow], None] = lambda _: None,
) -> LeaseRow:
    """Carry out a release whose request is on record: returns once the machine is proven gone.

    Args:
        lease: releasing or quarantined.
        on_change: told each newer version of the lease.

    Raises:
        StaleOwner: another process has taken the lease over, and carries on.
    """
    while True:
        lease = await _destroy(parts, lease, machine, on_change)
        if await _gone(parts, lease, machine):
            break
        # It bills on, so that acknowledgement ended nothing.
        lease = await _not_gone(parts, lease, machine)
        on_change(lease)
        parts.emit(
            EventKind.ALARM,
            f"{machine.id} is still listed after its destroy was acknowledged; destroying it again",
            provider=lease.provider,
            lease_id=lease.id,
        )
    closed, now = lease, parts.now()
    cost = spent(closed, now)
    if 0 < closed.reserved.micros < cost.micros_up:
        text = f"{machine.id} cost {cost}, more than the {closed.reserved} that was reserved for it"
        parts.emit(EventKind.ALARM, text, provider=lease.provider, lease_id=lease.id)
    lease = await parts.ledger.insist(
        lambda ledger: ledger.move(
            closed,
            LeaseState.RELEASED,
            now,
            "released",
            "proven gone",
            ended_at=now,
            reserved=Money(0),
            spent=cost,
        )
    )
    on_change(lease)
    parts.emit(
        EventKind.PROVEN,
        f"{machine.id} is gone; it cost {lease.spent}",
        provider=lease.provider,
        lease_id=lease.id,
    )
    return lease


async def _not_gone(parts: Parts, lease: LeaseRow, machine: Machine) -> LeaseRow:
    at = parts.now()
    return await parts.ledger.insist(
        lambda ledger: ledger.note(
            lease,
            at,
            "still listed",
            machine.id,
            acknowledged_at=None,
            reserved=still_held(lease, release_margin(parts, lease), at),
        )
    )


async def _destroy(
    parts: Parts, lease: LeaseRow, machine: Machine, on_change: Callable[[LeaseRow], None]
) -> LeaseRow:
    """Ask until the provider acknowledges. There is no number of failures that ends this."""
    failures, since = 0, anyio.current_time()
    while True:
        try:
            await _provider(parts, lease).release(machine)
        except ProviderError as error:
            failures += 1
            failing = anyio.current_time() - since
            lease = await _failing(parts, lease, error, failing)
            on_change(lease)
            pause = delay(failures, parts.source, retry_after=error.retry_after)
            to_alarm = QUARANTINE_AFTER - failing
            if 0 < to_alarm < pause:
                # The alarm does not wait for one more failure, which a vendor may put off.
                await anyio.sleep(to_alarm)
                lease = await _failing(parts, lease, error, QUARANTINE_AFTER)
                on_change(lease)
                pause -= to_alarm
            await anyio.sleep(pause)
        else:
            return await _acknowledged(parts, lease, on_change)


async def _acknowledged(
    parts: Parts, lease: LeaseRow, on_change: Callable[[LeaseRow], None]
) -> LeaseRow:
    asked, now = lease, parts.now()
    at = asked.acknowledged_at or now
    held = held_after_destroy(asked, release_margin(parts, asked), now)
    if asked.state is LeaseState.QUARANTINED:
        lease = await parts.ledger.insist(
            lambda ledger: ledger.move(
                asked,
                LeaseState.RELEASING,
                now,
                "acknowledged",
                acknowledged_at=at,
                problem="",
                reserved=held,
            )
        )
    else:
        lease = await parts.ledger.insist(
            lambda ledger: ledger.note(
                asked, now, "acknowledged", acknowledged_at=at, reserved=held
            )
        )
    on_change(lease)
    parts.emit(
        EventKind.ACKNOWLEDGED,
        f"{lease.provider} accepted the destroy of {lease.machine_id}",
        provider=lease.provider,
        lease_id=lease.id,
    )
    return lease


async def _failing(
    parts: Parts, lease: LeaseRow, error: ProviderError, failing_for: float
) -> LeaseRow:
    """Note a failed destroy; quarantine the lease when it is time to raise an alarm."""
    now, text = parts.now(), str(error)
    if lease.state is LeaseState.RELEASING and quarantines(error.kind, failing_for):
        lease = await parts.ledger.insist(
            lambda ledger: ledger.move(
                lease,
                LeaseState.QUARANTINED,
                now,
                "cannot release",
                text,
                problem=text,
                reserved=still_held(lease, release_margin(parts, lease), now),
            )
        )
        parts.emit(
            EventKind.ALARM,
            f"{lease.machine_id} cannot be released and may go on billing: {text}",
            provider=lease.provider,
            lease_id=lease.id,
        )
        return lease
    held = still_held(lease, release_margin(parts, lease), now)
    if lease.problem == text and held == lease.reserved:
        return lease
    return await parts.ledger.insist(
        lambda ledger: ledger.note(lease, now, "release failed", text, problem=text, reserved=held)
    )


def release_margin(parts: Parts, lease: LeaseRow) -> float:
    """Seconds that a lease's machine is taken to go on billing after any moment."""
    provider = parts.providers.get(lease.provider)
    return 120.0 if provider is None else provider.facts.release_margin


async def _gone(parts: Parts, lease: LeaseRow, machine: Machine) -> bool:
    """Whether complete readings prove it gone; ``False`` if it is listed when it should not be.

    Readings that fail, and those made before the machine had to be visible, say nothing.
    """
    provider = _provider(parts, lease)
    facts = provider.facts
    if "inventory" not in provider.hooks:
        return True
    absent, last_absent, failures = 0, float("-inf"), 0
    tolerated = anyio.current_time() + facts.release_margin
    horizon_ends = anyio.current_time() + facts.visibility_horizon
    made_at = lease.accepted_at or lease.created_at
    readings = parts.readings[lease.provider]
    while absent < facts.absence_readings:
        # A clock that was set back must not make this wait for it to catch up.
        young = facts.visibility_horizon - readings.age(made_at)
        early = min(young, horizon_ends - anyio.current_time())
        pause = max(early, last_absent + facts.absence_interval - anyio.current_time())
        if pause > 0:
            await anyio.sleep(pause)
        reading = await readings.next()
        if reading.error is not None:
            failures += 1
            if failures == _UNPROVEN_ALARM:
                text = f"whether {machine.id} is gone cannot be found out: {reading.error}"
                parts.emit(EventKind.ALARM, text, provider=lease.provider, lease_id=lease.id)
            retry_after = reading.error.retry_after
            await anyio.sleep(delay(failures, parts.source, retry_after=retry_after))
        elif reading.find(machine.id, lease.mark) is None:
            absent, last_absent = absent + 1, reading.asked_at
        elif reading.asked_at > tolerated:
            return False
        else:
            absent, last_absent = 0, float("-inf")
    return True


async def resolve_unknown(
    parts: Parts, lease: LeaseRow, on_change: Callable[[LeaseRow], None]
) -> tuple[LeaseRow, Machine | None]:
    """Find out what became of a create whose answer was lost, by its mark.

    Returns:
        The lease and its machine; or, when it had to be visible long since and is not, the lease
        in ``late watch`` and ``None``.
    """
    provider = _provider(parts, lease)
    facts = provider.facts
    absent, failures, began = 0, 0, anyio.current_time()
    mark = Mark.find(lease.mark)
    # A row whose mark is not ours was not written by us: it must not find anybody's machine.
    if mark is None or not parts.ours(mark):
        text = f"the mark of {lease.id} is not of this key; nothing can be said of its machine"
        parts.emit(EventKind.ALARM, text, provider=lease.provider, lease_id=lease.id)
        return lease, None
    while "inventory" in provider.hooks:
        reading = await parts.readings[lease.provider].next()
        if reading.error is not None:
            failures += 1
            retry_after = reading.error.retry_after
            await anyio.sleep(delay(failures, parts.source, retry_after=retry_after))
            continue
        machine = reading.find(lease.machine_id, lease.mark)
        if machine is not None:
            return await found(parts, lease, machine, on_change), machine
        # By either clock: the wall's may have been set back meanwhile.
        age = max(reading.age(lease.created_at), reading.asked_at - began)
        if age >= facts.visibility_horizon:
            absent += 1
            if absent >= facts.absence_readings:
                break
            await anyio.sleep(facts.absence_interval)
        else:
            await anyio.sleep(facts.poll_interval)
    return await never_seen(parts, lease, on_change), None


async def found(
    parts: Parts, lease: LeaseRow, machine: Machine, on_change: Callable[[LeaseRow], None]
) -> LeaseRow:
    """The machine of a lost answer is there: it is ours, and it bills since it was asked for."""
    now = parts.now()
    target = (
        LeaseState.PROVISIONING
        if lease.release_requested_at is None and lease.state is LeaseState.UNKNOWN
        else LeaseState.RELEASING
    )
    made_at = _made_at(machine, lease, now)
    asked: dict[str, float | str | None] = {"accepted_at": made_at}
    if target is LeaseState.RELEASING and lease.release_requested_at is None:
        asked |= {"release_requested_at": now, "release_reason": "late create"}
    if not lease.state.open:
        # It has risen, so its destroy was none: it has billed all along.
        asked |= {"acknowledged_at": None, "ended_at": None, "settled_at": None}
    held = still_held(replace(lease, accepted_at=made_at), release_margin(parts, lease), now)
    row = await parts.ledger.insist(
        lambda ledger: ledger.move(
            lease,
            target,
            now,
            "found",
            machine.id,
            machine_id=machine.id,
            reserved=held,
            **asked,
        )
    )
    on_change(row)
    parts.emit(
        EventKind.FOUND,
        f"the create whose answer was lost had made {machine.id}",
        provider=lease.provider,
        lease_id=lease.id,
    )
    return row


def _made_at(machine: Machine, lease: LeaseRow, now: float) -> float:
    """When the vendor says that it made the machine, if that can be true."""
    said = machine.created_at
    possible = said is not None and lease.created_at <= said <= now
    return said if said is not None and possible else lease.created_at


async def never_seen(
    parts: Parts, lease: LeaseRow, on_change: Callable[[LeaseRow], None]
) -> LeaseRow:
    """Give a create up that nothing was ever seen of; part of its money stays held for a while."""
    facts = _provider(parts, lease).facts
    now = parts.now()
    held = held_unseen(lease, facts)
    row = await parts.ledger.insist(
        lambda ledger: ledger.move(
            lease,
            LeaseState.LATE_WATCH,
            now,
            "never seen",
            reserved=held,
        )
    )
    if facts.late_create_watch == 0:
        row = await watch_over(parts, row)
    on_change(row)
    return row


async def watch_over(parts: Parts, lease: LeaseRow) -> LeaseRow:
    """The watch for a late create ended and nothing came of it: the money is free again."""
    now = parts.now()
    return await parts.ledger.insist(
        lambda ledger: ledger.move(
            lease, LeaseState.RELEASED, now, "watch over", ended_at=now, reserved=Money(0)
        )
    )


def _provider(parts: Parts, lease: LeaseRow) -> Provider:
    provider = parts.providers.get(lease.provider)
    if provider is None:
        raise ProviderError(
            f"the provider {lease.provider} is not available in this process",
            kind=ErrorKind.AUTH,
            scope=Scope.PROVIDER,
        )
    return provider
