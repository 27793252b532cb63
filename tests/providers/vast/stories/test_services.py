"""Servers on rented machines, over SSH connections that break."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from gpubroker import Event, EventKind, Requirements, Service, ServiceFailed
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker
from .test_links import SERVICE, the_machine
from .watching import QUICK

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
PROGRAM = f"print('starting')\n{SERVICE}".encode()
WORDS = [sys.executable, "-u", "service.py", "{port}"]


def service(folder: Path) -> Service:
    """A server that is ready when it is asked for the third time, known by the test's folder."""
    return Service([*WORDS, str(folder)], 0, files={"service.py": PROGRAM})


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


def running_servers(folder: Path) -> list[int]:
    """The processes of this system that are the test's server."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in words:
            found.append(int(path.name))
    return found


async def test_a_server_outlives_a_broken_connection(
    cloud: VastEmulator, broker_on: MakeBroker, events: list[Event], tmp_path: Path
) -> None:
    """Neither it nor its address here changes, nor is anything of its log lost."""
    with anyio.fail_after(60):
        async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
            async with lease.service(service(tmp_path)) as running:
                first = await get(running.url)
                cloud.afflict(the_machine(cloud), "cut")
                second = await get(running.url)
                result = await lease.run(["echo", "a job beside it"])
                await running.check()
                log = running.log()
            gone = running_servers(tmp_path) == []

    assert (first.text, second.text) == ("asked 4", "asked 5")
    assert result.text == "a job beside it\n"
    assert log == "starting\n"
    assert gone
    assert [event.kind for event in events].count(EventKind.SERVING) == 1
    assert cloud.billing_now() == ()


async def test_a_machine_that_goes_away_takes_the_server_with_it(
    cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Whoever uses it is told, with what the server had said until then."""
    with anyio.fail_after(60):
        async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
            async with lease.service(service(tmp_path)) as running:
                lease.release("enough")
                failure = await running.wait_failed()

    assert "cancelled: enough" in str(failure)
    assert failure.log == "starting\n"
    assert running_servers(tmp_path) == []
    assert cloud.billing_now() == ()


async def test_a_server_that_dies_on_a_rented_machine_says_why(
    cloud: VastEmulator, broker_on: MakeBroker
) -> None:
    """Its exit code and its last words, from the far side of the tunnel."""
    dying = Service("echo loading the model; sleep 0.3; echo no memory >&2; exit 9", 8188)

    with anyio.fail_after(60):
        async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
            with pytest.raises(ServiceFailed, match=r"exited with code 9: .*no memory"):
                async with lease.service(dying):
                    raise AssertionError("it died")
            assert (await lease.run(["true"])).ok

    assert cloud.billing_now() == ()
