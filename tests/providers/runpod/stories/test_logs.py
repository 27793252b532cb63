"""Jobs that a pod runs by itself, with a log that breaks, and a pod that breaks under them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import (
    Event,
    EventKind,
    Job,
    JobState,
    MachineLost,
    Requirements,
    Result,
)
from gpubroker.testing.emulation.keeper import processes_of
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, sent, until
from .working import all_released, beside, the_pod

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090", count=1)

LINES = b"".join(b"%d\n" % n for n in range(1, 61))
COUNTS = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; [ $((i % 6)) != 0 ] || sleep 0.01; done"

Fault = tuple[str, dict[str, Any]]

#: What can happen to each stream of a log, as often as it is opened.
STREAMS: dict[str, tuple[Fault, ...]] = {
    "cut in the middle of a line": (("logs-cut", {"events": 5, "times": None}),),
    "ended after a few lines": (("logs-end", {"events": 4, "times": None}),),
    "silent, with the connection open": (("logs-stall", {"events": 20}),),
    "repeating what was read last": tuple(
        fault
        for _ in range(8)
        for fault in (
            ("logs-end", {"events": 6}),
            ("logs-again", {"times": 1}),
            ("logs-cut", {"events": 7}),
        )
    ),
    "not to be had at times": tuple(
        fault
        for _ in range(2)
        for fault in (
            ("logs-end", {"events": 9}),
            ("status", {"status": 502}),
            ("drop", {"when": "before"}),
            ("problem", {"status": 500}),
        )
    ),
    "not found for a moment": (
        ("logs-end", {"events": 9}),
        ("problem", {"status": 404}),
        ("logs-end", {"events": 9}),
        ("problem", {"status": 404}),
    ),
    "an answer of another kind": (
        ("logs-end", {"events": 9}),
        ("html", {"status": 200}),
        ("logs-end", {"events": 9}),
        ("redirect", {"body": "{}"}),
    ),
}


def while_it_runs(action: Callable[[], None], kept: list[Event]) -> Callable[[Event], None]:
    """Does something once, when the first job begins to be read."""
    done: list[Event] = []

    def on_event(event: Event) -> None:
        kept.append(event)
        if event.kind is EventKind.RUNNING and not done:
            done.append(event)
            action()

    return on_event


def check_ran_once(cloud: RunPodEmulator, result: Result) -> None:
    """The only pod did it, and is not paid for any more."""
    assert (result.state, result.exit_code) == (JobState.EXITED, 0), result
    assert len(sent(cloud, "create")) == 1
    assert cloud.billing_now() == ()


class TestAStream:
    @pytest.mark.parametrize(
        ("anyio_backend", "kind"),
        [(("asyncio", "trio")[n % 2], kind) for n, kind in enumerate(STREAMS)],
        ids=STREAMS,
    )
    async def test_that_breaks_loses_nothing_and_repeats_nothing(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], kind: str
    ) -> None:
        """It is read on from the last line that came."""

        def plan() -> None:
            for nth, (fault, options) in enumerate(STREAMS[kind], 1):
                cloud.faults.add("logs", fault, nth=nth, **options)

        async with broker_on(QUICK, on_event=while_it_runs(plan, events)) as broker:
            result = await broker.run(Job(COUNTS, timeout=60), A_4090)

        assert result.stdout == LINES
        assert result.message == ""
        assert any(rule.met for rule in cloud.faults.rules)
        check_ran_once(cloud, result)

    @pytest.mark.parametrize("events_each", [3, 5, 8])
    async def test_may_break_anywhere_from_the_first_look_on(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events_each: int
    ) -> None:
        """Also while the machine is looked at, and with the lines of the broker's own."""
        cloud.faults.add("logs", "logs-cut", times=None, events=events_each)

        async with broker_on(QUICK) as broker:
            result = await broker.run(Job("seq 20", timeout=60), A_4090)

        assert result.stdout == b"".join(b"%d\n" % n for n in range(1, 21))
        check_ran_once(cloud, result)

    async def test_that_lost_the_ending_has_it_once_more(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """How a job ended is told several times."""

        def lose() -> None:
            # An empty line, the start, "out", an empty line, the ending.
            cloud.faults.add("logs", "logs-lose", every=5, times=None)

        async with broker_on(QUICK, on_event=while_it_runs(lose, events)) as broker:
            result = await broker.run(Job("echo out", timeout=60), A_4090)

        assert result.stdout.startswith(b"out")
        check_ran_once(cloud, result)

    @pytest.mark.parametrize(
        ("anyio_backend", "heartbeat"),
        [("asyncio", 0.0), pytest.param("trio", 0.1, marks=pytest.mark.deep)],
        ids=["dead", "alive"],
    )
    async def test_of_a_job_that_is_silent_is_waited_for(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path, heartbeat: float
    ) -> None:
        """Silence means nothing, with signs of life from the server or without: the pod is asked."""
        cloud.switch(heartbeat=heartbeat)
        job = Job(f"echo a; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo b", timeout=60)

        async def go_on() -> None:
            await until(lambda: sent(cloud, "show"))
            (tmp_path / "go").touch()

        async with broker_on(QUICK) as broker:
            result = await beside(go_on, broker.run(job, A_4090))

        assert result.text == "a\nb\n"
        check_ran_once(cloud, result)

    @pytest.mark.deep
    async def test_that_is_paced_is_obeyed(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Asked to wait a second, nobody asks before; the job goes on meanwhile."""

        def limit() -> None:
            cloud.faults.add("logs", "rate-limited", retry_after=1)

        async with broker_on(QUICK, on_event=while_it_runs(limit, events)) as broker:
            result = await broker.run(Job("echo out", timeout=60), A_4090)

        refused = next(r for r in sent(cloud, "logs") if r.status == 429)
        later = [r.at for r in sent(cloud, "logs") if r.at > refused.at]
        assert min(later) - refused.at >= 1.0
        assert result.stdout == b"out\n"
        check_ran_once(cloud, result)


#: What a container that is started again finds: whether its folder, and its log, are kept.
KEPT = {
    "everything kept": (True, True),
    "its log kept": (False, True),
    "its folder kept": (True, False),
    "nothing kept": (False, False),
}


class TestAContainerThatIsStartedAgain:
    """Nobody knows how far its job had come."""

    @pytest.mark.parametrize(
        ("anyio_backend", "kept"),
        [(("asyncio", "trio")[n % 2], kept) for n, kept in enumerate(KEPT)],
        ids=KEPT,
    )
    async def test_does_not_run_its_job_twice_and_have_it_pass_for_once(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path, kept: str
    ) -> None:
        """It is lost, and said to be; what it had printed is handed over, and only once."""
        keep_home, keep_log = KEPT[kept]
        cloud.switch(keep_home=keep_home, keep_log=keep_log)
        begun = anyio.Event()
        runs = tmp_path / "runs"
        # The second time it would be quick.
        script = f"echo x >>{runs}; echo begun; [ $(wc -l <{runs}) = 2 ] || sleep 60"

        async def restart() -> None:
            await begun.wait()
            cloud.afflict(the_pod(cloud), "restarts")

        async with broker_on(QUICK) as broker:
            working = broker.run(
                Job(script, timeout=60), A_4090, on_output=lambda _, __: begun.set()
            )
            with pytest.raises(MachineLost, match="started again") as caught:
                await beside(restart, working)
            await all_released(broker, cloud)

        result = caught.value.result
        assert result.state is JobState.LOST
        assert result.stdout == b"begun\n"
        if keep_home:
            assert runs.read_text() == "x\n"
        assert cloud.machines() == []
        assert len(sent(cloud, "create")) == 1
        assert cloud.billing_now() == ()

    async def test_runs_nothing_if_its_first_process_was_killed(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """For want of memory, say: the host starts it again, and the job is done elsewhere."""
        cloud.switch(keep_home=True)
        runs = tmp_path / "runs"
        first: list[str] = []

        def kill(_: str, data: bytes) -> None:
            if not first:
                first.append(the_pod(cloud))
                os.kill(first_process(cloud.folder(first[0])), signal.SIGKILL)

        script = f"echo x >>{runs}; echo begun; [ $(wc -l <{runs}) = 2 ] || sleep 60; echo over"
        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(script, timeout=60, retries=1), A_4090, on_output=kill)
            await all_released(broker, cloud)

        assert result.text == "begun\nover\n"
        assert runs.read_text() == "x\nx\n"
        assert len(sent(cloud, "create")) == 2
        assert cloud.billing_now() == ()

    async def test_after_its_job_had_ended_changes_nothing(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], tmp_path: Path
    ) -> None:
        """How it ended stands in the log, in front of all that comes later."""
        runs = tmp_path / "runs"

        job = Job(f"echo x >>{runs}; echo out", timeout=60)

        def unreadable() -> None:
            cloud.faults.add("logs", "drop", times=None)

        async def restart() -> None:
            await until(lambda: len(sent(cloud, "create")) == 1)
            (pod,) = cloud.inside.world.lives.pods.values()
            await until(lambda: any("end job" in line for line in cloud.log(pod.id)))
            started = pod.started_at
            cloud.afflict(pod.id, "restarts")
            await until(lambda: pod.started_at != started)
            cloud.faults.clear()

        async with broker_on(QUICK, on_event=while_it_runs(unreadable, events)) as broker:
            result = await beside(restart, broker.run(job, A_4090))

        assert result.stdout == b"out\n"
        check_ran_once(cloud, result)


def first_process(folder: Path) -> int:
    """The main process of a pod: the one that nothing else in it has started."""
    found = processes_of({str(folder)})
    parents = {
        pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in found
    }
    (first,) = [pid for pid, parent in parents.items() if parent == os.getpid()]
    return first


class TestAPodThatBreaks:
    @pytest.mark.parametrize(
        ("anyio_backend", "fault"),
        [
            ("asyncio", "dies"),
            ("trio", "error"),
            pytest.param("asyncio", "stops", marks=pytest.mark.deep),
        ],
    )
    async def test_loses_its_job_which_is_done_elsewhere_if_it_may_be(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path, fault: str
    ) -> None:
        """Its log went with it; and who does not allow a second time is told so."""
        first: list[str] = []

        def hit(_: str, data: bytes) -> None:
            if not first:
                first.append(the_pod(cloud))
                cloud.afflict(first[0], fault)

        flag = tmp_path / "flag"
        script = f"echo begun; [ -e {flag} ] || {{ touch {flag}; sleep 60; }}; echo over"
        async with broker_on(QUICK) as broker:
            with anyio.fail_after(40):
                result = await broker.run(Job(script, timeout=60, retries=1), A_4090, on_output=hit)
            await all_released(broker, cloud)

        assert result.text == "begun\nover\n"
        assert len(sent(cloud, "create")) == 2
        assert cloud.machines() == []
        assert cloud.billing_now() == ()

    async def test_is_told_from_one_that_is_missing_from_one_answer(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """Neither a log nor a pod that is not found once is gone."""

        def hide() -> None:
            cloud.faults.add("logs", "problem", status=404)
            cloud.faults.add("show", "problem", status=404)

        async with broker_on(QUICK, on_event=while_it_runs(hide, events)) as broker:
            result = await broker.run(Job("sleep 0.3; echo out", timeout=60), A_4090)

        assert result.stdout == b"out\n"
        assert any(request.status == 404 for request in sent(cloud, "show"))
        check_ran_once(cloud, result)


async def test_a_broker_that_leaves_gives_the_pod_up(
    cloud: RunPodEmulator, broker_on: MakeBroker
) -> None:
    """Its job goes with it, unread; nothing of it bills on."""
    begun = anyio.Event()
    job = Job("echo begun; sleep 60", timeout=60)

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks, broker_on(QUICK) as broker:

            async def run() -> None:
                await broker.run(job, A_4090, on_output=lambda _, __: begun.set())

            tasks.start_soon(run)
            await begun.wait()
            tasks.cancel_scope.cancel()

    assert len(sent(cloud, "create")) == 1
    assert cloud.machines() == []
    assert cloud.billing_now() == ()
