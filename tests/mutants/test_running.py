"""The runner tells a mutant that was noticed from one that was not."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.mutants.mutant import NotArmed, planted
from tests.mutants.running import End, clean_copy, mutated_copy, run_suite

pytestmark = pytest.mark.deep


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of its own, with nothing in it yet."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "end", "first"),
    [
        ("def test_one(): pass", End.PASSED, ""),
        ("def test_one(): pass\ndef test_two(): assert 1 == 2", End.FAILED, "test_it.py::test_two"),
        ("def test_one(): pass\nimport nothing_of_that_name", End.DID_NOT_RUN, None),
        (
            "import pytest\n@pytest.mark.parametrize('x', ['a b - c'])\ndef test_one(x): assert not x",
            End.FAILED,
            "test_it.py::test_one[a b",
        ),
    ],
    ids=["passes", "fails", "cannot be imported", "is named oddly"],
)
def test_how_a_suite_ended_is_told(tree: Path, text: str, end: End, first: str | None) -> None:
    """A failing test is named; what ran no test proves nothing."""
    (tree / "test_it.py").write_text(text)

    run = run_suite(tree, ["test_it.py"], limit=60)

    assert run.end is end
    assert first is None or run.first.startswith(first)


def test_what_hangs_is_ended(tree: Path) -> None:
    """A suite that a mutant keeps from ending ends at its limit."""
    (tree / "test_it.py").write_text("import time\ntime.sleep(1000)")

    assert run_suite(tree, ["test_it.py"], limit=1).end is End.TIMED_OUT


@pytest.mark.skipif(sys.platform != "linux", reason="what else runs is looked up in /proc")
def test_what_a_suite_leaves_running_is_ended(tree: Path) -> None:
    """A mutant that releases nothing leaves no process behind."""
    started = tree / "pid"
    (tree / "test_it.py").write_text(
        "import pathlib, subprocess\n"
        "def test_one():\n"
        "    process = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"    pathlib.Path({str(started)!r}).write_text(str(process.pid))\n"
        "    process.returncode = 0  # nobody waits for it\n"
    )

    assert run_suite(tree, ["test_it.py"], limit=60).end is End.PASSED

    with suppress(ProcessLookupError):  # gone, and buried
        handle = os.pidfd_open(int(started.read_text()))
        ended, _, _ = select.select([handle], [], [], 30)
        os.close(handle)
        assert ended


def test_a_mutant_is_in_its_copy_alone(tmp_path: Path) -> None:
    """The copy that it is made from stays clean for the next one."""
    mutant = next(mutant for mutant in planted() if mutant.old not in mutant.new)
    clean = clean_copy(tmp_path / "clean")

    mutated = mutated_copy(clean, tmp_path / "mutated", mutant)

    assert mutant.changed(clean) == (mutated / mutant.file).read_text()
    with pytest.raises(NotArmed):
        mutant.changed(mutated)
