"""Stories in virtual time: what the policy makes of markets, failures and hosts."""

from __future__ import annotations

import math
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AcquireStopped,
    AttemptsExhausted,
    Constraint,
    ErrorKind,
    Event,
    EventKind,
    Job,
    Money,
    NoOfferFits,
    Policy,
    Requirements,
    Result,
    Retry,
    Scope,
    Work,
    elsewhere,
    here,
    load_settings,
    stop,
)
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def test_capacity_that_returns_after_an_hour_is_waited_for(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker, events: list[Event]
) -> None:
    """A request that may wait asks again, at a pace, until there is something to rent."""
    cloud.out_of_capacity("RTX 4090", until=now() + 3600)
    policy = Policy(wait=7200, acquire_timeout=7200)

    async with broker_on(cloud) as broker:
        began = now()
        result = await broker.run(["x"], A_4090, policy=policy)

    assert result.ok
    assert 3600 <= cloud.creates[0].at - began < 3600 + 120
    assert cloud.calls["quote"] < 80
    assert any(event.kind is EventKind.WAITING for event in events)


async def test_waiting_for_capacity_ends_at_its_limit(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A request that may wait ten minutes gives up after ten minutes, with the reason."""
    cloud.out_of_capacity("RTX 4090")

    async with broker_on(cloud) as broker:
        began = now()
        with pytest.raises(NoOfferFits):
            await broker.run(["x"], A_4090, policy=Policy(wait=600))

    assert now() - began == pytest.approx(600, abs=1)


async def test_too_many_requests_with_a_wait_is_obeyed(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A create refused for asking too often is tried again, not before the provider allows it."""
    cloud.next_create_fails(ErrorKind.RATE_LIMIT, Scope.PROVIDER, "slow down", retry_after=20)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    first, second = cloud.creates
    assert (first.offer_id, second.offer_id) == ("cheap", "cheap")
    assert 20 <= second.at - first.at < 25
    assert [a.kind for a in result.record.attempts] == [ErrorKind.RATE_LIMIT, None]


async def test_too_many_requests_without_a_wait_backs_off(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Without a word on how long, pauses grow with jitter, and go elsewhere in the end."""
    cloud.next_create_fails(ErrorKind.RATE_LIMIT, Scope.OFFER, "slow down", times=5)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert [c.offer_id for c in cloud.creates] == ["cheap"] * 5 + ["dear"]
    assert 0 < cloud.creates[4].at - cloud.creates[0].at < 2 + 4 + 8 + 16
    assert result.ok


async def test_a_provider_that_cannot_quote_for_a_moment_is_asked_again(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A passing fault while quoting is repeated within the provider's own time."""
    cloud.quote_fails(ErrorKind.TRANSIENT, times=2)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert result.ok
    assert result.record.problems == ()
    assert cloud.calls["quote"] == 3


async def test_a_provider_that_asked_for_a_pause_is_left_alone_by_the_next_request(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """A long `retry_after` outlives the request and the process: nobody asks before it is over."""
    ledger = tmp_path / "ledger.db"
    cloud.quote_fails(ErrorKind.RATE_LIMIT, retry_after=200)

    async with broker_on(cloud, ledger=ledger) as broker:
        with pytest.raises(NoOfferFits):
            await broker.run(["x"], A_4090)
    async with broker_on(cloud, ledger=ledger, seed=2) as other:
        with pytest.raises(NoOfferFits, match="not asked for 200 s more"):
            await other.run(["x"], A_4090)
        await anyio.sleep(201)
        result = await other.run(["x"], A_4090)

    assert result.ok
    assert cloud.calls["quote"] == 2


async def test_a_revoked_key_is_tried_once_and_not_in_vain(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A key that is refused stops the request after one create."""
    cloud.next_create_fails(ErrorKind.AUTH, Scope.ACCOUNT, "key revoked")

    async with broker_on(cloud) as broker:
        with pytest.raises(AcquireStopped, match="key revoked"):
            await broker.run(["x"], Requirements(gpu=["RTX 4090", "A100"]))

    assert len(cloud.creates) == 1


async def test_a_price_that_rises_between_quote_and_create_is_not_paid(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """The order carries the quoted price as its ceiling, so a dearer machine is refused."""
    cloud.quote_takes(1)
    results: list[Result] = []

    async with broker_on(cloud) as broker:
        async with anyio.create_task_group() as tasks:

            async def later() -> None:
                await anyio.sleep(1)
                cloud.price_rises_to("0.90", "cheap")

            tasks.start_soon(later)
            cloud.create_takes(1)
            results.append(await broker.run(["x"], A_4090))

    assert [result.ok for result in results] == [True]
    assert cloud.billed < Money("0.05")


async def test_three_providers_one_hanging_one_raising_one_dear(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """The dear one is rented, after the hanging one's deadline and not later."""
    hanging = ScriptedCloud("hanging", now=now)
    hanging.quote_hangs()
    raising = ScriptedCloud("raising", now=now)
    raising.next_call_raises("quote", ZeroDivisionError("oops"))
    dear = ScriptedCloud("dear", now=now, offers=[offer("RTX 4090", "2.00")])

    async with broker_on(hanging, raising, dear) as broker:
        began = now()
        result = await broker.run(["x"], A_4090, policy=Policy(quote_timeout=4))

    assert result.provider == "dear"
    assert dear.creates[0].at - began == pytest.approx(4, abs=0.1)
    assert {p.provider for p in result.record.problems} == {"hanging", "raising"}


async def test_a_broken_host_is_avoided_by_other_processes_until_it_has_cooled_down(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """A host that never booted is remembered in the ledger, named as the reason, and forgiven."""
    ledger = tmp_path / "ledger.db"
    cloud.never_boots()

    async with broker_on(cloud, ledger=ledger) as broker:
        await broker.run(["x"], A_4090)
    async with broker_on(cloud, ledger=ledger, seed=2) as other:
        second = await other.run(["x"], A_4090)
        await anyio.sleep(2 * 3600)
        third = await other.run(["x"], A_4090)

    against = {v.offer.id: v.rejection for v in second.record.verdicts}["cheap"]
    assert against is not None
    assert against.constraint is Constraint.COOLING_DOWN
    assert "no progress for 600 s" in against.said
    assert [c.offer_id for c in cloud.creates] == ["cheap", "dear", "dear", "cheap"]
    assert third.ok


async def test_what_failed_for_want_of_capacity_is_tried_last_and_not_ruled_out(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A taken offer comes after the others in the next request, and first again once it is old."""
    cloud.next_create_fails(ErrorKind.CAPACITY, Scope.OFFER)

    async with broker_on(cloud) as broker:
        await broker.run(["x"], A_4090)
        soon = await broker.quote(A_4090)
        await anyio.sleep(100)
        later = await broker.quote(A_4090)

    assert [o.id for o in soon.ranked] == ["dear", "cheap"]
    assert [o.id for o in later.ranked] == ["cheap", "dear"]


async def test_attempts_are_bounded_whatever_the_rules_say(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """No mixture of rules, offers and waiting makes more attempts than allowed."""
    offers = [offer("RTX 4090", f"0.{n:02}", id=f"o{n}") for n in range(10, 40)]
    cloud = ScriptedCloud(now=now, offers=offers)
    cloud.next_create_fails(ErrorKind.CAPACITY, until=math.inf)
    policy = Policy(
        retry=Retry({ErrorKind.CAPACITY: here(2) | elsewhere()}, max_attempts=7), wait=900
    )

    async with broker_on(cloud) as broker:
        with pytest.raises(AttemptsExhausted) as caught:
            await broker.run(["x"], A_4090, policy=policy)

    assert len(cloud.creates) == 7
    assert len(caught.value.record.attempts) == 7


async def test_a_kind_marked_stop_is_not_tried_again(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """The caller's own rules decide: here, no capacity at one offer ends the request."""
    cloud.next_create_fails(ErrorKind.CAPACITY)
    policy = Policy(retry=Retry({ErrorKind.CAPACITY: stop()}))

    async with broker_on(cloud) as broker:
        with pytest.raises(AcquireStopped):
            await broker.run(["x"], A_4090, policy=policy)

    assert len(cloud.creates) == 1


async def test_a_wrong_card_is_noticed_before_any_byte_of_the_job_leaves(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """The machine's own driver is asked; a host that lied is released and avoided."""
    cloud.delivers("GeForce RTX 3060", vram=12)
    job = Job(["x"], files={"secret.bin": b"mine"}, output_dir=tmp_path)

    async with broker_on(cloud) as broker:
        result = await broker.run(job, A_4090)

    first, second = result.record.attempts
    assert (first.kind, first.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    assert first.reason == "offered RTX 4090, found RTX 3060 12GB"
    assert second.offer_id == "dear"
    assert len(cloud.runs) == 1


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"gpu": None}, "no working NVIDIA driver"),
        ({"gpu": "GeForce RTX 4090", "vram": 24, "count": 2}, "offered 1 cards, found 2"),
        ({"gpu": "GeForce RTX 4090", "vram": 12}, "offered 24 GB on each card, found 12.0 GB"),
    ],
)
async def test_each_part_of_the_hardware_is_checked(
    cloud: ScriptedCloud, broker_on: MakeBroker, told: dict[str, object], reason: str
) -> None:
    """A missing driver, a wrong count and too little memory are each a broken host."""
    cloud.delivers(**told)  # type: ignore[arg-type]

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert reason in result.record.attempts[0].reason


async def test_alternatives_are_tried_in_order(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """An A100, or else two 4090s: the second is looked at when nothing does for the first."""
    cloud = ScriptedCloud(
        now=now,
        offers=[
            offer("RTX 4090", "0.70", id="pair", count=2),
            offer("A100 80GB SXM", "1.20", id="big", vram=80, compute_capability=8.0),
        ],
    )
    wanted = [Requirements(gpu="A100"), Requirements(gpu="RTX 4090", count=2)]

    async with broker_on(cloud) as broker:
        first = await broker.run(["x"], wanted)
        cloud.next_create_fails(ErrorKind.CAPACITY, Scope.MODEL)
        second = await broker.run(["x"], wanted)

    assert (first.machine, second.machine) == ("A100 80GB SXM", "2x RTX 4090")
    assert [v.alternative for v in second.record.verdicts if v.rejection is None] == [0, 1]


async def test_an_attempt_that_takes_too_long_goes_on_elsewhere(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A slow boot with progress still ends at the attempt's own limit, if one is set."""
    cloud.boot_takes(1000, progress_every=10)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090, policy=Policy(attempt_timeout=120))

    assert result.record.attempts[0].reason == "no running machine within 120 s"
    assert result.record.attempts[0].seconds == pytest.approx(120, abs=1)
    cloud.assert_nothing_running()


async def test_slow_hosts_are_learnt_and_weighed_against_the_length_of_the_job(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """For a short job the quick host is worth a tenth more; for a long one it is not."""
    cloud = ScriptedCloud(
        now=now,
        offers=[
            offer("RTX 4090", "0.40", id="slow", host="slow"),
            offer("RTX 4090", "0.44", id="quick", host="quick"),
        ],
    )
    async with broker_on(cloud, budget="50") as broker:
        for _ in range(8):
            for chosen, boot in [("slow", 480), ("quick", 10)]:
                cloud.boot_takes(boot)

                def only(o: object, chosen: str = chosen) -> float:
                    return 0.0 if getattr(o, "id", "") == chosen else 1.0

                await broker.run(["x"], A_4090, policy=Policy(rank=only))
        short = Policy(rank="cheapest_to_finish", work=Work(seconds=40))
        long = Policy(rank="cheapest_to_finish", work=Work(seconds=6 * 3600))
        first = await broker.quote(A_4090, policy=short)
        second = await broker.quote(A_4090, policy=long)

    assert (first.ranked[0].id, second.ranked[0].id) == ("quick", "slow")
    arithmetic = first.verdicts[0].estimate
    assert arithmetic is not None
    assert "run 40 s" in str(arithmetic)
    assert arithmetic.boot < 100 < first.verdicts[1].estimate.boot  # type: ignore[union-attr]


async def test_the_policy_of_the_settings_file_is_in_force(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """What `gpubroker.toml` says of ranking and retrying holds for every call without its own."""
    config = tmp_path / "policy.toml"
    config.write_text(
        '[policy]\nrank = "fastest, cheapest"\nmax_attempts = 1\n'
        '[policy.retry]\ncapacity = "stop"\n[policy.work]\nseconds = "2h"\n'
    )
    settings = load_settings({"HOME": str(tmp_path)}, config=config)
    cloud.next_create_fails(ErrorKind.CAPACITY)

    async with broker_on(cloud, settings=settings) as broker:
        with pytest.raises(AcquireStopped):
            await broker.run(["x"], A_4090)

    assert settings.policy.rank.name == "fastest, cheapest"
    assert settings.policy.work.seconds == 7200
