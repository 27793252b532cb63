"""The README is true: what it shows runs as printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A fresh user's environment, with this installation's programs first on the path."""
    programs = str(Path(sys.executable).parent)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(tmp_path / "cards"),
    }


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run_as_printed(
    number: int, environment: dict[str, str], tmp_path: Path
) -> None:
    """Each Python block of the README runs on its own, in a fresh folder, without a complaint."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("python")[number]],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize(
    "line",
    [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if re.match(r"^([A-Z_]+=\S*|\"[^\"]*\"|gpubroker)", line)
    ],
)
def test_gpubroker_commands_run_as_printed(
    line: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """Each `gpubroker` command of the README succeeds as printed."""
    done = subprocess.run(
        ["sh", "-c", line],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("hello", "RTX 4090", "1x RTX 4090", "NVIDIA GeForce RTX 4090")
    assert "released and proven gone" in done.stderr


def test_the_first_two_shell_blocks_set_everything_up() -> None:
    """The README opens with the two commands that a newcomer needs, in this order."""
    first, second = blocks("sh")[:2]

    assert first.startswith("pip install '.[cli]'\ngpubroker run ")
    assert second == "pip install -e '.[dev]'\npytest\n"
