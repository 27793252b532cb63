"""Deletes that fail, that do nothing, and that nobody is left to send: asked for until proven."""

from __future__ import annotations

from typing import Any

import pytest

from gpubroker import (
    AcquireStopped,
    Event,
    EventKind,
    Job,
    LeaseState,
    MachineLost,
    Money,
    ReleaseState,
    Requirements,
)
from gpubroker.lifecycle.releasing import settling
from gpubroker.policy import backoff
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, booting, look, row_of, sent, texts, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_asked_again_soon")]

A_4090 = Requirements(gpu="RTX 4090")
HELLO = Job(["echo", "hello"], timeout=30)


class TestADeleteThatFails:
    """It is asked for again, for ever; only an answer that is meant ends that."""

    async def test_nothing_but_its_own_answer_acknowledges_it(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Errors, pages, and a 404 or 410 for the path itself: the pod is there all the while."""
        answers: list[tuple[str, dict[str, Any]]] = [
            ("server-error", {}),
            ("drop", {}),
            ("edge", {}),
            ("html", {"status": 404}),
            ("problem", {"status": 404, "detail": "The requested path was not found."}),
            ("problem", {"status": 405, "detail": "The requested method is not allowed."}),
            ("gone-410", {}),
            ("redirect", {}),
            ("problem", {"status": 429, "detail": "rate limit exceeded"}),
        ]
        for nth, (fault, options) in enumerate(answers, start=1):
            cloud.faults.add("delete", fault, nth=nth, **options)

        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090)
            state = await broker.wait_released(result.lease_id, timeout=15)

        deletes = sent(cloud, "delete")
        expected = [500, 0, 403, 404, 404, 405, 410, 301, 429, 204]
        assert [request.status for request in deletes] == expected
        acknowledged = [event.at for event in events if event.kind is EventKind.ACKNOWLEDGED]
        assert len(acknowledged) == 1
        assert acknowledged[0] >= deletes[-1].at
        assert state is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    @pytest.mark.parametrize(
        ("fault", "options"),
        [
            pytest.param("drop", {"when": "after"}, id="connection cut"),
            pytest.param(
                "hang", {"when": "after", "seconds": 0.5}, id="silence", marks=pytest.mark.deep
            ),
            pytest.param("server-error", {"when": "after"}, id="500"),
        ],
    )
    async def test_a_lost_reply_is_followed_by_a_second_delete_that_finds_nothing(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        fault: str,
        options: dict[str, Any],
    ) -> None:
        """404 "pod not found" is an acknowledgement, and proves nothing: the list does."""
        cloud.faults.add("delete", fault, **options)

        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090)
            state = await broker.wait_released(result.lease_id, timeout=15)

        assert [request.status for request in sent(cloud, "delete")][1:] == [404]
        assert len(texts(events, EventKind.ACKNOWLEDGED)) == 1
        assert state is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_one_that_does_nothing_is_noticed_told_and_repeated(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """It was acknowledged, and the pod bills on: that is an alarm, and no release."""
        async with broker_on({**QUICK, "release_margin": "0.05"}) as broker:
            async with booting(broker, cloud, 1):
                (machine,) = cloud.billing_now()
                (row,) = await broker.leases()
                cloud.afflict(machine, "stubborn")
            await until(lambda: len(sent(cloud, "delete")) == 3)
            state, billing = (await row_of(broker, row.id)).state, cloud.billing_now()
            cloud.afflict(machine, "stubborn", on=False)
            proven = await broker.wait_released(row.id, timeout=15)

        assert (state is not LeaseState.RELEASED, billing) == (True, (machine,))
        assert any("still listed" in text for text in texts(events, EventKind.ALARM))
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_not_found_right_after_the_create_is_no_proof(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """A new pod cannot be found by its id for seconds, and so cannot be deleted either."""
        cloud.switch(visibility=0.4)
        cloud.faults.add("delete", "problem", status=404, detail="pod not found")

        async with broker_on({**QUICK, "release_margin": "0.05"}) as broker:
            async with booting(broker, cloud, 1):
                (row,) = await broker.leases()
            proven = await broker.wait_released(row.id, timeout=15)

        assert [request.status for request in sent(cloud, "delete")] == [404, 204]
        assert any("still listed" in text for text in texts(events, EventKind.ALARM))
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_a_pod_that_became_part_of_a_cluster_is_an_alarm_and_not_forgotten(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is on no list any more, and cannot be deleted alone; and it bills."""
        monkeypatch.setattr(backoff, "QUARANTINE_AFTER", 0.2)

        async with broker_on(QUICK) as broker:
            async with booting(broker, cloud, 1):
                (machine,) = cloud.billing_now()
                (row,) = await broker.leases()
                cloud.afflict(machine, "cluster")
            await until(lambda: texts(events, EventKind.ALARM))
            quarantined, billing = await row_of(broker, row.id), cloud.billing_now()
            cloud.inside.world.lives.pods[machine].cluster = None
            proven = await broker.wait_released(row.id, timeout=15)

        assert {request.status for request in sent(cloud, "delete")} == {409, 204}
        assert (quarantined.state, billing) == (LeaseState.QUARANTINED, (machine,))
        assert quarantined.reserved > Money(0)
        assert any("cannot be released" in text for text in texts(events, EventKind.ALARM))
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_a_pod_is_deleted_and_never_stopped(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """A stopped pod bills for its disk; also one that others have stopped is there until deleted."""
        async with broker_on({**QUICK, "release_margin": "0.05"}) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.afflict(machine, "stops")
                cloud.afflict(machine, "stubborn")
                await broker.sweep()
            await until(lambda: len(sent(cloud, "delete")) == 2)
            state, pods = (await row_of(broker, lease.id)).state, cloud.machines()
            cloud.afflict(machine, "stubborn", on=False)
            proven = await broker.wait_released(lease.id, timeout=15)

        assert state is not LeaseState.RELEASED
        assert [pod["status"] for pod in pods] == ["EXITED"]
        assert sent(cloud, "action") == []
        assert proven is ReleaseState.PROVEN
        assert cloud.machines() == []
        assert cloud.billing_now() == ()


class TestAnAccountThatIsShut:
    """The pods bill on, and nobody here can end them: somebody must be told."""

    @pytest.mark.parametrize("status", [401, pytest.param(403, marks=pytest.mark.deep)])
    async def test_a_pod_is_quarantined_and_released_once_the_key_works_again(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], status: int
    ) -> None:
        """The key is revoked, or loses its rights, while a pod is held."""
        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.revoke_key(status)
                swept = await look(broker)
                lease.release()
                await until(lambda: texts(events, EventKind.ALARM))
                quarantined, billing = await row_of(broker, lease.id), cloud.billing_now()
                cloud.restore_key()
            proven = await broker.wait_released(lease.id, timeout=15)

        assert not swept.complete
        assert quarantined.state is LeaseState.QUARANTINED
        assert quarantined.reserved > Money(0)
        assert billing == (machine,)
        assert any("cannot be released" in text for text in texts(events, EventKind.ALARM))
        assert {request.status for request in sent(cloud, "delete")} == {status, 204}
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    @pytest.mark.parametrize("stage", ["boot", "job"])
    async def test_wherever_a_lease_is_at_that_time(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], stage: str
    ) -> None:
        """The request ends with what is wrong, and its pod with the first delete that gets through."""
        if stage == "boot":
            cloud.next_pod("slow-boot", seconds=60)
        moment = EventKind.ACCEPTED if stage == "boot" else EventKind.RUNNING

        def revoke(event: Event) -> None:
            events.append(event)
            if event.kind is moment:
                cloud.revoke_key()
            if event.kind is EventKind.ALARM:
                cloud.restore_key()

        job = Job(["sleep", "60"], timeout=60)
        async with broker_on({**QUICK, "boot_timeout": "1"}, on_event=revoke) as broker:
            with pytest.raises((AcquireStopped, MachineLost), match="invalid bearer token"):
                await broker.run(job, A_4090)
            (row,) = await broker.leases(open_only=False)
            proven = await broker.wait_released(row.id, timeout=15)

        assert any("cannot be released" in text for text in texts(events, EventKind.ALARM))
        assert proven is ReleaseState.PROVEN
        assert len(sent(cloud, "create")) == 1
        assert cloud.billing_now() == ()

    async def test_an_api_that_was_retired_is_told_and_proves_nothing(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """410 everywhere: neither gone nor released, but an alarm, until it is back."""
        async with broker_on(QUICK) as broker:
            async with booting(broker, cloud, 1):
                (machine,) = cloud.billing_now()
                (row,) = await broker.leases()
                cloud.faults.add("*", "gone-410", times=None)
                swept = await look(broker)
            await until(lambda: len(sent(cloud, "delete")) >= 3)
            waiting, billing = await row_of(broker, row.id), cloud.billing_now()
            cloud.faults.clear()
            proven = await broker.wait_released(row.id, timeout=15)

        assert (swept.complete, swept.verdicts) == (False, ())
        assert "may have been retired" in (waiting.problem or "")
        assert billing == (machine,)
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()


class TestABrokerThatIsGone:
    """What it held is on record, and ends with the next sweep of any broker on that ledger."""

    async def test_the_next_broker_releases_what_it_left(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """It closed before its delete got through; a broker that holds nothing sends it."""
        cloud.faults.add("delete", "drop", when="before", times=None)
        async with broker_on(QUICK, close_wait=0.0, release_wait=0.0) as broker:
            result = await broker.run(HELLO, A_4090)
        (machine,) = cloud.billing_now()
        cloud.faults.clear()

        async with broker_on(QUICK, sweep=False) as another:
            swept = await look(another)
            proven = await another.wait_released(result.lease_id, timeout=15)

        assert any("before these were proven gone" in t for t in texts(events, EventKind.ALARM))
        assert swept.started == (result.lease_id,)
        assert list(cloud.charges()) == [machine]
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()


class TestTheBill:
    """What the vendor charged is what is on record in the end."""

    async def test_it_is_booked_as_the_vendor_has_it(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The next sweep after the charges are final puts them in the place of what was counted."""
        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090)
            await broker.wait_released(result.lease_id, timeout=15)
            counted = await row_of(broker, result.lease_id)
            await broker.sweep()
            settled = await row_of(broker, result.lease_id)
            problems = await broker.verify()

        (machine,) = cloud.charges()
        assert settled.spent == cloud.billed(machine)
        assert settled.spent != counted.spent
        assert settled.spent.micros_up > 0
        assert settled.settled_at is not None
        assert any(machine in text for text in texts(events, EventKind.SETTLED))
        assert problems == []

    async def test_what_was_counted_stands_until_there_is_a_bill(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No record, or one that cannot be read, is not a bill of nothing."""
        monkeypatch.setattr(settling, "_AGAIN", 0.0)
        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090)
            await broker.wait_released(result.lease_id, timeout=15)
            (machine,) = cloud.charges()
            answers: list[tuple[str, dict[str, Any]]] = [
                ("garbage", {"body": '{"records": []}'}),
                ("garbage", {"body": '{"records": null}'}),
                ("garbage", {"body": f'{{"records": [{{"podId": "{machine}"}}]}}'}),
                ("gone-410", {}),
                ("html", {}),
            ]
            for nth, (fault, options) in enumerate(answers, start=1):
                cloud.faults.add("billing", fault, nth=nth, **options)
            counted = await row_of(broker, result.lease_id)
            for _ in answers:
                await broker.sweep()
                assert (await row_of(broker, result.lease_id)).spent == counted.spent
            assert all(rule.met for rule in cloud.faults.rules)

        assert counted.spent > Money(0)
        assert cloud.billing_now() == ()
