"""Servers on a lease, beside its jobs: real processes of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from gpubroker import AsyncBroker, Broker, InvalidValue, LeaseReleased, Service, ServiceFailed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_settings")]

SERVER = b"""\
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        print("asked for", self.path, flush=True)
        if self.path == "/die":
            print("out of memory", file=sys.stderr, flush=True)
            os._exit(3)
        if self.path == "/hang":
            os.rename("well", "ill")
        well = os.path.exists("well") and Handler.asked > 2
        self.send_response(200 if well else 503)
        self.end_headers()
        self.wfile.write(os.environ.get("GREETING", "").encode())
    def log_message(self, *_):
        pass
open("well", "w").close()
open("pid", "w").write(str(os.getpid()))
print("starting at", os.getcwd(), flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(**options: object) -> Service:
    """A server that is not ready until it was asked twice."""
    words = [sys.executable, "server.py", "{port}"]
    return Service(words, 0, files={"server.py": SERVER}, **options)  # type: ignore[arg-type]


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


def folder_of(log: str) -> Path:
    """Where the server runs, as it says itself."""
    return Path(log.partition("starting at ")[2].partition("\n")[0])


def is_running(pid: int) -> bool:
    """Whether there is such a process, that has not ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


async def test_a_server_runs_beside_jobs_and_ends_with_its_block() -> None:
    """Ready when the block begins, reached by a local address, gone with all its processes."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            async with lease.service(server(env={"GREETING": "hello"})) as running:
                answer = await get(running.url)
                result = await lease.run("echo a job meanwhile")
                await running.check()
                log = running.log()
                pid = int((folder_of(log) / "pid").read_text())
            gone = not is_running(pid)
            after = await lease.run("echo and one after")
            costs = await broker.costs("job")

    assert (answer.status_code, answer.text) == (200, "hello")
    assert (result.text, after.text) == ("a job meanwhile\n", "and one after\n")
    assert "asked for /\n" in log
    assert running.log(tail=4) == "r /\n"
    assert gone
    assert len(costs.lines) == 2


async def test_a_server_that_exits_says_so_with_its_last_words() -> None:
    """Whoever waits is told, and an error that it caused comes out as what is behind it."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            with pytest.raises(ServiceFailed, match=r"exited with code 3: .*out of memory") as told:
                async with lease.service(server()) as running:
                    await get(f"{running.url}/die")
            still = await lease.run("echo the machine is well")

    assert isinstance(told.value.__cause__, httpx.TransportError)
    assert told.value.log.endswith("out of memory\n")
    assert still.ok


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (Service("echo no model; exit 7", 0), "exited with code 7: no model"),
        (Service(["no-such-program"], 0), "could not be started: .*no-such-program"),
        (Service("echo loading; sleep 60", 0, start_timeout=1.5), r"within 1\.5 s: loading"),
        (Service("sleep 60", 0, ready=None, start_timeout=0.5), r"within 0\.5 s"),
    ],
)
async def test_a_server_that_does_not_get_ready_fails_with_its_log(
    service: Service, why: str
) -> None:
    """At once where it ended, after its time where it did not; the machine stays usable."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            with pytest.raises(ServiceFailed, match=why):
                async with lease.service(service):
                    raise AssertionError("it is not ready")
            assert (await lease.run(["true"])).ok


async def test_a_server_that_stops_answering_is_noticed() -> None:
    """Three looks in a row that find it ill are a failure, though it runs on."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            async with lease.service(server(health="/health", health_every=0.05)) as running:
                await get(f"{running.url}/hang")
                failure = await running.wait_failed()
                with pytest.raises(ServiceFailed, match="stopped answering"):
                    await running.check()

    assert "stopped answering" in str(failure)
    assert "asked for /health" in failure.log


async def test_giving_the_machine_up_ends_the_server() -> None:
    """Its address is of no use then, and it says why; no other one can be started."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            async with lease.service(server()) as running:
                lease.release("that was all")
                failure = await running.wait_failed()
            with pytest.raises(LeaseReleased):
                async with lease.service(server()):
                    raise AssertionError("the machine is given up")

    assert "cancelled: that was all" in str(failure)


async def test_a_port_that_is_taken_is_never_mistaken_for_the_server() -> None:
    """Whoever listens there already would answer in its place."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            async with lease.service(server()) as first:
                taken = Service([sys.executable, "-c", "input()"], first.port)
                with pytest.raises(ServiceFailed, match="something else listens at port"):
                    async with lease.service(taken):
                        raise AssertionError("it is not that server")


async def test_errors_that_are_not_the_servers_come_out_as_they_are() -> None:
    """A caller's own mistake is not explained by a server that is well."""
    with anyio.fail_after(60):
        async with AsyncBroker() as broker, broker.lease() as lease:
            with pytest.raises(KeyError, match="mine"):
                async with lease.service(server()):
                    raise KeyError("mine")


def test_synchronous_code_has_servers_too() -> None:
    """The same, without an event loop of one's own."""
    with Broker() as broker, broker.lease() as lease:
        with lease.service(server()) as running:
            running.check()
            said = httpx.get(running.url, trust_env=False)
            log = running.log()
        with (
            pytest.raises(ServiceFailed, match="exited with code 3"),
            lease.service(server()) as another,
        ):
            httpx.get(f"{another.url}/die", trust_env=False)

    assert said.status_code == 200
    assert folder_of(log).is_absolute()
    assert another.failure is not None
    assert another.wait_failed().log.endswith("out of memory\n")
    assert repr(running) == f"<Server {running.url} on {lease.machine}>"
    assert str(os.getpid()) not in log


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"command": [], "port": 1}, "command"),
        ({"command": "x", "port": 65536}, "port"),
        ({"command": "x", "port": True}, "port"),
        ({"command": "x", "port": 1, "ready": "no-slash"}, "ready"),
        ({"command": "x", "port": 1, "health": ""}, "health"),
        ({"command": "x", "port": 1, "start_timeout": 0}, "start_timeout"),
        ({"command": "x", "port": 1, "env": {"GPUBROKER_X": ""}}, "env"),
    ],
)
def test_nonsense_is_refused_by_name(arguments: dict[str, object], field: str) -> None:
    """Before anything is rented for it."""
    with pytest.raises(InvalidValue) as refused:
        Service(**arguments)  # type: ignore[arg-type]

    assert refused.value.field == field
