"""What a vendor really billed replaces what was counted, once it is final."""

from __future__ import annotations

import anyio
import pytest

from gpubroker import AsyncBroker, Event, EventKind, LeaseRow, Money, Requirements
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

HOUR = 3600.0
A_4090 = Requirements(gpu="RTX 4090")


async def one_lease(broker: AsyncBroker, cloud: ScriptedCloud) -> None:
    """Hold a machine for an hour and give it up, proven."""
    async with broker.lease(A_4090, lifetime=2 * HOUR) as lease:
        await anyio.sleep(HOUR)
    await broker.wait_released(lease.id)
    cloud.assert_nothing_running()


async def the_row(broker: AsyncBroker) -> LeaseRow:
    (row,) = await broker.leases(open_only=False)
    return row


async def test_the_bill_replaces_what_was_counted_once_it_is_final(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """An hour after the release, with the traffic that nobody here can count."""
    cloud.bills_show("0.05")
    async with broker_on(cloud) as broker:
        await one_lease(broker, cloud)
        counted = await the_row(broker)
        await anyio.sleep(HOUR - 60)
        early = await the_row(broker)
        await anyio.sleep(120)
        settled = await the_row(broker)

        assert await broker.verify() == []
    assert early.spent == counted.spent
    assert early.settled_at is None
    assert settled.spent.micros == (cloud.billed + Money("0.05")).micros_up
    assert settled.settled_at is not None
    assert [event.kind for event in events].count(EventKind.SETTLED) == 1


async def test_a_bill_that_does_not_show_the_machine_yet_is_waited_for(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """No row is no proof that it cost nothing; it is looked for again, and not all the time."""
    cloud.bills_show(anything=False)
    async with broker_on(cloud) as broker:
        await one_lease(broker, cloud)
        await anyio.sleep(2 * HOUR)
        unbilled, looks = await the_row(broker), cloud.calls["charges"]
        cloud.bills_show()
        await anyio.sleep(900)
        billed = await the_row(broker)

    assert unbilled.spent > Money(0)
    assert unbilled.settled_at is None
    assert 3 <= looks <= 10
    assert billed.settled_at is not None


async def test_a_bill_that_cannot_be_had_changes_nothing(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """What was counted stands until a bill can be read."""
    cloud.next_call_raises("charges", RuntimeError("not now"), times=3)
    async with broker_on(cloud) as broker:
        await one_lease(broker, cloud)
        await anyio.sleep(2 * HOUR)
        row = await the_row(broker)

    assert row.settled_at is not None
    assert cloud.calls["charges"] == 4


async def test_a_bill_far_above_what_was_counted_raises_an_alarm(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """Somebody pays for something that nobody here knows of."""
    cloud.bills_show("3")
    async with broker_on(cloud) as broker:
        await one_lease(broker, cloud)
        await anyio.sleep(2 * HOUR)
        row = await the_row(broker)

    alarms = [event.text for event in events if event.kind is EventKind.ALARM]
    assert len(alarms) == 1
    assert str(row.spent) in alarms[0]
