"""Ways to machines that break, hang or vanish under a job, and services reached through them."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import httpx
import pytest

from gpubroker import (
    AsyncBroker,
    Broker,
    BrokerError,
    Job,
    JobState,
    MachineLost,
    Requirements,
)
from gpubroker.transport import ssh
from gpubroker.transport.work import follow
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker, settings_for
from .watching import QUICK, by_hand, until

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
#: A file goes on where it was, once so much of it is here.
ENOUGH = 64 * 1024**2
LARGE = ENOUGH + 14 * 1024**2

#: What takes long is shown on one event loop, and kinds of one thing on one each.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


def the_machine(cloud: VastEmulator) -> int:
    """The only instance that there is."""
    (row,) = cloud.instances()
    return int(row["id"])


def connections() -> list[int]:
    """The ssh processes that this process keeps connections with."""
    own = str(os.getpid())
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            words = (path / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if parent == own and words[0] == "ssh" and "-M" in words:
            found.append(int(path.name))
    return found


T = TypeVar("T")


async def beside(other: Callable[[], Coroutine[Any, Any, None]], main: Awaitable[T]) -> T:
    """What comes of the second, with the first going on until then."""
    results: list[T] = []
    failures: list[Exception] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            try:
                results.append(await main)
            except BrokerError as error:
                failures.append(error)  # as it is, and not inside of a group
            tasks.cancel_scope.cancel()
    for failure in failures:
        raise failure
    return results[0]


class Watched:
    """The size of the one file that a pattern finds, whenever it was looked at."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._sizes = [0]

    def look(self) -> None:
        for path in self._folder.glob(self._pattern):
            with suppress(OSError):  # it was just moved to its place
                self._sizes.append(path.stat().st_size)

    @property
    def size(self) -> int:
        return self._sizes[-1]

    @property
    def only_grew(self) -> bool:
        return self._sizes == sorted(self._sizes)


class TestABrokenConnection:
    async def test_output_goes_on_where_it_was(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Cut on the way, or the client killed: nothing is lost, and nothing comes twice."""
        script = "i=0; while [ $i -lt 120 ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.01; done"
        live: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        broken: list[str] = []

        def listen(stream: str, data: bytes) -> None:
            live[stream] += data
            lines = live["stdout"].count(b"\n")
            if lines > 20 and not broken:
                broken.append("cut")
                cloud.afflict(the_machine(cloud), "cut")
            if lines > 60 and len(broken) == 1:
                broken.append("killed")
                for pid in connections():
                    os.kill(pid, signal.SIGKILL)

        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(script, timeout=30), A_4090, on_output=listen)

        assert broken == ["cut", "killed"]
        assert bytes(live["stdout"]) == b"".join(b"%d\n" % n for n in range(1, 121))
        assert bytes(live["stderr"]) == b"".join(b"e%d\n" % n for n in range(1, 121))
        assert result.stdout == bytes(live["stdout"])
        assert (result.state, result.exit_code) == (JobState.EXITED, 0)
        assert cloud.billing_now() == ()

    @one_loop
    async def test_large_files_go_on_where_they_were(
        self, cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """Cut on the way up and on the way down: what is there already is not sent again."""
        data = Random(1).randbytes(LARGE)
        up = Watched(cloud.folder("."), "*/home/.gpubroker/jobs/*/new/in.bin")
        down = Watched(tmp_path / "out", ".gpubroker-*/out.bin")
        job = Job(
            "cp in.bin out.bin",
            files={"in.bin": data},
            outputs="out.bin",
            output_dir=tmp_path / "out",
            timeout=60,
        )
        cuts = [(up, LARGE // 8), (down, ENOUGH + 1024**2)]

        async def watch() -> None:
            while True:
                for way in (up, down):
                    way.look()
                if cuts and cuts[0][0].size > cuts[0][1]:
                    cloud.afflict(the_machine(cloud), "cut")
                    cuts.pop(0)
                await anyio.sleep(0.003)

        async with broker_on(QUICK) as broker:
            result = await beside(watch, broker.run(job, A_4090))

        assert cuts == []
        assert up.only_grew
        assert down.only_grew
        assert result.ok
        out = result.files["out.bin"]
        assert out.sha256 == hashlib.sha256(data).hexdigest()
        assert out.path.read_bytes() == data
        assert cloud.billing_now() == ()


class TestAMachineThatHangs:
    @one_loop
    async def test_a_half_open_connection_is_noticed_and_replaced(
        self, cloud: VastEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The host stands still with its connections open: the job is found again when it goes on."""
        monkeypatch.setattr(
            ssh, "open_channel", partial(ssh.open_channel, keepalive=1, connect_timeout=1)
        )
        script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo over"
        seen: list[bytes] = []

        def listen(_: str, data: bytes) -> None:
            if not seen:
                cloud.afflict(the_machine(cloud), "freeze")
            seen.append(data)

        async def go_on() -> None:
            await until(lambda: seen)
            (first,) = connections()
            # The one that hangs has been given up, and others were tried in vain.
            await until(lambda: first not in connections())
            (folder,) = cloud.folder(the_machine(cloud)).glob("home/.gpubroker/jobs/job-*/work")
            (folder / "go").touch()
            cloud.afflict(the_machine(cloud), "thaw")

        job = Job(script, timeout=30)
        async with broker_on(QUICK) as broker:
            result = await beside(go_on, broker.run(job, A_4090, on_output=listen))

        assert result.stdout == b"begun\nover\n"
        assert result.exit_code == 0
        assert cloud.billing_now() == ()


class TestAMachineThatIsLost:
    """The job is lost with it: said so, or started again elsewhere; nothing is left that bills."""

    @pytest.mark.parametrize(
        ("anyio_backend", "fault", "options", "why"),
        [
            ("asyncio", "outbid", {}, "outbid"),
            ("trio", "vanish", {}, "offline"),
            ("asyncio", "vanish", {"frozen": True}, "offline"),
            ("trio", "exit", {}, "exited"),
        ],
        ids=["outbid", "host offline", "host offline and half-open", "container ended"],
    )
    async def test_a_job_that_may_be_repeated_runs_elsewhere(
        self,
        cloud: VastEmulator,
        broker_on: MakeBroker,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        fault: str,
        options: dict[str, bool],
        why: str,
    ) -> None:
        """Its first machine is taken away under it; the second one brings the result."""
        lost: list[int] = []
        # That is how long the job would be told to end, on a machine that is not there.
        monkeypatch.setattr(follow, "_CANCELLING", 0.1)

        def listen(_: str, data: bytes) -> None:
            if data == b"begun\n" and not lost:
                lost.append(the_machine(cloud))
                cloud.afflict(lost[0], fault, **options)
            elif data == b"begun\n":
                stay.unlink()

        stay = tmp_path / "stay"
        stay.touch()
        script = f"echo begun; while [ -e {stay} ]; do sleep 0.05; done; echo over"
        job = Job(script, timeout=60, retries=1)
        wanted = Requirements(gpu="RTX 4090", spot=fault == "outbid")
        async with broker_on(QUICK) as broker:
            result = await beside(
                partial(sweeping, broker), broker.run(job, wanted, on_output=listen)
            )
            leases = await broker.leases(open_only=False)

        assert result.stdout == b"begun\nover\n"
        assert result.exit_code == 0
        offers = [attempt.offer_id for attempt in result.record.attempts]
        assert len(set(offers)) == len(offers) == 2
        first = next(lease for lease in leases if lease.machine_id == str(lost[0]))
        assert why in first.release_reason
        assert cloud.instances() == []
        assert cloud.billing_now() == ()

    async def test_a_job_that_may_not_be_repeated_is_said_to_be_lost(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Its container is started again by somebody: what ran is gone, and its output is kept."""
        begun = anyio.Event()

        async def restart() -> None:
            await begun.wait()
            await by_hand(cloud, "PUT", f"/api/v0/instances/reboot/{the_machine(cloud)}/")

        job = Job("echo begun; sleep 60", timeout=60)
        async with broker_on(QUICK) as broker:
            working = broker.run(job, A_4090, on_output=lambda _, __: begun.set())
            with pytest.raises(MachineLost, match="restarted") as caught:
                await beside(restart, working)

        assert caught.value.result.state is JobState.LOST
        assert caught.value.result.stdout == b"begun\n"
        assert cloud.instances() == []
        assert cloud.billing_now() == ()


SERVICE = """\
import http.server, sys
class Service(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Service.asked += 1
        self.send_response(503 if Service.asked < 3 else 200)
        self.end_headers()
        self.wfile.write(b"asked %d" % Service.asked)
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"""


def free_port() -> int:
    """A port that nobody listens on. Ports of emulated machines are this system's own."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def serving(port: int) -> Job:
    """Starts a service that goes on when the job is over."""
    start = f'nohup {sys.executable} "$PWD/service.py" {port} >/dev/null 2>&1 &'
    return Job(start, files={"service.py": SERVICE.encode()}, timeout=30)


class TestTunnel:
    async def test_a_service_is_reached_once_it_is_well(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Its errors at the beginning are waited out, and the way outlives a broken connection."""
        port = free_port()
        with anyio.fail_after(30):
            async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
                (await lease.run(serving(port))).check()
                async with lease.tunnel(port) as url, httpx.AsyncClient(trust_env=False) as client:
                    first = await client.get(url)
                    cloud.afflict(the_machine(cloud), "cut")
                    async with httpx.AsyncClient(trust_env=False) as another:
                        second = await another.get(url)
                with pytest.raises(httpx.ConnectError):
                    httpx.get(url, trust_env=False)

        assert (first.status_code, first.text) == (200, "asked 4")
        assert (second.status_code, second.text) == (200, "asked 5")

    async def test_where_nothing_listens_time_runs_out(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Neither for HTTP nor for anything else is a port taken to be served that is not."""
        with anyio.fail_after(30):
            async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
                for path in ("/", None):
                    with pytest.raises(TimeoutError, match=r"within 0\.3 s"):
                        async with lease.tunnel(free_port(), path=path, timeout=0.3):
                            raise AssertionError("nothing listens there")
                assert (await lease.run(["true"])).ok

        assert cloud.billing_now() == ()


def test_synchronous_code_has_tunnels_too(cloud: VastEmulator, tmp_path: Path) -> None:
    """The same, without an event loop of one's own."""
    port = free_port()

    with (
        Broker(settings=settings_for(cloud, tmp_path / "ledger.db", **QUICK)) as broker,
        broker.lease(A_4090) as lease,
    ):
        lease.run(serving(port)).check()
        with lease.tunnel(port, timeout=20) as url:
            said = httpx.get(url, trust_env=False)

    assert said.text == "asked 4"
    assert cloud.billing_now() == ()


async def sweeping(broker: AsyncBroker) -> None:
    """Look for machines that are lost more often than every half a minute."""
    while True:
        await broker.sweep()
        await anyio.sleep(0.1)
