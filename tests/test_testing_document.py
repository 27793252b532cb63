"""docs/testing.md is true: each of its blocks is a test module that passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpubroker.testing import SCENARIOS, ScriptedCloud
from gpubroker.testing.story import Story

DOCUMENT = (Path(__file__).parent.parent / "docs/testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.deep
def test_every_block_passes_as_printed(tmp_path: Path) -> None:
    """All of them in one run, each a module of its own, in a fresh folder."""
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"test_{number}.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", str(tmp_path)],
        env={"HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert len(BLOCKS) == 10


def test_every_scenario_is_named() -> None:
    """The list of names is complete, and in order."""
    assert f": {', '.join(SCENARIOS)}." in DOCUMENT


@pytest.mark.parametrize("verb", re.findall(r"^\|.*\|(.*)\|$", DOCUMENT, re.MULTILINE)[2:])
def test_every_verb_of_the_table_exists(verb: str) -> None:
    """What the table names is a verb of a scripted cloud."""
    for name in re.findall(r"`(\w+)\(", verb):
        assert callable(getattr(ScriptedCloud, name))


def test_every_verb_is_named() -> None:
    """Whatever a cloud can be told is in the document."""
    asks = ("assert_", "_", "bill")
    verbs = [
        name
        for kind in (Story, ScriptedCloud)
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith(asks) and name != "factory"
    ]
    assert [name for name in [*verbs, "bills_show"] if f"`{name}" not in DOCUMENT] == []
