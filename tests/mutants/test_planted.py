"""The list of planted failures stays usable while the code changes around it."""

from __future__ import annotations

import pytest
from tests.mutants.mutant import ROOT, Mutant, planted


@pytest.mark.parametrize("mutant", planted(), ids=lambda mutant: mutant.id)
def test_each_can_be_planted(mutant: Mutant) -> None:
    """What it replaces is there exactly once, and what comes of it is still a program."""
    text = mutant.changed(ROOT)

    assert text != (ROOT / mutant.file).read_text(encoding="utf-8")
    if mutant.file.endswith(".py"):
        compile(text, mutant.file, "exec")


@pytest.mark.parametrize("mutant", planted(), ids=lambda mutant: mutant.id)
def test_each_has_a_suite_that_is_there(mutant: Mutant) -> None:
    """The files that its suite names exist; one that nothing can notice says why."""
    named = [word for word in mutant.suite if word.startswith("tests/")]

    assert named or mutant.equivalent
    assert all((ROOT / word.partition("::")[0]).exists() for word in named)
