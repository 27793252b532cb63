"""Pods that nobody watches over any more: they end themselves, with a key that is theirs alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from gpubroker import Event, EventKind, Job, JobState, MachineLost, Money, Requirements
from gpubroker.testing.emulation.keeper import processes_of
from gpubroker.transport.dead_man_switch import SILENCE
from gpubroker_runpod import container
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, by_hand, sent, until
from .working import the_pod

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090", count=1)

#: A broker that rents a pod and waits. Its settings are in the environment.
BROKER = """\
import sys
from gpubroker import Broker, Job, Requirements
wanted = Requirements(gpu="RTX 4090", count=1)
with Broker() as broker:
    if sys.argv[1] == "lease":
        with broker.lease(wanted, budget=2, lifetime=float(sys.argv[2])):
            print("begun", flush=True)
            sys.stdin.read()
    broker.run(
        Job("echo begun; sleep 600", timeout=float(sys.argv[2]) - 1),
        wanted,
        budget=2,
        lifetime=float(sys.argv[2]),
        on_output=lambda _, data: print(data.decode(), flush=True),
    )
"""


def start_broker(
    cloud: RunPodEmulator, folder: Path, way: str, lifetime: float
) -> subprocess.Popen[str]:
    """A process of its own that holds a pod."""
    options = {**cloud.options, **QUICK}
    return subprocess.Popen(
        [sys.executable, "-c", BROKER, way, str(lifetime)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GPUBROKER_RUNPOD_URL": cloud.url,
            "RUNPOD_API_KEY": cloud.key,
            **{f"GPUBROKER_RUNPOD_{name.upper()}": value for name, value in options.items()},
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


@pytest.mark.parametrize(
    "way",
    ["run", pytest.param("lease", marks=pytest.mark.deep)],
    ids=["by log", "over SSH"],
)
def test_the_deadline_holds_though_the_broker_was_killed(
    cloud: RunPodEmulator, tmp_path: Path, way: str
) -> None:
    """Nobody is left to give the pod up: it does so itself, and not before its time."""
    lifetime = 3.0
    with start_broker(cloud, tmp_path, way, lifetime) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline() == "begun\n"
        broker.send_signal(signal.SIGKILL)
    (pod,) = cloud.inside.world.lives.pods.values()
    assert cloud.billing_now() == (pod.id,)
    assert pod.destroyed_at is None

    give_up = time.monotonic() + 15
    while cloud.machines():
        assert time.monotonic() < give_up, "it lives on"
        time.sleep(0.02)

    assert cloud.billing_now() == ()
    assert pod.destroyed_at is not None
    # The shell counts whole seconds.
    assert lifetime - 1.5 < pod.destroyed_at - pod.created_at < lifetime + 3.0
    (delete,) = sent(cloud, "delete")
    assert delete.status == 204


class TestItsKey:
    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at the time more often than every 20 seconds."""
        for name in ("ssh_command", "jobs_command"):
            monkeypatch.setattr(container, name, partial(getattr(container, name), pause=0.1))

    @pytest.mark.parametrize(
        ("anyio_backend", "rights", "endpoint"),
        [("asyncio", "works", "delete"), ("trio", "graphql", "graphql")],
    )
    async def test_opens_one_of_two_doors(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, rights: str, endpoint: str
    ) -> None:
        """What the vendor lets a pod's own key do is told differently by different people."""
        cloud.switch(pod_key=rights, keep_home=True)

        async with broker_on(QUICK, sweep=False) as broker, broker.lease(A_4090) as lease:
            pod = the_pod(cloud)
            await deadline_is_past(cloud, pod)
            await until(lambda: cloud.machines() == [])
            assert cloud.billing_now() == ()
            assert lease.release_state == "held"
            last = [request for request in cloud.requests if request.endpoint == endpoint][-1]

        assert last.status in (200, 204)
        assert cloud.charges()[pod] > Money(0)

    async def test_may_open_none_and_then_the_broker_ends_it(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The pod goes on asking, in vain; the switch is never counted on."""
        cloud.switch(pod_key="none", keep_home=True)

        async with broker_on(QUICK, sweep=False) as broker:
            async with broker.lease(A_4090) as lease:
                pod = the_pod(cloud)
                await deadline_is_past(cloud, pod)
                await until(lambda: len([r for r in cloud.requests if r.status == 403]) >= 2)
                assert cloud.billing_now() == (pod,)
            await broker.wait_released(lease.id, timeout=15)

        assert cloud.machines() == []
        assert cloud.billing_now() == ()

    async def test_and_no_other_is_in_the_pod(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Neither in its files nor in its request; and its own is in no process's arguments."""
        async with broker_on(QUICK) as broker, broker.lease(A_4090):
            pod = cloud.inside.world.lives.pods[the_pod(cloud)]
            folder = cloud.folder(pod.id)
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert not [path for path in files if cloud.key.encode() in path.read_bytes()]
            for pid in processes_of({str(folder)}):
                assert pod.key not in Path(f"/proc/{pid}/cmdline").read_text()
            (create,) = sent(cloud, "create")
            assert cloud.key not in repr(create.body)

    async def test_is_used_when_the_broker_has_fallen_silent(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Once it has given a sign of life, and then none for a quarter of an hour."""
        async with broker_on(QUICK, sweep=False) as broker, broker.lease(A_4090) as lease:
            beat = cloud.folder(the_pod(cloud)) / "home" / ".gpubroker" / "heartbeat"
            await until(beat.is_file)
            long_ago = time.time() - SILENCE - 1
            os.utime(beat, (long_ago, long_ago))
            await until(lambda: cloud.machines() == [])
            assert cloud.billing_now() == ()
            assert lease.release_state == "held"

    async def test_is_used_when_nobody_comes_for_the_end_of_its_jobs(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It has nothing more to do: it waits for a while, and not for its deadline."""
        once = partial(container.jobs_command, repeats=(), grace=0.3)
        monkeypatch.setattr(container, "jobs_command", once)

        def on_event(event: Event) -> None:
            if event.kind is EventKind.RUNNING:
                cloud.faults.add("logs", "drop", times=None)

        async with broker_on(QUICK, on_event=on_event) as broker:
            with pytest.raises(MachineLost, match="the pod is gone") as caught:
                await broker.run(Job("echo out; sleep 0.5", timeout=30), A_4090)
            assert cloud.billing_now() == ()

        assert caught.value.result.state is JobState.LOST


async def deadline_is_past(cloud: RunPodEmulator, pod: str) -> None:
    """Let a pod's time be up, which is noted there at its first start and renewed by no other."""
    noted = cloud.folder(pod) / "home" / ".gpubroker" / "deadline"
    await until(noted.is_file)
    noted.write_text(f"{int(time.time())}\n")
    await by_hand(cloud, "POST", f"/v2/pods/{pod}/action", {"action": "restart"})
