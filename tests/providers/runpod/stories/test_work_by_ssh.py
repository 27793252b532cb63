"""Work that reaches its pod over SSH: who answers there, how it is found, and what breaks it."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from gpubroker import (
    AttemptState,
    ErrorKind,
    Event,
    EventKind,
    HostIdentity,
    Job,
    JobState,
    MachineLost,
    Requirements,
    Result,
    Scope,
    SecretsRefused,
)
from gpubroker.testing.emulation.keeper import processes_of
from gpubroker.transport.work import follow
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, by_hand, sent, texts, until
from .working import all_released, beside, home, sweeping, the_pod

pytestmark = pytest.mark.anyio

#: A pod that is not reached is not waited for any longer.
PATIENT = {**QUICK, "boot_timeout": "10"}
A_4090 = Requirements(gpu="RTX 4090", count=1)
SECRET = "s3cret-value-of-a-token"
SAYS_LENGTH = Job('printf %s "$TOKEN" | wc -c', secrets={"TOKEN": SECRET}, timeout=30)
#: Also what could be handed over goes to the secure cloud, over SSH.
SSH = {**PATIENT, "way": "ssh", "clouds": "secure"}

#: What takes long is shown on one event loop, and kinds of one thing on one each.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


def passed_over(result: Result) -> str:
    """Why the first pod was given up for another one."""
    first, second = result.record.attempts
    assert (first.state, second.state) == (AttemptState.FAILED, AttemptState.WON)
    assert (first.kind, first.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    return first.reason


class TestAJob:
    async def test_takes_files_there_and_brings_files_back(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """With both streams apart, on a pod whose host keys the log has shown."""
        job = Job(
            ["sh", "-c", 'cat in.txt; echo "$WORD" >&2; mkdir sub; cp in.txt "sub/o 1"; exit 3'],
            files={"in.txt": b"hello\n\xff\r\n"},
            outputs=["sub"],
            output_dir=tmp_path / "results",
            env={"WORD": 'it\'s "quoted"\n$HOME'},
            timeout=60,
        )

        async with broker_on(PATIENT) as broker:
            result = await broker.run(job, A_4090)
            await all_released(broker, cloud)

        assert (result.state, result.exit_code) == (JobState.EXITED, 3)
        assert result.stdout == b"hello\n\xff\r\n"
        assert result.stderr == b'it\'s "quoted"\n$HOME\n'
        assert (tmp_path / "results/sub/o 1").read_bytes() == b"hello\n\xff\r\n"
        assert result.host_identity is HostIdentity.PINNED
        (create,) = sent(cloud, "create")
        assert (create.body["cloud"], create.body["ports"]) == ("SECURE", ["22/tcp"])

    async def test_is_one_of_several_on_a_pod_that_is_set_up_once(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Set-up runs in the home folder, before the first job; each job has a folder of its own."""
        wanted = Requirements(gpu="RTX 4090", count=1, setup="pwd >>set-up; echo 1 >>times")

        async with broker_on(PATIENT) as broker:
            async with broker.lease(wanted) as lease:
                results = [
                    await lease.run(Job(f"cat ~/times; pwd; echo {n} >mine; ls", timeout=30))
                    for n in range(3)
                ]
                where = (home(cloud) / "set-up").read_text().strip()
                assert where == str(home(cloud))
            await all_released(broker, cloud)

        rows = [result.text.splitlines() for result in results]
        assert len({row[1] for row in rows}) == 3
        assert all((row[0], row[2:]) == ("1", ["mine"]) for row in rows)
        assert len(sent(cloud, "create")) == 1

    async def test_sees_what_the_image_set_and_not_the_pods_key(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """An SSH server's sessions inherit nothing; and a job needs no key that ends its pod."""
        wanted = Requirements(gpu="RTX 4090", count=1, env={"FOR_ALL": "it's all's"})

        async with broker_on(SSH) as broker:
            result = await broker.run(Job("env; echo; nvidia-smi -L", timeout=30), wanted)
            (pod,) = cloud.inside.world.lives.pods.values()
            await all_released(broker, cloud)

        assert "FOR_ALL=it's all's\n" in result.text
        assert f"RUNPOD_POD_ID={pod.id}\n" in result.text
        assert "RTX 4090" in result.text
        assert pod.key not in result.text
        assert "GPUBROKER_MARK" not in result.text

    async def test_has_its_secrets_in_no_request_and_on_no_disk(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Not in the pod's variables either, which the vendor shows to everybody in the account."""
        script = 'printf %s "$TOKEN" | wc -c; cat >/dev/null <"$GATE"'
        seen = bytearray()

        async with broker_on(PATIENT) as broker:
            async with broker.lease(A_4090, secrets=True) as lease:
                gate = home(cloud) / "gate"
                os.mkfifo(gate)
                job = Job(script, secrets={"TOKEN": SECRET}, env={"GATE": str(gate)}, timeout=30)

                async def look() -> None:
                    await until(lambda: b"\n" in seen)
                    machine = home(cloud).parent
                    for pid in processes_of({str(machine)}):
                        assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text()
                    for path in machine.rglob("*"):
                        if path.is_file():
                            assert SECRET.encode() not in path.read_bytes(), path
                    with gate.open("w"):
                        pass

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(look)
                    await lease.run(job, on_output=lambda _, data: seen.extend(data))
                listed = await by_hand(cloud, "GET", "/v2/pods")
            await all_released(broker, cloud)

        assert seen.split() == [b"%d" % len(SECRET)]
        assert SECRET not in repr(listed)
        assert SECRET not in repr(cloud.requests)


class TestWhoAnswers:
    async def test_is_let_in_with_a_key_of_this_lease_alone(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The account's list of keys is neither read nor written."""
        async with broker_on(PATIENT) as broker:
            for _ in range(2):
                async with broker.lease(A_4090):
                    keys = (home(cloud) / ".ssh" / "authorized_keys").read_text().split("\n")
                    (create,) = sent(cloud, "create")[-1:]
                    assert create.body["env"]["PUBLIC_KEY"] in keys
            await all_released(broker, cloud)

        first, second = sent(cloud, "create")
        assert first.body["env"]["PUBLIC_KEY"] != second.body["env"]["PUBLIC_KEY"]
        assert "startSsh" not in first.body
        assert not [request for request in cloud.requests if "ssh-keys" in request.path]

    async def test_is_believed_when_the_log_shows_its_keys_however_late(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """A log that cannot be had yet is read again."""
        cloud.faults.add("logs", "problem", status=404, times=2)
        cloud.faults.add("logs", "drop", nth=3)

        async with broker_on(PATIENT) as broker:
            result = await broker.run(SAYS_LENGTH, A_4090)
            await all_released(broker, cloud)

        assert result.stdout.strip() == b"%d" % len(SECRET)
        assert result.host_identity is HostIdentity.PINNED
        assert len(result.record.attempts) == 1

    async def test_gets_no_secrets_while_no_log_shows_its_keys(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Its first key is believed for other work, where it knows what the pod was told."""
        cloud.faults.add("logs", "problem", status=404, times=None)

        async with broker_on({**PATIENT, "identity_timeout": "0"}) as broker:
            async with broker.lease(A_4090) as lease:
                result = await lease.run(Job(["true"], timeout=30))
                with pytest.raises(SecretsRefused, match="TOKEN"):
                    await lease.run(SAYS_LENGTH)
            await all_released(broker, cloud)

        assert result.host_identity is HostIdentity.FIRST_USE

    async def test_is_sent_nothing_if_it_is_another_server(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """One that has another key than the log shows: the job goes to the next pod."""
        cloud.next_pod("wrong-host-key")

        async with broker_on({**SSH, "boot_timeout": "1.5"}) as broker:
            result = await broker.run(SAYS_LENGTH, A_4090)
            await all_released(broker, cloud)

        assert "host key" in passed_over(result)
        assert result.stdout.strip() == b"%d" % len(SECRET)


class TestTheWayThere:
    @pytest.mark.parametrize(
        ("anyio_backend", "fault"),
        [("asyncio", "late-ssh"), pytest.param("trio", "late-port", marks=pytest.mark.deep)],
    )
    async def test_may_take_a_while(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], fault: str
    ) -> None:
        """ "Running" is said of a pod long before its server answers, or its port is shown."""
        cloud.next_pod(fault, seconds=0.5)

        async with broker_on(SSH) as broker:
            result = await broker.run(Job("echo ok", timeout=30), A_4090)
            await all_released(broker, cloud)

        assert result.text == "ok\n"
        assert len(result.record.attempts) == 1
        assert any("not reached yet" in text for text in texts(events, EventKind.BOOTING))

    @pytest.mark.parametrize(
        ("anyio_backend", "fault"),
        [
            ("asyncio", "no-public-port"),
            pytest.param("trio", "no-ssh", marks=pytest.mark.deep),
        ],
    )
    async def test_that_never_comes_is_paid_for_until_the_boot_has_taken_too_long(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, fault: str
    ) -> None:
        """And no longer: the next pod does it."""
        cloud.next_pod(fault)

        async with broker_on({**SSH, "boot_timeout": "1"}) as broker:
            result = await broker.run(Job("echo ok", timeout=30), A_4090)
            await all_released(broker, cloud)

        assert "no progress for 1 s while booting" in passed_over(result)
        assert result.text == "ok\n"

    async def test_that_is_cut_is_found_again(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Nothing of the job's output is lost, and nothing comes twice."""
        script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.01; done"
        live = bytearray()
        cuts: list[str] = []

        def listen(_: str, data: bytes) -> None:
            live.extend(data)
            if live.count(b"\n") > 20 and not cuts:
                cuts.append(the_pod(cloud))
                cloud.afflict(cuts[0], "cut")

        async with broker_on(SSH) as broker:
            result = await broker.run(Job(script, timeout=30), A_4090, on_output=listen)
            await all_released(broker, cloud)

        assert cuts
        assert bytes(live) == result.stdout == b"".join(b"%d\n" % n for n in range(1, 61))
        assert result.exit_code == 0

    async def test_is_found_under_another_port_by_who_comes_after_a_restart(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """While it boots: the old port is still shown for a while, and leads nowhere."""
        cloud.next_pod("late-ssh", seconds=0.4)
        cloud.next_pod("stale-port", seconds=0.6)

        async def restart() -> None:
            await until(lambda: [row for row in cloud.machines() if row["ssh"]["direct"]])
            ports.append(cloud.machines()[0]["ssh"]["direct"]["port"])
            cloud.afflict(the_pod(cloud), "restarts")

        async def work() -> Result:
            async with broker.lease(A_4090) as lease:
                result = await lease.run(Job("echo ok", timeout=30))
                ports.append(cloud.machines()[0]["ssh"]["direct"]["port"])
            return result

        ports: list[int] = []
        async with broker_on(SSH) as broker:
            result = await beside(restart, work())
            await all_released(broker, cloud)

        assert result.text == "ok\n"
        assert result.host_identity is HostIdentity.PINNED
        assert ports[0] != ports[1]


class TestAPodThatBreaksUnderAJob:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That is how long a job would be told to end, on a machine that is not there."""
        monkeypatch.setattr(follow, "_CANCELLING", 0.1)

    @pytest.mark.parametrize(
        ("anyio_backend", "fault"),
        [
            ("asyncio", "restarts"),
            pytest.param("trio", "dies", marks=pytest.mark.deep),
            pytest.param("asyncio", "stops", marks=pytest.mark.deep),
            pytest.param("trio", "error", marks=pytest.mark.deep),
        ],
    )
    async def test_loses_it_and_it_is_done_elsewhere(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path, fault: str
    ) -> None:
        """Its container was started again, its host is gone, it was stopped, or it failed."""
        first: list[str] = []
        flag = tmp_path / "flag"

        def hit(_: str, data: bytes) -> None:
            if not first:
                first.append(the_pod(cloud))
                cloud.afflict(first[0], fault)

        script = f"echo begun; [ -e {flag} ] || {{ touch {flag}; sleep 60; }}; echo over"
        job = Job(script, timeout=60, retries=1)
        async with broker_on(SSH) as broker:
            working = broker.run(job, A_4090, on_output=hit)
            result = await beside(partial(sweeping, broker), working)
            await all_released(broker, cloud)

        assert result.text == "begun\nover\n"
        assert len(sent(cloud, "create")) == 2

    @pytest.mark.parametrize(
        ("anyio_backend", "keep_home"),
        [("asyncio", False), pytest.param("trio", True, marks=pytest.mark.deep)],
        ids=["home wiped", "home kept"],
    )
    async def test_says_so_where_it_may_not_be_repeated(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, keep_home: bool
    ) -> None:
        """Its container comes up again, with another host key, and never takes the job up again."""
        cloud.switch(keep_home=keep_home)
        begun = anyio.Event()

        async def restart() -> None:
            await begun.wait()
            await by_hand(cloud, "POST", f"/v2/pods/{the_pod(cloud)}/action", {"action": "restart"})
            await sweeping(broker)

        job = Job("echo begun; sleep 60", timeout=60)
        async with broker_on(SSH) as broker:
            working = broker.run(job, A_4090, on_output=lambda _, __: begun.set())
            with pytest.raises(MachineLost) as caught:
                await beside(restart, working)
            await all_released(broker, cloud)

        assert caught.value.result.state is JobState.LOST
        assert caught.value.result.stdout == b"begun\n"
        assert len(sent(cloud, "create")) == 1


SERVICE = """\
import http.server, sys
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"""


async def test_a_service_is_reached_through_a_tunnel(
    cloud: RunPodEmulator, broker_on: MakeBroker
) -> None:
    """No port of the pod's is opened to the world for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    start = f'nohup {shlex.quote(sys.executable)} "$PWD/service.py" {port} >/dev/null 2>&1 &'
    job = Job(start, files={"service.py": SERVICE.encode()}, timeout=30)

    with anyio.fail_after(30):
        async with broker_on(PATIENT) as broker:
            async with broker.lease(A_4090) as lease:
                (await lease.run(job)).check()
                async with lease.tunnel(port) as url, httpx.AsyncClient(trust_env=False) as client:
                    first = await client.get(url)
                    cloud.afflict(the_pod(cloud), "cut")
                    async with httpx.AsyncClient(trust_env=False) as another:
                        second = await another.get(url)
            await all_released(broker, cloud)

    assert (first.text, second.text) == ("served", "served")
    assert sent(cloud, "create")[0].body["ports"] == ["22/tcp"]
