"""What a sweep makes of one provider's machines and this ledger's leases.

Pure: it compares what the provider listed (read first) with the open leases (read second), in
both directions. It proposes; `gpubroker.lifecycle.reaping.reap` carries out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.policy.clock import Step, age
from gpubroker.policy.transitions import HELD, USED


class Finding(enum.StrEnum):
    """What was found, and so what is to be done."""

    OWNER_DEAD = "owner dead"  #: its owner is certainly gone: take it over and release it
    OWNER_MISSING = "owner missing"  #: its owner has not been heard of: look again, then release
    RELEASE = "release"  #: this broker's own, but none of its tasks sees to it: release it
    OVERDUE = "overdue"  #: past its deadline, whoever holds it
    FOUND = "found"  #: the machine of a lost create answer
    NEVER_SEEN = "never seen"  #: asked for long ago and still not listed: give up, but watch
    WATCH_OVER = "watch over"  #: watched long enough: nothing came of it
    VANISHED = "vanished"  #: the provider no longer has the machine of a held lease
    DOWN = "down"  #: the machine of a lease in use was stopped, outbid or has broken
    RISEN = "risen"  #: the machine of a closed lease is listed again
    DUPLICATE = "duplicate"  #: a second machine of an intent whose own machine is there: surplus
    UNRECORDED = "unrecorded"  #: carries our mark, but this ledger has no lease for it
    FOREIGN = "foreign"  #: somebody else's: reported, never touched


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding on one lease, one machine, or both."""

    finding: Finding
    lease: LeaseRow | None = None
    machine: Machine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a sweep of one provider looks at.

    Attributes:
        machines: a complete listing, tombstones included.
        read_at: Unix time at which that listing was asked for.
        steps: how often this host's wall clock had gone forward by itself until then.
        leases: this ledger's open leases with this provider, read after the listing.
        closed: finds a closed lease by its mark.
        alive: what is known of a lease's owner: ``True`` alive, ``False`` certainly dead,
            ``None`` not heard of.
        own: the id of the broker that sweeps; its own leases are in better hands.
        in_hand: ids of the leases that tasks of this broker hold or release at this moment;
            where that is not said, all those that it owns.
    """

    provider: str
    facts: ProviderFacts
    machines: Sequence[Machine]
    read_at: float
    leases: Sequence[LeaseRow]
    closed: Mapping[str, LeaseRow]
    alive: Callable[[LeaseRow], bool | None]
    ours: Callable[[Mark], bool]
    own: str
    now: float
    in_hand: Collection[str] | None = None
    steps: tuple[Step, ...] = ()


def sweep(scene: Scene) -> list[Verdict]:
    """Every finding, leases first."""
    present = [m for m in scene.machines if m.state is not MachineState.GONE]
    by_id = {machine.id: machine for machine in present}
    by_mark: dict[str, Machine] = {}
    for listed in sorted(present, key=lambda machine: machine.id):
        mark = Mark.find(listed.mark)
        # A row with a forged mark must not find a machine: whoever wrote it had no key.
        if mark is not None and scene.ours(mark):
            by_mark.setdefault(str(mark), listed)
    verdicts: list[Verdict] = []
    for lease in scene.leases:
        machine = by_id.get(lease.machine_id or "") or by_mark.get(lease.mark)
        finding = _of_lease(lease, machine, scene)
        if finding is not None:
            verdicts.append(Verdict(finding, lease, machine))
    held_ids = {lease.machine_id for lease in scene.leases}
    strangers = (m for m in present if m.id not in held_ids)
    there = {lease.mark: lease.machine_id in by_id for lease in scene.leases}
    return verdicts + list(_of_strangers(strangers, there, scene))


def _of_lease(lease: LeaseRow, machine: Machine | None, scene: Scene) -> Finding | None:
    own = lease.owner == scene.own
    in_hand = own if scene.in_hand is None else lease.id in scene.in_hand
    unseen = lease.state in HELD and machine is None and _visible(lease, scene)
    if unseen and (in_hand or not scene.alive(lease)):
        return Finding.VANISHED
    if lease.state is LeaseState.LATE_WATCH:
        # Nobody holds it: whoever looks, finds.
        busy = in_hand and scene.in_hand is not None
        return None if busy else _of_watched(lease, machine, scene)
    if in_hand:
        return Finding.DOWN if _is_down(lease, machine) else None
    if own:
        return Finding.RELEASE
    alive = scene.alive(lease)
    if alive is None:
        return None if _may_be_taken(lease, scene.now) else Finding.OWNER_MISSING
    if alive:
        # The answer to its create may be on its way, or it may be looking for the machine itself.
        overdue = scene.now > lease.deadline + scene.facts.release_margin
        return Finding.OVERDUE if overdue else None
    if lease.state not in (LeaseState.REQUESTED, LeaseState.UNKNOWN):
        return None if _may_be_taken(lease, scene.now) else Finding.OWNER_DEAD
    if machine is not None:
        return Finding.FOUND
    return Finding.NEVER_SEEN if _visible(lease, scene) else None


def _may_be_taken(lease: LeaseRow, now: float) -> bool:
    """Whether it is parked in a pool, whose other processes may take it until its idle limit."""
    return lease.parked and now < min(lease.idle_until or 0.0, lease.deadline)


def _is_down(lease: LeaseRow, machine: Machine | None) -> bool:
    """Whether the provider says that a machine in use is up no more; a booting one is watched."""
    down = (MachineState.STOPPED, MachineState.BROKEN)
    return lease.state in USED and machine is not None and machine.state in down


def _of_watched(lease: LeaseRow, machine: Machine | None, scene: Scene) -> Finding | None:
    if machine is not None:
        return Finding.FOUND
    watched = age(lease.created_at, scene.read_at, scene.steps)
    return Finding.WATCH_OVER if watched > scene.facts.late_create_watch else None


def _visible(lease: LeaseRow, scene: Scene) -> bool:
    """Whether the listing was made late enough to have to show the lease's machine."""
    since = max(lease.created_at, lease.accepted_at or 0.0)
    return age(since, scene.read_at, scene.steps) >= scene.facts.visibility_horizon


def _of_strangers(
    machines: Iterable[Machine], there: Mapping[str, bool], scene: Scene
) -> Iterable[Verdict]:
    """What is found of machines that no open lease has by their id.

    Args:
        there: by the mark of each open lease, whether its own machine is listed.
    """
    for machine in machines:
        mark = Mark.find(machine.mark)
        if mark is None or not scene.ours(mark):
            yield Verdict(Finding.FOREIGN, machine=machine)
            continue
        lease = scene.closed.get(str(mark))
        if lease is not None:
            # A list from before it was proven gone shows it rightly.
            if lease.ended_at is None or scene.read_at >= lease.ended_at:
                yield Verdict(Finding.RISEN, lease, machine)
        elif str(mark) not in there:
            yield Verdict(Finding.UNRECORDED, machine=machine)
        elif there[str(mark)]:
            yield Verdict(Finding.DUPLICATE, machine=machine)


def can_be_adopted(lease: LeaseRow, now: float) -> bool:
    """Whether a lease whose owner is gone has a job whose result may still be delivered."""
    return (
        lease.on_owner_death == "adopt"
        and lease.state is LeaseState.BUSY
        and lease.release_requested_at is None
        and now < lease.deadline
    )


#: Findings that rest on something missing, and on nothing else.
_MISSING: Final = frozenset({Finding.VANISHED, Finding.OWNER_MISSING})


def brake(verdicts: Sequence[Verdict], held: int) -> tuple[list[Verdict], list[Verdict]]:
    """Keep one pass from ending everything for want of a sign.

    Where a provider loses sight of its machines, or hosts of each other, much is missing at once
    and nearly all of it is well. Acting on missing data alone is therefore bounded, for each
    pass, by three leases or a fifth of those held, whichever is more.

    Args:
        verdicts: those that are about to be acted on.
        held: how many leases are believed healthy.

    Returns:
        The verdicts to act on now, and those that must wait for another pass.
    """
    allowed = max(3, held // 5)
    kept: list[Verdict] = []
    withheld: list[Verdict] = []
    for verdict in verdicts:
        if verdict.finding in _MISSING:
            if allowed == 0:
                withheld.append(verdict)
                continue
            allowed -= 1
        kept.append(verdict)
    return kept, withheld
