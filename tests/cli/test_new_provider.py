from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the extra cli is not installed")

from gpubroker.cli.new_provider import check_name, example, new_provider
from gpubroker.errors import BrokerError, InvalidValue

from .program import Program

SOME = "asyncio and (facts or lost_answers or complete or refused)"


def test_a_new_provider_passes_its_tests_under_its_own_name(
    program: Program, tmp_path: Path
) -> None:
    """A whole distribution, in which nothing is left of the example's name.

    CI runs all of its tests, installed; here are some of them.
    """
    made = program("new-provider", "nimbus", "--into", str(tmp_path))
    folder = tmp_path / "gpubroker-nimbus"
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", SOME, "-p", "no:cacheprovider"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": "src", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert made.returncode == 0, made.stderr
    assert "gpubroker conformance nimbus" in made.stdout.decode()
    assert tests.returncode == 0, tests.stdout
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert folder / "src" / "gpubroker_nimbus" / "__init__.py" in files
    assert not [path for path in files if "acme" in f"{path.name} {path.read_text()}".lower()]
    assert "class NimbusProvider" in (folder / "src/gpubroker_nimbus/__init__.py").read_text()
    assert "GPUBROKER_NIMBUS_KEY" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nimbus", "small letters and digits"),
        ("my-cloud", "small letters and digits"),
        ("9cloud", "the first a letter"),
        ("../cloud", "small letters and digits"),
        ("", "small letters and digits"),
        ("ledger", "GPUBROKER_LEDGER_… means something else"),
        ("local", "is taken: a provider of gpubroker is called that"),
    ],
)
def test_a_name_that_no_provider_can_have_is_refused(name: str, said: str) -> None:
    """In a sentence that says why."""
    with pytest.raises(InvalidValue, match=said):
        check_name(name)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """Whatever is in it."""
    (tmp_path / "gpubroker-nimbus").mkdir()

    with pytest.raises(BrokerError, match="is there already"):
        new_provider("nimbus", tmp_path)

    assert list(tmp_path.rglob("*")) == [tmp_path / "gpubroker-nimbus"]


def test_the_example_is_one_module_that_can_be_read_at_once() -> None:
    """What an author has to read and change stays short."""
    lines = (example() / "src/gpubroker_acme/__init__.py").read_text().splitlines()

    assert len([line for line in lines if line.strip()]) < 270
