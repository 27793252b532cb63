"""The scripted cloud's market: quotes, capacity, prices and creates."""

from __future__ import annotations

import math

import anyio
import pluggy
import pytest

from gpubroker import hookspecs
from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.model.money import Money
from gpubroker.model.requirements import Requirements
from gpubroker.testing import ScriptedCloud, ScriptedPlugin, VirtualWallClock, offer

from .conftest import Rent, make_order

pytestmark = pytest.mark.anyio


async def test_a_plugin_keeps_to_the_hook_contract(
    plugin: ScriptedPlugin, cloud: ScriptedCloud
) -> None:
    """pluggy accepts the plugin, all five hooks are found, and they answer."""
    plugins = pluggy.PluginManager("gpubroker")
    plugins.add_hookspecs(hookspecs)

    plugins.register(plugin)

    plugins.check_pending()
    hooks = {caller.name for caller in plugins.get_hookcallers(plugin) or []}
    assert hooks == {"quote", "provision", "inventory", "run", "release", "charges"}
    offers = await plugins.hook.quote(requirements=Requirements(gpu="RTX 4090"))
    assert [found.id for found in offers] == ["a"]
    assert plugin.facts.paid


async def test_a_capacity_drought_ends_at_its_time(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, now: VirtualWallClock, rent: Rent
) -> None:
    """No 4090 until 10:05: neither quotes nor creates before, both after, others untouched."""
    cloud.add_offer(offer("H100", "2.00", id="h"))
    cloud.out_of_capacity("RTX 4090", until=now() + 300)

    assert [found.id for found in await plugin.quote()] == ["h"]
    with pytest.raises(ProviderError) as caught:
        await rent()
    assert (caught.value.kind, caught.value.scope) == (ErrorKind.CAPACITY, Scope.OFFER)

    await anyio.sleep(300)
    assert [found.id for found in await plugin.quote()] == ["a", "h"]
    await rent("mark-2")
    cloud.assert_script_used()


async def test_creates_fail_as_told_and_in_order(cloud: ScriptedCloud, rent: Rent) -> None:
    """Refusals come in the order in which they were told, and the create after them works."""
    cloud.next_create_fails(ErrorKind.RATE_LIMIT, Scope.PROVIDER, "slow down", 30)
    cloud.next_create_fails(ErrorKind.CREDIT, Scope.ACCOUNT)

    with pytest.raises(ProviderError, match="slow down") as first:
        await rent("m1")
    with pytest.raises(ProviderError) as second:
        await rent("m2")
    machine = await rent("m3")

    assert (first.value.kind, first.value.retry_after) == (ErrorKind.RATE_LIMIT, 30)
    assert (second.value.kind, second.value.scope) == (ErrorKind.CREDIT, Scope.ACCOUNT)
    assert [create.machine_id for create in cloud.creates] == [None, None, machine.id]
    assert machine.mark == "m3"


async def test_a_refusal_may_leave_a_machine_behind(cloud: ScriptedCloud, rent: Rent) -> None:
    """A refused create can name a machine that exists all the same, and bills."""
    cloud.next_create_fails(ErrorKind.CAPACITY, leaves_machine=True)

    with pytest.raises(ProviderError) as caught:
        await rent()

    assert [machine.id for machine in cloud.running] == [caught.value.machine_id]


async def test_a_lost_reply_leaves_a_machine_with_the_mark(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """The caller hears `CreateUnknown`; the machine exists, and the inventory shows its mark."""
    cloud.next_create_loses_reply()

    with pytest.raises(CreateUnknown) as caught:
        await rent("mine")

    assert caught.value.machine_id is None
    assert [machine.mark for machine in await plugin.inventory()] == ["mine"]


async def test_a_lost_reply_may_have_made_nothing(cloud: ScriptedCloud, rent: Rent) -> None:
    """Nobody can tell from the answer that no machine came of it."""
    cloud.next_create_loses_reply(creates=False)

    with pytest.raises(CreateUnknown):
        await rent()

    assert cloud.running == []


async def test_a_create_can_take_effect_late(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A machine can come to be long after its lost create; until then the books are not clean."""
    cloud.next_create_loses_reply(after=600)
    with pytest.raises(CreateUnknown):
        await rent()
    assert (cloud.running, await plugin.inventory()) == ([], [])
    with pytest.raises(AssertionError, match="still bills"):
        cloud.assert_nothing_running()

    await anyio.sleep(600)

    assert len(await plugin.inventory()) == 1
    assert cloud.billed == Money(0)


async def test_a_hanging_create_has_created(cloud: ScriptedCloud, rent: Rent) -> None:
    """A create whose answer never comes leaves a machine when the caller gives up."""
    cloud.next_create_hangs()

    with anyio.move_on_after(30) as deadline:
        await rent()

    assert deadline.cancelled_caught
    assert len(cloud.running) == 1


async def test_a_slow_create_bills_from_its_beginning(cloud: ScriptedCloud, rent: Rent) -> None:
    """The machine exists at once even where the answer takes its time and is given up on."""
    cloud.create_takes(20)

    with anyio.move_on_after(10):
        await rent()

    assert cloud.billed == Money("0.0011")


async def test_quotes_fail_as_told(cloud: ScriptedCloud, plugin: ScriptedPlugin) -> None:
    """A quote fails with the kind, the scope and the patience that were told."""
    cloud.quote_fails(ErrorKind.RATE_LIMIT, Scope.ACCOUNT, retry_after=7)

    with pytest.raises(ProviderError) as caught:
        await plugin.quote()

    assert (caught.value.kind, caught.value.scope) == (ErrorKind.RATE_LIMIT, Scope.ACCOUNT)
    assert caught.value.retry_after == 7


async def test_quotes_are_slow_or_never_come(cloud: ScriptedCloud, plugin: ScriptedPlugin) -> None:
    """A slow quote comes after exactly its time, and a hanging one never."""
    cloud.quote_takes(4)
    cloud.quote_hangs()

    start = anyio.current_time()
    with anyio.move_on_after(1000):
        await plugin.quote()
    assert anyio.current_time() == start + 1000
    assert await plugin.quote()
    cloud.assert_script_used()


async def test_a_risen_price_is_quoted_and_held_against_the_ceiling(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """After a rise, quotes show it, orders below it are refused, and others pay it."""
    cloud.price_rises_to("0.72")

    assert (await plugin.quote())[0].price.hourly == Money("0.756")
    with pytest.raises(ProviderError, match="more than"):
        await rent("m1", ceiling="0.50")
    machine = await rent("m2", ceiling="0.80")

    assert machine.hourly == Money("0.756")


async def test_a_silent_rise_shows_on_the_machine_only(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """A vendor may bill more than it quoted, whatever the ceiling says."""
    cloud.price_rises_to("9.00", "a", silently=True)

    assert (await plugin.quote())[0].price.machine == Money("0.36")
    assert (await rent(ceiling="0.50")).hourly == Money("9.036")


async def test_stock_runs_out_and_comes_back(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent
) -> None:
    """An offer with one machine is taken by the first order, until that is released."""
    cloud.stock("a", 1)
    first = await rent("m1")

    assert await plugin.quote() == []
    with pytest.raises(ProviderError, match="taken"):
        await rent("m2")

    await plugin.release(first)
    assert await rent("m3")


async def test_what_is_not_on_offer_cannot_be_rented(
    cloud: ScriptedCloud, plugin: ScriptedPlugin
) -> None:
    """An unknown or withdrawn offer is refused, and so is a mark longer than a label."""
    with pytest.raises(ProviderError, match="no offer"):
        await plugin.provision(offer(id="b"), make_order())
    with pytest.raises(ProviderError, match="label"):
        await plugin.provision(offer(id="a"), make_order("m" * 41))

    cloud.withdraw_offer("a")
    with pytest.raises(ProviderError, match="no offer"):
        await plugin.provision(offer(id="a"), make_order("m2"))


async def test_a_create_sent_twice_is_noticed(cloud: ScriptedCloud, rent: Rent) -> None:
    """Two creates with one mark are a breach of the contract, and said to be one."""
    await rent("m1")
    cloud.assert_contract_kept()

    await rent("m1")

    with pytest.raises(AssertionError, match="m1 was sent again"):
        cloud.assert_contract_kept()


async def test_a_plugin_can_be_faulty(cloud: ScriptedCloud, plugin: ScriptedPlugin) -> None:
    """Any hook can be made to raise anything, and to hang."""
    cloud.next_call_raises("quote", ZeroDivisionError("oops"))
    cloud.next_call_hangs("inventory")

    with pytest.raises(ZeroDivisionError, match="oops"):
        await plugin.quote()
    with anyio.move_on_after(5) as deadline:
        await plugin.inventory()
    assert deadline.cancelled_caught


async def test_every_call_is_counted(cloud: ScriptedCloud, plugin: ScriptedPlugin) -> None:
    """`calls` says how often each hook was called, failed calls included."""
    cloud.quote_fails(until=math.inf)
    for _ in range(2):
        with pytest.raises(ProviderError):
            await plugin.quote()

    assert (cloud.calls["quote"], cloud.calls["release"]) == (2, 0)
