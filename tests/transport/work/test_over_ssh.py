"""The same over real SSH: the system's server, and one in Python."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.transport.ssh.servers import KINDS, Server, Wire, make_key, missing, serve

from gpubroker.model.jobs import Job
from gpubroker.model.machines import Route
from gpubroker.model.results import JobState
from gpubroker.transport import run_job
from gpubroker.transport.ssh import open_channel
from gpubroker.transport.ssh.lease_key import LeaseKey

from .conftest import on_output

if TYPE_CHECKING:
    from .conftest import Desk

pytestmark = pytest.mark.anyio


def pairs(*loops: str) -> pytest.MarkDecorator:
    """Each kind of server, each with an event loop of its own."""
    return pytest.mark.parametrize(
        ("server", "anyio_backend"), list(zip(KINDS, loops, strict=True)), indirect=True
    )


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[Server, LeaseKey]]:
    """A server of each kind, and the key that it lets in."""
    reason = missing(request.param)
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site")
    public = make_key(folder / "key")
    with ExitStack() as stack:
        yield (
            stack.enter_context(serve(request.param, folder / "server", public)),
            LeaseKey(folder / "key", public),
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "lease"
    path.mkdir(mode=0o700)
    return path


@pairs("trio", "asyncio")
async def test_a_job_with_files_both_ways(
    desk: Desk, server: tuple[Server, LeaseKey], folder: Path
) -> None:
    """Words, environment, files, output, exit code."""
    site, key = server
    files = {"in/a b": os.urandom(700_000), **{f"in/{n}": b"%d" % n for n in range(300)}}
    io = {"env": {"GREETING": "hello\nworld\n"}, "job_id": token_hex(4)}

    async with open_channel([site.route], key=key, host_keys=[site.host_key], folder=folder) as way:
        ran = await desk.run(
            way, 'printf %s "$GREETING"; mv in out; exit 3', files=files, outputs="out", io=io
        )

    assert (ran.outcome.exit_code, ran.stdout) == (3, b"hello\nworld\n")
    assert ran.contents() == {f"out{name[2:]}": data for name, data in files.items()}


@pairs("asyncio", "trio")
async def test_a_connection_cut_at_any_time_costs_nothing(
    desk: Desk, server: tuple[Server, LeaseKey], folder: Path
) -> None:
    """While files go there, while the job runs, while they come back: the job ran once."""
    site, key = server
    data = os.urandom(3_000_000)
    script = 'echo >> "$HOME/runs"; for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; mv in out'
    (site.home / "runs").unlink(missing_ok=True)
    with Wire(site.port) as wire:

        def cut(_stream: str, said: bytes) -> None:
            if b"3" in said:
                wire.cut()
            if b"6" in said:
                wire.cut_after(1_500_000, "down")

        io, receiver = desk.io(on_output=cut, job_id=token_hex(4))
        way = open_channel(
            [Route("127.0.0.1", wire.port)], key=key, host_keys=[site.host_key], folder=folder
        )
        with anyio.fail_after(60):
            async with way as channel:
                wire.cut_after(1_000_000, "up")
                outcome = await run_job(channel, Job(script, files={"in": data}, outputs="out"), io)
        assert wire.accepted == 4

    assert outcome.exit_code == 0
    assert io.kept("stdout") == b"1\n2\n3\n4\n5\n6\n"
    assert (site.home / "runs").read_text() == "\n"
    assert receiver.commit()["out"].sha256 == hashlib.sha256(data).hexdigest()


@pairs("trio", "asyncio")
async def test_cancelling_ends_the_job(
    desk: Desk, server: tuple[Server, LeaseKey], folder: Path
) -> None:
    """Over the same connection, which is still good."""
    site, key = server
    began, job_id = anyio.Event(), token_hex(4)
    io, _ = desk.io(on_output=on_output(began.set), job_id=job_id)

    async with open_channel([site.route], key=key, host_keys=[site.host_key], folder=folder) as way:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_job, way, Job("echo on; sleep 600"), io)
            await began.wait()
            tasks.cancel_scope.cancel()
        again, _ = desk.io(job_id=job_id)
        outcome = await run_job(way, Job("true"), again)

    assert outcome.state is JobState.CANCELLED
