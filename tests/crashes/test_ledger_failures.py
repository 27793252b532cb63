"""The ledger fails at every one of its operations: nothing leaks, and no result is lost.

As SQLite's own tests do: the n-th operation fails, for each n until the story comes to its end
without it. In virtual time, on a cloud that keeps books of its own.
"""

from __future__ import annotations

import enum
import itertools
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from gpubroker import (
    AsyncBroker,
    BrokerError,
    Event,
    Job,
    LedgerUnusable,
    Money,
    Plugin,
    ProviderFacts,
    Requirements,
    Result,
)
from gpubroker.ledger import store
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.store import Store
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer, run_virtual
from gpubroker.testing.virtual_time import BackendName

BUDGET: Final = Money(5)
_NAMED: Final = re.compile("told to fail|disk is full")
_FACTS: Final = ProviderFacts(paid=True, late_create_watch=300.0)


class How(enum.Enum):
    """What has happened to a transaction when one of its statements fails."""

    NOTHING = "nothing"  #: the statement had no effect, and the transaction goes on
    UNDONE = "undone"  #: SQLite has rolled it back by itself
    DONE = "done"  #: its commit took effect, and was reported to have failed


@dataclass
class Failing:
    """Lets operations of every ledger fail, from the n-th on.

    Attributes:
        lasts: seconds from then on; 0 is that one operation.
        done: operations so far. until: when it is well again. failed: the statements that did fail.
    """

    code: str
    how: How
    nth: int
    lasts: float
    now: Callable[[], float]
    done: int = 0
    until: float | None = float("-inf")
    failed: list[str] = field(default_factory=list[str])

    def begin(self) -> None:
        """From now on operations count."""
        self.done, self.until = 0, None

    def heal(self) -> None:
        """From now on everything works."""
        self.until = float("-inf")

    def execute(
        self, connection: sqlite3.Connection, sql: str, run: Callable[[], sqlite3.Cursor]
    ) -> sqlite3.Cursor:
        """One operation."""
        if self.how is How.DONE and sql != "COMMIT":
            return run()
        if sql.startswith(("PRAGMA", "ROLLBACK")):
            return run()
        self.done += 1
        if self.until is None and self.done == self.nth:
            self.until = self.now() + self.lasts
        elif self.until is None or self.now() >= self.until:
            return run()
        if self.how is How.DONE:
            run()
        elif self.how is How.UNDONE and connection.in_transaction:
            sqlite3.Connection.execute(connection, "ROLLBACK")
        self.failed.append(sql)
        error = sqlite3.OperationalError(f"told to fail: {self.code}")
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{self.code}")
        raise error


@pytest.fixture
def let_fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Failing], None]:
    """From now on the ledger fails as it is told."""
    execute = store._Connection.execute  # pyright: ignore[reportPrivateUsage]

    def let(failing: Failing) -> None:
        def call(self: sqlite3.Connection, sql: str, *values: Any) -> sqlite3.Cursor:
            return failing.execute(self, sql, lambda: execute(self, sql, *values))  # type: ignore[arg-type]

        monkeypatch.setattr(store._Connection, "execute", call)  # pyright: ignore[reportPrivateUsage]

    return let


@dataclass
class Run:
    """What came of one run.

    Attributes:
        result: of the job; ``None`` where there is none.
        error: why.
    """

    cloud: ScriptedCloud
    path: Path
    events: list[Event] = field(default_factory=list[Event])
    result: Result | None = None
    error: BaseException | None = None

    def problems(self) -> Iterator[str]:
        """What must not be, by the cloud's own books."""
        cloud = self.cloud
        yield from (f"{machine.id} still runs" for machine in cloud.running)
        yield from cloud._vendor.misuses  # pyright: ignore[reportPrivateUsage]
        ledger = Ledger(self.path, entropy=b"12345")
        leases = {lease.mark: lease for lease in ledger.leases(open_only=False)}
        ledger.close()
        marks = Counter(create.order.mark for create in cloud.creates)
        yield from (f"{count} creates of {mark}" for mark, count in marks.items() if count > 1)
        yield from (f"no intent for {mark}" for mark in marks if mark not in leases)
        for lease in leases.values():
            if lease.state.open or lease.reserved:
                yield f"{lease.id} is {lease.state} and holds {lease.reserved}"
        if cloud.billed > BUDGET:
            yield f"{cloud.billed} was billed"
        finished = any(run.outcome is not None and run.outcome.exit_code == 3 for run in cloud.runs)
        if finished and (self.result is None or self.result.stdout != b"out\n"):
            yield f"the job ended, and its result is lost: {self.error!r}"
        if isinstance(self.error, LedgerUnusable) and not _NAMED.search(str(self.error)):
            yield f"the reason does not say what failed: {self.error}"
        if self.result is None and not isinstance(self.error, BrokerError):
            yield f"no result, and no reason: {self.error!r}"


async def play(path: Path, now: VirtualWallClock, failing: Failing) -> Run:
    """One job; then, with the ledger well again, a reaper whose turn it is in the end."""
    cloud = ScriptedCloud(
        now=now,
        facts=_FACTS,
        offers=[offer("RTX 4090", "0.36", id="a", host="1"), offer("RTX 4090", "0.40", id="b")],
    )
    cloud.boot_takes(30)
    cloud.job(seconds=60, exit_code=3, stdout=b"out\n")
    run = Run(cloud, path)
    Ledger(path, entropy=b"12345").close()  # made, and of today's version

    def broker(**options: Any) -> AsyncBroker:
        plugins = [Plugin(cloud.name, cloud.factory, "scripted", given=True)]
        return AsyncBroker(
            ledger=path,
            budget=BUDGET,
            plugins=plugins,
            now=now,
            on_event=run.events.append,
            **options,
        )

    failing.begin()
    try:
        async with broker(seed=1) as victim:
            run.result = await victim.run(
                Job(["work"], timeout=600, tags=["t" * 600]), Requirements()
            )
    except Exception as error:  # noqa: BLE001 - looked at later
        run.error = error
    failing.heal()
    async with broker(seed=2, sweep=False) as reaper:
        for pause in (0, 70, 10, 10, 70, 10, 400, 10):
            await anyio.sleep(pause)
            await reaper.sweep()
        problems = await reaper.verify()
    assert problems == []
    return run


def each_operation(
    tmp_path: Path, let_fail: Callable[[Failing], None], failing: Failing, step: int
) -> list[str]:
    """What went wrong, for every operation that can fail, or every so many of them."""
    found: list[str] = []
    for nth in itertools.count(1, step):
        loop: BackendName = "asyncio" if nth % 2 else "trio"
        now = VirtualWallClock()
        one = replace(failing, nth=nth, now=now, failed=[])
        let_fail(one)
        run = run_virtual(loop, play, tmp_path / f"{nth}.db", now, one)
        found += [f"{nth}, {one.failed[:1]}: {line}" for line in run.problems()]
        if not one.failed:
            assert run.result is not None
            return found
    raise AssertionError("unreachable")


def _every(code: str, how: How, lasts: float, step: int = 1, *, deep: bool = True) -> Any:
    length = "once" if lasts == 0 else "for a while"
    name = f"{code}, {how.value}, {length}{', some' if step > 1 else ''}"
    marks = [pytest.mark.deep] if deep else []
    return pytest.param(code, how, lasts, step, id=name, marks=marks)


@pytest.mark.parametrize(
    ("code", "how", "lasts", "step"),
    [
        _every("IOERR", How.UNDONE, 0, step=9, deep=False),
        _every("IOERR", How.DONE, 0, step=7, deep=False),
        _every("IOERR", How.NOTHING, 200, step=11, deep=False),
        *(_every("IOERR", how, lasts) for how in How for lasts in (0, 200)),
        _every("FULL", How.UNDONE, 0),
        _every("FULL", How.UNDONE, 200, step=3),
        _every("CORRUPT", How.NOTHING, 0),
        _every("CORRUPT", How.NOTHING, 200, step=3),
        _every("READONLY", How.NOTHING, 0),
        _every("READONLY", How.NOTHING, 200, step=3),
        # Longer than a broker has patience with others.
        _every("BUSY", How.NOTHING, 0),
        _every("BUSY", How.NOTHING, 15, step=3),
    ],
)
def test_whatever_operation_fails_nothing_leaks_and_no_result_is_lost(
    tmp_path: Path,
    let_fail: Callable[[Failing], None],
    code: str,
    how: How,
    lasts: float,
    step: int,
) -> None:
    """One create for each intent, machines gone, money within its limit, and the job's output."""
    failing = Failing(code, how, 1, lasts, VirtualWallClock())

    assert each_operation(tmp_path, let_fail, failing, step) == []


@pytest.mark.deep
def test_a_disk_that_is_full_at_any_moment_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit of a file's size, a page further each time; lifted for the reaper."""
    limit = [0]
    make = Store.__init__

    def limited(self: Store, path: Path | None, *, busy: float = 0.2) -> None:
        if path is not None and not path.exists():
            # Small pages, so that nearly every row needs a new one.
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA page_size = 512")
                connection.execute("CREATE TABLE filler (x)")
                connection.execute("DROP TABLE filler")
            path.chmod(0o600)
        if path is not None and limit[0]:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("VACUUM")  # no page is free
        make(self, path, busy=busy)
        if limit[0]:
            with self.reading() as sql:
                (pages,) = sql.execute("PRAGMA page_count").fetchone().values()
                sql.execute(f"PRAGMA max_page_count = {pages + limit[0] - 1}")

    monkeypatch.setattr(Store, "__init__", limited)
    lost: list[BaseException] = []

    for pages in itertools.count(1):

        class Disk(Failing):
            def begin(self, pages: int = pages) -> None:
                limit[0] = pages

            def heal(self) -> None:
                limit[0] = 0

        now = VirtualWallClock()
        disk = Disk("FULL", How.UNDONE, 0, 0, now)
        run = run_virtual("asyncio", play, tmp_path / f"{pages}.db", now, disk)
        assert list(run.problems()) == []
        if not any("disk is full" in event.text for event in run.events) and run.error is None:
            break
        lost += [run.error] if run.error is not None else []

    assert lost
    # A create that was answered when its answer could not be recorded is given up.
    words = ("disk is full", "the ledger cannot be written")
    assert [str(error) for error in lost if not any(w in str(error) for w in words)] == []
