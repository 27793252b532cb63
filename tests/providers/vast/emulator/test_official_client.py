"""The vendor's own client works against the emulator as it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpubroker_vast.emulator import VastEmulator

from .account import Account, SshKey

CLIENT = os.environ.get("GPUBROKER_VASTAI", "")

pytestmark = pytest.mark.skipif(
    not CLIENT, reason="GPUBROKER_VASTAI does not name the vendor's command-line client"
)

Vastai = Callable[..., Any]


@pytest.fixture
def vastai(cloud: VastEmulator, tmp_path: Path) -> Vastai:
    """Runs the client in a home of its own; gives what it prints, as JSON with ``--raw``."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VAST_URL": cloud.url,
        "VAST_API_KEY": cloud.key,
        "VASTAI_NO_UPDATE_CHECK": "1",
        "NO_PROXY": "*",
        "COLUMNS": "200",
        **{
            f"XDG_{kind}_HOME": str(tmp_path / kind.lower())
            for kind in ("CONFIG", "CACHE", "STATE")
        },
    }

    def run(*words: str) -> Any:
        done = subprocess.run(
            [CLIENT, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return json.loads(done.stdout) if "--raw" in words else done.stdout

    return run


def sent(cloud: VastEmulator) -> list[tuple[str, str]]:
    """What the client asked for, but for what it asks at its first start."""
    return [
        (one.method, one.path)
        for one in cloud.requests
        if one.path not in ("/api/v0/gpu_names/unique/",)
    ]


def test_searches(vastai: Vastai, cloud: VastEmulator) -> None:
    """The rows that it prints are those that were asked for."""
    words = ("search", "offers", "gpu_name=RTX_4090 num_gpus=1 gpu_ram>=20", "-o", "dph_total")

    rows = vastai(*words, "--limit", "3", "--raw")
    table = vastai(*words, "--limit", "3")

    assert [row["gpu_name"] for row in rows] == ["RTX 4090"] * 3
    assert table.count("RTX_4090") == 3
    assert ("POST", "/api/v0/bundles/") in sent(cloud)


def test_rents_and_gives_up(
    vastai: Vastai, cloud: VastEmulator, account: Account, ssh_key: SshKey
) -> None:
    """From a key to a destroyed instance, each command as people type it."""
    offer = account.cheapest()["id"]
    vastai("create", "ssh-key", ssh_key.public, "-y")
    [key] = vastai("show", "ssh-keys", "--raw")

    words = ("--image", "ubuntu:22.04", "--disk", "20", "--ssh", "--direct", "--label", "mine")
    more = ("--env", "-e A=1 -p 8000:8000", "--onstart-cmd", "echo hello", "--cancel-unavail")
    made = vastai("create", "instance", str(offer), *words, *more, "--raw")
    number = str(made["new_contract"])
    account.until(int(number), lambda row: row["actual_status"] == "running")

    assert [row["id"] for row in vastai("show", "instances", "--raw")] == [int(number)]
    assert "mine" in vastai("show", "instances", "--full", "--no-color")
    assert vastai("show", "instance", number, "--raw")["label"] == "mine"
    port = vastai("ssh-url", number).rpartition(":")[2]
    assert ssh_key.run(int(port), "true")[0] == 0
    assert "hello" in vastai("logs", number, "--tail", "50")
    assert "set to other" in vastai("label", "instance", number, "other")
    assert "already associated" in vastai("attach", "ssh", number, ssh_key.public)
    vastai("stop", "instance", number)
    account.until(int(number), lambda row: row["actual_status"] == "exited")
    vastai("start", "instance", number)
    account.until(int(number), lambda row: row["actual_status"] == "running")
    assert vastai("show", "user", "--raw")["credit"] < 100
    vastai("destroy", "instance", number, "-y")
    vastai("delete", "ssh-key", str(key["id"]))

    assert cloud.billing_now() == ()
    [create] = [one for one in cloud.requests if one.endpoint == "create"]
    assert create.body["env"] == {"A": "1", "-p 8000:8000": "1"}
    assert create.body["runtype"] == "ssh_direc ssh_proxy"
    assert all(one.status == 200 for one in cloud.requests)
