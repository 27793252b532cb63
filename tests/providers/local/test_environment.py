"""What a job inherits, and what it must never see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import gpubroker_local

if TYPE_CHECKING:
    from tests.providers.local.conftest import House

pytestmark = pytest.mark.anyio

SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]


async def test_keys_of_the_broker_do_not_reach_jobs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a fixed list of harmless names is inherited, and what ``pass_env`` names."""
    monkeypatch.setenv("VAST_API_KEY", "top-secret")
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    provider = house.provider(pass_env="HF_HOME, NOT_SET")
    machine = await house.rent(provider)

    ran = await house.run(provider, machine, SHOW)

    seen = json.loads(ran.stdout)
    assert "VAST_API_KEY" not in seen
    assert (seen["HF_HOME"], seen["LC_TIME"]) == ("/models", "C.UTF-8")
    assert "NOT_SET" not in seen
    assert b"top-secret" not in Path(f"/proc/{house.runner_of(machine)}/environ").read_bytes()


async def test_job_knows_its_home_lease_and_mark_and_sees_no_card(house: House) -> None:
    """A lease without GPUs cannot use one by accident, whatever the job asks for."""
    provider = house.provider()
    machine = await house.rent(provider)

    ran = await house.run(provider, machine, SHOW, io={"env": {"CUDA_VISIBLE_DEVICES": "0"}})

    seen = json.loads(ran.stdout)
    assert seen["HOME"] == str(house.leases / machine.id / "home")
    assert seen["GPUBROKER_LEASE"] == machine.id
    assert seen["GPUBROKER_MARK"] == machine.mark
    assert seen["CUDA_VISIBLE_DEVICES"] == ""


async def test_environment_of_the_order_reaches_every_job(house: House) -> None:
    """The job's own environment goes first where both name the same variable."""
    provider = house.provider()
    offer = await house.offer(provider)
    machine = await provider.provision(offer, house.order(env={"A": "order", "B": "order"}))

    ran = await house.run(provider, machine, SHOW, io={"env": {"B": "job"}})

    seen = json.loads(ran.stdout)
    assert (seen["A"], seen["B"]) == ("order", "job")


async def test_secrets_are_not_on_disk_once_the_job_has_started(house: House) -> None:
    """Not in the spec, not in a log, not in the record: nowhere below the lease's folder."""
    provider = house.provider()
    machine = await house.rent(provider)
    secret = "s3cret-value-of-the-test"

    ran = await house.run(
        provider, machine, ["grep", "-r", secret, str(house.leases)], io={"env": {"TOKEN": secret}}
    )

    assert (ran.outcome.exit_code, ran.text) == (1, "")


async def test_others_cannot_look_into_leases(house: House) -> None:
    """The folder of a lease is its user's alone."""
    provider = house.provider()
    machine = await house.rent(provider)

    assert (house.leases / machine.id).stat().st_mode & 0o777 == 0o700
    assert house.leases.stat().st_mode & 0o777 == 0o700


def test_importing_the_package_loads_next_to_nothing() -> None:
    """A runner imports it too: no typing, no pynvml, no anyio, nothing of the broker."""
    place = Path(gpubroker_local.__file__).parent.parent
    code = "import sys; sys.path.append(sys.argv[1]); import gpubroker_local.runner; print(*sys.modules)"

    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, place], check=True, capture_output=True, text=True
    )

    heavy = {"typing", "signal", "ctypes", "json", "anyio", "pynvml", "gpubroker", "pathlib"}
    assert not heavy & set(found.stdout.split())
