"""Fixtures: a small emulated cloud, a client of its API, and an SSH key."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from tests.providers.runpod.documents import held_against_documents

from gpubroker_runpod.emulator import RunPodEmulator

from .account import Account, SshKey, account_of


@pytest.fixture
def cloud() -> Iterator[RunPodEmulator]:
    """A calm cloud whose pods use the emulator's own SSH server; its answers are as documented."""
    with (
        held_against_documents(),
        RunPodEmulator(
            seed=1,
            ssh_server="built-in",
            boot=0.04,
            scheduling=0.01,
            restart_pause=0.01,
            vanishing=0.05,
        ) as emulator,
    ):
        yield emulator


@pytest.fixture
def account(cloud: RunPodEmulator) -> Iterator[Account]:
    """The account of `cloud`."""
    with account_of(cloud) as http:
        yield Account(cloud, http)


@pytest.fixture(scope="session")
def ssh_key(tmp_path_factory: pytest.TempPathFactory) -> SshKey:
    """A fresh key pair."""
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20
    )
    return SshKey(path, path.with_suffix(".pub").read_text().strip())
