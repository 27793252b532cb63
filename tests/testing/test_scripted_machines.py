"""The scripted cloud's machines: boot, loss, release, inventories and exact bills."""

from __future__ import annotations

import math
from collections.abc import Awaitable

import anyio
import pytest

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.money import Money
from gpubroker.testing import (
    ScriptedCloud,
    ScriptedPlugin,
    VirtualWallClock,
    offer,
    run_virtual,
)

from .conftest import Rent, make_order, plugin_of

pytestmark = pytest.mark.anyio


async def states(plugin: ScriptedPlugin, *waits: float) -> list[MachineState | None]:
    """The state of the only machine after each wait; ``None`` where it is not listed."""
    found: list[MachineState | None] = []
    for wait in waits:
        await anyio.sleep(wait)
        found.append(next((machine.state for machine in await plugin.inventory()), None))
    return found


async def test_untold_a_machine_is_up_at_once(plugin: ScriptedPlugin, rent: Rent) -> None:
    """Without a story everything goes well and takes no time."""
    assert (await rent()).state is MachineState.RUNNING
    assert await states(plugin, 0) == [MachineState.RUNNING]


async def test_a_boot_takes_exactly_its_time(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A machine boots until its time is up, and runs from that moment on."""
    cloud.boot_takes(30)

    await rent()

    assert await states(plugin, 29.9, 0.1) == [MachineState.BOOTING, MachineState.RUNNING]


async def test_progress_changes_only_where_it_was_told(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A boot shows progress at the told pace, and one that never ends shows none."""

    async def progress() -> list[str]:
        seen: list[str] = []
        for _ in range(3):
            await anyio.sleep(10)
            seen.append((await plugin.inventory())[-1].progress)
        return seen

    cloud.boot_takes(1000, progress_every=10)
    cloud.never_boots()
    await rent("m1")
    assert len(set(await progress())) == 3
    await rent("m2")
    assert len(set(await progress())) == 1


async def test_a_broken_boot_stays_broken(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A machine that breaks while it boots is listed as broken from then on."""
    cloud.boot_breaks(after=5)

    await rent()

    expected = [MachineState.BOOTING, MachineState.BROKEN, MachineState.BROKEN]
    assert await states(plugin, 1, 4, 9999) == expected


async def test_a_preempted_machine_stops_and_its_disk_bills_on(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """Ninety seconds after it is up it is stopped; until it is released its disk costs money."""
    cloud.boot_takes(10)
    cloud.preempt_after(90)
    machine = await rent()

    assert await states(plugin, 99, 1) == [MachineState.RUNNING, MachineState.STOPPED]
    assert cloud.billed == Money("0.011")  # 100 s at 0.396 per hour
    await anyio.sleep(1000)
    assert cloud.billed == Money("0.021")  # and 1000 s at 0.036 per hour
    await plugin.release(machine)
    await anyio.sleep(1000)
    assert cloud.billed == Money("0.021")


async def test_a_released_machine_is_gone_and_bills_no_more(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A destroy ends billing at that moment; a second one, or one of a stranger, is quiet."""
    machine = await rent()
    await anyio.sleep(100)

    await plugin.release(machine)
    await plugin.release(machine)
    await plugin.release(Machine(id="never heard of"))
    await anyio.sleep(100)

    assert await plugin.inventory() == []
    assert cloud.billed == cloud.bill(machine.id) == Money("0.011")
    assert [destroy.accepted for destroy in cloud.destroys] == [True, True, True]
    cloud.assert_nothing_running()


@pytest.mark.parametrize("quantum", [1.0, 60.0, 3600.0])
async def test_bills_are_exact_multiples_of_the_quantum(
    now: VirtualWallClock, quantum: float
) -> None:
    """A minute is billed as a minute, or as a whole hour where hours are billed; never as 61 s."""
    facts = ProviderFacts(paid=True, billing_quantum=quantum)
    cloud = ScriptedCloud(now=now, facts=facts, offers=[offer("A100", "1.00", id="a")])
    plugin = plugin_of(cloud)
    await anyio.sleep(0.1)
    machine = await plugin.provision(offer(id="a"), make_order(ceiling="1.00"))
    for _ in range(600):
        await anyio.sleep(0.1)

    await plugin.release(machine)

    expected = Money("1.00") if quantum == 3600.0 else Money("1.00") * 60 / 3600
    assert cloud.billed == expected


async def test_releases_that_fail_leave_the_machine_billing(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """Refused, ignored or unanswered, a destroy changes nothing; the next good one ends it."""
    cloud.release_fails(times=2)
    cloud.release_does_nothing()
    cloud.release_hangs()
    machine = await rent()

    for _ in range(2):
        with pytest.raises(ProviderError):
            await plugin.release(machine)
    await plugin.release(machine)
    with anyio.move_on_after(60):
        await plugin.release(machine)
    assert [machine.id for machine in cloud.running] == [machine.id]
    with pytest.raises(AssertionError, match=machine.id):
        cloud.assert_nothing_running()

    await plugin.release(machine)
    assert cloud.running == []
    assert [d.accepted for d in cloud.destroys] == [False, False, True, False, True]


async def test_a_release_can_fail_until_a_time(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, now: VirtualWallClock, rent: Rent
) -> None:
    """Told "until", a failure holds for every call before that time and for none after."""
    machine = await rent()
    cloud.release_fails(until=now() + 60, kind=ErrorKind.RATE_LIMIT)

    kinds: list[ErrorKind] = []
    while cloud.running:
        try:
            await plugin.release(machine)
        except ProviderError as error:
            kinds.append(error.kind)
        await anyio.sleep(20)

    assert kinds == [ErrorKind.RATE_LIMIT] * 3


async def test_slow_answers_take_exactly_their_time(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A slow destroy takes effect when it answers, and a slow list shows what is then there."""
    machine = await rent()
    cloud.release_takes(10)
    cloud.inventory_takes(20)
    listed: list[Machine] = []

    async def look() -> None:
        listed.extend(await plugin.inventory())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await plugin.release(machine)

    assert listed == []
    assert cloud.billed == Money("0.0011")


async def test_inventories_fail_lie_and_hang_as_told(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A list can fail, come back empty though there are machines, or never come."""
    await rent()
    cloud.inventory_fails(kind=ErrorKind.RATE_LIMIT)
    cloud.inventory_is_empty(2)
    cloud.inventory_hangs()

    with pytest.raises(ProviderError) as caught:
        await plugin.inventory()
    assert caught.value.kind is ErrorKind.RATE_LIMIT
    assert [await plugin.inventory(), await plugin.inventory()] == [[], []]
    with anyio.move_on_after(5) as deadline:
        await plugin.inventory()
    assert deadline.cancelled_caught
    assert len(await plugin.inventory()) == 1


async def test_a_new_machine_can_be_invisible_for_a_while(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """Before the visibility lag is over a machine is not listed, but it is there and bills."""
    cloud.visibility_lag(45)

    await rent()

    assert await states(plugin, 44, 1) == [None, MachineState.RUNNING]
    assert len(cloud.running) == 1
    assert cloud.billed == Money("0.00495")


async def test_machines_of_others_are_listed_and_left_out_of_the_books(
    cloud: ScriptedCloud, plugin: ScriptedPlugin
) -> None:
    """A foreign machine is in the inventory, but neither in what runs nor in what is billed."""
    cloud.foreign_machine("theirs", mark="somebody")
    await anyio.sleep(3600)

    assert [(m.id, m.mark) for m in await plugin.inventory()] == [("theirs", "somebody")]
    assert [m.id for m in cloud.foreign] == ["theirs"]
    cloud.assert_nothing_running()
    assert cloud.billed == Money(0)

    await plugin.release(Machine(id="theirs"))
    assert cloud.foreign == []


async def test_a_revoked_key_ends_everything_but_the_bill(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, now: VirtualWallClock, rent: Rent
) -> None:
    """From the told time until it is mended every hook is refused, and machines bill on."""
    machine = await rent()
    cloud.revoke_key(at=now() + 10, until=now() + 70)
    assert await plugin.inventory()
    await anyio.sleep(10)

    calls: list[Awaitable[object]] = [
        plugin.quote(),
        plugin.inventory(),
        plugin.release(machine),
        rent("m2"),
    ]
    for call in calls:
        with pytest.raises(ProviderError) as caught:
            await call
        assert (caught.value.kind, caught.value.scope) == (ErrorKind.AUTH, Scope.ACCOUNT)

    await anyio.sleep(60)
    await plugin.release(machine)
    assert cloud.billed == Money("0.0077")


def test_a_cloud_outlives_the_brokers_that_use_it() -> None:
    """One cloud serves a second event loop as a real one serves a restarted process."""
    now = VirtualWallClock()
    cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.36", id="a")])

    async def first_life() -> None:
        await plugin_of(cloud).provision(offer(id="a"), make_order())
        await anyio.sleep(100)

    async def second_life() -> None:
        plugin = plugin_of(cloud)
        machines = await plugin.inventory()
        await anyio.sleep(100)
        for machine in machines:
            await plugin.release(machine)

    run_virtual("asyncio", first_life)
    assert cloud.billed == Money("0.01")
    run_virtual("trio", second_life)
    assert cloud.billed == Money("0.02")
    cloud.assert_nothing_running()


async def test_the_laptop_slept_and_the_cloud_did_not(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, now: VirtualWallClock, rent: Rent
) -> None:
    """When wall time jumps, machines have booted and billed meanwhile."""
    cloud.boot_takes(60)
    await rent()

    now.jump(3600)

    assert await states(plugin, 0) == [MachineState.RUNNING]
    assert cloud.billed == Money("0.396")


async def test_a_hook_given_up_for_ever_is_told_for_ever(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A step told until infinity never ends, and counts as used once it has happened."""
    machine = await rent()
    cloud.release_fails(until=math.inf)

    for _ in range(10):
        with pytest.raises(ProviderError):
            await plugin.release(machine)

    cloud.assert_script_used()
