"""Destroys that fail, that do nothing, and that nobody is left to send: asked for until proven."""

from __future__ import annotations

import pytest

from gpubroker import (
    AsyncBroker,
    Event,
    EventKind,
    LeaseRow,
    LeaseState,
    Money,
    ReleaseState,
    Requirements,
)
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker
from .watching import QUICK, booting, look, sent, texts, until

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def row_of(broker: AsyncBroker, lease_id: str) -> LeaseRow:
    (row,) = [row for row in await broker.leases(open_only=False) if row.id == lease_id]
    return row


class TestADestroyThatFails:
    """It is asked for again, for ever; only an answer that is meant ends that."""

    async def test_an_error_is_not_the_end(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """503 once: the second request destroys it."""
        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.afflict(machine, "destroy-errors", times=1)
            state = await broker.wait_released(lease.id, timeout=15)

        assert [request.status for request in sent(cloud, "destroy")] == [503, 200]
        assert state is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_a_lost_reply_is_followed_by_a_second_destroy_that_finds_nothing(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """404 "no such instance" is an acknowledgement, and proves nothing: the list does."""
        cloud.faults.add("destroy", "drop", when="after")

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                pass
            state = await broker.wait_released(lease.id, timeout=15)

        assert [request.status for request in sent(cloud, "destroy")] == [0, 404]
        assert len(texts(events, EventKind.ACKNOWLEDGED)) == 1
        assert state is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_one_that_does_nothing_is_noticed_told_and_repeated(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """It was acknowledged, and the machine bills on: that is an alarm, and no release."""
        async with broker_on({**QUICK, "release_margin": "0.05"}) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.afflict(machine, "stubborn")
            await until(lambda: len(sent(cloud, "destroy")) == 3)
            state, billing = lease.release_state, cloud.billing_now()
            cloud.afflict(machine, "stubborn", on=False)
            proven = await broker.wait_released(lease.id, timeout=15)

        assert (state is not ReleaseState.PROVEN, billing) == (True, (machine,))
        assert any("still listed" in text for text in texts(events, EventKind.ALARM))
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()


class TestManyAtOnce:
    """The vendor allows one destroy in three seconds, of one machine or of 64."""

    async def test_ten_that_end_together_go_in_few_requests(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """At the vendor's pace, one by one would take half a minute."""
        async with broker_on({**QUICK, "poll_interval": "0.2"}) as broker:
            async with booting(broker, cloud, 10):
                rows = await broker.leases()
                cloud.switch(limits=0.04)
            for row in rows:
                assert await broker.wait_released(row.id, timeout=15) is ReleaseState.PROVEN

        requests = [*sent(cloud, "destroy"), *sent(cloud, "destroy-bulk")]
        assert len(rows) == len(cloud.charges()) == 10
        assert len(requests) <= 3
        assert cloud.billing_now() == ()


class TestAKeyThatIsRevoked:
    """The machines bill on, and nobody here can end them: somebody must be told."""

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_the_machine_is_quarantined_and_released_once_the_key_works_again(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event], status: int
    ) -> None:
        """In each form of the refusal; a 404 for the key is no 404 for the machine."""
        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.revoke_key(status)
                swept = await look(broker)
                lease.release()
                await until(lambda: texts(events, EventKind.ALARM))
                quarantined = await row_of(broker, lease.id)
                billing = cloud.billing_now()
                cloud.restore_key()
            proven = await broker.wait_released(lease.id, timeout=15)

        assert not swept.complete
        assert quarantined.state is LeaseState.QUARANTINED
        assert quarantined.reserved > Money(0)
        assert billing == (machine,)
        assert any("cannot be released" in text for text in texts(events, EventKind.ALARM))
        assert {request.status for request in sent(cloud, "destroy")} == {status, 200}
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()


class TestABrokerThatIsGone:
    """What it held is on record, and ends with the next sweep of any broker on that ledger."""

    async def test_the_next_broker_releases_what_it_left(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """It closed before its destroy got through; a broker that holds nothing sends it."""
        cloud.faults.add("destroy", "drop", when="before", times=None)
        async with broker_on(QUICK, close_wait=0.0, release_wait=0.0) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
        assert cloud.billing_now() == (machine,)
        cloud.faults.clear()

        async with broker_on(QUICK, sweep=False) as another:
            swept = await look(another)
            proven = await another.wait_released(lease.id, timeout=15)

        assert any("before these were proven gone" in t for t in texts(events, EventKind.ALARM))
        assert swept.started == (lease.id,)
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()


class TestTheBill:
    """What the vendor charged is what is on record in the end."""

    async def test_it_is_booked_to_the_micro_dollar(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The next sweep after the charges are final puts them in the place of what was counted."""
        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
            await broker.wait_released(lease.id, timeout=15)
            counted = await row_of(broker, lease.id)
            await broker.sweep()
            settled = await row_of(broker, lease.id)
            problems = await broker.verify()

        assert settled.spent == cloud.billed(machine) != counted.spent
        assert settled.spent.micros_up > 0
        assert settled.settled_at is not None
        assert any(machine in text for text in texts(events, EventKind.SETTLED))
        assert problems == []
