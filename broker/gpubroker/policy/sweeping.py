"""What a sweep makes of one provider's machines and this ledger's leases.

Pure: it compares what the provider listed (read first) with the open leases (read second), in
both directions. It proposes; `gpubroker.lifecycle.reap` carries out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.policy.transitions import HELD


class Finding(enum.StrEnum):
    """What was found, and so what is to be done."""

    OWNER_DEAD = "owner dead"  #: its owner is certainly gone: take it over and release it
    OWNER_MISSING = "owner missing"  #: its owner has not been heard of: look again, then release
    RELEASE = "release"  #: its release was asked for, and nobody who lives carries it out
    OVERDUE = "overdue"  #: past its deadline, whoever holds it
    FOUND = "found"  #: the machine of a lost create answer
    NEVER_SEEN = "never seen"  #: asked for long ago and still not listed: give up, but watch
    WATCH_OVER = "watch over"  #: watched long enough: nothing came of it
    VANISHED = "vanished"  #: the provider no longer has the machine of a held lease
    RISEN = "risen"  #: the machine of a closed lease is listed again
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
        leases: this ledger's open leases with this provider, read after the listing.
        closed: finds a closed lease by its mark.
        alive: what is known of a lease's owner: ``True`` alive, ``False`` certainly dead,
            ``None`` not heard of.
        own: the id of the broker that sweeps; its own leases are in better hands.
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


def sweep(scene: Scene) -> list[Verdict]:
    """Every finding, leases first."""
    present = [m for m in scene.machines if m.state is not MachineState.GONE]
    by_id = {machine.id: machine for machine in present}
    by_mark = {str(mark): m for m in present if (mark := Mark.find(m.mark)) is not None}
    verdicts: list[Verdict] = []
    for lease in scene.leases:
        machine = by_id.get(lease.machine_id or "") or by_mark.get(lease.mark)
        finding = _of_lease(lease, machine, scene)
        if finding is not None:
            verdicts.append(Verdict(finding, lease, machine))
    held_ids = {lease.machine_id for lease in scene.leases}
    held_marks = {lease.mark for lease in scene.leases}
    strangers = (m for m in present if m.id not in held_ids)
    return verdicts + list(_of_strangers(strangers, held_marks, scene))


def _of_lease(lease: LeaseRow, machine: Machine | None, scene: Scene) -> Finding | None:
    alive = True if lease.owner == scene.own else scene.alive(lease)
    if lease.state in (LeaseState.REQUESTED, LeaseState.UNKNOWN):
        return _of_unanswered(lease, machine, alive, scene)
    if lease.state is LeaseState.LATE_WATCH:
        if machine is not None:
            return Finding.FOUND
        over = scene.read_at - lease.created_at > scene.facts.late_create_watch
        return Finding.WATCH_OVER if over else None
    if lease.state in HELD and machine is None and _visible(lease, scene):
        return Finding.VANISHED
    if alive is False:
        return Finding.OWNER_DEAD
    if alive is None:
        return Finding.OWNER_MISSING
    if lease.owner == scene.own:
        return None
    return Finding.OVERDUE if scene.now > lease.deadline + scene.facts.release_margin else None


def _of_unanswered(
    lease: LeaseRow, machine: Machine | None, alive: bool | None, scene: Scene
) -> Finding | None:
    if lease.state is LeaseState.REQUESTED and alive is not False:
        # The create may be on its way: whoever sent it is waiting for the answer.
        return None if alive else Finding.OWNER_MISSING
    if machine is not None:
        return Finding.FOUND
    return Finding.NEVER_SEEN if _visible(lease, scene) else None


def _visible(lease: LeaseRow, scene: Scene) -> bool:
    """Whether the listing was made late enough to have to show the lease's machine."""
    since = max(lease.created_at, lease.accepted_at or 0.0)
    return scene.read_at - since >= scene.facts.visibility_horizon


def _of_strangers(
    machines: Iterable[Machine], held_marks: set[str], scene: Scene
) -> Iterable[Verdict]:
    for machine in machines:
        mark = Mark.find(machine.mark)
        if mark is None or not scene.ours(mark):
            yield Verdict(Finding.FOREIGN, machine=machine)
        elif str(mark) in scene.closed:
            yield Verdict(Finding.RISEN, scene.closed[str(mark)], machine)
        elif str(mark) not in held_marks:
            yield Verdict(Finding.UNRECORDED, machine=machine)
