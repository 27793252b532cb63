"""Listings that are wrong, late or incomplete: "unknown" is never "none"."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from gpubroker import (
    AsyncBroker,
    AsyncLease,
    AttemptState,
    Deadlines,
    Event,
    EventKind,
    Job,
    ReleaseState,
    Requirements,
    Result,
    Swept,
)
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker
from .watching import QUICK, asked_for, booting, by_hand, look, sent, texts, until

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
NONE: Final = '{"success": true, "instances": [], "total_instances": 0, "next_token": null}'

#: Answers that look like few machines or none, and are no complete list.
UNUSABLE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "fewer rows than counted": ("partial-list", {}),
    "a row that is none": ("malformed-row", {}),
    "a row without an id": ("malformed-row", {"row": {"actual_status": "running"}}),
    "410": ("gone-410", {}),
    "an empty body": ("empty-list", {"body": ""}),
    "an empty text": ("empty-list", {"body": '""'}),
    "a refusal with 200": ("status", {"status": 200, "body": {"success": False, "msg": "no"}}),
    "a page in HTML": ("html", {}),
    "half an answer": ("garbage", {}),
    "an answer that is cut off": ("truncate", {}),
    "sent elsewhere": ("redirect", {"body": NONE}),
    "503 with a list": ("status", {"status": 503, "body": json.loads(NONE)}),
    "far too much": ("oversize", {"size": 9 << 20}),
    "silence": ("hang", {"when": "before"}),
    "no end": ("slow", {"seconds": 0.2}),
}
PATIENCE: Final = Deadlines(inventory=0.25)


@asynccontextmanager
async def working(
    broker: AsyncBroker, cloud: VastEmulator
) -> AsyncGenerator[tuple[AsyncLease, str, list[Result]]]:
    """A lease, its machine's id, and the result of the job that runs on it for the block's time."""
    results: list[Result] = []
    wait = (
        'echo began; : > "$HOME/began"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done; echo done'
    )

    async def work() -> None:
        results.append(await lease.run(Job(["sh", "-c", wait], timeout=60)))

    async with broker.lease(A_4090) as lease:
        (row,) = [row for row in await broker.leases() if row.id == lease.id]
        assert row.machine_id is not None
        home: Path = cloud.folder(row.machine_id) / "home"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await until((home / "began").exists)
            yield lease, row.machine_id, results
            if home.exists():
                (home / "go").touch()


async def met(
    broker: AsyncBroker, cloud: VastEmulator, fault: str, options: dict[str, Any]
) -> Swept:
    """A sweep whose listing met a fault; one that is given up early may not have arrived there."""
    rule = cloud.faults.add("list", fault, **options)
    with anyio.fail_after(10):
        while True:
            swept = await look(broker)
            if rule.met:
                return swept


class TestAnAnswerThatIsNoList:
    """It says nothing: not that a machine is there, and not that it is gone."""

    async def test_nothing_is_released_or_rented_while_a_job_runs(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Whatever comes instead of a list, sweeps conclude nothing, and the job runs on."""
        concluded: list[str] = []

        async with broker_on(QUICK, deadlines=PATIENCE) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                for name, (fault, options) in UNUSABLE.items():
                    swept = await met(broker, cloud, fault, options)
                    concluded += [name] if swept.complete or swept.verdicts else []
                assert lease.release_state is ReleaseState.HELD
                assert cloud.billing_now() == (machine,)
            await broker.wait_released(lease.id, timeout=15)

        assert concluded == []
        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()

    async def test_a_machine_that_boots_is_waited_for(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Readings that fail are not counted as readings without the machine."""
        for nth, (fault, options) in enumerate(UNUSABLE.values(), start=1):
            cloud.faults.add("list", fault, nth=nth, **options)

        async with broker_on(QUICK, deadlines=PATIENCE) as broker:
            async with broker.lease(A_4090) as lease:
                machines = cloud.billing_now()

        assert all(rule.met for rule in cloud.faults.rules)
        assert [attempt.state for attempt in lease.record.attempts] == [AttemptState.WON]
        assert len(asked_for(cloud)) == len(machines) == 1
        assert cloud.billing_now() == ()

    async def test_it_proves_no_machine_gone(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """The destroy was acknowledged and did nothing; only a list can tell, and none comes."""
        async with broker_on({**QUICK, "release_margin": "0.05"}) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.afflict(machine, "stubborn")
                cloud.faults.add("list", "partial-list")
                cloud.faults.add("list", "gone-410", nth=2)
            await until(lambda: all(rule.met for rule in cloud.faults.rules))
            state, billing = lease.release_state, cloud.billing_now()
            cloud.afflict(machine, "stubborn", on=False)
            proven = await broker.wait_released(lease.id, timeout=15)

        assert (state, billing) == (ReleaseState.ACKNOWLEDGED, (machine,))
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()

    async def test_a_page_that_is_lost_makes_the_list_unknown(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Of several pages the first is not the whole account, though it ends like the last."""
        free = [row["id"] for row in cloud.offers() if row["num_gpus"] == 1][-26:]
        body = {"ids": free, "image": "any", "target_state": "stopped", "cancel_unavail": False}
        made = await by_hand(cloud, "POST", "/api/v0/asks/bulk/", body)
        others = {str(row["id"]) for row in cloud.instances()}
        assert len(others) == 26, made

        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, _):
                rule = cloud.faults.add("list", "lost-page", times=6)
                swept = [await look(broker) for _ in range(3)]
                assert rule.met == 6
                assert not any(sweep.complete for sweep in swept)
                assert lease.release_state is ReleaseState.HELD
                assert set(cloud.billing_now()) == {machine, *others}
                assert (await look(broker)).complete

        assert len(asked_for(cloud)) == 1
        assert {str(row["id"]) for row in cloud.instances()} >= others


class TestAListThatIsEmpty:
    """It is complete by its own word, and wrong."""

    async def test_a_job_runs_on(self, cloud: VastEmulator, broker_on: MakeBroker) -> None:
        """A machine that answers over SSH is there, whatever the list says."""
        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                rule = cloud.faults.add("list", "empty-list", times=None)
                for _ in range(4):
                    await broker.sweep()
                    await anyio.sleep(0.06)
                assert rule.met >= 4
                assert lease.release_state is ReleaseState.HELD
                assert cloud.billing_now() == (machine,)
                cloud.faults.clear()
            await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()

    async def test_looks_in_quick_succession_are_one_look_at_a_machine_that_boots(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """It is not given up, nor is another one rented, for a list that is empty for a moment."""
        cloud.faults.add("list", "empty-list", times=5)

        async with broker_on({**QUICK, "absence_interval": "0.6"}) as broker:
            async with broker.lease(A_4090) as lease:
                machines = cloud.billing_now()

        assert [attempt.state for attempt in lease.record.attempts] == [AttemptState.WON]
        assert len(asked_for(cloud)) == len(machines) == 1
        assert cloud.billing_now() == ()


class TestAListThatIsLate:
    """The vendor's reads lag behind its writes."""

    async def test_a_new_machine_that_is_not_shown_yet_is_waited_for(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Not being listed right after the create is not being gone, to sweeps and at the boot."""
        cloud.switch(visibility=0.4)
        leases: list[AsyncLease] = []
        early: list[Swept] = []

        async def rent() -> None:
            async with broker.lease(A_4090) as lease:
                leases.append(lease)

        async with broker_on(QUICK) as broker:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(rent)
                await until(cloud.billing_now)
                early += [await look(broker) for _ in range(3)]

        assert len(sent(cloud, "list")) > 4
        assert [swept.verdicts for swept in early] == [()] * 3
        assert [attempt.state for attempt in leases[0].record.attempts] == [AttemptState.WON]
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()


class TestOnePoller:
    """Every lease waits for the same list."""

    async def test_ten_machines_that_boot_cost_one_list_per_interval(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """However many leases there are, the list is asked for once per poll interval."""
        interval = 0.1

        async with broker_on({**QUICK, "poll_interval": str(interval)}) as broker:
            async with booting(broker, cloud, 10):
                before, began = len(sent(cloud, "list")), anyio.current_time()
                await until(lambda: len(sent(cloud, "list")) >= before + 5)
                passed, asked = anyio.current_time() - began, len(sent(cloud, "list")) - before

        assert asked <= passed / interval + 1
        assert len(cloud.charges()) == 10
        assert cloud.billing_now() == ()


class TestALabelThatIsTouched:
    """Once its id is known, a machine is ours by its id."""

    async def test_it_is_released_all_the_same(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Wiped or written over in mid-job: the job runs on, and the machine goes in the end."""
        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                for label in (None, "my notebook"):
                    await by_hand(cloud, "PUT", f"/api/v0/instances/{machine}/", {"label": label})
                    assert cloud.instances()[0]["label"] == label
                    assert (await look(broker)).verdicts == ()
                assert lease.release_state is ReleaseState.HELD
            state = await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert state is ReleaseState.PROVEN
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()


class TestMachinesOfOthers:
    """The account may be used by other people and tools."""

    async def test_they_are_never_touched(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Neither one with a label of its own, nor one whose mark only looks like ours."""
        forged = "gb1-aaaaaaaa-bbbbbbbbbbbbbbbb-cccccccc"
        theirs: list[str] = []
        for row, label in zip(cloud.offers()[-2:], ("train-7", forged), strict=True):
            body = {"image": "any", "label": label, "target_state": "stopped"}
            made = await by_hand(
                cloud, "PUT", f"/api/v0/asks/{row['id']}/", {**body, "cancel_unavail": False}
            )
            theirs.append(str(made["new_contract"]))

        async with broker_on(QUICK) as broker:
            await broker.sweep()
            async with broker.lease(A_4090) as lease:
                swept = await look(broker)
            await broker.wait_released(lease.id, timeout=15)
            await broker.sweep()

        found = [str(v.machine.id) for v in swept.verdicts if v.machine is not None]
        assert sorted(found) == sorted(theirs)
        assert sorted(cloud.billing_now()) == sorted(theirs)
        touched = {r.parameters.get("id") for r in cloud.requests if r.method in ("PUT", "DELETE")}
        assert not touched & set(theirs)
        assert texts(events, EventKind.ALARM) == []
