"""What the document on running a reaper tells people to install."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest

typer = pytest.importorskip("typer", reason="the extra cli is not installed")

from typer.main import get_command

from gpubroker.cli.app import app

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "reaper.md"


def block(language: str) -> str:
    """The only block of the document in this language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(text)


def parsed(words: list[str]) -> dict[str, object]:
    """What the real command line makes of a command's words, without running it."""
    program, name, *rest = words
    assert program.endswith("/gpubroker")
    assert name == "reap"
    group: Any = get_command(app)
    parameters: dict[str, object] = group.commands[name].make_context(name, rest).params
    return parameters


def test_the_unit_is_one_that_runs_the_reaper_for_ever() -> None:
    """Its command is one that this program has, and it is started again whatever ends it."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block("ini"))

    command = parsed(shlex.split(unit["Service"]["ExecStart"]))

    assert command["loop"] is True
    assert unit["Service"]["Restart"] == "always"
    assert unit["Install"]["WantedBy"] == "default.target"


def test_the_line_for_cron_reaps_once() -> None:
    """Five fields of time, and a command that comes to its end."""
    line = block("crontab").strip()
    *times, rest = line.split(maxsplit=5)

    command = parsed(shlex.split(rest.split("&&")[1]))

    assert len(times) == 5
    assert command["loop"] is False
