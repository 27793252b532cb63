"""Pods that never come up, or come up as something else: the next offer, and nothing billed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import pytest

from gpubroker import (
    AttemptsExhausted,
    AttemptState,
    Constraint,
    ErrorKind,
    Event,
    EventKind,
    Job,
    JobState,
    Money,
    Policy,
    Requirements,
    Result,
    Retry,
    Scope,
)
from gpubroker_runpod import boots, log_work
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, asked_for, sent, texts

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
HELLO = Job(["echo", "hello"], timeout=30)

#: The two ways in which work reaches a pod.
WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "ssh": {"way": "ssh", "clouds": "secure"},
    "log": {"way": "log"},
}

NO_OPTIONS: Final[Mapping[str, str]] = {}

deep = pytest.mark.deep

#: What takes long is shown on one event loop.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


@pytest.fixture
def _looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the system's log of a pod that boots as often as at the list."""
    monkeypatch.setattr(boots, "PAUSE", 0.05)
    monkeypatch.setattr(log_work, "snapshot", partial(log_work.snapshot, idle=0.05))


async def hello(
    cloud: RunPodEmulator,
    broker_on: MakeBroker,
    options: Mapping[str, str] = NO_OPTIONS,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Rent a pod and say hello there; then everything is gone and nothing bills."""
    with anyio.fail_after(40):
        listening = {} if on_event is None else {"on_event": on_event}
        async with broker_on({**QUICK, **options}, **listening) as broker:
            result = await broker.run(HELLO, A_4090)
            for row in await broker.leases(open_only=False):
                await broker.wait_released(row.id, timeout=15)
            again = await broker.quote(A_4090)
    assert result.stdout == b"hello\n"
    assert cloud.machines() == []
    assert cloud.billing_now() == ()
    # An offer that failed is remembered, and named with its reason, in the next request too.
    cooling = {
        verdict.offer.id
        for verdict in again.verdicts
        if verdict.rejection is not None and verdict.rejection.constraint is Constraint.COOLING_DOWN
    }
    failed = {a.offer_id for a in result.record.attempts if a.state is AttemptState.FAILED}
    assert cooling == failed
    return result


def passed_over(cloud: RunPodEmulator, result: Result) -> str:
    """Why the first pod was passed over for one of another offer, in other data centers."""
    first, second = result.record.attempts
    assert (first.state, second.state) == (AttemptState.FAILED, AttemptState.WON)
    assert (first.kind, first.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    assert first.offer_id != second.offer_id
    (_, _, before), (_, _, after) = asked_for(cloud)
    assert before
    assert not set(before) & set(after)
    # The time of a boot is paid for, too.
    assert first.cost > Money(0)
    assert result.state is JobState.EXITED
    return first.reason


class TestBoot:
    @pytest.mark.parametrize("way", [pytest.param("ssh", marks=deep), "log"])
    async def test_a_container_that_cannot_be_made_costs_no_wait(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, way: str
    ) -> None:
        """A pod that says of itself that it has failed is not waited for."""
        cloud.next_pod("pull-failure")

        result = await hello(cloud, broker_on, WAYS[way])

        assert "error" in passed_over(cloud, result)
        assert result.record.attempts[0].seconds < 30

    @pytest.mark.parametrize(
        "line",
        [
            "toomanyrequests: You have reached your pull rate limit",
            pytest.param("error pulling image: layer does not exist", marks=deep),
        ],
    )
    @pytest.mark.usefixtures("_looked_at_often")
    async def test_a_pull_that_fails_over_and_over_costs_no_wait(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, line: str
    ) -> None:
        """Only the log of the system says so; the pod goes on trying, and bills."""
        cloud.next_pod("pull-stalled")

        def spoil(event: Event) -> None:
            if event.kind is EventKind.ACCEPTED and len(asked_for(cloud)) == 1:
                (pod,) = cloud.billing_now()
                cloud.afflict(pod, "says", line=line)

        result = await hello(cloud, broker_on, on_event=spoil)

        assert line in passed_over(cloud, result)
        assert {r.query["source"] for r in sent(cloud, "logs")} >= {"system"}

    @deep
    @one_loop
    @pytest.mark.usefixtures("_looked_at_often")
    async def test_a_pull_that_stands_still_is_given_up(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The same last line for as long as a boot may take without progress."""
        cloud.next_pod("pull-stalled")

        result = await hello(cloud, broker_on, {"boot_timeout": "1"})

        assert "no progress for 1 s" in passed_over(cloud, result)
        assert any("Pulling fs layer" in text for text in texts(events, EventKind.BOOTING))

    @one_loop
    async def test_one_that_is_never_placed_is_given_up(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """It was accepted, has a price, and never gets a machine."""
        cloud.next_pod("never-runs")

        result = await hello(cloud, broker_on, {"boot_timeout": "1"})

        assert "no progress for 1 s" in passed_over(cloud, result)

    @deep
    @one_loop
    @pytest.mark.usefixtures("_looked_at_often")
    async def test_one_that_goes_on_is_waited_for(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The time for a boot begins anew with every line that the system's log has more."""
        cloud.next_pod("slow-boot", seconds=2.4)

        result = await hello(cloud, broker_on, {"boot_timeout": "1.5"})

        (only,) = result.record.attempts
        assert only.seconds > 2.0
        assert len([text for text in texts(events, EventKind.BOOTING) if "Pulling" in text]) >= 2

    @one_loop
    async def test_one_that_is_never_listed_is_destroyed_all_the_same(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """It was accepted, so it bills, whatever the list says."""
        cloud.next_pod("never-listed")

        result = await hello(cloud, broker_on, {"visibility_horizon": "0.4"})

        assert "vanished while it booted" in passed_over(cloud, result)

    @pytest.mark.parametrize(
        ("fault", "way"),
        [
            ("no-runtime", "log"),
            pytest.param("empty-runtime", "ssh", marks=deep),
        ],
    )
    async def test_running_without_a_container_to_be_seen_is_not_running(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        fault: str,
        way: str,
    ) -> None:
        """RUNNING is said of containers that have died; only its runtime shows that one lives."""
        cloud.next_pod(fault)

        result = await hello(cloud, broker_on, {"boot_timeout": "1", **WAYS[way]})

        assert "no progress for 1 s" in passed_over(cloud, result)
        assert any("nothing is seen of it" in text for text in texts(events, EventKind.BOOTING))

    async def test_one_that_is_not_shown_for_a_while_is_waited_for(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Neither the list nor its own address has it for seconds after the create."""
        cloud.next_pod("invisible", seconds=0.6)

        result = await hello(cloud, broker_on, {"visibility_horizon": "1"})

        assert len(result.record.attempts) == 1

    @pytest.mark.parametrize(
        ("fault", "why"), [pytest.param("dies", "vanished", marks=deep), ("stops", "exited")]
    )
    async def test_one_that_goes_down_meanwhile_is_passed_over(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, fault: str, why: str
    ) -> None:
        """Its host is lost, or somebody stops it, before SSH ever answered."""
        cloud.next_pod("no-ssh")

        def harm(event: Event) -> None:
            if event.kind is EventKind.ACCEPTED and len(asked_for(cloud)) == 1:
                (pod,) = cloud.billing_now()
                cloud.afflict(pod, fault, after=0.3)

        result = await hello(cloud, broker_on, WAYS["ssh"], on_event=harm)

        assert why in passed_over(cloud, result)

    @one_loop
    async def test_pods_that_fail_in_a_row_are_limited(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Each costs a little: after so many attempts the request ends, and says what happened."""
        cloud.next_pod("pull-failure", times=None)
        policy = Policy(retry=Retry(max_attempts=3))

        async with broker_on(QUICK) as broker:
            with pytest.raises(AttemptsExhausted, match="error"):
                await broker.run(HELLO, A_4090, policy=policy)
            for row in await broker.leases(open_only=False):
                await broker.wait_released(row.id, timeout=15)

        assert len(set(asked_for(cloud))) == len(asked_for(cloud)) == 3
        assert cloud.machines() == []
        assert cloud.billing_now() == ()


class TestDelivery:
    @pytest.mark.parametrize(
        ("way", "fault", "options", "why"),
        [
            ("log", "zero-gpus", {}, "offered 1 cards, found 0"),
            ("ssh", "wrong-card", {"name": "NVIDIA GeForce RTX 3090"}, "found RTX 3090"),
            pytest.param(
                *("log", "wrong-card", {"name": "NVIDIA GeForce RTX 4090", "count": 2}, "found 2"),
                marks=deep,
            ),
        ],
        ids=["no card", "model", "count"],
    )
    async def test_a_pod_with_other_cards_is_sent_back(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        way: str,
        fault: str,
        options: dict[str, Any],
        why: str,
    ) -> None:
        """The pod itself is asked, before anybody's work runs there."""
        cloud.next_pod(fault, **options)

        result = await hello(cloud, broker_on, WAYS[way])

        assert why in passed_over(cloud, result)
