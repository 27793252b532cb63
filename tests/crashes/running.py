"""Many trials on all cores: workers, each with vendors of its own, and what came of it."""

from __future__ import annotations

import itertools
import multiprocessing
import re
import signal
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final

from tests.crashes.plan import BACKENDS, Trial
from tests.crashes.scenarios import SCENARIOS
from tests.crashes.trial import LedgerIn, Stage, Verdict
from tests.crashes.vendors import Vendors

from gpubroker.model.places import Place as LedgerPlace
from gpubroker.model.places import ledger_place

#: Trials after which a worker takes new vendors: what they remember grows.
_FRESH: Final = 100
_COLUMNS: Final = ("points", "hit", "trials", "paused", "missed", "failed")

Question = tuple[str, str] | Trial
"""The points of a scenario on an event loop, or a trial."""


def _work(connection: Connection, ledger: LedgerIn) -> None:
    """Answer questions until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    vendors: Vendors | None = None
    try:
        for count in itertools.count():
            question: Question | None = connection.recv()
            if question is None:
                return
            if vendors is None or count % _FRESH == 0:
                if vendors is not None:
                    vendors.close()
                vendors = Vendors()
            connection.send(_answered(Stage(vendors, ledger), question))
    except EOFError:
        pass
    finally:
        if vendors is not None:
            vendors.close()


def _answered(stage: Stage, question: Question) -> Any:
    try:
        if isinstance(question, Trial):
            return stage.run(question)
        name, backend = question
        return stage.points(SCENARIOS[name], backend, 1 + BACKENDS.index(backend))
    except Exception:  # noqa: BLE001 - told where it was asked
        return traceback.format_exc()


class Workers:
    """Processes that do trials. Made in a process without threads."""

    def __init__(self, number: int, ledger: LedgerIn) -> None:
        fork = multiprocessing.get_context("fork")
        self._processes: list[ForkProcess] = []
        self._connections: list[Connection] = []
        for _ in range(number):
            near, far = fork.Pipe()
            process = fork.Process(target=_work, args=(far, ledger))
            process.start()
            far.close()
            self._processes.append(process)
            self._connections.append(near)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Any]]:
        """Each question with its answer, as they come: text where it could not be answered."""
        left = list(reversed(questions))
        busy: dict[Connection, Question] = {}
        idle = list(self._connections)
        while left or busy:
            while left and idle:
                connection = idle.pop()
                busy[connection] = left.pop()
                connection.send(busy[connection])
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                question = busy.pop(ready)
                try:
                    yield question, ready.recv()
                except EOFError:
                    yield question, "its worker died"
                else:
                    idle.append(ready)
            if not idle and not busy:
                raise RuntimeError("all workers died")

    def close(self) -> None:
        """End them all."""
        for connection in self._connections:
            try:
                connection.send(None)
            except (BrokenPipeError, OSError):
                continue
        for process in self._processes:
            process.join(30.0)
            if process.is_alive():
                process.kill()


@dataclass(slots=True)
class Tally:
    """What came of the trials of one scenario."""

    points: int = 0
    trials: int = 0
    paused: int = 0
    missed: int = 0
    failures: int = 0
    hit: set[str] = field(default_factory=set[str])
    healing: float = 0.0

    def add(self, verdict: Verdict) -> None:
        """Count one."""
        self.trials += 1
        self.failures += bool(verdict.problems)
        self.healing = max(self.healing, verdict.healing)
        if verdict.reached:
            self.hit.add(verdict.trial.blow.point)
            self.paused += verdict.trial.blow.pause
        else:
            self.missed += 1


def list_points(
    workers: Workers, names: Sequence[str]
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """The points of scenarios that are reached on both event loops; and what went wrong."""
    found: dict[str, list[dict[str, int]]] = defaultdict(list)
    wrong: list[str] = []
    for question, answer in workers.answers([(n, b) for n in names for b in BACKENDS]):
        assert isinstance(question, tuple)
        if isinstance(answer, str):
            wrong.append(f"{question[0]} on {question[1]}, with no blow at all:\n{answer}")
        else:
            found[question[0]].append(answer)
    points: dict[str, dict[str, int]] = {}
    for name in names:
        first, second = (found[name] * 2)[:2] if found[name] else ({}, {})
        points[name] = {
            point: min(count, second[point]) for point, count in first.items() if point in second
        }
    return points, wrong


def run(
    trials: Sequence[Trial],
    workers: Workers,
    tell: Callable[[str], None],
    repeat: str = "python -m tests.crashes --repeat",
) -> dict[str, Tally]:
    """Do them all."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    began = told = time.monotonic()
    failures = 0
    for done, (question, answer) in enumerate(workers.answers(trials), start=1):
        assert isinstance(question, Trial)
        verdict = answer if isinstance(answer, Verdict) else Verdict.of_nothing(question, answer)
        tallies[question.scenario].add(verdict)
        if verdict.problems:
            failures += 1
            lines = "\n    ".join("\n".join(verdict.problems).splitlines())
            tell(f"FAILED after {verdict.seconds:.1f} s: {question}\n    {lines}")
            tell(f"  again: {repeat} '{question}'")
        now = time.monotonic()
        if now - told > 20.0:
            told = now
            rate = done / (now - began)
            tell(f"{done} of {len(trials)} trials, {rate:.2f}/s, {failures} failed")
    return dict(tallies)


def table(points: Mapping[str, Mapping[str, int]], tallies: Mapping[str, Tally]) -> list[str]:
    """What came of it, a line for each scenario."""
    words = {word: word for word in _COLUMNS}
    lines = [_line("scenario", words, "healed within")]
    total: Counter[str] = Counter()
    for name, of_one in points.items():
        tally = tallies.get(name, Tally())
        numbers = {
            "points": len(of_one),
            "hit": len(tally.hit),
            "trials": tally.trials,
            "paused": tally.paused,
            "missed": tally.missed,
            "failed": tally.failures,
        }
        total.update(numbers)
        lines.append(_line(name, numbers, f"{tally.healing:.1f} s"))
    return [*lines, _line("all", total, "")]


def _line(name: str, cells: Mapping[str, object], healing: str) -> str:
    middle = "".join(f"{cells[word]!s:>8}" for word in _COLUMNS)
    return f"{name:<16}{middle}{healing:>15}"


@contextmanager
def sqlite_ledger(folder: Path) -> Generator[LedgerPlace]:
    """A ledger file in the trial's own folder."""
    yield folder / "ledger.db"


@contextmanager
def postgres_ledgers() -> Generator[LedgerIn]:
    """Databases of a server that runs as long as the block lasts."""
    from tests.postgres import running

    with running() as server:

        @contextmanager
        def database(folder: Path) -> Generator[LedgerPlace]:
            name = re.sub(r"\W", "_", folder.name).lower()
            server.execute(f"CREATE DATABASE {name} STRATEGY = FILE_COPY")
            url = server.url(name)
            try:
                yield ledger_place(url)
            finally:
                server.drop_database(url)

        yield database


def working(number: int, ledger: LedgerIn = sqlite_ledger) -> closing[Workers]:
    """Workers for as long as a block lasts."""
    return closing(Workers(number, ledger))
