"""The story itself: order, strictness and repeatability."""

from __future__ import annotations

import math

import pytest

from gpubroker import Requirements
from gpubroker.errors import CreateUnknown, ErrorKind, InvalidValue, ProviderError
from gpubroker.testing import Clouds, ScriptedCloud, VirtualWallClock, offer, run_virtual
from gpubroker.testing.virtual_time import BackendName

from .conftest import make_order, plugin_of


def test_what_never_happened_is_named(cloud: ScriptedCloud) -> None:
    """A story that was not used up fails, naming each step that is left and how often."""
    cloud.assert_script_used()

    cloud.next_create_fails(ErrorKind.QUOTA)
    cloud.release_fails(times=3)
    cloud.out_of_capacity(until=math.inf)
    cloud.job_takes(5)
    cloud.revoke_key()

    with pytest.raises(AssertionError) as caught:
        cloud.assert_script_used()
    assert str(caught.value) == (
        "scripted was told and never got to do: next_create_fails(quota); "
        "release_fails(transient), 3 times; out_of_capacity(); job_takes(5); revoke_key()"
    )


def test_a_step_used_in_part_is_left_over(cloud: ScriptedCloud) -> None:
    """Told three times and done once, it is still wanted twice."""
    plugin = plugin_of(cloud)
    cloud.quote_fails(times=3)

    with pytest.raises(ProviderError):
        run_virtual("asyncio", plugin.quote)

    with pytest.raises(AssertionError, match="2 times"):
        cloud.assert_script_used()


def test_a_loss_that_came_too_late_is_left_over() -> None:
    """A machine given up before it was to be preempted, or to vanish, met neither."""
    with Clouds("scripted", strict=False) as clouds, clouds.broker() as broker:
        cloud = clouds["scripted"]
        cloud.preempt_after(90)
        cloud.machine_vanishes(after=30)
        broker.run(["x"], Requirements(gpu="RTX 4090"))

        with pytest.raises(AssertionError) as caught:
            cloud.assert_script_used()
        assert str(caught.value) == (
            "scripted was told and never got to do: preempt_after(90); machine_vanishes(30)"
        )
        assert cloud.told == []

        cloud.all_is_well()
        cloud.assert_script_used()


def test_a_step_has_one_kind_of_end(cloud: ScriptedCloud) -> None:
    """ "So often" and "until then" at once makes no sense and is refused."""
    with pytest.raises(InvalidValue, match="not both"):
        cloud.inventory_fails(times=2, until=1.0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_delay_and_an_ending_describe_one_call(
    backend: BackendName, now: VirtualWallClock, cloud: ScriptedCloud
) -> None:
    """What is told of the duration and of the outcome of a create comes true in one create."""
    cloud.create_takes(20)
    cloud.next_create_loses_reply()

    async def create() -> float:
        start = now()
        with pytest.raises(CreateUnknown):
            await plugin_of(cloud).provision(offer(id="a"), make_order())
        return now() - start

    assert run_virtual(backend, create) == 20
    cloud.assert_script_used()


def test_the_same_story_gives_the_same_run_on_both_loops() -> None:
    """Nothing is random: creates, times and bills are equal on asyncio, on trio, and again."""

    def tell(backend: BackendName) -> tuple[object, ...]:
        now = VirtualWallClock()
        cloud = ScriptedCloud(now=now, offers=[offer(id="a", price="0.37")])
        cloud.boot_takes(11.25)
        cloud.next_create_fails()
        cloud.create_takes(0.5, times=2)
        cloud.release_fails(times=2)

        async def live() -> None:
            plugin = plugin_of(cloud)
            with pytest.raises(ProviderError):
                await plugin.provision(offer(id="a"), make_order("m1"))
            machine = await plugin.provision(offer(id="a"), make_order("m2"))
            while cloud.running:
                try:
                    await plugin.release(machine)
                except ProviderError:
                    cloud.release_takes(33.3)

        run_virtual(backend, live)
        return cloud.creates, cloud.destroys, cloud.billed, cloud.bill("scripted-1"), now()

    runs = [tell("asyncio"), tell("trio"), tell("asyncio")]

    assert runs[0] == runs[1] == runs[2]


def test_offers_for_tests_say_everything_a_vendor_says() -> None:
    """The builder's offer has no unknown part that a requirement could stumble over."""
    made = offer("RTX 4090", "0.40")
    assert None not in {made.vram, made.cuda, made.disk, made.ram, made.region, made.reliability}
    assert (made.id, made.title, made.count) == ("1x-rtx-4090-0.40", "RTX 4090", 1)

    plain = offer(None, "0.05")
    assert (plain.gpu, plain.count, plain.vram, plain.id) == (None, 0, None, "0x-cpu-0.05")
