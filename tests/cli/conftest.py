from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from .program import LOADING, Program
from .warm import Warm


@pytest.fixture(scope="session")
def warm() -> Generator[Warm]:
    """The program, loaded."""
    warm = Warm(LOADING)
    yield warm
    warm.end()


@pytest.fixture
def program(tmp_path: Path, warm: Warm) -> Generator[Program]:
    """The program in an empty home, which nothing outlives."""
    program = Program(tmp_path, warm)
    yield program
    program.end()
