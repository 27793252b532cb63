"""A few trials of the many that `python -m tests.crashes` does, and the harness itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from tests.crashes.plan import Blow, Trial, can_pause, plan
from tests.crashes.points import shape

from gpubroker.transport.ssh import missing_client

if (problem := missing_client()) is not None:
    pytest.skip(problem, allow_module_level=True)


def test_nothing_is_left_after_a_broker_was_killed_anywhere() -> None:
    """A sample of points and scenarios, in processes of their own; seed 7 has some pauses too."""
    command = [sys.executable, "-m", "tests.crashes", "--workers", "2", "--trials", "8"]
    chosen = [f"--scenario={name}" for name in ("work-by-log", "lost-reply")]

    done = subprocess.run([*command, *chosen], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 8 " in done.stdout.splitlines()[-2]


class TestThePlan:
    """Every point has its turn, and what is left of the time goes to repeats."""

    POINTS = st.dictionaries(
        st.sampled_from(["one", "two", "three"]),
        st.dictionaries(st.text("abc:", min_size=1, max_size=8), st.integers(1, 9), min_size=1),
        min_size=1,
    )

    @given(POINTS, st.integers(1, 80), st.integers(0, 5))
    def test_has_each_point_before_any_twice(
        self, points: dict[str, dict[str, int]], number: int, seed: int
    ) -> None:
        """And exactly as many trials as were asked for."""
        every = {(name, point) for name, of_one in points.items() for point in of_one}

        trials = plan(points, dict.fromkeys(points, 1), number, seed)

        first = [(trial.scenario, trial.blow.point) for trial in trials[: len(every)]]
        assert len(trials) == number
        assert len(set(first)) == len(first) == min(number, len(every))
        assert set(first) <= every
        assert all(1 <= t.blow.occurrence <= points[t.scenario][t.blow.point] for t in trials)

    @given(POINTS, st.integers(0, 5))
    def test_never_pauses_a_victim_that_holds_the_ledgers_lock(
        self, points: dict[str, dict[str, int]], seed: int
    ) -> None:
        """Nobody could take over from it."""
        locked = {name: {f"{p}: before its commit": 1 for p in of} for name, of in points.items()}

        trials = plan(locked, dict.fromkeys(points, 1), 60, seed)

        assert not any(trial.blow.pause for trial in trials)
        assert not can_pause("ledger move: before its commit")


@pytest.mark.parametrize("pause", [False, True])
def test_a_trial_is_repeated_by_its_name(pause: bool) -> None:
    """Whatever its point is called."""
    trial = Trial("lost-reply", Blow("POST /v2/pods: after it is sent", 3, pause), "trio", 17)

    assert Trial.parse(str(trial)) == trial
    with pytest.raises(ValueError, match="not a trial"):
        Trial.parse(str(trial).replace("#", ""))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v0/asks/31337/", "/api/v0/asks/{}/"),
        ("/v2/pods/g5cirzfcrq9fkl/logs", "/v2/pods/{}/logs"),
        ("/v2/catalog/gpus/NVIDIA GeForce RTX 4090", "/v2/catalog/gpus/{}"),
    ],
)
def test_points_of_different_machines_are_one(path: str, expected: str) -> None:
    """Else no point of one run would be found in the next."""
    assert shape(path) == expected
