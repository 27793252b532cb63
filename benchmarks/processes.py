"""Whole processes, timed in turns, and processes that report on themselves."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
MB: Final = 1_000_000


def environment(home: Path) -> dict[str, str]:
    """An environment in which nothing of the user's own is read or written.

    Byte code is kept, as it is for everybody who starts a program for the second time.
    """
    ours = ("GPUBROKER_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "HOME": str(home), "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(home / "cards")}


def wall_times(commands: Mapping[str, Sequence[str]], rounds: int, home: Path) -> dict[str, float]:
    """The median wall time of each command in milliseconds: all of them in turns, after a first
    round that is not counted.
    """
    env = environment(home)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(
                command,
                check=True,
                cwd=home,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            if number:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: median(measured) for name, measured in times.items()}


def python(code: str) -> list[str]:
    """The command that runs `code` with this interpreter."""
    return [sys.executable, "-c", code]


def child(module: str, *arguments: object, home: Path) -> dict[str, Any]:
    """Run a module of this package in a process of its own; returns what it hands to `report`."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(
        command, check=True, cwd=ROOT, env=environment(home), stdout=subprocess.PIPE
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def report(**values: float) -> None:
    """What a process run by `child` says about itself, and the most memory that it has used."""
    json.dump({**values, "peak_mb": peak_memory() / MB}, sys.stdout)


def peak_memory() -> int:
    """The most memory, in bytes, that this process has had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, it leaves out what the parent had when it forked
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
