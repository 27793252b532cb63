from __future__ import annotations

import pytest

from gpubroker.errors import JobFailed
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.results import JobState, Result


def result(state: JobState, code: int | None, *missing: str) -> Result:
    return Result(
        state=state,
        exit_code=code,
        missing=missing,
        provider="scripted",
        machine="RTX 4090",
        lease_id="lease-1",
        job_id="job-1",
        record=DecisionRecord(id="request-1", wanted="any machine", asked_at=0.0),
    )


def test_success_is_an_exit_code_of_0_with_every_output() -> None:
    """Then `check` gives the result itself back."""
    good = result(JobState.EXITED, 0)

    assert good.ok
    assert good.failure == ""
    assert good.check() is good


@pytest.mark.parametrize("state", [s for s in JobState if s is not JobState.EXITED], ids=str)
def test_a_job_whose_exit_code_nobody_read_is_no_success(state: JobState) -> None:
    """However it ended: without an exit code of 0 it did not end well, and the state is named."""
    bad = result(state, None)

    assert not bad.ok
    assert bad.failure == str(state)
    with pytest.raises(JobFailed, match=str(state)):
        bad.check()


@pytest.mark.parametrize(
    ("bad", "failure"),
    [
        (result(JobState.EXITED, 3), "exit code 3"),
        (result(JobState.EXITED, 0, "model.bin"), "missing output: model.bin"),
    ],
    ids=["another exit code", "a missing output"],
)
def test_what_else_is_no_success(bad: Result, failure: str) -> None:
    """Another exit code, and an output that did not come back."""
    assert not bad.ok
    assert bad.failure == failure
