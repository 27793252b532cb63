"""The real broker under drawn faults; and wrong brokers, whose broken promises must be seen."""

# pyright: reportPrivateUsage=false
# A planted bug is a change of what nobody outside of its module is to know.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gpubroker.errors import CreateUnknown, ProviderError
from gpubroker.ledger import edges, spending
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.owner import Identity
from gpubroker.lifecycle.readings import Reading, Readings
from gpubroker.lifecycle.reaping import reap
from gpubroker.lifecycle.releasing import release
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import Money
from gpubroker.model.results import JobState, Outcome
from gpubroker.plugins import Provider
from gpubroker.policy import sweeping
from gpubroker.policy.sweeping import Finding, Scene, Verdict
from gpubroker.testing.simulation import Report, simulate
from gpubroker.testing.simulation.shrink import shrink
from gpubroker.testing.virtual_time import BackendName

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(5))
def test_every_promise_is_kept(seed: int, backend: BackendName) -> None:
    """A few schedules; CI runs ten thousand more."""
    report = simulate(seed, backend)

    assert report.violations == (), report.command


# --------------------------------------------------------------------------------------------
# Planted bugs: each changes one decision
# --------------------------------------------------------------------------------------------


def answering(value: object) -> Callable[..., object]:
    """A function that gives the same answer to every question."""

    def answer(*_: object) -> object:
        return value

    return answer


def repeat_creates(patch: Patch) -> None:
    """Send a create again when its answer is lost, as a careless HTTP client does."""
    once = Provider.provision

    async def twice(self: Provider, *arguments: Any) -> Any:
        try:
            return await once(self, *arguments)
        except CreateUnknown:
            return await once(self, *arguments)

    patch.setattr(Provider, "provision", twice)


def forget_intents(patch: Patch) -> None:
    """Send creates without anything on record."""
    patch.setattr(Ledger, "reserve", answering(None))


def believe_the_destroy(patch: Patch) -> None:
    """Close a lease when its destroy is acknowledged, without a look."""

    async def gone(*_: Any) -> bool:
        return True

    patch.setattr(release, "_gone", gone)


def read_errors_as_absence(patch: Patch) -> None:
    """Take a list that could not be had for an empty one."""
    read = Readings.next

    async def next_reading(self: Readings) -> Reading:
        return replace(await read(self), error=None)

    patch.setattr(Readings, "next", next_reading)


def ignore_the_epoch(patch: Patch) -> None:
    """Let whoever lost a lease go on writing."""

    def current(sql: Any, lease: LeaseRow) -> LeaseRow:
        now = edges.read(sql, lease.id)
        return replace(now, epoch=lease.epoch)

    def update(sql: Any, lease: LeaseRow, columns: dict[str, Any]) -> LeaseRow:
        names = ", ".join(f"{name} = :{name}" for name in {**columns, "epoch": 0})
        values = {name: edges.stored(value) for name, value in columns.items()}
        values = {"epoch": lease.epoch, **values, "_id": lease.id}
        sql.execute(f"UPDATE leases SET {names} WHERE id = :_id", values)
        return edges.read(sql, lease.id)

    patch.setattr(edges, "current", current)
    patch.setattr(edges, "update", update)


def look_only_at_what_is_recorded(patch: Patch) -> None:
    """Leave alone what a dead process has asked for and never heard of."""

    def partly(scene: Scene) -> list[Verdict]:
        unfound = (Finding.FOUND, Finding.NEVER_SEEN)
        return [v for v in sweeping.sweep(scene) if v.finding not in unfound]

    patch.setattr(reap, "sweep", partly)


def spend_without_looking(patch: Patch) -> None:
    """Reserve whatever is asked for."""
    patch.setattr(spending, "committed", answering(Money(0)))


def take_everybody_for_dead(patch: Patch) -> None:
    """Release what other processes hold, though they live."""
    patch.setattr(Identity, "alive", answering(False))


def clean_the_account(patch: Patch) -> None:
    """Destroy whatever nobody here knows, as clean-up scripts do."""
    kinds: Callable[[Scene], Sequence[Verdict]] = sweeping.sweep

    def everything(scene: Scene) -> list[Verdict]:
        return [
            replace(v, finding=Finding.DUPLICATE) if v.finding is Finding.FOREIGN else v
            for v in kinds(scene)
        ]

    patch.setattr(reap, "sweep", everything)


def take_a_loss_for_success(patch: Patch) -> None:
    """Take a connection that ended for a job that did."""
    run = Provider.run

    async def optimistic(self: Provider, *arguments: Any) -> Outcome:
        try:
            return await run(self, *arguments)
        except ProviderError:
            return Outcome(state=JobState.EXITED, exit_code=0)

    patch.setattr(Provider, "run", optimistic)


def forget_deadlines(patch: Patch) -> None:
    """Let a lease live for as long as its holder likes; a sweep alone would still end it."""

    async def idle(_: Supervisor) -> None:
        return

    patch.setattr(Supervisor, "watch", idle)

    def patient(scene: Scene) -> list[Verdict]:
        return [v for v in sweeping.sweep(scene) if v.finding is not Finding.OVERDUE]

    patch.setattr(reap, "sweep", patient)


def die_with_the_first_error(patch: Patch) -> None:
    """End a release when its destroy fails for the first time."""

    async def destroy(parts: Any, lease: LeaseRow, machine: Any, on_change: Any) -> LeaseRow:
        await parts.providers[lease.provider].release(machine)
        return await release._acknowledged(parts, lease, on_change)

    patch.setattr(release, "_destroy", destroy)


PLANTED: Iterable[tuple[Callable[[Patch], None], str]] = (
    (repeat_creates, "one create, one start"),
    (forget_intents, "intent before create"),
    (believe_the_destroy, "released means gone"),
    (read_errors_as_absence, "released means gone"),
    (ignore_the_epoch, "the ledger keeps its rules"),
    (look_only_at_what_is_recorded, "everything is closed"),
    (spend_without_looking, "no overspending"),
    (take_everybody_for_dead, "no friendly fire"),
    (clean_the_account, "no friendly fire"),
    (take_a_loss_for_success, "results are true"),
    (forget_deadlines, "nothing runs on"),
    (die_with_the_first_error, "every task ends well"),
)


_DEEP = pytest.mark.deep

#: It takes a lying destroy and a failing list at the same moment, say, to see these.
FAR_INTO_THE_SEEDS = (read_errors_as_absence, ignore_the_epoch, take_a_loss_for_success)


def first_failure(promise: str) -> Report:
    """The first schedule that breaks it."""
    for seed in range(300):
        report = simulate(seed)
        if any(violation.promise == promise for violation in report.violations):
            return report
    raise AssertionError(f"300 schedules, and nobody saw that it is broken: {promise}")


@pytest.mark.parametrize(
    ("plant", "promise"),
    [
        pytest.param(*p, id=p[0].__name__, marks=_DEEP if p[0] in FAR_INTO_THE_SEEDS else ())
        for p in PLANTED
    ],
)
def test_a_planted_bug_is_seen(
    plant: Callable[[Patch], None], promise: str, monkeypatch: Patch
) -> None:
    """A broker that takes one wrong decision breaks the promise that this decision keeps."""
    plant(monkeypatch)

    report = first_failure(promise)

    assert f"--seed {report.schedule.seed} --backend asyncio" in report.command


def test_a_failure_is_cut_down_to_the_faults_that_it_needs(monkeypatch: Patch) -> None:
    """What is left out changes nothing, and the command says what is left."""
    believe_the_destroy(monkeypatch)
    report = first_failure("released means gone")

    small = shrink(report)

    assert {v.promise for v in small.violations} >= {"released means gone"}
    assert len(small.schedule.faults) <= len(report.schedule.faults)
    assert all(
        fault.what in ("release_does_nothing", "release_takes", "crash", "pause")
        for _, fault in small.schedule.faults
    )
