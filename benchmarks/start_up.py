"""What it costs to have gpubroker: importing it, starting its command line, installing it."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.processes import ROOT, environment, python, wall_times

_FLOOR: Final = "import asyncio, sqlite3, anyio, pluggy, pydantic"
_NAME: Final = "import gpubroker"
_USED: Final = "import gpubroker; gpubroker.Broker, gpubroker.AsyncBroker"
#: What the names leave to be loaded until they are used.
_MADE: Final = "import gpubroker; gpubroker.AsyncBroker(ledger=':memory:')"
#: Modules that are loaded only by what needs them.
_LATE: Final = ("httpx", "pynvml")


def imports(rounds: int, home: Path) -> list[Figure]:
    """The import, without and with the names that nearly every program uses, and with a broker."""
    times = wall_times(
        {code: python(code) for code in (_FLOOR, _NAME, _USED, _MADE)}
        | {"nothing": python("pass")},
        rounds,
        home,
    )
    loaded = _loaded_too_early(home)
    figures = [
        Figure(
            what=f"`{code}`",
            value=times[code],
            unit="ms",
            beside=f"`{_FLOOR}`",
            other=times[_FLOOR],
            limit=limit,
            of_other=True,
            note=f"whole processes; `python -c pass` takes {times['nothing']:.0f} ms",
        )
        for code, limit in ((_NAME, 1.4), (_USED, 1.4), (_MADE, None))
    ]
    early = Figure(
        what="modules loaded too early",
        value=len(loaded),
        unit="",
        limit=0,
        note=f"none of {', '.join(_LATE)} may be" + (f"; {loaded} are" if loaded else ""),
    )
    return [*figures, early]


def _loaded_too_early(home: Path) -> list[str]:
    code = f"{_USED}; import sys, json; print(json.dumps([m for m in {_LATE} if m in sys.modules]))"
    answer = subprocess.run(
        python(code), check=True, cwd=home, env=environment(home), stdout=subprocess.PIPE
    )
    loaded: list[str] = json.loads(answer.stdout)
    return loaded


def command_line() -> list[str] | None:
    """The installed command, as users start it; ``None`` where the extra ``cli`` is missing."""
    if find_spec("typer") is None or find_spec("gpubroker.cli") is None:
        return None
    script = Path(sys.executable).parent / "gpubroker"
    return [str(script)] if script.exists() else [sys.executable, "-m", "gpubroker.cli"]


def help_text(rounds: int, home: Path) -> list[Figure]:
    """``gpubroker --help``, beside a program that does nothing with the same library."""
    command = command_line()
    if command is None:
        return []
    empty = home / "empty.py"
    empty.write_text(
        "import typer\n\napp = typer.Typer()\n\n\n"
        "@app.command()\ndef nothing() -> None:\n    pass\n\n\napp()\n"
    )
    times = wall_times(
        {"ours": [*command, "--help"], "empty": [sys.executable, str(empty), "--help"]},
        rounds,
        home,
    )
    return [
        Figure(
            what="`gpubroker --help`",
            value=times["ours"],
            unit="ms",
            beside="`--help` of an empty typer app",
            other=times["empty"],
            limit=2,
            of_other=True,
        )
    ]


def packages(rounds: int, home: Path) -> list[Figure]:
    """How many packages a plain install brings into an empty environment, itself included."""
    del rounds
    folder = home / "plain"
    venv.create(folder, with_pip=True)
    inside = str(folder / "bin" / "python")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    subprocess.run([inside, "-m", "pip", "install", *quiet, str(ROOT)], check=True)
    code = "from importlib.metadata import *; print(*(d.name for d in distributions()))"
    answer = subprocess.run([inside, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    names = sorted(set(answer.stdout.split()) - {"pip", "setuptools", "wheel"})
    return [
        Figure(
            what="packages of a plain install",
            value=len(names),
            unit="",
            limit=14,
            note=", ".join(names),
        )
    ]
