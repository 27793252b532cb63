"""What hypothesis draws for tests: valid, told as drawn, and shrunk to what is plain."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import find, given, settings

from gpubroker import AsyncBroker, BrokerError, Money, Offer, Plugin, Requirements
from gpubroker.testing import Clouds, ScriptedCloud, run_virtual
from gpubroker.testing.fault_schedules import FAULTS, Fault
from gpubroker.testing.strategies import fault_schedules, faults, markets, offers, requirements


@pytest.mark.deep
def test_what_is_drawn_shrinks_to_what_is_plain() -> None:
    """Nothing wanted, one cent for an ordinary card, no fault, the mildest of faults."""
    assert find(requirements(), lambda _: True) == Requirements()
    assert find(fault_schedules(), lambda _: True) == []
    plainest = find(offers(), lambda _: True)
    assert (plainest.title, str(plainest.price.machine)) == ("RTX 4090", "$0.01")
    assert repr(find(faults(), lambda f: f.what == "never_boots")) == "never_boots(times=1)"


@pytest.mark.parametrize("what", FAULTS)
def test_every_fault_can_be_told(what: str) -> None:
    """Its verb and its arguments are those of a scripted cloud."""
    cloud = ScriptedCloud()
    for last in (0, -1):
        Fault(what, {name: some[last] for name, some in FAULTS[what].items()}).tell(cloud)

    assert len(cloud.script.left_over()) == 2


@settings(max_examples=25, derandomize=True)
@given(market=markets(), wanted=requirements(), schedule=fault_schedules(3))
def test_whatever_is_drawn_nothing_is_left(
    market: list[Offer], wanted: Requirements, schedule: list[Fault]
) -> None:
    """A job on a drawn market, with drawn faults, ends, costs no more than its limit, and is gone."""

    async def story() -> None:
        clouds = Clouds(strict=False)
        cloud = ScriptedCloud("drawn", now=clouds.now, offers=market, strict=False)
        plugins = [Plugin("drawn", cloud.factory, "drawn", given=True)]
        for fault in schedule:
            fault.tell(cloud)
        broker: AsyncBroker = clouds.async_broker(plugins=plugins, budget="0.50")
        async with broker:
            with suppress(BrokerError):
                await broker.run(["x"], wanted, lifetime=600)
            cloud.all_is_well()
        cloud.assert_all_well()
        assert cloud.billed <= Money("0.50")

    run_virtual("asyncio", story)
