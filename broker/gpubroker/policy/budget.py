"""Budgets: which limits hold for a lease, how full they are, and what follows.

A lease counts against the windows (day, month) in which it was asked for, with all that it costs,
however long it runs. Its worst case is reserved under every limit before it is asked for; what it
really cost replaces that.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpubroker.errors import InvalidValue
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import ZERO, Money
from gpubroker.model.names import is_a
from gpubroker.policy.pricing import cost_so_far
from gpubroker.policy.windows import check_timezone, day_of, month_of

# ---- what can be set -----------------------------------------------------------------------


class AtLimit(enum.StrEnum):
    """What becomes of machines that run when a limit has really been spent."""

    REFUSE = "refuse"  #: they go on; only new ones are refused
    DRAIN = "drain"  #: each finishes the job that runs on it, takes no other, and is given up
    RELEASE = "release"  #: they are given up at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on what counts to one provider, or to one tag. ``None`` is no limit.

    Attributes:
        day: USD for leases made within one day. month: the same for a month. total: USD ever.
        machines: how many machines may be held at a time.

    Raises:
        InvalidValue: one of them makes no sense.
    """

    day: Money | None = None
    month: Money | None = None
    total: Money | None = None
    machines: int | None = None

    def __post_init__(self) -> None:
        _check_amounts(day=self.day, month=self.month, total=self.total)
        _check_machines(self.machines)

    @property
    def set(self) -> bool:
        """Whether there is any limit on money."""
        return any(amount is not None for amount in (self.day, self.month, self.total))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits on what is rented. ``None`` is no limit.

    Attributes:
        job: USD for one job, or for one lease taken by hand; all attempts together.
        lease: USD for each single lease.
        day: USD for all leases made within one day of `timezone`. month: the same for a month.
        machines: how many machines may be held at a time; one whose destroy was acknowledged is
            held no more.
        timezone: an IANA name, such as ``Europe/Berlin``.
        alert_at: fractions of each limit, above 0 and up to 1, at which to alert once what was
            really spent gets there. At the whole limit there always is an alert.
        at_limit: what becomes of machines that run when a limit has really been spent: because a
            bill came in higher, say, or the limit was lowered.
        provider: more limits, by the provider's name.
        tag: more limits, by tag. A lease counts to each of its tags.

    Raises:
        InvalidValue: one of them makes no sense.
    """

    job: Money | None = None
    lease: Money | None = None
    day: Money | None = None
    month: Money | None = None
    machines: int | None = None
    timezone: str = "UTC"
    alert_at: tuple[float, ...] = (0.5, 0.8)
    at_limit: AtLimit = AtLimit.REFUSE
    provider: Mapping[str, Limits] = field(default_factory=dict[str, Limits])
    tag: Mapping[str, Limits] = field(default_factory=dict[str, Limits])

    def __post_init__(self) -> None:
        check_timezone(self.timezone)
        _check_amounts(job=self.job, lease=self.lease, day=self.day, month=self.month)
        _check_machines(self.machines)
        for fraction in self.alert_at:
            if not 0 < fraction <= 1:
                raise InvalidValue("budget.alert_at", fraction, "must be above 0, and at most 1")
        if self.at_limit not in tuple(AtLimit):
            raise InvalidValue.unknown("budget.at_limit", self.at_limit, AtLimit, noun="action")
        object.__setattr__(self, "at_limit", AtLimit(self.at_limit))

    @property
    def set(self) -> bool:
        """Whether there is a limit on money that holds for everything."""
        return any(amount is not None for amount in (self.job, self.lease, self.day, self.month))

    def bounds(self, provider: str) -> bool:
        """Whether there is a limit on money that holds for everything of `provider`."""
        return self.set or (provider in self.provider and self.provider[provider].set)


def _check_amounts(**amounts: Money | None) -> None:
    # Not every caller runs a type checker, and a number would fail only when a machine is wanted.
    for name, amount in amounts.items():
        if amount is None:
            continue
        if not is_a(amount, Money):
            raise InvalidValue(f"budget.{name}", amount, "must be Money, such as Money('5')")
        if amount < ZERO:
            raise InvalidValue(f"budget.{name}", amount, "must not be negative")


def _check_machines(machines: int | None) -> None:
    if machines is not None and (isinstance(machines, bool) or machines < 0):
        raise InvalidValue("budget.machines", machines, "must be a number of machines")


# ---- what holds for a lease ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may be reserved and spent together, USD, by leases that it counts.

    It counts those that all that is said applies to: the lease itself, the leases of one request,
    of one provider, with one tag, or made within the half-open interval [`since`, `until`) of Unix
    seconds.
    """

    name: str
    amount: Money
    request_id: str | None = None
    since: float | None = None
    until: float | None = None
    lease_id: str | None = None
    provider: str | None = None
    tag: str | None = None

    def counts(self, lease: LeaseRow) -> bool:
        """Whether `lease` is among those that it counts."""
        return (
            self.request_id in (None, lease.request_id)
            and self.lease_id in (None, lease.id)
            and self.provider in (None, lease.provider)
            and (self.tag is None or self.tag in lease.tags)
            and (self.since is None or lease.created_at >= self.since)
            and (self.until is None or lease.created_at < self.until)
        )


@dataclass(frozen=True, slots=True)
class MachineLimit:
    """The most machines that may be held at a time; of one provider, with one tag, of one pool."""

    name: str
    machines: int
    provider: str | None = None
    tag: str | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a lease counts to.

    Attributes:
        at: Unix seconds at which it was, or is, asked for.
        request_id: of its request. lease_id: its own; ``None`` while it has none.
        provider: ``None`` while none is chosen: their limits are left out then.
        allowance: USD for its request, where that is limited.
    """

    at: float
    request_id: str
    lease_id: str | None = None
    provider: str | None = None
    tags: Collection[str] = ()
    allowance: Money | None = None

    @classmethod
    def of(cls, lease: LeaseRow, allowance: Money | None = None) -> Claim:
        """What a lease on record counts to."""
        return cls(
            at=lease.created_at,
            request_id=lease.request_id,
            lease_id=lease.id,
            provider=lease.provider,
            tags=lease.tags,
            allowance=allowance,
        )


def limits(budget: Budget, claim: Claim) -> list[Limit]:
    """Every limit on money that holds for a lease."""
    found: list[Limit] = []
    if claim.allowance is not None:
        found.append(Limit("budget of this job", claim.allowance, request_id=claim.request_id))
    if budget.lease is not None:
        # Of a lease that has no name yet nothing is spent: it counts what no other lease is.
        found.append(Limit("budget of this lease", budget.lease, lease_id=claim.lease_id or ""))
    found += standing_limits(budget, claim.at, [claim.provider], claim.tags)
    return found


def standing_limits(
    budget: Budget, at: float, providers: Iterable[str | None], tags: Iterable[str]
) -> list[Limit]:
    """The limits on money that hold whatever lease is asked for: at `at`, of these, with these.

    Args:
        at: Unix seconds: decides which day and month it is.
    """
    whole = Limits(day=budget.day, month=budget.month)
    found = _windowed(whole, "", at, budget.timezone)
    for name in providers:
        if name is not None and name in budget.provider:
            found += [
                replace(limit, provider=name)
                for limit in _windowed(budget.provider[name], f" for {name}", at, budget.timezone)
            ]
    for tag in sorted(set(tags) & set(budget.tag)):
        found += [
            replace(limit, tag=tag)
            for limit in _windowed(budget.tag[tag], f" for tag {tag}", at, budget.timezone)
        ]
    return found


def _windowed(given: Limits, of: str, at: float, timezone: str) -> list[Limit]:
    found: list[Limit] = []
    if given.day is not None:
        since, until = day_of(at, timezone)
        found.append(Limit(f"budget of this day{of}", given.day, since=since, until=until))
    if given.month is not None:
        since, until = month_of(at, timezone)
        found.append(Limit(f"budget of this month{of}", given.month, since=since, until=until))
    if given.total is not None:
        found.append(Limit(f"budget{of}", given.total))
    return found


def machine_limits(
    budget: Budget, providers: Iterable[str | None], tags: Iterable[str]
) -> list[MachineLimit]:
    """Every limit on machines that holds for a lease of one of `providers`, with these tags."""
    found: list[MachineLimit] = []
    if budget.machines is not None:
        found.append(MachineLimit("machines at a time", budget.machines))
    for name in providers:
        if name is not None and name in budget.provider:
            of = budget.provider[name].machines
            if of is not None:
                found.append(MachineLimit(f"machines at a time for {name}", of, provider=name))
    for tag in sorted(set(tags) & set(budget.tag)):
        of = budget.tag[tag].machines
        if of is not None:
            found.append(MachineLimit(f"machines at a time for tag {tag}", of, tag=tag))
    return found


# ---- how full they are, and what follows ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a limit is.

    Attributes:
        spent: USD settled, and counted so far of leases that are open.
        committed: USD reserved and spent, together. What the limit allows is measured by this.
    """

    limit: Limit
    spent: Money
    committed: Money

    @property
    def left(self) -> Money:
        """USD that may still be reserved."""
        return max(ZERO, self.limit.amount - self.committed, key=lambda money: money.amount)

    @property
    def used_up(self) -> bool:
        """Whether the limit has really been spent."""
        return self.spent > ZERO and self.spent >= self.limit.amount


def usage(
    limit: Limit, settled: Money, reserved: Money, leases: Iterable[LeaseRow], now: float
) -> Usage:
    """How full a limit is.

    Args:
        settled: USD spent by the closed leases that it counts.
        reserved: USD reserved and spent by all leases that it counts.
        leases: the open ones, whether it counts them or not.
        now: Unix seconds.
    """
    running = (cost_so_far(lease, now) for lease in leases if limit.counts(lease))
    return Usage(limit, sum(running, settled), reserved)


def reached(usage: Usage, alert_at: Collection[float]) -> tuple[float, ...]:
    """The fractions of a limit that have been spent, in rising order; the whole is one of them."""
    if not usage.spent > ZERO:
        return ()
    return tuple(
        fraction
        for fraction in sorted({*alert_at, 1.0})
        if usage.spent >= usage.limit.amount * fraction
    )


def alert_name(limit: Limit, fraction: float) -> str:
    """Names one alert of one window: what was told under this name is not told again.

    A limit that was changed is another one.
    """
    of = limit.request_id or limit.lease_id or ""
    since = "" if limit.since is None else f"{limit.since:.0f}"
    return "/".join((limit.name, of, since, str(limit.amount.micros), f"{fraction:g}"))


@dataclass(frozen=True, slots=True)
class Ending:
    """A lease that is to end, because a limit has been spent; after its job, or at once."""

    lease: LeaseRow
    reason: str
    at_once: bool


#: States from which nothing is left to end.
_ENDING = frozenset({LeaseState.RELEASING, LeaseState.QUARANTINED, LeaseState.LATE_WATCH})


def endings(usages: Sequence[Usage], leases: Iterable[LeaseRow], at_limit: AtLimit) -> list[Ending]:
    """Which leases are to end, now that limits are as full as `usages` says.

    Args:
        leases: the open ones. Those that cost nothing are left alone, and so are those that are
            on their way out.
    """
    full = [usage.limit for usage in usages if usage.used_up]
    if at_limit is AtLimit.REFUSE or not full:
        return []
    found: list[Ending] = []
    for lease in leases:
        over = next((limit for limit in full if limit.counts(lease)), None)
        going = lease.state in _ENDING or lease.release_requested_at is not None
        if over is None or going or not lease.state.open or not lease.hourly:
            continue
        at_once = at_limit is AtLimit.RELEASE or lease.state is not LeaseState.BUSY
        if at_once or not lease.drain_reason:
            found.append(Ending(lease, f"{over.name}: {over.amount} is spent", at_once))
    return found
