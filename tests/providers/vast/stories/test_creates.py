"""Creates that are answered wrongly, late or not at all: one machine, or none, and all known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from gpubroker import (
    AcquireStopped,
    AttemptState,
    Deadlines,
    ErrorKind,
    Event,
    EventKind,
    LeaseState,
    Money,
    Policy,
    Requirements,
    Retry,
    elsewhere,
    here,
)
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker
from .watching import QUICK, asked_for, sent, texts, until

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


class TestAReplyThatIsLost:
    """The request may have been carried out, so it is never sent again."""

    @pytest.mark.parametrize(
        ("fault", "options"),
        [
            pytest.param("drop", {"when": "after"}, id="connection cut"),
            pytest.param("status", {"when": "after", "status": 502}, id="502"),
            pytest.param("hang", {"when": "after"}, id="silence"),
            pytest.param("garbage", {}, id="half an answer"),
        ],
    )
    async def test_the_one_machine_is_found_by_its_mark_and_used(
        self,
        cloud: VastEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        fault: str,
        options: dict[str, Any],
    ) -> None:
        """However the answer is lost, and though no list shows the machine at once."""
        cloud.switch(visibility=0.2)
        cloud.faults.add("create", fault, **options)

        async with broker_on(QUICK, deadlines=Deadlines(provision=0.3)) as broker:
            async with broker.lease(A_4090) as lease:
                machines = [str(row["id"]) for row in cloud.instances()]
                result = await lease.run(["echo", "mine"])
            await broker.wait_released(lease.id, timeout=15)
            (row,) = await broker.leases(open_only=False)

        assert result.stdout == b"mine\n"
        assert len(asked_for(cloud)) == 1
        assert machines == [row.machine_id]
        assert any(machines[0] in text for text in texts(events, EventKind.FOUND))
        assert [attempt.state for attempt in lease.record.attempts] == [AttemptState.WON]
        assert cloud.billing_now() == ()

    async def test_where_nothing_was_made_the_next_offer_is_tried_and_the_mark_is_watched_for(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """A create that never arrived looks the same at first; part of its money stays held."""
        cloud.faults.add("create", "drop", when="before")
        cloud.faults.add("create", "status", nth=2, status=502)
        cloud.faults.add("create", "server-error", nth=3)

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                machines = cloud.billing_now()
            await broker.wait_released(lease.id, timeout=15)
            rows = await broker.leases(open_only=False)

        kinds = [attempt.kind for attempt in lease.record.attempts]
        assert kinds == [*[ErrorKind.CREATE_UNKNOWN] * 3, None]
        assert len(set(asked_for(cloud))) == len(asked_for(cloud)) == 4
        watched = [row for row in rows if row.state is LeaseState.LATE_WATCH]
        assert len(watched) == 3
        assert all(Money(0) < row.reserved < row.hourly for row in watched)
        assert len(machines) == 1
        assert cloud.billing_now() == ()


class TestAnAnswerThatIsNotTheWholeTruth:
    """What was made is known by its id or its mark, whatever the answer says besides."""

    @pytest.mark.parametrize("error", [None, "resources_unavailable"])
    async def test_a_refusal_that_names_a_machine_is_a_machine_to_be_destroyed(
        self,
        cloud: VastEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        error: str | None,
    ) -> None:
        """ "No" with a contract in it bills its disk: it is destroyed, and the next offer used."""
        cloud.faults.add("create", "stopped-contract", error=error)

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                rows = {row.machine_id: row for row in await broker.leases(open_only=False)}
                (used,) = (name for name, row in rows.items() if row.id == lease.id)
                (refused,) = (name for name, row in rows.items() if row.id != lease.id)
                await until(lambda: cloud.billing_now() == (used,))
            for row in rows.values():
                await broker.wait_released(row.id, timeout=15)
            closed = await broker.leases(open_only=False)

        assert refused in cloud.charges()
        assert len(set(asked_for(cloud))) == 2
        assert [row.state for row in closed] == [LeaseState.RELEASED] * 2
        assert any(str(refused) in text for text in texts(events, EventKind.PROVEN))
        assert cloud.billing_now() == ()

    async def test_a_second_machine_of_one_create_is_destroyed_and_the_first_left_alone(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The vendor rented twice for one request: the surplus bears the mark, and goes."""
        cloud.faults.add("create", "create-twice")

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                (row,) = await broker.leases()
                assert len(cloud.billing_now()) == 2
                await broker.sweep()
                await until(lambda: cloud.billing_now() == (row.machine_id,))
                result = await lease.run(["echo", "mine"])
            await broker.wait_released(lease.id, timeout=15)

        assert result.stdout == b"mine\n"
        assert len(asked_for(cloud)) == 1
        assert any("second machine" in text for text in texts(events, EventKind.ALARM))
        assert cloud.billing_now() == ()

    async def test_a_price_above_the_agreed_one_is_not_accepted(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """The price rose between the search and the create: the machine goes, the next comes."""
        raised: list[str] = []

        def raise_price(event: Event) -> None:
            if event.kind is EventKind.ATTEMPT and not raised:
                raised.append(cheapest)
                cloud.change_offer(cheapest, price="1.9")

        async with broker_on(QUICK, on_event=raise_price) as broker:
            cheapest = (await broker.quote(A_4090)).ranked[0].id
            async with broker.lease(A_4090) as lease:
                agreed = lease.record.attempts[-1].hourly
                (row,) = [row for row in await broker.leases() if row.id == lease.id]
                await until(lambda: cloud.billing_now() == (row.machine_id,))

        assert asked_for(cloud)[0] == cheapest
        assert "price rose" in lease.record.attempts[0].reason
        assert row.hourly <= agreed < Money(1)
        assert cloud.billing_now() == ()

    async def test_a_bid_that_was_taken_for_an_order_at_the_list_price_is_not_accepted(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """The answer does not say what was made, but its price does; every bid names its price."""
        turned: list[str] = []

        def turn(event: Event) -> None:
            if event.kind is EventKind.ACCEPTED and not turned:
                turned.append(event.text)
                contract = cloud.world.lives.contracts[max(cloud.world.lives.contracts)]
                contract.is_bid, contract.base = False, contract.base * 2

        async with broker_on(QUICK, on_event=turn) as broker:
            async with broker.lease(Requirements(gpu="RTX 4090", spot=True)) as lease:
                (row,) = [row for row in await broker.leases() if row.id == lease.id]
                await until(lambda: cloud.billing_now() == (row.machine_id,))
                (instance,) = [i for i in cloud.instances() if str(i["id"]) == row.machine_id]

        assert "price rose" in lease.record.attempts[0].reason
        assert all(request.body["price"] > 0 for request in sent(cloud, "create"))
        assert instance["is_bid"]
        assert cloud.billing_now() == ()


class TestARefusal:
    """Nothing was made, and it says whether anything else is worth a try."""

    async def test_offers_that_are_gone_are_left_for_the_next_one(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """In each of the forms in which that is told; none of them is asked for twice."""
        cloud.faults.add("create", "no-such-ask", status=404)
        cloud.faults.add("create", "no-such-ask", nth=2, status=410)
        cloud.faults.add("create", "no-such-ask", nth=3, status=400)
        cloud.faults.add("create", "no-such-ask", nth=4, status=400, inside=True)

        async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
            machines = cloud.billing_now()

        failed = lease.record.attempts[:-1]
        assert [attempt.kind for attempt in failed] == [ErrorKind.CAPACITY] * 4
        assert len(set(asked_for(cloud))) == len(asked_for(cloud)) == 5
        assert len(machines) == 1
        assert cloud.billing_now() == ()

    async def test_an_offer_that_somebody_else_took_costs_nothing(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """It is not queued for, which would bill a disk: the next offer is taken."""
        taken: list[str] = []

        def take(event: Event) -> None:
            if event.kind is EventKind.ATTEMPT and not taken:
                taken.append(cheapest)
                cloud.change_offer(cheapest, taken=True)

        async with broker_on(QUICK, on_event=take) as broker:
            cheapest = (await broker.quote(A_4090)).ranked[0].id
            async with broker.lease(A_4090):
                machines = cloud.billing_now()

        assert [request.status for request in sent(cloud, "create")] == [410, 200]
        assert asked_for(cloud)[0] == cheapest
        assert tuple(cloud.charges()) == machines
        assert cloud.billing_now() == ()

    async def test_an_account_without_credit_stops_everything_at_once(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """No other offer can mend it, so none is asked for."""
        cloud.switch(credit=0.0)

        async with broker_on(QUICK) as broker:
            with pytest.raises(AcquireStopped, match="You lack credit") as raised:
                await broker.run(["true"], A_4090)
            rows = await broker.leases(open_only=False)

        assert [attempt.kind for attempt in raised.value.record.attempts] == [ErrorKind.CREDIT]
        assert len(asked_for(cloud)) == 1
        assert [(row.state, row.reserved) for row in rows] == [(LeaseState.REFUSED, Money(0))]
        assert cloud.instances() == []

    async def test_asked_too_often_it_waits_for_as_long_as_it_is_told_in_whatever_words(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """By a header, a field, a detail or plain text: the same offer again, not before that."""
        forms: tuple[Any, ...] = (
            {"error": "HTTPTooManyRequests", "msg": "too often", "retry_after": 0.2},
            {"detail": "API requests too frequent endpoint threshold=0.2"},
            "API requests too frequent: endpoint threshold=0.2",
        )
        cloud.faults.add("create", "status", status=429, retry_after=1)
        for nth, body in enumerate(forms, start=2):
            cloud.faults.add("create", "status", nth=nth, status=429, body=body)
        soon = Retry({ErrorKind.RATE_LIMIT: here(4, first=0.01) | elsewhere()})
        policy = Policy(retry=soon, acquire_timeout=10)

        async with broker_on(QUICK) as broker, broker.lease(A_4090, policy=policy) as lease:
            machines = cloud.billing_now()

        at = [request.at for request in sent(cloud, "create")]
        pauses = [later - earlier for earlier, later in pairwise(at)]
        failed = [attempt.kind for attempt in lease.record.attempts[:-1]]
        assert failed == [ErrorKind.RATE_LIMIT] * 4
        assert len(set(asked_for(cloud))) == 1
        assert pauses[0] > 0.95
        assert all(pause > 0.15 for pause in pauses[1:])
        assert len(machines) == 1
        assert cloud.billing_now() == ()
