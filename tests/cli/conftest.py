from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from .program import Program


@pytest.fixture
def program(tmp_path: Path) -> Generator[Program]:
    """The program in an empty home, which nothing outlives."""
    program = Program(tmp_path)
    yield program
    program.end()
