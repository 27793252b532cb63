"""Which way work goes to a pod: over SSH, or in the pod's command and back through its log."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpubroker import (
    AttemptsExhausted,
    ErrorKind,
    Event,
    EventKind,
    Job,
    JobState,
    NoOfferFits,
    Requirements,
)
from gpubroker.transport.work import follow
from gpubroker_runpod import boots, orders
from gpubroker_runpod.container import LIMIT
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, sent, texts
from .working import all_released, beside, sweeping, the_pod

pytestmark = pytest.mark.anyio

#: A pod that is not reached is not waited for any longer.
PATIENT = {**QUICK, "boot_timeout": "8"}
A_4090 = Requirements(gpu="RTX 4090", count=1)
SECRET = "s3cret-value-of-a-token"
HELLO = Job("echo hello", timeout=30)

#: The settings, what is run, and the cloud and the way that it takes; the log, if not SSH.
CHOICES: dict[str, tuple[dict[str, str], Requirements, bool, str, bool]] = {
    "cheap and not reached": ({}, A_4090, False, "COMMUNITY", False),
    "a data center is reached": ({"clouds": "secure"}, A_4090, False, "SECURE", True),
    "more is to come": ({"way": "log"}, A_4090, True, "SECURE", True),
    "the log by the settings": ({"way": "log", "clouds": "secure"}, A_4090, False, "SECURE", False),
    "ports are wanted": (
        {"way": "log", "clouds": "secure"},
        Requirements(gpu="RTX 4090", count=1, ports=[8188]),
        False,
        "SECURE",
        True,
    ),
}


@pytest.mark.parametrize(
    ("anyio_backend", "choice"),
    [(("asyncio", "trio")[n % 2], choice) for n, choice in enumerate(CHOICES)],
    ids=CHOICES,
)
async def test_it_is_chosen_by_cloud_job_and_settings_and_said(
    cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], choice: str
) -> None:
    """An event says which way, and why; the pod has a port for SSH, or none at all."""
    options, wanted, more, where, by_ssh = CHOICES[choice]

    async with broker_on({**PATIENT, **options}) as broker:
        if more:
            async with broker.lease(wanted) as lease:
                result = await lease.run(HELLO)
            await broker.wait_released(lease.id, timeout=15)
        else:
            result = await broker.run(HELLO, wanted)

    assert result.text == "hello\n"
    (create,) = sent(cloud, "create")
    assert create.body["cloud"] == where
    assert ("22/tcp" in create.body["ports"], "PUBLIC_KEY" in create.body["env"]) == (
        by_ssh,
        by_ssh,
    )
    assert (result.host_identity is not None) == by_ssh
    (told,) = [text for text in texts(events, EventKind.NOTE) if text.startswith("way: ")]
    assert ("over SSH: " if by_ssh else "through its log: ") in told
    assert cloud.billing_now() == ()


PARTS: dict[str, dict[str, Any]] = {
    "files": {"files": {"in.txt": b"what nobody else should read"}, "outputs": "out"},
    "secrets": {"secrets": {"TOKEN": SECRET}},
}


@pytest.mark.parametrize(
    ("anyio_backend", "part"),
    [("asyncio", "files"), pytest.param("trio", "secrets", marks=pytest.mark.deep)],
)
async def test_what_only_ssh_can_carry_goes_over_ssh(
    cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path, part: str
) -> None:
    """Whatever the settings prefer; and none of it is in any request to the vendor."""
    job = Job(
        'echo "ok ${TOKEN:+and told}"; echo > out', timeout=30, output_dir=tmp_path, **PARTS[part]
    )

    async with broker_on({**PATIENT, "way": "log"}) as broker:
        result = await broker.run(job, A_4090)

    assert result.ok
    assert result.text.startswith("ok")
    (create,) = sent(cloud, "create")
    assert (create.body["cloud"], create.body["ports"]) == ("SECURE", ["22/tcp"])
    said = repr(cloud.requests)
    assert SECRET not in said
    assert "what nobody else should read" not in said
    assert cloud.billing_now() == ()


async def test_where_no_pod_is_reached_such_a_job_is_not_begun(
    cloud: RunPodEmulator, broker_on: MakeBroker
) -> None:
    """Nothing is rented for it, rather than a pod that it would never get to."""
    job = Job("cat in.txt", files={"in.txt": b"x"}, timeout=30)

    async with broker_on({**QUICK, "clouds": "community"}) as broker:
        with pytest.raises(NoOfferFits):
            await broker.run(job, A_4090)

    assert sent(cloud, "create") == []
    assert cloud.billing_now() == ()


@pytest.mark.parametrize(
    ("anyio_backend", "way"),
    [("asyncio", "auto"), pytest.param("trio", "log", marks=pytest.mark.deep)],
)
async def test_a_command_that_is_too_long_for_a_request_goes_over_ssh(
    cloud: RunPodEmulator, broker_on: MakeBroker, events: list[Event], way: str
) -> None:
    """And to a pod that is reached so: none is paid for that is not, and none is asked for in vain."""
    word = "w" * (LIMIT + 1)

    async with broker_on({**PATIENT, "way": way}) as broker:
        result = await broker.run(Job(["printf", "%s", word], timeout=30), A_4090)

    assert result.text == word
    (create,) = sent(cloud, "create")
    assert (create.body["cloud"], create.body["ports"]) == ("SECURE", ["22/tcp"])
    tried = result.record.attempts[:-1]
    assert tried
    assert {attempt.kind for attempt in tried} == {ErrorKind.CAPACITY}
    assert f"{LIMIT} are allowed" in tried[0].reason
    assert cloud.billing_now() == ()


async def test_where_nothing_else_is_rented_such_a_command_is_refused(
    cloud: RunPodEmulator, broker_on: MakeBroker
) -> None:
    """With the reason, and without a request to the vendor."""
    job = Job(["printf", "%s", "w" * (LIMIT + 1)], timeout=30)

    async with broker_on({**QUICK, "clouds": "community"}) as broker:
        with pytest.raises(AttemptsExhausted, match="are allowed"):
            await broker.run(job, A_4090)

    assert sent(cloud, "create") == []


async def test_a_long_command_is_carried_as_far_as_a_request_allows(
    cloud: RunPodEmulator, broker_on: MakeBroker
) -> None:
    """Close to the vendor's limit for all of it, every word; the log splits the long line."""
    word = "w" * 91_000

    async with broker_on(PATIENT) as broker:
        result = await broker.run(Job(["printf", "%s", word], timeout=30), A_4090)

    assert (result.state, result.exit_code) == (JobState.EXITED, 0)
    assert result.text.replace("\n", "") == word
    (create,) = sent(cloud, "create")
    assert create.body["ports"] == []
    assert 95_000 < len(json.dumps(create.body)) < orders.BODY_LIMIT
    assert cloud.billing_now() == ()


@pytest.mark.parametrize(
    ("anyio_backend", "way"),
    [("asyncio", "log"), pytest.param("trio", "ssh", marks=pytest.mark.deep)],
)
async def test_a_container_that_dies_under_its_job_is_found_out(
    cloud: RunPodEmulator,
    broker_on: MakeBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Its pod says RUNNING and bills; no log and no connection tells, however long one waits."""
    monkeypatch.setattr(boots, "DARK", 0.3)
    monkeypatch.setattr(follow, "_CANCELLING", 0.1)
    first: list[str] = []

    def hit(_: str, data: bytes) -> None:
        if not first:
            first.append(the_pod(cloud))
            cloud.afflict(first[0], "container-dies")

    flag = tmp_path / "flag"
    script = f"echo begun; [ -e {flag} ] || {{ touch {flag}; sleep 60; }}; echo over"
    options = {**PATIENT, "way": way, "clouds": "secure"}
    async with broker_on(options) as broker:
        working = broker.run(Job(script, retries=1), A_4090, on_output=hit)
        result = await beside(partial(sweeping, broker), working)
        await all_released(broker, cloud)

    assert result.text == "begun\nover\n"
    assert "nothing has been seen of its container" in result.record.attempts[0].reason
    assert len(sent(cloud, "create")) == 2
