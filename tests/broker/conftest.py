"""Fixtures: settings that keep everything the local provider does inside a test's own folder."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose ledger, leases and card locks are this test's own."""
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {
        **inherited,
        "HOME": str(tmp_path),
        "GPUBROKER_LEDGER": str(tmp_path / "ledger.db"),
        "GPUBROKER_LOCAL_DIRECTORY": str(tmp_path / "leases"),
        "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(tmp_path / "cards"),
    }


@pytest.fixture
def own_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for this process."""
    for name, value in environment.items():
        if name.startswith("GPUBROKER_"):
            monkeypatch.setenv(name, value)


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a Python program in a process of its own, which does not outlive the test."""
    programs: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        programs.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(program)],
                env=environment,
                cwd=tmp_path,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return programs[-1]

    yield start
    for program in programs:
        with program:
            program.kill()
