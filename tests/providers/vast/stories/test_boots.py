"""Machines that never come up, or come up as something else: the next offer, and nothing billed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from gpubroker import (
    Attempt,
    AttemptsExhausted,
    AttemptState,
    Constraint,
    ErrorKind,
    Event,
    EventKind,
    Job,
    JobState,
    Policy,
    Requirements,
    Result,
    Retry,
    Scope,
)
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker
from .watching import QUICK, texts

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
HELLO = Job(["echo", "hello"], timeout=30)

#: What takes long is shown on one event loop, and kinds of one thing on one each.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


def host_of(cloud: VastEmulator, attempt: Attempt) -> int:
    """Whose machine an attempt was made at."""
    ask = attempt.offer_id.partition(":")[0]
    return next(int(row["machine_id"]) for row in cloud.offers() if str(row["id"]) == ask)


async def hello(
    cloud: VastEmulator,
    broker_on: MakeBroker,
    wanted: Requirements = A_4090,
    on_event: Callable[[Event], None] | None = None,
    **options: str,
) -> Result:
    """Rent a machine and say hello there; then everything is gone and nothing bills."""
    with anyio.fail_after(30):
        listening = {} if on_event is None else {"on_event": on_event}
        async with broker_on({**QUICK, **options}, **listening) as broker:
            result = await broker.run(HELLO, wanted)
            again = await broker.quote(wanted)
    assert result.stdout == b"hello\n"
    assert cloud.instances() == []
    assert cloud.billing_now() == ()
    # A host that failed is remembered, and named with its reason, in the next request too.
    cooling = {
        verdict.offer.host: verdict.rejection
        for verdict in again.verdicts
        if verdict.rejection is not None and verdict.rejection.constraint is Constraint.COOLING_DOWN
    }
    failed = {
        str(host_of(cloud, attempt))
        for attempt in result.record.attempts
        if attempt.state is AttemptState.FAILED
    }
    assert set(cooling) == failed
    return result


def passed_over(cloud: VastEmulator, result: Result) -> str:
    """Why the first machine was passed over for another host's."""
    first, second = result.record.attempts
    assert (first.state, second.state) == (AttemptState.FAILED, AttemptState.WON)
    assert (first.kind, first.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    assert host_of(cloud, first) != host_of(cloud, second)
    assert result.state is JobState.EXITED
    return first.reason


def on_first_machine(
    cloud: VastEmulator, events: list[Event], fault: str, **options: float
) -> Callable[[Event], None]:
    """Takes events down, and lets a fault happen to the first machine that is accepted."""

    def note(event: Event) -> None:
        if event.kind is EventKind.ACCEPTED and not texts(events, EventKind.ACCEPTED):
            cloud.afflict(event.text.rpartition(" ")[2], fault, **options)
        events.append(event)

    return note


class TestBoot:
    async def test_a_container_that_cannot_be_made_costs_no_wait(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """What the daemon of the host says is taken at its word, and quoted."""
        cloud.next_instance("boot-failure")

        result = await hello(cloud, broker_on)

        assert "unknown device" in passed_over(cloud, result)
        assert result.record.attempts[0].seconds < 30

    @one_loop
    async def test_one_that_stands_still_is_given_up(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """A machine that loads for ever, with a text that stays as it is."""
        cloud.next_instance("stuck-loading")

        result = await hello(cloud, broker_on, boot_timeout="1")

        assert "no progress for 1 s" in passed_over(cloud, result)

    @one_loop
    async def test_one_that_goes_on_is_waited_for(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The time for a boot begins anew with every sign of progress."""
        cloud.next_instance("slow-boot", seconds=1.6)

        result = await hello(cloud, broker_on, boot_timeout="1")

        (only,) = result.record.attempts
        assert only.seconds > 1.5
        assert len([text for text in texts(events, EventKind.BOOTING) if "Pulling" in text]) == 3

    @one_loop
    async def test_one_that_is_never_listed_is_destroyed_all_the_same(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """It was accepted, so it bills, whatever the list says."""
        cloud.next_instance("hidden")

        result = await hello(cloud, broker_on, visibility_horizon="0.4")

        assert "vanished while it booted" in passed_over(cloud, result)

    @pytest.mark.parametrize(("anyio_backend", "fault"), [("asyncio", "vanish"), ("trio", "exit")])
    async def test_one_that_goes_down_meanwhile_is_passed_over(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event], fault: str
    ) -> None:
        """Its host goes offline, or its container exits, before SSH ever answered."""
        cloud.next_instance("no-ssh")
        afflict = on_first_machine(cloud, events, fault, after=0.3)

        result = await hello(cloud, broker_on, on_event=afflict)

        assert "the machine is broken" in passed_over(cloud, result)

    @one_loop
    async def test_one_that_others_stop_is_passed_over(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Outbid while it loads: nobody waits for it, and it is destroyed, not left stopped."""
        cloud.next_instance("stuck-loading")
        afflict = on_first_machine(cloud, events, "outbid", after=0.2)

        result = await hello(
            cloud, broker_on, Requirements(gpu="RTX 4090", spot=True), on_event=afflict
        )

        assert "the machine is stopped: outbid" in passed_over(cloud, result)

    @one_loop
    async def test_hosts_that_fail_in_a_row_are_limited(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Each costs a little: after so many attempts the request ends, and says what happened."""
        cloud.next_instance("boot-failure", times=None)
        policy = Policy(retry=Retry(max_attempts=3))

        async with broker_on(QUICK) as broker:
            with pytest.raises(AttemptsExhausted, match="unknown device") as caught:
                await broker.run(HELLO, A_4090, policy=policy)

        assert len({host_of(cloud, attempt) for attempt in caught.value.record.attempts}) == 3
        assert len([r for r in cloud.requests if r.endpoint == "create"]) == 3
        assert cloud.instances() == []
        assert cloud.billing_now() == ()


class TestReach:
    @pytest.mark.parametrize(
        ("anyio_backend", "fault", "why"),
        [
            ("asyncio", "no-ssh", "Connection refused"),
            ("trio", "no-key", "Permission denied"),
        ],
    )
    async def test_running_is_not_ready(
        self, cloud: VastEmulator, broker_on: MakeBroker, fault: str, why: str
    ) -> None:
        """The vendor says that it runs, and nobody is let in for as long as a boot may take."""
        cloud.next_instance(fault)

        result = await hello(cloud, broker_on, boot_timeout="1")

        reason = passed_over(cloud, result)
        assert "no progress for 1 s" in reason
        assert why in reason

    @one_loop
    async def test_what_comes_late_is_waited_for(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """A port that refuses, and then a key that is not known yet, are no verdict on the host."""
        cloud.switch(sshd=0.4)
        cloud.next_instance("late-key", seconds=0.4)

        result = await hello(cloud, broker_on)

        assert len(result.record.attempts) == 1
        waited = " ".join(texts(events, EventKind.BOOTING))
        assert "Connection refused" in waited
        assert "Permission denied" in waited

    async def test_the_gateway_is_a_way_too(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """The host's own port is dead: the job runs through the vendor's gateway."""
        cloud.next_instance("dead-direct-port")

        result = await hello(cloud, broker_on)

        assert len(result.record.attempts) == 1


class TestDelivery:
    @pytest.mark.parametrize(
        ("anyio_backend", "options", "why"),
        [
            ("asyncio", {"name": "NVIDIA GeForce RTX 3090"}, "offered RTX 4090, found RTX 3090"),
            ("trio", {"name": "NVIDIA GeForce RTX 4090", "count": 2}, "offered 1 cards, found 2"),
            ("asyncio", {}, "offered RTX 4090, found"),
        ],
        ids=["model", "count", "any"],
    )
    async def test_a_machine_with_other_cards_is_sent_back(
        self,
        cloud: VastEmulator,
        broker_on: MakeBroker,
        options: dict[str, Any],
        why: str,
    ) -> None:
        """The machine itself is asked, before the first byte of anybody's work leaves."""
        cloud.next_instance("other-cards", **options)

        result = await hello(cloud, broker_on)

        assert why in passed_over(cloud, result)
