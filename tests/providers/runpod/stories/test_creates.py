"""Creates that are answered wrongly, late or not at all: one pod, or none, and all known."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import pytest

from gpubroker import (
    AcquireStopped,
    AttemptsExhausted,
    AttemptState,
    Deadlines,
    ErrorKind,
    Event,
    EventKind,
    Job,
    LeaseState,
    Money,
    Policy,
    Requirements,
    Retry,
    Scope,
    elsewhere,
    here,
)
from gpubroker_runpod import failures
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, asked_for, sent, texts, until

pytestmark = pytest.mark.anyio

TYPE = "NVIDIA GeForce RTX 4090"
A_4090 = Requirements(gpu="RTX 4090")
HELLO = Job(["echo", "hello"], timeout=30)

BY_LOG: Final = {**QUICK, "way": "log"}
"""Settings of a provider that looks often, and needs no SSH server for a job that is known."""

#: In which a create's answer does not arrive, and the pod is made all the same.
LOST: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "connection cut": ("drop", {"when": "after"}),
    "silence": ("hang", {"when": "after"}),
    "500 that was carried out": ("server-error", {"when": "after"}),
    "500 that speaks of capacity": (
        "problem",
        {"when": "after", "status": 500, "detail": "There are no instances currently available"},
    ),
    "502": ("status", {"when": "after", "status": 502}),
    "524, a page": ("status", {"when": "after", "status": 524, "body": "<html>timeout</html>"}),
    "408": ("problem", {"when": "after", "status": 408}),
    "an answer that is cut off": ("truncate", {}),
}


#: Those of them that differ from another only in how they look.
ALIKE: Final = ("502", "524, a page", "408")

deep = pytest.mark.deep


def next_id(cloud: RunPodEmulator) -> str:
    """The id that the next pod of the secure cloud will have."""
    world = cloud.inside.world
    before = world.chance.getstate()
    word = world.fresh_id()
    world.chance.setstate(before)
    return word


class TestAReplyThatIsLost:
    """The request may have been carried out, so it is never sent again."""

    @pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=[deep] if name in ALIKE else []) for name in LOST],
    )
    async def test_the_one_pod_is_found_by_its_name_and_used(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], name: str
    ) -> None:
        """However the answer is lost, and though no list shows the pod at once."""
        fault, options = LOST[name]
        cloud.switch(visibility=0.2)
        cloud.faults.add("create", fault, **options)

        async with broker_on(BY_LOG, deadlines=Deadlines(provision=0.3)) as broker:
            result = await broker.run(HELLO, A_4090)
            (row,) = await broker.leases(open_only=False)
            await broker.wait_released(row.id, timeout=15)

        assert result.stdout == b"hello\n"
        assert [request.body["name"] for request in sent(cloud, "create")] == [row.mark]
        assert list(cloud.charges()) == [row.machine_id]
        assert any(str(row.machine_id) in text for text in texts(events, EventKind.FOUND))
        assert [attempt.state for attempt in result.record.attempts] == [AttemptState.WON]
        assert cloud.billing_now() == ()

    async def test_the_pod_is_reached_over_ssh_just_as_well(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """What it was told in its create is all that it needs."""
        cloud.faults.add("create", "drop", when="after")

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                result = await lease.run(HELLO)
            await broker.wait_released(lease.id, timeout=15)

        assert result.stdout == b"hello\n"
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    async def test_a_pod_whose_name_was_edited_is_known_by_its_variable(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Names are for people, and may be changed by them."""
        cloud.faults.add("create", "drop", when="after")
        cloud.next_pod("rename", name="my notebook")

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090)
            (row,) = await broker.leases(open_only=False)
            await broker.wait_released(row.id, timeout=15)

        assert result.stdout == b"hello\n"
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    async def test_where_nothing_was_made_the_next_offer_is_tried_and_the_name_is_watched_for(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """A create that never arrived looks the same at first; part of its money stays held."""
        cloud.faults.add("create", "drop", when="before")
        cloud.faults.add("create", "status", nth=2, status=502)
        cloud.faults.add("create", "server-error", nth=3)

        async with broker_on({**BY_LOG, "visibility_horizon": "0.2"}) as broker:
            result = await broker.run(HELLO, A_4090)
            await broker.wait_released(result.lease_id, timeout=15)
            rows = await broker.leases(open_only=False)

        kinds = [attempt.kind for attempt in result.record.attempts]
        assert kinds == [*[ErrorKind.CREATE_UNKNOWN] * 3, None]
        assert len(set(asked_for(cloud))) == len(asked_for(cloud)) == 4
        watched = [row for row in rows if row.state is LeaseState.LATE_WATCH]
        assert len(watched) == 3
        assert all(Money(0) < row.reserved < row.hourly for row in watched)
        assert len(cloud.charges()) == 1
        assert cloud.billing_now() == ()


class TestAnAnswerThatIsNotTheWholeTruth:
    """What was made is known by its id or its mark, whatever the answer says besides."""

    async def test_a_refusal_that_names_a_pod_is_a_pod_to_be_destroyed(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """ "No" with an id in it: that pod bills, so it is destroyed, and the next offer used."""
        made = next_id(cloud)
        body = {"title": "Bad Request", "status": 400, "detail": "no", "id": made}
        cloud.faults.add("create", "status", when="after", status=400, body=body)

        async with broker_on({**BY_LOG, "clouds": "secure"}) as broker:
            result = await broker.run(HELLO, A_4090)
            for row in await broker.leases(open_only=False):
                await broker.wait_released(row.id, timeout=15)
            rows = await broker.leases(open_only=False)

        kinds = [attempt.kind for attempt in result.record.attempts]
        assert kinds == [ErrorKind.CREATE_UNKNOWN, None]
        assert made in {row.machine_id for row in rows}
        assert {row.state for row in rows} == {LeaseState.RELEASED}
        assert result.stdout == b"hello\n"
        assert len(cloud.charges()) == len(set(asked_for(cloud))) == 2
        assert cloud.billing_now() == ()

    async def test_a_second_pod_of_one_create_is_destroyed_and_the_first_left_alone(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The vendor rented twice for one request: the surplus bears the mark, and goes."""
        cloud.faults.add("create", "create-twice")

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                (row,) = await broker.leases()
                assert len(cloud.billing_now()) == 2
                await broker.sweep()
                await until(lambda: cloud.billing_now() == (row.machine_id,))
                result = await lease.run(HELLO)
            await broker.wait_released(lease.id, timeout=15)

        assert result.stdout == b"hello\n"
        assert len(asked_for(cloud)) == 1
        assert any("second machine" in text for text in texts(events, EventKind.ALARM))
        assert cloud.billing_now() == ()

    async def test_a_pod_that_is_dearer_than_agreed_is_not_accepted(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The price rose between the catalogue and the create: the pod goes, another comes."""
        cloud.next_pod("dear", factor=1.5)

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090)
            for row in await broker.leases(open_only=False):
                await broker.wait_released(row.id, timeout=15)

        first, second = result.record.attempts
        assert "price rose" in first.reason
        assert second.state is AttemptState.WON
        assert second.hourly < Money("0.4")
        assert len(cloud.charges()) == 2
        assert cloud.billing_now() == ()


class TestARefusal:
    """Nothing was made, and its text says whether anything else is worth a try."""

    async def test_what_is_not_there_is_left_for_the_next_offer(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """In each of the texts in which that is told; none of the offers is asked for twice."""
        said = ("specifications", "disk", "none", "Out of stock", "insufficient capacity")
        for nth, text in enumerate(said, start=1):
            cloud.faults.add("create", "no-capacity", nth=nth, text=text)

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090)

        failed = [(attempt.kind, attempt.scope) for attempt in result.record.attempts[:-1]]
        assert failed == [(ErrorKind.CAPACITY, Scope.OFFER)] * len(said)
        assert len(set(asked_for(cloud))) == len(asked_for(cloud)) == len(said) + 1
        assert len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    @pytest.mark.parametrize("text", ["specifications", "none", "disk", "Out of stock"])
    async def test_what_is_nowhere_is_no_mistake_of_ours(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, text: str
    ) -> None:
        """However many offers are refused so, each of the others is still worth a try."""
        cloud.faults.add("create", "no-capacity", times=None, text=text)

        async with broker_on(BY_LOG) as broker:
            with pytest.raises(AttemptsExhausted) as raised:
                await broker.run(HELLO, A_4090, policy=Policy(retry=Retry(max_attempts=4)))

        kinds = [attempt.kind for attempt in raised.value.record.attempts]
        assert kinds == [ErrorKind.CAPACITY] * 4
        assert len(set(asked_for(cloud))) == 4
        assert cloud.charges() == {}

    async def test_what_somebody_else_took_costs_nothing(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The catalogue's stock is no reservation: the next offer is taken."""
        taken: list[str] = []

        def take(event: Event) -> None:
            if event.kind is EventKind.ATTEMPT and not taken:
                taken.append(event.text)
                cloud.set_stock(0, gpu=TYPE, cloud="COMMUNITY")

        async with broker_on(BY_LOG, on_event=take) as broker:
            result = await broker.run(HELLO, A_4090)

        clouds = [cloud_name for _, cloud_name, _ in asked_for(cloud)]
        assert clouds[0] == "COMMUNITY"
        assert clouds[-1] == "SECURE"
        assert result.stdout == b"hello\n"
        assert len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    async def test_a_host_that_was_taken_meanwhile_is_asked_for_again_a_little_later(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """ "Try a different machine": the same offer picks another one, after the pause it needs."""
        monkeypatch.setattr(failures, "BUSY_PAUSE", 0.3)
        soon = Retry({ErrorKind.RATE_LIMIT: here(4, first=0.01) | elsewhere()})
        cloud.faults.add("create", "other-machine", times=3)

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090, policy=Policy(retry=soon))

        at = [request.at for request in sent(cloud, "create")]
        assert len(at) == 4
        assert all(later - earlier > 0.25 for earlier, later in pairwise(at))
        assert len(set(asked_for(cloud))) == 1
        assert result.stdout == b"hello\n"
        assert cloud.billing_now() == ()

    async def test_one_that_is_always_taken_is_left_for_the_next_offer(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pick that goes wrong again and again is not waited for for ever."""
        monkeypatch.setattr(failures, "BUSY_PAUSE", 0.01)
        soon = Retry({ErrorKind.RATE_LIMIT: here(4, first=0.01) | elsewhere()})
        cloud.faults.add("create", "other-machine", times=5)

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090, policy=Policy(retry=soon))

        asked = asked_for(cloud)
        assert len(set(asked[:5])) == 1
        assert asked[5] not in asked[:5]
        assert result.stdout == b"hello\n"
        assert cloud.billing_now() == ()

    @pytest.mark.parametrize(
        ("fault", "options", "creates"),
        [
            pytest.param("problem", {"detail": "gpu is odd today"}, 3, id="a text nobody knows"),
            pytest.param("problem", {"status": 422, "detail": "invalid"}, 1, id="422"),
            pytest.param("problem", {"status": 413, "detail": "too large"}, 1, id="413"),
        ],
    )
    async def test_a_mistake_of_ours_is_not_repeated_at_every_offer(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        fault: str,
        options: dict[str, Any],
        creates: int,
    ) -> None:
        """A refusal that says nothing of stock may be about the offer a few times, and no more."""
        cloud.faults.add("create", fault, times=None, **options)

        async with broker_on(BY_LOG) as broker:
            with pytest.raises(AcquireStopped, match="request") as raised:
                await broker.run(HELLO, A_4090)
            rows = await broker.leases(open_only=False)

        assert raised.value.record.attempts[-1].kind is ErrorKind.BAD_REQUEST
        assert len(asked_for(cloud)) == creates
        assert {(row.state, row.reserved) for row in rows} == {(LeaseState.REFUSED, Money(0))}
        assert cloud.charges() == {}

    async def test_refusals_that_nobody_understands_do_not_add_up_across_capacity(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """An answer about stock shows that the request was understood."""
        for nth, text in enumerate(("odd", "odd", "specifications", "odd", "odd"), start=1):
            cloud.faults.add("create", "no-capacity", nth=nth, text=text)

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090)

        assert len(asked_for(cloud)) == 6
        assert result.stdout == b"hello\n"
        assert cloud.billing_now() == ()

    @pytest.mark.parametrize(
        ("fault", "options"),
        [
            pytest.param("low-balance", {}, id="402"),
            pytest.param("problem", {"status": 402, "detail": "no"}, id="402 in other words"),
            pytest.param("spend-limit", {}, id="spend limit as 400"),
            pytest.param("spend-limit", {"status": 402}, id="spend limit as 402"),
        ],
    )
    async def test_an_account_without_money_stops_everything_at_once(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        fault: str,
        options: dict[str, Any],
    ) -> None:
        """No other offer can mend it, so none is asked for."""
        cloud.faults.add("create", fault, times=None, **options)

        async with broker_on(BY_LOG) as broker:
            with pytest.raises(
                AcquireStopped, match=r"balance is too low|HTTP 402: no|spending limit"
            ) as raised:
                await broker.run(HELLO, A_4090)
            rows = await broker.leases(open_only=False)

        assert [attempt.kind for attempt in raised.value.record.attempts] == [ErrorKind.CREDIT]
        assert len(asked_for(cloud)) == 1
        assert [(row.state, row.reserved) for row in rows] == [(LeaseState.REFUSED, Money(0))]
        assert cloud.machines() == []

    @pytest.mark.parametrize("switch", [{"credit": 0.2}, {"spend_limit": 0.2}])
    async def test_what_the_account_really_has_decides(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, switch: dict[str, float]
    ) -> None:
        """An hour of the pod must be paid for, within the account's own limit."""
        cloud.switch(**switch)

        async with broker_on(BY_LOG) as broker:
            with pytest.raises(AcquireStopped) as raised:
                await broker.run(HELLO, A_4090)

        assert [attempt.kind for attempt in raised.value.record.attempts] == [ErrorKind.CREDIT]
        assert cloud.charges() == {}

    async def test_asked_too_often_it_waits_for_as_long_as_it_is_told(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The same offer again, and not before that."""
        cloud.faults.add("create", "rate-limited", retry_after=1)
        soon = Retry({ErrorKind.RATE_LIMIT: here(4, first=0.01) | elsewhere()})

        async with broker_on(BY_LOG) as broker:
            result = await broker.run(HELLO, A_4090, policy=Policy(retry=soon))

        first, second = [request.at for request in sent(cloud, "create")]
        assert second - first > 0.95
        assert [a.kind for a in result.record.attempts] == [ErrorKind.RATE_LIMIT, None]
        assert len(set(asked_for(cloud))) == 1
        assert cloud.billing_now() == ()

    async def test_a_guard_in_front_of_the_api_is_no_verdict_on_the_key(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """A page instead of a refusal: nothing was made, and nothing can be rented here now."""
        cloud.faults.add("create", "edge")

        async with broker_on(BY_LOG) as broker:
            with pytest.raises(AttemptsExhausted, match="1010") as raised:
                await broker.run(HELLO, A_4090)
            rows = await broker.leases(open_only=False)

        (attempt,) = raised.value.record.attempts
        assert (attempt.kind, attempt.scope) == (ErrorKind.CAPACITY, Scope.PROVIDER)
        assert len(asked_for(cloud)) == 1
        assert [row.state for row in rows] == [LeaseState.REFUSED]
        assert cloud.charges() == {}
