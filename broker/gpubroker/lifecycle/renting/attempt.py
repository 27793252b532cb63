"""One try at one offer: reserve, write the intent, create, wait, and look at what was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from gpubroker.errors import ErrorKind, LeaseReleased, LedgerUnusable, ProviderError, Scope
from gpubroker.ledger.ledger import OverLimit
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.lease_files import KeptLease
from gpubroker.lifecycle.leasing.running import run_on
from gpubroker.lifecycle.link import Link
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.release import resolve_unknown
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.lifecycle.renting.readiness import wait_until_running
from gpubroker.model.events import EventKind
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow, LeaseState, OnOwnerDeath
from gpubroker.model.machines import Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.pools import PoolShare
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import JobState
from gpubroker.policy import probe
from gpubroker.policy.budget import Claim, Limit, MachineLimit, limits, machine_limits
from gpubroker.policy.handover import planned_jobs
from gpubroker.policy.pricing import lifetime_within, worst_case


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """On which conditions an attempt is made.

    Attributes:
        request_id: of the request that it is part of.
        lifetime: seconds that the machine may live, or ``None`` for the default.
        needed: seconds that the job needs at the least.
        allowance: USD for the whole request; ``None`` is no limit besides the broker's own.
        timeout: seconds from the create to a machine that runs; ``None`` for no limit beyond the
            provider's boot time-out.
        secrets: secrets are meant for the machine.
        job: the only one that the machine is for; ``None`` where more may come.
        on_owner_death: what becomes of it when this broker dies.
        share: of which pool it becomes part, if of any.
    """

    request_id: str
    lifetime: float | None
    needed: float
    allowance: Money | None
    timeout: float | None
    tags: tuple[str, ...]
    secrets: bool = False
    job: Job | None = None
    on_owner_death: OnOwnerDeath = "release"
    share: PoolShare | None = None


async def money_left(parts: Parts, limits: Sequence[Limit]) -> Money | None:
    """USD that may still be spent, by the tightest limit; a reservation checks it again."""
    if not limits:
        return None
    taken = await parts.ledger(
        lambda ledger: [limit.amount - ledger.committed(limit) for limit in limits]
    )
    return max(Money(0), min(taken, key=lambda money: money.amount), key=lambda m: m.amount)


async def intend(
    parts: Parts, supervisor: Supervisor, offer: Offer, image: str | None, conditions: Conditions
) -> Hold:
    """Reserve the worst case and write the intent. Nothing leaves before this is durable.

    Raises:
        OverLimit: a limit on money does not allow it. NoPlace: one on machines does not.
        BrokerClosed: the broker is closing.
        LedgerUnusable: what an heir would need cannot be kept.
        ProviderError: this system has no SSH client.
    """
    provider = parts.providers[offer.provider]
    now, lease_id, tags = parts.now(), parts.new_id("lease"), conditions.tags
    # The windows that it counts in are those of its row, also where one ends at this moment.
    claim = Claim(
        at=now,
        request_id=conditions.request_id,
        lease_id=lease_id,
        provider=provider.name,
        tags=tags,
        allowance=conditions.allowance,
    )
    bounds = limits(parts.budget, claim)
    machines = machine_limits(parts.budget, [provider.name], tags)
    share = conditions.share
    if share is not None:
        limit = MachineLimit(f"machines of pool {share.name}", share.machines, pool=share.name)
        machines.append(limit)
    left = await money_left(parts, bounds)
    lifetime = lifetime_within(
        offer.price, provider.facts, wanted=conditions.lifetime, needed=conditions.needed, left=left
    )
    if lifetime is None:
        asked = worst_case(offer.price, conditions.lifetime or 60.0, provider.facts)
        raise OverLimit(Limit("budget", left or Money(0)), Money(0), asked)
    row = LeaseRow(
        id=lease_id,
        request_id=conditions.request_id,
        provider=provider.name,
        state=LeaseState.REQUESTED,
        epoch=1,
        owner=parts.identity.id,
        mark=str(parts.new_mark()),
        title=offer.title,
        offer_id=offer.id,
        machine_id=None,
        hourly=offer.price.hourly,
        quantum=provider.facts.billing_quantum,
        reserved=worst_case(offer.price, lifetime, provider.facts),
        spent=Money(0),
        created_at=now,
        deadline=now + lifetime,
        tags=tags,
        on_owner_death=conditions.on_owner_death,
        pool="" if share is None else share.name,
    )
    hold = Hold(row, provider, offer, image, conditions.allowance)
    if share is not None:
        hold.life_ends = now + share.lifetime
    # From the reservation to the create nothing else is awaited: a sweep in between would find a
    # lease that nobody sees to.
    if provider.facts.ssh:
        hold.link = await Link.make(secrets=conditions.secrets)
    try:
        _keep(parts, hold, share)
        await supervisor.beat(insist=False)
        supervisor.check_open()
        await parts.ledger(lambda ledger: ledger.reserve(row, bounds, machines))
    except BaseException:
        if hold.link is not None:
            hold.link.discard()
        if parts.files is not None and row.has_files:
            parts.files.remove(row.id)
        raise
    if hold.link is not None:
        given_up = anyio.CancelScope()
        hold.use(given_up)
        supervisor.start(hold.link.keep, given_up)
    return hold


def _keep(parts: Parts, hold: Hold, share: PoolShare | None) -> None:
    """Have what an heir needs to reach the machine on the disk, before there is one."""
    if not hold.row.has_files or parts.files is None:
        return
    link = hold.link
    kept = KeptLease(
        offer=hold.offer,
        image=hold.image,
        private_key="" if link is None else link.key.private.read_text(),
        public_key="" if link is None else link.key.public,
        nonce="" if link is None else link.nonce,
        wanted="" if share is None else share.wanted,
        ends_at=hold.life_ends,
    )
    try:
        parts.files.put_lease(hold.row.id, kept)
    except OSError as error:
        raise LedgerUnusable(f"what its heir needs cannot be kept: {error}") from error


async def bring_up(
    parts: Parts,
    supervisor: Supervisor,
    hold: Hold,
    requirements: Requirements,
    conditions: Conditions,
) -> None:
    """Send the one create, wait until the machine runs, and check what was delivered.

    Raises:
        ProviderError: there is no such machine, or it is not what was offered.
        LeaseReleased: its release was asked for while it was coming up.
    """
    late = anyio.CancelScope()
    with anyio.CancelScope() as given_up:
        hold.use(given_up)
        try:
            with anyio.move_on_after(conditions.timeout) as late:
                await _create(parts, supervisor, hold, requirements, conditions.job)
                await wait_until_running(parts, hold)
                await _probe(parts, hold)
                return
        finally:
            hold.disuse(given_up)
    if hold.release_reason is not None:
        # Somebody wants this machine gone; renting another one is not what they asked for.
        raise LeaseReleased(hold.row.id, hold.release_reason)
    assert late.cancelled_caught
    raise ProviderError(
        f"no running machine within {conditions.timeout:g} s",
        kind=ErrorKind.HOST_BROKEN,
        scope=Scope.HOST,
    )


async def _create(
    parts: Parts,
    supervisor: Supervisor,
    hold: Hold,
    requirements: Requirements,
    job: Job | None,
) -> None:
    order = Order(
        mark=hold.row.mark,
        lease_id=hold.row.id,
        image=requirements.image,
        disk=requirements.disk_gb,
        ports=requirements.ports,
        env=requirements.env,
        price_ceiling=hold.offer.price.hourly,
        # The machine's own way to end is told but once: of the end that it may be given later.
        deadline=hold.life_ends,
        public_key="" if hold.link is None else hold.link.key.public,
        nonce="" if hold.link is None else hold.link.nonce,
        jobs=planned_jobs(hold.offer, requirements, hold.provider.facts, job),
    )
    supervisor.create(hold, order)
    await hold.answered.wait()
    if hold.row.state is LeaseState.UNKNOWN:
        _, hold.machine = await resolve_unknown(parts, hold.row, hold.update)
    if hold.machine is None:
        raise hold.failure or ProviderError(
            "the lease was taken over", kind=ErrorKind.CREATE_UNKNOWN, scope=Scope.OFFER
        )
    way = "" if hold.machine.ssh else "; not reached over SSH: it runs by itself what was ordered"
    parts.emit(
        EventKind.ACCEPTED,
        f"{hold.provider.name} accepted: {hold.machine.id}{way}",
        provider=hold.provider.name,
        lease_id=hold.row.id,
    )


async def _probe(parts: Parts, hold: Hold) -> None:
    """Ask the machine itself for its cards, before the first byte of anybody's work leaves."""
    offer = hold.offer
    if not probe.wanted(offer, hold.provider.facts):
        return
    parts.emit(
        EventKind.PROBING,
        f"asking {hold.provider.name}'s machine for its cards",
        provider=hold.provider.name,
        lease_id=hold.row.id,
    )
    by_itself = hold.machine is not None and not hold.machine.ssh
    command = probe.gate(offer) if by_itself else probe.COMMAND
    run = await run_on(
        parts,
        hold,
        Job(command, timeout=probe.TIMEOUT),
        job_id=parts.new_id("probe"),
        env={},
        destination=Path(),
        purpose="probe",
    )
    if run.outcome.state not in (JobState.EXITED, JobState.NOT_STARTED):
        raise ProviderError(
            f"the machine could not be asked for its cards: {run.outcome.message}",
            kind=ErrorKind.HOST_BROKEN,
            scope=Scope.HOST,
        )
    wrong = probe.mismatch(offer, run.outcome.exit_code, run.stdout.decode(errors="replace"))
    if wrong is not None:
        raise ProviderError(wrong, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)
