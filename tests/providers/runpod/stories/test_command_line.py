"""What somebody at a terminal sees of it, and what is left when that program is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from gpubroker_runpod.emulator import RunPodEmulator

from .watching import sent

WORDS: Final = ("--provider", "runpod", "--budget", "0.50", "--gpu", "RTX 4090")


def environment(
    cloud: RunPodEmulator, home: Path, key: str | None, **options: str
) -> dict[str, str]:
    """Settings that point at the emulated vendor."""
    settings = {**cloud.options, **options}
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "GPUBROKER_RUNPOD_URL": cloud.url,
        "RUNPOD_API_KEY": key or cloud.key,
        **{f"GPUBROKER_RUNPOD_{name.upper()}": value for name, value in settings.items()},
    }


def gpubroker(
    cloud: RunPodEmulator, home: Path, *words: str, key: str | None = None, **options: str
) -> subprocess.CompletedProcess[str]:
    """Type a command; `options` are settings of the provider."""
    return subprocess.run(
        [sys.executable, "-m", "gpubroker.cli", *words],
        env=environment(cloud, home, key, **options),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def begun(
    cloud: RunPodEmulator, home: Path, *words: str, **options: str
) -> Generator[subprocess.Popen[bytes]]:
    """Type a command, and do something else meanwhile; it is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gpubroker.cli", *words],
        env=environment(cloud, home, None, **options),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("options", "how"),
    [({}, "through its log"), ({"way": "ssh", "clouds": "secure"}, "over SSH")],
    ids=["log", "ssh"],
)
def test_a_job_is_rented_run_and_given_up(
    cloud: RunPodEmulator, tmp_path: Path, options: dict[str, str], how: str
) -> None:
    """Its output alone is on standard output, and its exit code is the command's."""
    job = ("sh", "-c", "echo hello; exit 7")
    done = gpubroker(cloud, tmp_path, "run", *WORDS, "--", *job, **options)

    assert (done.returncode, done.stdout) == (7, "hello\n"), done.stderr
    assert f"work reaches it {how}" in done.stderr
    assert "released and proven gone" in done.stderr
    assert cloud.key not in done.stdout + done.stderr
    assert len(sent(cloud, "create")) == 1
    assert cloud.billing_now() == ()


def test_a_refused_key_is_said_so_and_costs_nothing(cloud: RunPodEmulator, tmp_path: Path) -> None:
    """Nothing was rented, so there is nothing that could be proven gone."""
    wrong = "rpa_A_WRONG_KEY_FOR_ALL"
    done = gpubroker(cloud, tmp_path, "run", *WORDS, "--", "true", key=wrong)

    assert done.returncode == 125
    assert "invalid bearer token" in done.stderr
    assert wrong not in done.stdout + done.stderr
    assert sent(cloud, "create") == []


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"way": "ssh", "clouds": "secure"}, marks=pytest.mark.deep)],
    ids=["log", "ssh"],
)
def test_what_a_killed_broker_held_is_given_up_by_the_next_sweep(
    cloud: RunPodEmulator, tmp_path: Path, options: dict[str, str]
) -> None:
    """Its record is on the disk: `gpubroker reap` finds the pod by it, and ends it."""
    job = ("sh", "-c", "echo begun; sleep 300")
    with begun(cloud, tmp_path, "run", *WORDS, "--", *job, **options) as process:
        assert process.stdout is not None
        # What ends a line of a log is known with the next one.
        assert process.stdout.read(5) == b"begun"
        (machine,) = cloud.billing_now()
    left = cloud.billing_now()

    done = gpubroker(cloud, tmp_path, "reap", **options)

    assert left == (machine,)
    assert done.returncode == 0, done.stderr
    assert machine in done.stdout
    assert "released and proven gone" in done.stdout
    assert list(cloud.charges()) == [machine]
    assert len(sent(cloud, "create")) == 1
    assert cloud.billing_now() == ()


def test_a_broker_that_was_killed_before_its_create_was_answered_is_no_different(
    cloud: RunPodEmulator, tmp_path: Path
) -> None:
    """What it asked for was on record first: the pod is found by its name, though nobody has its id."""
    hanging = cloud.faults.add("create", "hang", when="after")
    with begun(cloud, tmp_path, "run", *WORDS, "--", "true"):
        deadline = time.monotonic() + 20
        while not (hanging.met and cloud.billing_now()) and time.monotonic() < deadline:
            time.sleep(0.02)
    (machine,) = cloud.billing_now()

    done = gpubroker(cloud, tmp_path, "reap")

    assert done.returncode == 0, done.stderr
    assert machine in done.stdout
    assert len(sent(cloud, "create")) == 1
    assert cloud.billing_now() == ()
