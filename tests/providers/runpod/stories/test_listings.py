"""Listings that are wrong, late or incomplete: "unknown" is never "none"."""

from __future__ import annotations

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
from gpubroker_runpod.emulator import RunPodEmulator, pods_api

from .conftest import MakeBroker
from .watching import QUICK, asked_for, booting, by_hand, look, row_of, sent, texts, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_asked_again_soon")]

deep = pytest.mark.deep

A_4090 = Requirements(gpu="RTX 4090")
HELLO = Job(["echo", "hello"], timeout=30)
NONE: Final = '{"pods": []}'

#: Answers that look like few pods or none, and are no complete list.
UNUSABLE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "a row that is none": ("malformed-row", {}),
    "a row without an id": ("malformed-row", {"row": {"status": "RUNNING"}}),
    "a row whose id is no id": ("malformed-row", {"row": {"id": "../x", "status": "RUNNING"}}),
    "no list": ("garbage", {"body": '{"data": []}'}),
    "a list that is bare": ("garbage", {"body": "[]"}),
    "a list that is null": ("garbage", {"body": '{"pods": null}'}),
    "a page that has no next one": (
        "garbage",
        {"body": '{"pods": [], "pagination": {"hasNextPage": true, "nextCursor": null}}'},
    ),
    "pages that nobody understands": ("garbage", {"body": '{"pods": [], "pagination": {}}'}),
    "410": ("gone-410", {}),
    "404": ("problem", {"status": 404, "detail": "The requested path was not found."}),
    "an empty body": ("empty-list", {"body": ""}),
    "an empty text": ("empty-list", {"body": '""'}),
    "a page in HTML": ("html", {}),
    "a page with 200": ("html", {"status": 200}),
    "the guard's page": ("edge", {}),
    "half an answer": ("garbage", {}),
    "an answer that is cut off": ("truncate", {}),
    "sent elsewhere": ("redirect", {"body": NONE}),
    "503 with a list": ("status", {"status": 503, "body": {"pods": []}}),
    "429 with a list": ("status", {"status": 429, "body": {"pods": []}}),
    "far too much": ("oversize", {"size": 33 << 20}),
    "silence": ("hang", {"when": "before"}),
    "no end": ("slow", {"seconds": 0.2}),
}
PATIENCE: Final = Deadlines(inventory=0.5)


@asynccontextmanager
async def working(
    broker: AsyncBroker, cloud: RunPodEmulator
) -> AsyncGenerator[tuple[AsyncLease, str, list[Result]]]:
    """A lease, its pod's id, and the result of the job that runs on it for the block's time."""
    results: list[Result] = []
    wait = (
        'echo began; : > "$HOME/began"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done; echo done'
    )

    async def work() -> None:
        results.append(await lease.run(Job(["sh", "-c", wait], timeout=60)))

    async with broker.lease(A_4090) as lease:
        row = await row_of(broker, lease.id)
        assert row.machine_id is not None
        home: Path = cloud.folder(row.machine_id) / "home"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await until((home / "began").exists)
            yield lease, row.machine_id, results
            if home.exists():
                (home / "go").touch()


async def met(
    broker: AsyncBroker, cloud: RunPodEmulator, fault: str, options: dict[str, Any]
) -> Swept:
    """A sweep whose listing met a fault; one that is given up early may not have arrived there."""
    rule = cloud.faults.add("list", fault, **options)
    with anyio.fail_after(10):
        while True:
            swept = await look(broker)
            if rule.met:
                return swept


async def theirs(cloud: RunPodEmulator, *names: str, **more: Any) -> set[str]:
    """Pods that the owner of the account rents with another tool, of these names."""
    body = {"image": "any", "gpu": {"id": "NVIDIA L4"}, "disk": 5, "args": "sleep 600", **more}
    made = [await by_hand(cloud, "POST", "/v2/pods", {**body, "name": name}) for name in names]
    return {pod["id"] for pod in made}


class TestAnAnswerThatIsNoList:
    """It says nothing: not that a pod is there, and not that it is gone."""

    async def test_nothing_is_released_or_rented_while_a_job_runs(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
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

    @deep
    async def test_a_pod_that_boots_is_waited_for(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Readings that fail are not counted as readings without the pod."""
        for nth, (fault, options) in enumerate(UNUSABLE.values(), start=1):
            cloud.faults.add("list", fault, nth=nth, **options)

        async with broker_on(QUICK, deadlines=PATIENCE) as broker:
            result = await broker.run(HELLO, A_4090)
            await broker.wait_released(result.lease_id, timeout=15)

        assert all(rule.met for rule in cloud.faults.rules)
        assert [attempt.state for attempt in result.record.attempts] == [AttemptState.WON]
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    async def test_it_proves_no_pod_gone(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The delete was acknowledged and did nothing; only a list can tell, and none comes."""
        async with broker_on({**QUICK, "release_margin": "0.05"}) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                cloud.afflict(machine, "stubborn")
                cloud.faults.add("list", "malformed-row")
                cloud.faults.add("list", "gone-410", nth=2)
                cloud.faults.add("list", "html", nth=3)
            await until(lambda: all(rule.met for rule in cloud.faults.rules))
            state, billing = lease.release_state, cloud.billing_now()
            cloud.afflict(machine, "stubborn", on=False)
            proven = await broker.wait_released(lease.id, timeout=15)

        assert (state, billing) == (ReleaseState.ACKNOWLEDGED, (machine,))
        assert proven is ReleaseState.PROVEN
        assert cloud.billing_now() == ()


class TestPages:
    """A later revision of the API has fields and pages that the one of today has not."""

    async def test_a_pod_on_a_later_page_is_there(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is asked for that only the later revision knows, and all of its pages are read."""
        monkeypatch.setattr(pods_api, "_MOST_ROWS", 2)
        cloud.switch(newer=True)

        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                others = await theirs(cloud, *(f"train-{n}" for n in range(5)))
                swept = await look(broker)
                assert {verdict.finding for verdict in swept.verdicts} == {"foreign"}
                assert len(swept.verdicts) == 5
            proven = await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert proven is ReleaseState.PROVEN
        cursors = {request.query.get("cursor") for request in sent(cloud, "list")}
        assert cursors == {None, "2", "4"}
        assert all("limit" not in request.query for request in sent(cloud, "list"))
        assert (machine in cloud.charges(), set(cloud.billing_now())) == (True, others)

    async def test_a_page_that_fails_makes_the_list_unknown(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The first page is not the whole account."""
        first = '{"pods": [], "pagination": {"hasNextPage": true, "nextCursor": "0"}}'

        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, _):
                for _ in range(3):
                    cloud.faults.clear()
                    cloud.faults.add("list", "garbage", body=first)
                    cloud.faults.add("list", "server-error", nth=2, times=None)
                    swept = await look(broker)
                    assert (swept.complete, swept.verdicts) == (False, ())
                assert cloud.requests[-1].query.get("cursor") == "0"
                cloud.faults.clear()
                assert lease.release_state is ReleaseState.HELD
                assert cloud.billing_now() == (machine,)
            await broker.wait_released(lease.id, timeout=15)

        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()


class TestAListThatIsEmpty:
    """It is complete by its own word, and wrong."""

    @pytest.mark.parametrize("fault", ["empty-list", pytest.param("partial-list", marks=deep)])
    async def test_a_job_runs_on(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, fault: str
    ) -> None:
        """A pod that answers over SSH is there, whatever the list says."""
        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                rule = cloud.faults.add("list", fault, times=None)
                for _ in range(5):
                    await broker.sweep()
                    await anyio.sleep(0.06)
                assert rule.met >= 5
                assert lease.release_state is ReleaseState.HELD
                assert cloud.billing_now() == (machine,)
                cloud.faults.clear()
            await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()

    async def test_a_job_that_a_pod_runs_by_itself_goes_on(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], tmp_path: Path
    ) -> None:
        """It is known to be there by its log, and is neither given up nor run a second time."""
        gate = tmp_path / "gate"
        wait = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo done"
        results: list[Result] = []

        async def run() -> None:
            results.append(await broker.run(Job(["sh", "-c", wait], timeout=60), A_4090))

        async with broker_on(QUICK) as broker, anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: texts(events, EventKind.RUNNING))
            cloud.faults.add("list", "empty-list", times=None)
            for _ in range(5):
                await broker.sweep()
                await anyio.sleep(0.06)
            cloud.faults.clear()
            gate.touch()

        assert [result.stdout for result in results] == [b"done\n"]
        assert any("not listed any more" in text for text in texts(events, EventKind.FOUND))
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    async def test_looks_in_quick_succession_are_one_look_at_a_pod_that_boots(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """It is not given up, nor is another one rented, for a list that is empty for a moment."""
        cloud.faults.add("list", "empty-list", times=5)

        async with broker_on({**QUICK, "absence_interval": "0.6"}) as broker:
            result = await broker.run(HELLO, A_4090)

        assert [attempt.state for attempt in result.record.attempts] == [AttemptState.WON]
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()


class TestAListThatIsLate:
    """The vendor's reads lag behind its writes."""

    async def test_a_new_pod_that_is_not_shown_yet_is_waited_for(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Not being listed right after the create is not being gone, to sweeps and at the boot."""
        cloud.switch(visibility=0.5)
        results: list[Result] = []
        early: list[Swept] = []

        async def rent() -> None:
            results.append(await broker.run(HELLO, A_4090))

        async with broker_on({**QUICK, "visibility_horizon": "1"}) as broker:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(rent)
                await until(cloud.billing_now)
                early += [await look(broker) for _ in range(3)]

        assert len(sent(cloud, "list")) > 4
        assert [swept.verdicts for swept in early] == [()] * 3
        assert [attempt.state for attempt in results[0].record.attempts] == [AttemptState.WON]
        assert len(asked_for(cloud)) == len(cloud.charges()) == 1
        assert cloud.billing_now() == ()

    async def test_a_list_from_before_the_pod_is_no_proof_that_it_is_gone(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Stale readings of a pod that boots, and of one whose job runs."""
        cloud.faults.add("list", "stale-list", times=3)

        async with broker_on({**QUICK, "absence_interval": "0.3"}) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                cloud.faults.add("list", "stale-list", times=2)
                for _ in range(2):
                    await look(broker)
                assert lease.release_state is ReleaseState.HELD
                assert cloud.billing_now() == (machine,)
            await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()

    async def test_a_pod_that_lingers_after_its_end_is_not_proven_gone_before(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """It stays on the list as it was for a while: that is waited for, and no alarm."""
        cloud.switch(vanishing=0.4)

        async with broker_on(QUICK) as broker:
            async with broker.lease(A_4090) as lease:
                pass
            await until(lambda: sent(cloud, "delete"))
            deleted = sent(cloud, "delete")[-1].at
            state = await broker.wait_released(lease.id, timeout=15)

        proofs = [event.at for event in events if event.kind is EventKind.PROVEN]
        assert state is ReleaseState.PROVEN
        assert proofs[0] - deleted > 0.4
        assert texts(events, EventKind.ALARM) == []
        assert cloud.billing_now() == ()

    async def test_a_pod_that_is_read_as_missing_for_seconds_is_not_lost_under_its_job(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """404 for the pod itself, while its log is read: the job's result is waited for."""
        cloud.faults.add("logs", "problem", status=404, detail="pod not found", nth=2, times=2)
        cloud.faults.add("show", "problem", status=404, detail="pod not found")

        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090)

        assert result.stdout == b"hello\n"
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()


class TestOnePoller:
    """Every lease waits for the same list."""

    async def test_six_pods_that_boot_cost_one_list_per_interval(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """However many leases there are, the list is asked for once per poll interval."""
        interval = 0.1

        async with broker_on({**QUICK, "poll_interval": str(interval)}) as broker:
            async with booting(broker, cloud, 6):
                before, began = len(sent(cloud, "list")), anyio.current_time()
                await until(lambda: len(sent(cloud, "list")) >= before + 5)
                passed, asked = anyio.current_time() - began, len(sent(cloud, "list")) - before
            for row in await broker.leases():
                await broker.wait_released(row.id, timeout=15)

        assert asked <= passed / interval + 1
        assert sent(cloud, "show") == []
        assert len(cloud.charges()) == 6
        assert cloud.billing_now() == ()


class TestANameThatIsTouched:
    """Once its id is known, a pod is ours by its id."""

    async def test_it_is_released_all_the_same(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Name and variables written over in mid-job: the job runs on, and the pod goes."""
        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                cloud.afflict(machine, "rename", name="my notebook", env={})
                assert cloud.machines()[0]["name"] == "my notebook"
                assert (await look(broker)).verdicts == ()
                assert lease.release_state is ReleaseState.HELD
            state = await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert state is ReleaseState.PROVEN
        assert len(asked_for(cloud)) == 1
        assert cloud.billing_now() == ()


class TestPodsOfOthers:
    """The account may be used by other people and tools."""

    async def test_they_are_never_touched(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Neither one with a name of its own, nor one whose mark only looks like ours."""
        forged = "gb1-aaaaaaaa-bbbbbbbbbbbbbbbb-cccccccc"
        others = await theirs(cloud, "train-7", forged)
        others |= await theirs(cloud, "train-8", env={"GPUBROKER_MARK": forged})

        async with broker_on(QUICK) as broker:
            await broker.sweep()
            async with broker.lease(A_4090) as lease:
                swept = await look(broker)
            await broker.wait_released(lease.id, timeout=15)
            await broker.sweep()

        found = {str(v.machine.id) for v in swept.verdicts if v.machine is not None}
        assert found == others
        assert set(cloud.billing_now()) == others
        changed = [r for r in cloud.requests if r.method not in ("GET", "POST")]
        assert not {r.parameters.get("id") for r in changed} & others
        assert texts(events, EventKind.ALARM) == []

    @pytest.mark.parametrize("where", [pytest.param("name", marks=deep), "env"])
    async def test_a_copy_of_our_pod_is_told_and_destroyed_and_the_job_goes_on(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], where: str
    ) -> None:
        """Somebody clones our pod, mark and all: one more that nobody but us answers for."""
        async with broker_on(QUICK) as broker:
            async with working(broker, cloud) as (lease, machine, results):
                (ours,) = cloud.machines()
                if where == "name":
                    (copy,) = await theirs(cloud, f"{ours['name']} (copy)")
                else:
                    (copy,) = await theirs(cloud, "a copy", env=ours["env"])
                await look(broker)
                await until(lambda: cloud.billing_now() == (machine,))
            await broker.wait_released(lease.id, timeout=15)

        assert [result.stdout for result in results] == [b"began\ndone\n"]
        assert any(copy in text for text in texts(events, EventKind.ALARM))
        assert cloud.billing_now() == ()
