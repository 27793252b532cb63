"""Programs that share a pool, under drawn faults; and wrong pools, whose broken promises must be seen."""

# pyright: reportPrivateUsage=false
# A planted bug is a change of what nobody outside of its module is to know.

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from gpubroker.errors import LeaseReleased, StaleOwner
from gpubroker.ledger import edges, pools, spending
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.pooling import member as members
from gpubroker.lifecycle.pooling import pool
from gpubroker.lifecycle.pooling.member import Member
from gpubroker.lifecycle.pooling.serving import Serving
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import Money
from gpubroker.model.results import Result
from gpubroker.policy import pool as policy
from gpubroker.policy import sweeping
from gpubroker.testing.simulation import Report, simulate
from gpubroker.testing.virtual_time import BackendName

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(3))
def test_every_promise_is_kept(seed: int, backend: BackendName) -> None:
    """A few schedules; CI runs hundreds more."""
    report = simulate(seed, backend, kind="pools")

    assert report.violations == (), report.command


# --------------------------------------------------------------------------------------------
# Planted bugs: each changes one decision
# --------------------------------------------------------------------------------------------


def take_what_others_have(patch: Patch) -> None:
    """Take a machine that was seen to be idle, without a look whether it is still."""

    def take(sql: Any, lease: LeaseRow, owner: str, at: float) -> LeaseRow:
        now = edges.read(sql, lease.id)
        edges.update(sql, now, {"idle_until": None, "owner": owner, "epoch": now.epoch + 1})
        result = edges.read(sql, lease.id)
        edges.write_event(sql, result, at, "taken over", None, None, "for a pool")
        return result

    patch.setattr(pools, "take", take)


def take_over_quietly(patch: Patch) -> None:
    """Take a machine and leave its epoch as it is, so that whoever had it does not notice."""

    def take(sql: Any, lease: LeaseRow, owner: str, at: float) -> LeaseRow:
        now = edges.current(sql, lease)
        if not now.parked:
            raise StaleOwner(f"lease {lease.id} was taken by somebody quicker")
        edges.update(sql, now, {"idle_until": None, "owner": owner})
        return edges.read(sql, lease.id)

    patch.setattr(pools, "take", take)


def count_nobody_elses_machines(patch: Patch) -> None:
    """Leave it to each process how many machines there are."""

    def full(*_: object) -> None:
        return None

    patch.setattr(spending, "full", full)


def keep_for_ever(patch: Patch) -> None:
    """Give no machine up for being idle."""
    release = policy._release

    def working(view: policy.PoolView, *arguments: Any, **named: Any) -> Any:
        machines = [replace(m, idle_until=None) for m in view.machines]
        return release(replace(view, machines=machines), *arguments, **named)

    patch.setattr(policy, "_release", working)


def leave_what_is_parked(patch: Patch) -> None:
    """Leave the idle machine of a dead process to whoever may take it, however long that takes."""

    def may_be_taken(lease: LeaseRow, now: float) -> bool:
        del now
        return lease.parked

    patch.setattr(sweeping, "_may_be_taken", may_be_taken)


def extend_without_looking(patch: Patch) -> None:
    """Buy time for a machine whatever that makes of the limits."""
    extend = Ledger.extend

    def boldly(
        self: Ledger, lease: LeaseRow, until: float, more: Money, _: object, at: float
    ) -> LeaseRow:
        return extend(self, lease, until, more, (), at)

    patch.setattr(Ledger, "extend", boldly)


def start_again(patch: Patch) -> None:
    """Take a job whose machine was given up meanwhile for one that had not begun."""
    run = members.on_member

    async def on_member(member: Member, *arguments: Any) -> Result:
        result = await run(member, *arguments)
        hold = member.hold
        if hold is not None and (hold.release_reason or hold.drain_reason):
            raise LeaseReleased(member.id, "it is to be given up")
        return result

    patch.setattr(pool, "on_member", on_member)


def use_it_all_the_same(patch: Patch) -> None:
    """Go on with a machine on which a job was left."""
    give_back = Serving.give_back

    def forget(self: Serving, member: Member, *, worked: bool) -> None:
        member.wrong = ""
        give_back(self, member, worked=worked)

    patch.setattr(Serving, "give_back", forget)


#: Each with the promise that it breaks, and the first seed that shows it; as long as nobody changes
#: what is drawn, no other one is looked at.
PLANTED: Iterable[tuple[Callable[[Patch], None], str, int]] = (
    (take_what_others_have, "one owner at a time", 239),
    (take_over_quietly, "a stale owner changes nothing", 2),
    (count_nobody_elses_machines, "no more machines than allowed", 8),
    (keep_for_ever, "idle machines go", 3),
    (leave_what_is_parked, "nothing runs on", 70),
    (extend_without_looking, "no overspending", 23),
    (start_again, "one job, one result", 32),
    (use_it_all_the_same, "one owner at a time", 22),
)


def first_failure(promise: str, seed: int) -> Report:
    """The first schedule from a seed on that breaks it."""
    for number in range(seed, seed + 150):
        report = simulate(number, kind="pools")
        if any(violation.promise == promise for violation in report.violations):
            return report
    raise AssertionError(f"150 schedules, and nobody saw that it is broken: {promise}")


@pytest.mark.parametrize(
    ("plant", "promise", "seed"), [pytest.param(*p, id=p[0].__name__) for p in PLANTED]
)
def test_a_planted_bug_is_seen(
    plant: Callable[[Patch], None], promise: str, seed: int, monkeypatch: Patch
) -> None:
    """A pool that takes one wrong decision breaks the promise that this decision keeps."""
    plant(monkeypatch)

    report = first_failure(promise, seed)

    assert f"--pools --seed {report.schedule.seed} --backend asyncio" in report.command


def test_the_command_repeats_it() -> None:
    """The same seed gives the same log, and what is left out of its faults is named."""
    first, again = (simulate(1, kind="pools") for _ in range(2))
    less = simulate(1, kind="pools", only_faults=[0])

    assert first.log == again.log
    assert first.command.endswith("--pools --seed 1 --backend asyncio")
    assert less.command == f"{first.command} --only-faults 0"
