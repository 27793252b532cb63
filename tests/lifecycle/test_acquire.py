"""From requirements to a machine in hand."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AccountSettings,
    AcquireError,
    AcquireStopped,
    AttemptsExhausted,
    AttemptState,
    BudgetExceeded,
    DeadlineExceeded,
    Emit,
    ErrorKind,
    Event,
    EventKind,
    LeaseState,
    Machine,
    Money,
    NoOfferFits,
    Offer,
    Order,
    Plugin,
    Policy,
    ReleaseState,
    Requirements,
    Scope,
    hookimpl,
)
from gpubroker.testing import ScriptedCloud, ScriptedPlugin, VirtualWallClock, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def test_the_cheapest_machine_that_fits_is_rented_and_given_up(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """The cheapest offer of all that fit is rented, once, and its machine is gone afterwards."""
    cloud.job_takes(100)

    async with broker_on(cloud) as broker:
        result = await broker.run(["train"], A_4090)
        state = await broker.wait_released(result.lease_id, timeout=300)

    assert result.ok
    assert [create.offer_id for create in cloud.creates] == ["cheap"]
    assert state is ReleaseState.PROVEN
    cloud.assert_nothing_running()
    cloud.assert_contract_kept()


async def test_all_providers_are_asked_at_once(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """Quotes come in parallel: three slow providers take as long as one."""
    others = [
        ScriptedCloud(f"cloud{n}", now=now, offers=[offer("RTX 4090", price)])
        for n, price in enumerate(["0.30", "0.50"])
    ]
    for each in (cloud, *others):
        each.quote_takes(5)

    async with broker_on(cloud, *others) as broker:
        began = now()
        record = await broker.quote(A_4090)

    assert now() - began == pytest.approx(5)
    assert [o.provider for o in record.ranked] == ["cloud0", "scripted", "scripted", "cloud1"]


async def test_a_provider_that_hangs_or_fails_costs_only_itself(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """One hanging and one raising provider are named; the third one's machine is rented."""
    hanging = ScriptedCloud("hanging", now=now)
    hanging.quote_hangs()
    raising = ScriptedCloud("raising", now=now)
    raising.next_call_raises("quote", ZeroDivisionError("oops"))

    async with broker_on(cloud, hanging, raising) as broker:
        result = await broker.run(["x"], A_4090)

    problems = {p.provider: (p.kind, p.message) for p in result.record.problems}
    assert problems["hanging"] == (ErrorKind.TRANSIENT, "hanging.quote took longer than 10 s")
    assert problems["raising"][0] is ErrorKind.PLUGIN
    assert "ZeroDivisionError: oops" in problems["raising"][1]
    assert result.provider == "scripted"


async def test_no_offers_says_what_was_wanted_and_why_the_nearest_is_out(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """When nothing fits, the error names the nearest miss and carries every rejection."""
    async with broker_on(cloud) as broker:
        with pytest.raises(NoOfferFits, match="gpu: wanted H100, offered RTX 4090") as caught:
            await broker.run(["x"], Requirements(gpu="H100"))
        kept = await broker.explain()

    assert len(caught.value.record.verdicts) == 3
    assert kept == caught.value.record
    assert not cloud.creates


async def test_an_empty_market_is_said_to_be_empty(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """Without a single offer the error says who was asked."""
    async with broker_on(ScriptedCloud("barren", now=now)) as broker:
        with pytest.raises(NoOfferFits, match="barren offered nothing"):
            await broker.run(["x"], A_4090)


async def test_a_refused_offer_is_followed_by_the_next_one(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """No capacity at one offer leads to the next, and the record says so."""
    cloud.next_create_fails(ErrorKind.CAPACITY, Scope.OFFER, "just taken")

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        leases = await broker.leases(open_only=False)

    first, second = result.record.attempts
    assert (first.offer_id, first.kind, first.scope) == ("cheap", ErrorKind.CAPACITY, Scope.OFFER)
    assert (first.state, first.reason) == (AttemptState.FAILED, "just taken")
    assert (second.offer_id, second.state) == ("dear", AttemptState.WON)
    assert "after 1 that did not" in result.record.why
    assert {row.state for row in leases} >= {LeaseState.REFUSED}


async def test_all_attempts_failing_lists_every_one_with_its_reason(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """When everything failed, the error names each attempt, its kind and its reason."""
    cloud.next_create_fails(ErrorKind.CAPACITY, Scope.OFFER, "just taken")
    cloud.next_create_fails(ErrorKind.QUOTA, Scope.OFFER, "one machine per account")

    async with broker_on(cloud) as broker:
        with pytest.raises(AttemptsExhausted) as caught:
            await broker.run(["x"], A_4090)

    text = str(caught.value)
    assert "cheap): capacity [offer]: just taken" in text
    assert "dear): quota [offer]: one machine per account" in text
    assert len(caught.value.record.attempts) == 2


async def test_a_scope_rules_out_more_than_the_failed_offer(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A failure that condemns a GPU model is not answered with the same model again."""
    cloud.next_create_fails(ErrorKind.CAPACITY, Scope.MODEL, "no 4090 anywhere")

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], Requirements(gpu=["RTX 4090", "A100"]))

    assert [c.offer_id for c in cloud.creates] == ["cheap", "big"]
    assert result.machine == "A100 80GB SXM"


async def test_a_bad_request_stops_at_once(cloud: ScriptedCloud, broker_on: MakeBroker) -> None:
    """What is wrong with the request itself is not tried again elsewhere."""
    cloud.next_create_fails(ErrorKind.BAD_REQUEST, Scope.OFFER, "no such image")

    async with broker_on(cloud) as broker:
        with pytest.raises(AcquireStopped, match="no such image"):
            await broker.run(["x"], A_4090)

    assert len(cloud.creates) == 1


async def test_a_request_that_a_whole_provider_refuses_goes_to_another_one(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A vendor that takes no such requests is asked once, not for each of its offers."""
    cloud.next_create_fails(ErrorKind.BAD_REQUEST, Scope.PROVIDER, "no such field")
    other = ScriptedCloud("other", now=now, offers=[offer("RTX 4090", "0.90")])

    async with broker_on(cloud, other) as broker:
        result = await broker.run(["x"], A_4090)

    assert len(cloud.creates) == 1
    assert result.provider == "other"
    assert "no such field" in str(result.record)


async def test_a_refused_key_stops_unless_another_provider_is_left(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A refused key rules its provider out at once, and only that one."""
    cloud.next_create_fails(ErrorKind.AUTH, Scope.ACCOUNT, "key revoked", times=2)
    other = ScriptedCloud("other", now=now, offers=[offer("RTX 4090", "0.90")])

    async with broker_on(cloud, other) as broker:
        result = await broker.run(["x"], A_4090)
    async with broker_on(cloud) as broker:
        with pytest.raises(AcquireStopped, match="key revoked"):
            await broker.run(["x"], A_4090)

    assert result.provider == "other"
    assert len(cloud.creates) == 2


async def test_a_lost_create_reply_is_resolved_by_the_mark(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A create whose answer is lost is never sent again: its machine is found, and used."""
    cloud.next_create_loses_reply()
    cloud.visibility_lag(20)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        await broker.wait_released(result.lease_id, timeout=300)

    assert result.ok
    assert len(cloud.creates) == 1
    assert len(result.record.attempts) == 1
    cloud.assert_nothing_running()


async def test_a_create_that_never_answers_is_resolved_by_the_mark(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A hanging create is cut at its deadline, and its machine is found, and used."""
    cloud.next_create_hangs()

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert result.ok
    assert len(cloud.creates) == 1
    cloud.assert_nothing_running()


async def test_a_create_that_nothing_came_of_is_given_up_and_watched(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """If nothing is seen past the horizon, the next offer is tried and part of the money held."""
    cloud.next_create_loses_reply(creates=False)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        watched = [r for r in await broker.leases() if r.state is LeaseState.LATE_WATCH]

    assert result.ok
    assert [a.kind for a in result.record.attempts] == [ErrorKind.CREATE_UNKNOWN, None]
    assert len(watched) == 1
    assert Money(0) < watched[0].reserved < Money("0.06")


async def test_a_lost_create_is_not_given_the_machine_of_another_lease(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A machine is known by its whole mark, of which those of one ledger share the beginning."""
    async with broker_on(cloud) as broker, broker.lease(A_4090) as held:
        cloud.next_create_loses_reply(creates=False)
        result = await broker.run(["x"], A_4090)
        other = await held.run(["y"])

    assert [a.kind for a in result.record.attempts] == [ErrorKind.CREATE_UNKNOWN, None]
    assert other.ok


async def test_a_refusal_that_left_a_machine_behind_is_released(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """An error that names a machine leads to that machine's release, and to the next offer."""
    cloud.next_create_fails(ErrorKind.CAPACITY, leaves_machine=True)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert result.ok
    assert len(cloud.creates) == 2
    cloud.assert_nothing_running()


async def test_a_machine_that_never_boots_is_released_and_replaced(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """No progress for the boot time-out counts as a broken host; what it cost is on record."""
    cloud.never_boots()

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    first = result.record.attempts[0]
    assert (first.kind, first.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    assert first.reason == "no progress for 600 s while booting"
    assert first.cost > Money("0.05")
    assert result.record.attempts[1].offer_id == "dear"
    cloud.assert_nothing_running()


async def test_a_slow_boot_with_progress_is_waited_for(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """Booting is given up after no progress, however long it takes with some."""
    cloud.boot_takes(3000, progress_every=300)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090, lifetime=7200, policy=Policy(acquire_timeout=4000))

    assert result.ok
    assert len(cloud.creates) == 1
    assert result.timings.acquire >= 3000
    assert any(event.kind is EventKind.BOOTING for event in events)


async def test_a_machine_that_breaks_while_booting_is_replaced(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A boot failure leads to another host at once."""
    cloud.boot_breaks(after=30)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert [c.offer_id for c in cloud.creates] == ["cheap", "dear"]
    assert result.record.attempts[0].kind is ErrorKind.HOST_BROKEN


async def test_a_machine_delivered_above_the_agreed_price_is_given_back(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """The price on delivery is compared with the quote; a higher one is not accepted, but booked."""
    cloud.price_rises_to("0.99", "cheap", silently=True)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        rows = {row.offer_id: row for row in await broker.leases(open_only=False)}

    assert "delivered at $0.99/h" in result.record.attempts[0].reason
    assert rows["cheap"].hourly == Money("0.99")
    assert result.record.attempts[1].offer_id == "dear"


async def test_nothing_is_rented_that_the_budget_cannot_pay_for(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A machine whose worst case exceeds the budget is not rented."""
    async with broker_on(cloud) as broker:
        with pytest.raises(BudgetExceeded, match=r"\$0.001"):
            await broker.run(["x"], A_4090, budget="0.001")

    assert not cloud.creates


async def test_a_small_budget_shortens_the_lifetime(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A budget below an hour's price pays for less than an hour, and no more is ever billed."""
    cloud.job_takes(float("inf"))

    async with broker_on(cloud) as broker:
        result = await broker.run(["forever"], A_4090, budget="0.10")
        await broker.wait_released(result.lease_id, timeout=300)

    assert result.message == "its lifetime is over"
    assert Money("0.05") < cloud.billed <= Money("0.10")


async def test_the_budget_of_a_day_holds_for_all_jobs_together(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Two jobs that fit alone do not both fit a day's limit that has room for one."""
    from gpubroker import Budget

    cloud.job_takes(1800, times=2)
    async with broker_on(cloud, budget=Budget(day=Money("0.25"))) as broker:
        first = await broker.run(["x"], A_4090, lifetime=2000)
        await broker.wait_released(first.lease_id, timeout=600)
        with pytest.raises(BudgetExceeded):
            await broker.run(["x"], A_4090, lifetime=2000)

    assert len(cloud.creates) == 1


async def test_every_attempt_is_held_against_the_budget(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """While a machine that failed cannot be given up, a second one must fit what is left."""
    cloud.boot_breaks(after=30)
    cloud.release_fails(until=cloud.now() + 900)

    async with broker_on(cloud, close_wait=1200) as broker:
        with pytest.raises(AcquireError):
            await broker.run(["x"], A_4090, budget="0.60", lifetime=3600)
        committed = sum((row.reserved + row.spent for row in await broker.leases()), Money(0))

    assert len(cloud.creates) == 1
    assert committed <= Money("0.60")


async def test_waiting_for_a_machine_ends_at_the_deadline(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Getting a machine takes no longer than it may, and leaves none behind."""
    cloud.boot_takes(10_000, progress_every=60)

    async with broker_on(cloud) as broker:
        with pytest.raises(DeadlineExceeded, match="no machine within 100 s"):
            await broker.run(["x"], A_4090, policy=Policy(acquire_timeout=100))

    cloud.assert_nothing_running()


async def test_the_intent_is_durable_before_the_create_leaves(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """When the provider sees a create, another process already finds its mark in the ledger."""
    ledger = tmp_path / "ledger.db"
    seen: list[tuple[str, str]] = []

    class Witness(ScriptedPlugin):
        @hookimpl
        async def provision(self, offer: Offer, order: Order) -> Machine:
            with sqlite3.connect(ledger) as other:
                query = "SELECT mark, state FROM leases WHERE id = ?"
                seen.extend(other.execute(query, [order.lease_id]))
            other.close()
            assert seen[-1][0] == order.mark
            return await super().provision(offer, order)

    def factory(settings: AccountSettings, emit: Emit) -> ScriptedPlugin:
        plugin = cloud.factory(settings, emit)
        plugin.__class__ = Witness
        return plugin

    plugins = [Plugin("scripted", factory, "test", given=True)]
    async with broker_on(cloud, ledger=ledger, plugins=plugins) as broker:
        await broker.run(["x"], A_4090)

    assert [state for _, state in seen] == ["requested"]


async def test_one_inventory_call_serves_every_waiting_lease(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A hundred machines booting at once are polled with one call per interval, not a hundred."""
    import anyio

    cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.36")])
    cloud.boot_takes(100, times=100)

    async with broker_on(cloud, budget="500") as broker, anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(broker.run, ["x"], A_4090)

    assert len(cloud.creates) == 100
    # 100 s of booting and some 60 s until machines are proven gone, at one call every 2 s.
    assert cloud.calls["inventory"] < 120


async def test_a_quote_rents_and_writes_nothing(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Asking for a plan has no side effects."""
    async with broker_on(cloud) as broker:
        record = await broker.quote(A_4090)
        kept = await broker.explain()

    assert [o.id for o in record.ranked] == ["cheap", "dear"]
    assert kept is None
    assert not cloud.creates


async def test_a_paid_provider_without_any_limit_is_off(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Nothing is rented by surprise: without a budget a paid provider does not take part."""
    from gpubroker import Budget

    async with broker_on(cloud, budget=Budget()) as broker:
        (status,) = await broker.providers()
        with pytest.raises(NoOfferFits):
            await broker.run(["x"], A_4090)
        result = await broker.run(["x"], A_4090, budget="1")

    assert (status.on, status.why) == (False, "off: no budget")
    assert result.ok


async def test_requests_at_once_do_not_try_in_vain_for_the_same_single_offer(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """Each takes another one, with one create each; what is given up can be taken again."""
    offers = [replace(offer("RTX 4090", f"0.3{n}", id=f"only-{n}"), single=True) for n in range(3)]
    cloud = ScriptedCloud(now=now, offers=offers)
    async with broker_on(cloud) as broker:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(broker.run, ["x"], A_4090)
        await broker.run(["x"], A_4090)

    assert sorted(create.offer_id for create in cloud.creates) == [
        *("only-0", "only-0", "only-1", "only-2")
    ]
    assert cloud.calls["quote"] == 2


async def test_a_broker_that_has_everything_that_fits_says_so(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """It neither sends a create that must fail nor blames the vendor."""
    only = replace(offer("RTX 4090", "0.30", id="only"), single=True)
    cloud = ScriptedCloud(now=now, offers=[only])
    async with broker_on(cloud) as broker, broker.lease(A_4090):
        with pytest.raises(AttemptsExhausted, match="this broker has every offer that fits"):
            await broker.run(["x"], A_4090)

    assert len(cloud.creates) == 1
