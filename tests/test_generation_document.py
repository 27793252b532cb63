"""The page on paying only for generation time is true: what it shows runs as printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("typer", reason="the extra cli is not installed")

ROOT: Final = Path(__file__).parent.parent
DOCUMENT: Final = (ROOT / "docs/pay_only_for_generation.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a fresh user would, with the example's presets at hand."""
    shutil.copytree(ROOT / "examples/image_app/presets", folder / "presets")
    programs = str(Path(sys.executable).parent)
    return subprocess.run(
        words,
        env={
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(folder / "cards"),
            "COLUMNS": "100",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.deep
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_its_programs_run_as_printed(number: int, tmp_path: Path) -> None:
    """Each by itself, in a fresh folder, without a complaint."""
    done = run([sys.executable, "-W", "error", "-c", blocks("python")[number]], tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.deep
def test_the_plan_says_what_is_printed(tmp_path: Path) -> None:
    """The numbers that it argues with are those that the command gives today."""
    [command], [table] = blocks("sh"), blocks("text")

    done = run(shlex.split(command), tmp_path)

    assert done.returncode == 0, done.stderr
    assert [line.split() for line in table.splitlines()] == [
        line.split() for line in done.stdout.splitlines()[: len(table.splitlines())]
    ]


def test_its_links_lead_somewhere() -> None:
    """Every file that it points to exists."""
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT):
        assert (ROOT / "docs" / target).exists(), target
