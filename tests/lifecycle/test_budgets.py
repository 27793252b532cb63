"""Limits on what is rented, what is told of them, and what follows when one has been spent."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AtLimit,
    Budget,
    BudgetExceeded,
    ErrorKind,
    Event,
    EventKind,
    JobState,
    LeaseReleased,
    Limits,
    Money,
    Policy,
    Requirements,
    Result,
    Retry,
    elsewhere,
)
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

HOUR = 3600.0
A_4090 = Requirements(gpu="RTX 4090")


def alerts(events: list[Event]) -> list[tuple[str, float]]:
    """The alerts that were told: of which limit, and how much of it."""
    return [(e.alert.limit, e.alert.fraction) for e in events if e.alert is not None]


def alarms(events: list[Event]) -> list[str]:
    return [event.text for event in events if event.kind is EventKind.ALARM]


class TestWhatIsRefused:
    async def test_a_providers_own_limit_sends_a_job_elsewhere(
        self, now: VirtualWallClock, broker_on: MakeBroker
    ) -> None:
        """What may still be spent is worked out for each provider; the next cheapest gets the job."""
        cheap = ScriptedCloud("cheap", now=now, offers=[offer("RTX 4090", "0.30")])
        dear = ScriptedCloud("dear", now=now, offers=[offer("RTX 4090", "0.50")])
        budget = Budget(day=Money(5), provider={"cheap": Limits(day=Money("0.001"))})

        async with broker_on(cheap, dear, budget=budget) as broker:
            quoted = await broker.quote(A_4090)
            result = await broker.run(["x"], A_4090)

        assert result.provider == "dear"
        assert [offer.provider for offer in quoted.ranked] == ["dear"]
        assert not cheap.creates

    async def test_a_failed_attempt_leaves_its_money_to_the_next(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """Once its destroy is accepted, what was held for its hour pays for the next machine's."""
        cloud.delivers("RTX 3060")
        cloud.job_takes(600)

        async with broker_on(cloud, budget="0.50") as broker:
            result = await broker.run(["x"], A_4090)
            (won, failed) = await broker.leases(open_only=False)

        assert result.ok
        assert won.deadline - won.created_at == HOUR
        assert failed.spent < Money("0.02")
        assert cloud.billed <= Money("0.50")

    async def test_money_of_a_failed_attempt_is_waited_for_by_the_next_round(
        self, now: VirtualWallClock, broker_on: MakeBroker
    ) -> None:
        """That nothing can be paid while a machine is being given up is no reason to end."""
        cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.40", host="one")])
        cloud.boot_breaks(10)
        cloud.release_takes(40)

        soon = Policy(wait=300, retry=Retry({ErrorKind.HOST_BROKEN: elsewhere(cooldown=5)}))

        async with broker_on(cloud, budget="0.45") as broker:
            result = await broker.run(["x"], A_4090, policy=soon, lifetime=HOUR)

        assert result.ok
        assert len(cloud.creates) == 2

    @pytest.mark.parametrize(
        ("budget", "limit"),
        [
            (Budget(lease=Money("0.30")), "lease"),
            (Budget(month=Money("0.30")), "month"),
            (Budget(day=Money(9), tag={"night": Limits(total=Money("0.30"))}), "tag"),
        ],
    )
    async def test_a_worst_case_beyond_any_limit_is_not_rented(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, budget: Budget, limit: str
    ) -> None:
        """An hour of 36 cents does not fit 30, whatever the 30 are for."""
        async with broker_on(cloud, budget=budget) as broker:
            with pytest.raises(BudgetExceeded):
                async with broker.lease(A_4090, lifetime=HOUR, tags=["night"]):
                    raise AssertionError(limit)

        assert not cloud.creates

    async def test_a_tags_limit_leaves_other_tags_alone(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """And counts what an earlier lease with that tag holds."""
        budget = Budget(day=Money(9), tag={"night": Limits(day=Money("0.50"))})

        async with broker_on(cloud, budget=budget) as broker:
            async with broker.lease(A_4090, lifetime=HOUR, tags=["night"]):
                with pytest.raises(BudgetExceeded):
                    async with broker.lease(A_4090, lifetime=HOUR, tags=["night", "x"]):
                        raise AssertionError
                async with broker.lease(A_4090, lifetime=HOUR, tags=["x"]) as other:
                    assert other.id

    async def test_a_failed_machine_is_not_in_the_way_of_the_next_one(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """With one machine at a time, the next attempt waits until the destroy is acknowledged."""
        cloud.boot_breaks()

        async with broker_on(cloud, budget=Budget(day=Money(5), machines=1)) as broker:
            result = await broker.run(["x"], A_4090)

        assert [a.kind for a in result.record.attempts] == [ErrorKind.HOST_BROKEN, None]
        first = next(d for d in cloud.destroys if d.accepted)
        assert cloud.creates[1].at >= first.at

    async def test_a_full_place_is_waited_for_where_there_is_time(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """As for capacity, and nothing counts as tried meanwhile; without time it is an error."""
        async with broker_on(cloud, budget=Budget(day=Money(5), machines=1)) as broker:
            async with anyio.create_task_group() as tasks:
                cloud.job_takes(300)
                tasks.start_soon(broker.run, ["long"], A_4090)
                await anyio.sleep(10)
                with pytest.raises(BudgetExceeded, match="machines at a time: 1 of 1 are held"):
                    await broker.run(["x"], A_4090)
                result = await broker.run(["x"], A_4090, policy=Policy(wait=900))
                assert result.ok
                assert len(result.record.attempts) == 1

        assert len(cloud.creates) == 2

    async def test_a_create_that_takes_effect_late_stays_within_the_limit(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """What is held for it pays until it is found and gone, also when all the rest is taken."""
        cloud.next_create_loses_reply(after=250)
        limit = Money("0.75")

        async with (
            broker_on(cloud, budget=Budget(day=limit)) as broker,
            broker.lease(A_4090, lifetime=HOUR),
            broker.lease(A_4090),
        ):
            for _ in range(400):
                await anyio.sleep(1)
                (line,) = (await broker.costs()).limits
                assert line.spent + line.reserved <= limit
            late = [d for d in cloud.destroys if d.accepted]

        assert len(late) == 1
        cloud.assert_nothing_running()

    async def test_a_lease_counts_to_the_day_that_its_row_says(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock
    ) -> None:
        """What was spent yesterday does not narrow today."""
        async with broker_on(cloud, budget=Budget(day=Money("0.40"))) as broker:
            async with broker.lease(A_4090, lifetime=HOUR):
                await anyio.sleep(HOUR / 2)
            with pytest.raises(BudgetExceeded):
                async with broker.lease(A_4090, lifetime=HOUR):
                    raise AssertionError
            now.jump(24 * HOUR)
            async with broker.lease(A_4090, lifetime=HOUR) as lease:
                assert lease.id


class TestWhatIsTold:
    async def test_each_threshold_is_told_once_by_event_and_log(
        self,
        cloud: ScriptedCloud,
        broker_on: MakeBroker,
        events: list[Event],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Half of it, and four fifths of it, when that was really spent and not only reserved."""
        with caplog.at_level(logging.WARNING, "gpubroker"):
            async with broker_on(cloud, budget=Budget(day=Money("0.45"))) as broker:
                async with broker.lease(A_4090, lifetime=HOUR):
                    await anyio.sleep(60)
                    assert alerts(events) == []
                    await anyio.sleep(HOUR * 0.7)
                    assert alerts(events) == [("budget of this day", 0.5)]
                    await anyio.sleep(HOUR * 0.31)

        assert alerts(events) == [("budget of this day", 0.5), ("budget of this day", 0.8)]
        told = next(event.alert for event in events if event.alert is not None)
        assert told.amount == Money("0.45")
        assert Money("0.225") <= told.spent < Money("0.23")
        assert told.committed > told.spent
        assert [record.getMessage() for record in caplog.records] == [
            event.text for event in events if event.kind is EventKind.BUDGET
        ]

    async def test_another_process_does_not_tell_again(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event], tmp_path: Path
    ) -> None:
        """The ledger remembers what was told of this day; of a raised limit it was not."""
        ledger = tmp_path / "ledger.db"
        for seed, limit in enumerate(("0.50", "0.50", "0.60")):
            async with broker_on(
                cloud, seed=seed, ledger=ledger, budget=Budget(day=Money(limit), alert_at=(0.1,))
            ) as broker:
                async with broker.lease(A_4090, lifetime=600):
                    await anyio.sleep(600)

        assert [e.alert.amount for e in events if e.alert is not None] == [
            Money("0.50"),
            Money("0.60"),
        ]


class TestWhatFollows:
    """A limit that is lowered while machines run has been spent at once."""

    @pytest.mark.parametrize(
        ("at_limit", "state"),
        [
            (AtLimit.REFUSE, JobState.EXITED),
            (AtLimit.DRAIN, JobState.EXITED),
            (AtLimit.RELEASE, JobState.CANCELLED),
        ],
    )
    async def test_a_running_job_ends_as_the_limit_says(
        self,
        cloud: ScriptedCloud,
        broker_on: MakeBroker,
        tmp_path: Path,
        at_limit: AtLimit,
        state: JobState,
    ) -> None:
        """Its owner is another process: it hears through the ledger, and keeps what it has."""
        ledger = tmp_path / "ledger.db"
        cloud.job_takes(1800)
        lowered = Budget(day=Money("0.05"), at_limit=at_limit)
        results: list[Result] = []
        refusals: list[str] = []

        async with (
            broker_on(cloud, ledger=ledger) as broker,
            broker_on(cloud, ledger=ledger, budget=lowered, seed=2, sweep=False) as other,
            broker.lease(A_4090, lifetime=HOUR) as lease,
            anyio.create_task_group() as tasks,
        ):

            async def lower() -> None:
                await anyio.sleep(900)
                await other.sweep()

            tasks.start_soon(lower)
            results.append(await lease.run(["x"]))
            try:
                await lease.run(["y"])
            except LeaseReleased as error:
                refusals.append(error.reason)

        assert [result.state for result in results] == [state]
        reasons = [] if at_limit is AtLimit.REFUSE else ["budget of this day: $0.05 is spent"]
        assert refusals == reasons
        cloud.assert_nothing_running()

    async def test_an_idle_machine_of_its_own_is_given_up_when_a_limit_is_spent(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """A bill that comes in higher than what was counted takes the rest of the day with it."""
        cloud.bills_show("1.80")
        budget = Budget(day=Money(2), at_limit=AtLimit.DRAIN)

        async with broker_on(cloud, budget=budget) as broker:
            async with broker.lease(A_4090, lifetime=600):
                await anyio.sleep(600)
            async with broker.lease(A_4090, lifetime=3 * HOUR) as lease:
                await anyio.sleep(2 * HOUR)
                with pytest.raises(LeaseReleased, match="is spent"):
                    await lease.run(["x"])

        assert ("budget of this day", 1.0) in alerts(events)


class TestPrices:
    async def test_a_dearer_machine_is_booked_told_of_and_its_host_left_alone(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """It is given back as soon as it is seen, while it boots; the next request knows of it."""
        cloud.price_rises_to("0.99", "cheap", silently=True)
        cloud.boot_takes(500)

        async with broker_on(cloud) as broker:
            result = await broker.run(["x"], A_4090)
            again = await broker.quote(A_4090)
            dearer = await broker.leases(open_only=False)

        assert result.record.attempts[0].kind is ErrorKind.HOST_BROKEN
        assert result.record.attempts[-1].offer_id == "dear"
        assert cloud.destroys[0].at - cloud.creates[0].at < 10
        assert any("$0.99/h" in text for text in alarms(events))
        assert [offer.id for offer in again.ranked] == ["dear"]
        assert Money("0.99") in [row.hourly for row in dearer]

    @pytest.mark.parametrize("at_limit", [AtLimit.REFUSE, AtLimit.RELEASE])
    async def test_a_price_that_rises_while_it_runs_ends_the_lease(
        self,
        cloud: ScriptedCloud,
        broker_on: MakeBroker,
        events: list[Event],
        at_limit: AtLimit,
    ) -> None:
        """After the job that runs; at once where limits are to be kept so."""
        cloud.job_takes(600)
        results: list[Result] = []

        async with broker_on(cloud, budget=Budget(job=Money(5), at_limit=at_limit)) as broker:
            async with broker.lease(A_4090, lifetime=HOUR) as lease:
                async with anyio.create_task_group() as tasks:

                    async def rise() -> None:
                        await anyio.sleep(100)
                        cloud.machine_costs("0.72", cloud.running[0].id)

                    tasks.start_soon(rise)
                    results.append(await lease.run(["x"]))
                with pytest.raises(LeaseReleased, match=r"the price rose.*\$0.72/h"):
                    await lease.run(["y"])
            await broker.wait_released(lease.id)
            (row,) = await broker.leases(open_only=False)

        drained = at_limit is AtLimit.REFUSE
        state = JobState.EXITED if drained else JobState.CANCELLED
        assert [result.state for result in results] == [state]
        assert sum("$0.72/h" in text for text in alarms(events)) == 1
        assert row.hourly == Money("0.72")

    async def test_bills_that_drift_from_what_was_counted_raise_an_alarm_once_a_day(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Each of them is unremarkable; together they are two cents in thirty off."""
        cloud.bills_show("0.02")

        async with broker_on(cloud) as broker:
            for _ in range(2):
                async with broker.lease(A_4090, lifetime=2 * HOUR):
                    await anyio.sleep(HOUR)
                await anyio.sleep(1.5 * HOUR)

        assert len(alarms(events)) == 1
        assert "scripted billed" in alarms(events)[0]

    async def test_each_bill_is_compared_however_soon_it_comes_after_another(
        self, cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """The second one tips the scales, and nothing comes after it."""
        cloud.bills_show("0.01")

        async with broker_on(cloud) as broker:
            for lifetime in (HOUR, HOUR / 2):
                async with broker.lease(A_4090, lifetime=2 * HOUR):
                    await anyio.sleep(lifetime)
            await anyio.sleep(1.2 * HOUR)

        assert ["scripted billed" in text for text in alarms(events)] == [True]


class TestCosts:
    async def test_the_jobs_of_a_lease_share_its_cost(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """Each bears the time since the one before, the first one booting, the last one the rest."""
        cloud.boot_takes(100)
        for seconds in (50, 200):
            cloud.job_takes(seconds)

        async with broker_on(cloud) as broker:
            async with broker.lease(A_4090, tags=["night"]) as lease:
                first = await lease.run(["first"])
                await anyio.sleep(1000)
                second = await lease.run(["second"])
                recorded = await broker.costs("job")
                await anyio.sleep(500)
            await broker.wait_released(lease.id)
            by_job = await broker.costs("job")
            by_tag = await broker.costs("tag")

        assert Money("0.015") <= first.cost < Money("0.016")
        assert Money("0.12") <= second.cost < Money("0.121")
        assert {line.name: line.spent for line in recorded.lines} == {
            first.job_id: first.cost,
            second.job_id: second.cost,
        }
        shares = {line.title: line.spent for line in by_job.lines}
        assert shares["first"] == first.cost
        assert (
            sum(shares.values(), Money(0))
            == by_job.spent
            == Money.from_micros(cloud.billed.micros_up)
        )
        assert [(line.name, line.spent) for line in by_tag.lines] == [("night", by_job.spent)]

    async def test_a_job_of_its_own_machine_costs_all_that_the_machine_does(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """Booting and giving up included; the ledger and the result say the same."""
        cloud.boot_takes(100)
        cloud.job_takes(50)
        cloud.release_takes(20)

        async with broker_on(cloud) as broker:
            result = await broker.run(["x"], A_4090)
            await broker.wait_released(result.lease_id)
            (line,) = (await broker.costs("job")).lines

        assert result.cost == line.spent == Money.from_micros(cloud.billed.micros_up)
        assert line.name == result.job_id

    async def test_costs_show_what_is_held_apart_and_how_full_limits_are(
        self, cloud: ScriptedCloud, broker_on: MakeBroker
    ) -> None:
        """Spent and reserved together are what the limit counts as taken."""
        budget = Budget(day=Money(5), machines=3, provider={"scripted": Limits(month=Money(50))})

        async with broker_on(cloud, budget=budget) as broker, broker.lease(A_4090, lifetime=HOUR):
            await anyio.sleep(600)
            costs = await broker.costs()
            (row,) = await broker.leases()

        (line,) = costs.lines
        assert (line.spent, line.open) == (costs.spent, 1)
        assert line.spent + line.reserved == row.reserved
        assert [(limit.name, limit.spent, limit.reserved) for limit in costs.limits] == [
            ("budget of this day", line.spent, line.reserved),
            ("budget of this month for scripted", line.spent, line.reserved),
        ]
        assert [(m.name, m.held, m.machines) for m in costs.machines] == [
            ("machines at a time", 1, 3)
        ]
