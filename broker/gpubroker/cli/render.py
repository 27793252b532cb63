"""Values of the library into pages for people. Pure: `gpubroker.cli.screen` prints them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gpubroker.cli.durations import shown
from gpubroker.cli.screen import Page, Table
from gpubroker.lifecycle.reaping.reap import Swept
from gpubroker.lifecycle.standing import ProviderStatus
from gpubroker.model.leases import LeaseRow, ReleaseState
from gpubroker.model.money import Money
from gpubroker.policy.sweeping import Finding
from gpubroker.policy.sweeping import Verdict as Found
from gpubroker.settings import Setting

NONE = "-"


# ---- leases --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLine:
    """A lease, what it has cost so far, and whether its owner lives (``None``: no sign)."""

    lease: LeaseRow
    cost: Money
    alive: bool | None


def leases_page(
    lines: Sequence[LeaseLine], swept: Mapping[str, float], now: float, *, open_only: bool
) -> Page:
    """The leases, and how long ago each provider's machines were compared with them."""
    rows = [_lease_row(line, now) for line in lines]
    columns = [
        "lease",
        "state",
        "machine",
        "provider",
        ">age",
        ">$/h",
        ">cost",
        "owner",
        "ends",
        "pool",
    ]
    ages = [f"{name} {shown(now - at)} ago" for name, at in sorted(swept.items())]
    return Page(
        heading=[] if rows else ["no open lease" if open_only else "no lease"],
        tables=[Table(columns, rows)],
        closing=[
            f"last complete sweep: {', '.join(ages) or 'never'}",
            *_neglected(
                {line.lease.provider for line in lines if line.lease.state.open}, swept, now
            ),
        ],
    )


#: Seconds without a complete sweep after which it looks as if nobody watched over the machines.
_NEGLECTED = 180.0


def _neglected(held: Collection[str], swept: Mapping[str, float], now: float) -> list[str]:
    """A warning for each provider that has a lease open and was not swept for long."""
    return [
        f"WARNING: nobody has looked after the machines at {name} for"
        f" {shown(now - swept[name]) if name in swept else 'as long as this ledger is there'}:"
        " run `gpubroker reap --loop`"
        for name in sorted(held)
        if now - swept.get(name, 0.0) > _NEGLECTED
    ]


def _lease_row(line: LeaseLine, now: float) -> list[str]:
    lease = line.lease
    left = lease.deadline - now
    ends = f"in {shown(left)}" if left > 0 else f"overdue {shown(-left)}"
    if lease.parked and lease.idle_until is not None:
        ends = f"idle, in {shown(max(0.0, min(lease.idle_until, lease.deadline) - now))}"
    owner = {True: "alive", False: "dead", None: "not heard of"}[line.alive]
    until = now if lease.ended_at is None else lease.ended_at
    return [
        lease.id,
        str(lease.state),
        lease.title,
        lease.provider,
        shown(until - lease.created_at),
        str(lease.hourly),
        str(line.cost),
        owner if lease.state.open else NONE,
        ends if lease.state.open else NONE,
        lease.pool or NONE,
    ]


# ---- sweeps --------------------------------------------------------------------------------


def reap_page(
    sweeps: Sequence[Swept], releases: Mapping[str, ReleaseState], adopted: Collection[str] = ()
) -> Page:
    """What the sweeps found, and what became of it."""
    rows = [_found_row(swept, found, releases) for swept in sweeps for found in swept.verdicts]
    heading = [
        f"{swept.provider}: no complete list, so nothing is concluded: {swept.problem}"
        for swept in sweeps
        if not swept.complete
    ]
    heading += [
        f"going on with the job of {lease} until it ends"
        for lease in adopted
        if lease not in releases
    ]
    complete = [swept.provider for swept in sweeps if swept.complete]
    if complete and not rows:
        heading.append(f"swept {', '.join(complete)}: nothing to do")
    if not sweeps:
        heading.append("there is no provider to sweep")
    columns = ["provider", "finding", "lease", "machine", "what was done"]
    return Page(heading, [Table(columns, rows)])


def _found_row(swept: Swept, found: Found, releases: Mapping[str, ReleaseState]) -> list[str]:
    lease, machine = found.lease, found.machine
    named = None if machine is None else machine.id
    if named is None and lease is not None:
        named = lease.machine_id
    return [
        swept.provider,
        str(found.finding),
        NONE if lease is None else lease.id,
        _or_none(named),
        _done(found, None if lease is None else releases.get(lease.id)),
    ]


def _done(found: Found, state: ReleaseState | None) -> str:
    if state is ReleaseState.PROVEN:
        return "released and proven gone"
    if state is not None:
        return f"release {state}, NOT proven gone"
    match found.finding:
        case Finding.FOREIGN:
            return "nothing: not ours"
        case Finding.UNRECORDED:
            return "nothing: see `gpubroker adopt`"
        case Finding.WATCH_OVER:
            return "closed: nothing came of it"
        case _:
            return "nothing yet"


# ---- providers -----------------------------------------------------------------------------


def providers_page(statuses: Sequence[ProviderStatus], settings: Sequence[Setting]) -> Page:
    """The providers, and what is set where."""
    rows = [[s.name, _standing(s), _money(s), s.origin, s.why] for s in statuses]
    sources = [[s.name, s.value, s.source] for s in settings]
    return Page(
        heading=[] if rows else ["no provider is installed"],
        tables=[
            Table(["provider", "standing", "money", "comes from", "why"], rows, "providers"),
            Table(["setting", "value", "comes from"], sources, "settings"),
        ],
    )


def _money(status: ProviderStatus) -> str:
    if status.balance is not None:
        return f"{status.balance} left"
    return {True: "paid", False: "free", None: NONE}[status.paid]


def _standing(status: ProviderStatus) -> str:
    if status.on:
        return "on"
    return "broken" if status.paid is None else "off"


def _or_none(value: str | None) -> str:
    return value or NONE
