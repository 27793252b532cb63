"""One trial: a victim, a blow, a reaper, and the question to the vendors what is left."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from tests.crashes.oracle import Ending, problems, read_ledger, stale_writes
from tests.crashes.plan import Blow, Trial
from tests.crashes.processes import Child, start
from tests.crashes.scenarios import BOUND, SCENARIOS, Place, Scenario, reap
from tests.crashes.vendors import Books, Vendors

from gpubroker.model.places import Place as LedgerPlace

#: Seconds after which a victim that has not ended hangs.
_PATIENCE = 45.0
#: Seconds for which a victim that stands still is taken to be alive.
_SIGN_OF_LIFE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a trial.

    Attributes:
        reached: the blow was dealt.
        problems: what must not be, one line each.
        seconds: of all of it. healing: from the blow until nothing was left.
    """

    trial: Trial
    reached: bool
    problems: tuple[str, ...]
    seconds: float
    healing: float

    @classmethod
    def of_nothing(cls, trial: Trial, problem: str) -> Self:
        """Of a trial that could not be done."""
        return cls(trial=trial, reached=False, problems=(problem,), seconds=0.0, healing=0.0)


LedgerIn = Callable[[Path], AbstractContextManager[LedgerPlace]]


class Stage:
    """Where the trials of one worker happen, one after the other.

    Args:
        ledger: a place for a new ledger, as long as it is needed, of a trial in a folder.
    """

    def __init__(self, vendors: Vendors, ledger: LedgerIn) -> None:
        self._vendors = vendors
        self._ledger = ledger

    def points(self, scenario: Scenario, backend: str, seed: int) -> dict[str, int]:
        """Every point of a scenario, where nothing befalls it.

        Raises:
            RuntimeError: it does not end as it should.
        """
        with self._place(scenario, seed) as place:
            victim = start("victim", place, scenario.play, backend=backend)
            if not victim.wait(_PATIENCE):
                victim.end()
                raise RuntimeError(f"{scenario.name} on {backend} hangs")
            problem = victim.problem
            if problem is None and not victim.killed:
                counted = victim.points()
                problem = "\n".join(self._left(place, scenario, blow=None)[0])
            else:
                counted = {}
            if problem:
                raise RuntimeError(f"{scenario.name} on {backend}: {problem}")
            return counted

    def run(self, trial: Trial, *, keep: bool = False) -> Verdict:
        """Do a trial."""
        began = time.monotonic()
        scenario, blow = SCENARIOS[trial.scenario], trial.blow
        with self._place(scenario, trial.seed, keep=keep) as place:
            victim = start(
                "victim",
                place,
                scenario.play,
                backend=trial.backend,
                blow=blow,
                patience=_SIGN_OF_LIFE if blow.pause else None,
            )
            try:
                found, reached, healing = self._suffer(victim, place, scenario, blow)
            finally:
                victim.end()
        return Verdict(
            trial=trial,
            reached=reached,
            problems=tuple(found),
            seconds=time.monotonic() - began,
            healing=healing,
        )

    def _suffer(
        self, victim: Child, place: Place, scenario: Scenario, blow: Blow
    ) -> tuple[list[str], bool, float]:
        if not victim.wait(_PATIENCE):
            return ["the victim hangs:\n" + victim.tail()], False, 0.0
        stopped = victim.status is None
        reached = stopped or victim.killed
        found: list[str] = []
        healing = 0.0
        if stopped:
            found, healing = self._left(place, scenario, blow)
            before = read_ledger(place)
            victim.resume()
            if not victim.wait(_PATIENCE):
                found.append("the victim hangs after its pause:\n" + victim.tail())
                victim.end()
            found += stale_writes(before, read_ledger(place))
        elif victim.problem is not None:
            found = ["the victim failed:\n" + victim.problem]
        after, seconds = self._left(place, scenario, blow, ended=not reached)
        return found + after, reached, max(healing, seconds)

    def _left(
        self, place: Place, scenario: Scenario, blow: Blow | None, *, ended: bool = True
    ) -> tuple[list[str], float]:
        """Let reapers work until nothing is left, or their time is over; what is wrong then."""
        began = time.monotonic()
        said: list[str] = []
        while True:
            reaper = start("reaper", place, reap)
            if not reaper.wait(2 * BOUND):
                said = ["the reaper hangs:\n" + reaper.tail()]
                reaper.end()
            elif reaper.problem is not None or reaper.killed:
                said = ["the reaper failed:\n" + (reaper.problem or "killed")]
            else:
                said = []
            books = self._settled()
            seconds = time.monotonic() - began
            if not books.running or seconds > BOUND:
                break
        ending = Ending(
            books=books,
            ledger=read_ledger(place),
            output=place.output,
            delivers=scenario.name == "files-over-ssh",
            ended=ended and blow is None,
        )
        return said + problems(ending), seconds

    def _settled(self) -> Books:
        """The books, once every request that came was answered."""
        while True:
            books = self._vendors.books()
            if not books.in_flight:
                return books
            time.sleep(0.005)

    @contextmanager
    def _place(self, scenario: Scenario, seed: int, *, keep: bool = False) -> Generator[Place]:
        """A folder and a ledger for one trial, and what was before it."""
        folder = Path(tempfile.mkdtemp(prefix="gbc-"))
        with ExitStack() as stack:
            if keep:
                print(f"kept: {folder}")
            else:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._vendors.begin(scenario.prepare)
            ledger = stack.enter_context(self._ledger(folder))
            place = Place(folder, ledger, self._vendors.addresses, seed)
            if scenario.first is not None:
                play, point = scenario.first
                earlier = replace(place, seed=seed + 500_000)
                first = start("first", earlier, play, blow=Blow(point))
                if not first.wait(_PATIENCE) or not first.killed:
                    first.end()
                    raise RuntimeError(
                        f"{scenario.name}: what comes before it never came to {point}"
                    )
            yield place
