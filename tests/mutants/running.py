"""Run a suite over a copy of the repository, with a mutant in it or without."""

from __future__ import annotations

import enum
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import ROOT, Mutant

SOURCES = ("broker", "providers/vast", "providers/runpod", "providers/local")
_COPIED = ("broker", "providers", "tests", "benchmarks", "pyproject.toml", "README.md")
_FIRST = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_IMPORTED = """\
import gpubroker, gpubroker_vast, gpubroker_runpod, gpubroker_local
for module in gpubroker, gpubroker_vast, gpubroker_runpod, gpubroker_local:
    print(module.__file__)
"""
_PASSED, _FAILED = 0, 1


class End(enum.StrEnum):
    """How a suite ended."""

    PASSED = "passed"  #: with a mutant in the tree: it survived
    FAILED = "failed"
    TIMED_OUT = "timed out"
    DID_NOT_RUN = "did not run"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a suite.

    Attributes:
        first: the first test that failed, or what pytest said where none was run.
    """

    end: End
    first: str
    seconds: float


def copy(source: Path, target: Path) -> Path:
    """A copy of a tree, its compiled files included: those of unchanged files stay valid."""
    target.mkdir(parents=True)
    for name in _COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copy2(source / name, target / name)
    return target


def clean_copy(folder: Path) -> Path:
    """A copy of this repository that is what gets imported from within it.

    Raises:
        AssertionError: something else is.
    """
    tree = copy(ROOT, folder)
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED],
        cwd=tree,
        env=_environment(tree),
        capture_output=True,
        text=True,
        check=True,
    )
    places = done.stdout.split()
    assert len(places) == len(SOURCES), done.stdout
    assert all(place.startswith(f"{tree}{os.sep}") for place in places), done.stdout
    return tree


def mutated_copy(clean: Path, folder: Path, mutant: Mutant) -> Path:
    """A copy of a clean tree with `mutant` planted."""
    tree = copy(clean, folder)
    changed = tree / mutant.file
    changed.write_text(mutant.changed(tree), encoding="utf-8")
    # Of the same length, and written within the same second, it would count as compiled.
    for compiled in (changed.parent / "__pycache__").glob(f"{changed.stem}.*.pyc"):
        compiled.unlink()
    return tree


def run_suite(tree: Path, words: Sequence[str], *, limit: float) -> Run:
    """Run pytest in `tree` until something fails, for `limit` seconds at the most."""
    place = Path(tempfile.mkdtemp(prefix="t", dir=tree))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, f"--basetemp={place / 'pytest'}", *words],
        cwd=tree,
        env=_environment(tree) | {"TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return Run(End.TIMED_OUT, f"after {limit:g} s", time.monotonic() - began)
    finally:
        _end(process, place)
    seconds = time.monotonic() - began
    if process.returncode == _FAILED:
        found = _FIRST.search(said)
        return Run(End.FAILED, found[1] if found else "its name cannot be read", seconds)
    if process.returncode == _PASSED:
        return Run(End.PASSED, "", seconds)
    return Run(End.DID_NOT_RUN, said.strip()[-2000:], seconds)


def _environment(tree: Path) -> dict[str, str]:
    """This process's, but for where packages are found: it goes before what is installed."""
    found = os.pathsep.join(str(tree / source) for source in SOURCES)
    kept = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST")}
    return kept | {"PYTHONPATH": found}


def _end(process: subprocess.Popen[str], place: Path) -> None:
    """End a suite, and whatever a broken release has left running: all of it names its place."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    mine = os.fsencode(place)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue  # gone, or somebody else's
