"""What somebody at a terminal sees of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpubroker_vast.emulator import VastEmulator


def gpubroker(
    cloud: VastEmulator, home: Path, *words: str, key: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Type a command, with settings in the environment that point at the emulated vendor."""
    options = {f"GPUBROKER_VAST_{name.upper()}": value for name, value in cloud.options.items()}
    return subprocess.run(
        [sys.executable, "-m", "gpubroker.cli", *words],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "GPUBROKER_VAST_URL": cloud.url,
            "VAST_API_KEY": key or cloud.key,
            **options,
        },
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_job_is_rented_run_and_given_up(cloud: VastEmulator, tmp_path: Path) -> None:
    """Its output alone is on standard output; the rest is said beside it."""
    words = ("--provider", "vast", "--budget", "0.50", "--gpu", "RTX 4090")

    done = gpubroker(cloud, tmp_path, "run", *words, "--", "echo", "hello")

    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert "released and proven gone" in done.stderr
    assert cloud.billing_now() == ()


def test_a_refused_key_is_said_so_and_costs_nothing(cloud: VastEmulator, tmp_path: Path) -> None:
    """Nothing was rented, so there is nothing that could be proven gone."""
    words = ("--provider", "vast", "--budget", "0.50", "--gpu", "RTX 4090")

    done = gpubroker(cloud, tmp_path, "run", *words, "--", "true", key="a-wrong-key-" * 4)

    assert done.returncode == 125
    assert "Invalid user key" in done.stderr
    assert "$0.00; nothing was rented" in done.stderr
    assert "a-wrong-key" not in done.stdout + done.stderr


def test_without_a_limit_on_money_nothing_is_rented(cloud: VastEmulator, tmp_path: Path) -> None:
    """A key alone is not leave to spend."""
    done = gpubroker(
        cloud, tmp_path, "run", "--provider", "vast", "--gpu", "RTX 4090", "--", "true"
    )

    assert done.returncode == 125
    assert "vast takes no part; vast is off: no budget" in done.stderr
    assert not [request for request in cloud.requests if request.endpoint == "create"]
