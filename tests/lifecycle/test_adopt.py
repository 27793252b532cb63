"""A ledger is lost while its machines run: they are found by their marks, and given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpubroker import Event, InvalidValue
from gpubroker.model.events import EventKind
from gpubroker.model.leases import ReleaseState
from gpubroker.model.marks import Mark
from gpubroker.policy.sweeping import Finding
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def lose(cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, *lost: str) -> None:
    """Rent twice, lose the ledger, and have machines with its marks running still: `lost`."""
    async with broker_on(cloud, ledger=place) as broker:
        await broker.run(["x"])
        await broker.run(["y"])
    for file in place.parent.glob("ledger.db*"):
        if file.suffix != ".key":
            file.unlink()
    for name, create in zip(lost, cloud.creates, strict=False):
        cloud.foreign_machine(name, mark=create.order.mark)


async def test_a_machine_of_a_lost_ledger_is_found_and_released(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """The key is still there, so its mark proves whose it is."""
    await lose(cloud, broker_on, place, "lost")

    async with broker_on(cloud, ledger=place, seed=2) as broker:
        (swept,) = await broker.sweep()
        search = await broker.strays()
        row = await broker.adopt("scripted", "lost")
        state = await broker.wait_released(row.id, timeout=300)

        assert await broker.verify() == []
    # A sweep alone does not take another ledger's machine for ours: that ledger may be in use.
    assert [verdict.finding for verdict in swept.verdicts] == [Finding.FOREIGN]
    assert [(stray.machine.id, stray.doubt) for stray in search.found] == [("lost", "")]
    assert state is ReleaseState.PROVEN
    assert cloud.foreign == []


async def test_late_machines_of_a_lost_ledger_are_known_as_ours_from_then_on(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """One that was adopted and rises again is ended; another one is alarmed about."""
    await lose(cloud, broker_on, place, "one")
    late = [create.order.mark for create in cloud.creates]
    async with broker_on(cloud, ledger=place, seed=2) as broker:
        row = await broker.adopt("scripted", "one")
        await broker.wait_released(row.id, timeout=300)

    cloud.foreign_machine("one-again", mark=late[0])
    cloud.foreign_machine("two", mark=late[1])
    async with broker_on(cloud, ledger=place, seed=3, sweep=False) as broker:
        (swept,) = await broker.sweep()
        for lease_id in swept.started:
            await broker.wait_released(lease_id, timeout=300)

    assert {v.finding for v in swept.verdicts} == {Finding.RISEN, Finding.UNRECORDED}
    assert [machine.id for machine in cloud.foreign] == ["two"]
    assert any(e.kind is EventKind.ALARM and "gpubroker adopt" in e.text for e in events)


async def test_forged_and_copied_marks_are_not_touched(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """They are listed with the reason; only by name does one of them go."""
    await lose(cloud, broker_on, place, "lost", "copied")
    original, copied = (create.order.mark for create in cloud.creates)
    forged = Mark.make(b"f" * 32, original.split("-")[1], bytes(10))
    cloud.foreign_machine("forged", mark=str(forged))
    cloud.foreign_machine("copy", mark=copied)
    cloud.foreign_machine("other", mark=None)

    async with broker_on(cloud, ledger=place, seed=2) as broker:
        search = await broker.strays()
        for name in ("forged", "copied", "copy"):
            with pytest.raises(InvalidValue, match="it may be somebody else's"):
                await broker.adopt("scripted", name)
        with pytest.raises(InvalidValue, match="none that is to be adopted"):
            await broker.adopt("scripted", "other")
        untouched = {machine.id for machine in cloud.foreign}
        row = await broker.adopt("scripted", "copied", unverified=True)
        await broker.wait_released(row.id, timeout=300)
        (swept,) = await broker.sweep()

    assert {stray.machine.id: bool(stray.doubt) for stray in search.found} == {
        "lost": False,
        "forged": True,
        "copied": True,
        "copy": True,
    }
    assert untouched == {"lost", "forged", "copied", "copy", "other"}
    assert {machine.id for machine in cloud.foreign} == untouched - {"copied"}
    assert swept.started == ()


async def test_a_provider_that_cannot_list_concludes_nothing(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """What it has may be ours: the search says that it is not complete."""
    await lose(cloud, broker_on, place, "lost")
    cloud.inventory_fails(times=2)

    async with broker_on(cloud, ledger=place, seed=2, sweep=False) as broker:
        search = await broker.strays()
        with pytest.raises(InvalidValue, match="no complete list"):
            await broker.adopt("scripted", "lost")

    assert search.found == []
    assert list(search.problems) == ["scripted"]


async def test_what_the_ledger_knows_is_not_adopted(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A machine in use is in good hands."""
    async with broker_on(cloud) as broker, broker.lease():
        search = await broker.strays()
        with pytest.raises(InvalidValue, match="none that is to be adopted"):
            await broker.adopt("scripted", cloud.running[0].id)

    assert search.found == []


async def test_a_machine_of_another_ledger_with_a_shared_key_must_be_named(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key from the environment may be that of a ledger in use: its machines are in good hands."""
    monkeypatch.setenv("GPUBROKER_MARK_KEY", "k" * 32)
    await lose(cloud, broker_on, place, "lost")

    async with broker_on(cloud, ledger=place, seed=2) as broker:
        (stray,) = (await broker.strays()).found
        with pytest.raises(InvalidValue, match="may be in use"):
            await broker.adopt("scripted", "lost")
        row = await broker.adopt("scripted", "lost", unverified=True)
        state = await broker.wait_released(row.id, timeout=300)

    assert "may be in use" in stray.doubt
    assert state is ReleaseState.PROVEN
