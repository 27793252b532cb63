"""Several scripted clouds on one clock, the brokers that rent from them, and what they all must show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

from gpubroker.broker import AsyncBroker
from gpubroker.errors import BrokerClosed
from gpubroker.model.money import ZERO, Money
from gpubroker.plugins import Plugin
from gpubroker.sync import Broker
from gpubroker.testing.scenarios import Scenario, market, scenario
from gpubroker.testing.scripted import ScriptedCloud
from gpubroker.testing.virtual_thread import VirtualBroker, VirtualThread
from gpubroker.testing.virtual_time import VirtualWallClock

#: Seconds, of virtual time.
_PATIENCE: Final = 600.0


class Clouds(Mapping[str, ScriptedCloud]):
    """Scripted clouds by name, on one virtual clock.

    ::

        with Clouds("vendor-a", "vendor-b") as clouds:
            clouds["vendor-a"].out_of_capacity()
            with clouds.broker() as broker:
                broker.run(["train"], Requirements(gpu="RTX 4090"))
            assert clouds.ran == [("vendor-b", "train")]

    Each rents out what `gpubroker.testing.scenarios.market` says, the first one cheapest.
    Leaving the block without an error fails for what `assert_all_well` fails for.

    Args:
        names: of the providers.
        stories: what each is told, by name: a `Scenario`, the name of one in `SCENARIOS`, or several.
            Names that are here alone are providers too.
        strict: see `ScriptedCloud`.
    """

    def __init__(
        self,
        *names: str,
        stories: Mapping[str, str | Scenario | Sequence[Any]] | None = None,
        strict: bool = True,
    ) -> None:
        self.now = VirtualWallClock()
        told = dict(stories or {})
        self._clouds = {
            name: ScriptedCloud(name, now=self.now, offers=market(place), strict=strict)
            for place, name in enumerate(dict.fromkeys([*names, *told]))
        }
        for name, story in told.items():
            scenario(story)(self[name])
        self._brokers = 0
        self._stack = ExitStack()
        self._thread: VirtualThread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def __getitem__(self, name: str) -> ScriptedCloud:
        return self._clouds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clouds)

    def __len__(self) -> int:
        return len(self._clouds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        cut_off = self.close()
        if error is None:
            assert not cut_off, still_under_way(cut_off)
            self.assert_all_well()

    def close(self) -> list[str]:
        """End the thread that `broker` needed, if it was. Brokers are to be closed before.

        Returns:
            The calls that other threads were waiting for, and that were cut off.
        """
        cut_off = self.calls_under_way
        with self._starting:
            self._closed = True
        self._stack.close()
        return cut_off

    # ----------------------------------------------------------------------------------------
    # Brokers
    # ----------------------------------------------------------------------------------------

    @property
    def plugins(self) -> list[Plugin]:
        """What a broker needs to rent here."""
        return [Plugin(name, self[name].factory, "scripted", given=True) for name in self]

    @property
    def thread(self) -> VirtualThread:
        """Where synchronous brokers work; started when it is first asked for.

        Raises:
            BrokerClosed: the clouds are closed.
        """
        with self._starting:
            if self._closed:
                raise BrokerClosed("these clouds are closed; a thread outlived its test")
            if self._thread is None:
                self._thread = self._stack.enter_context(VirtualThread())
            return self._thread

    @property
    def calls_under_way(self) -> list[str]:
        """Calls of synchronous brokers that other threads wait for, such as ``Broker.run``."""
        return [] if self._thread is None or self._closed else self._thread.under_way()

    def async_broker(self, **options: Any) -> AsyncBroker:
        """A broker that rents here, not yet open, for code that runs in virtual time.

        Args:
            options: those of `gpubroker.AsyncBroker`. Left out, the ledger is in memory, the
                budget 5 USD per job, ids repeat from run to run, and closing waits ten minutes until
            everything is proven gone.
        """
        return AsyncBroker(**self.options(**options))

    def broker(self, **options: Any) -> Broker:
        """The same for synchronous code. Its clock moves only while a call is in progress."""
        return VirtualBroker(self.thread, **self.options(**options))

    def options(self, **given: Any) -> dict[str, Any]:
        """The options of one more broker that rents here: those given, over what is usual here."""
        # Two brokers of one seed would draw the same ids, and take each other's machines for theirs.
        self._brokers += 1
        return {
            "ledger": ":memory:",
            "budget": "5",
            "plugins": self.plugins,
            "now": self.now,
            "seed": self._brokers,
            "close_wait": _PATIENCE,
            **given,
        }

    @contextmanager
    def in_place_of_real(self) -> Generator[None]:
        """Every broker that is opened within this block rents here: `gpubroker_no_wait` as a block.

        At its end, brokers that are still open are closed, and a lease that nobody left fails.
        """
        from gpubroker.testing.use import Use

        with TemporaryDirectory() as folder, ExitStack() as undone:

            def replaced(owner: type, name: str, value: object) -> None:
                undone.callback(setattr, owner, name, vars(owner)[name])
                setattr(owner, name, value)

            use = Use(self, Path(folder))
            use.stand_in(replaced)
            try:
                yield
            except BaseException:
                use.close()
                raise
            problem = use.problem()
            if problem:
                raise AssertionError(problem)

    # ----------------------------------------------------------------------------------------
    # What became of it
    # ----------------------------------------------------------------------------------------

    @property
    def billed(self) -> Money:
        """USD that all machines have cost up to now, exactly."""
        return sum((cloud.billed for cloud in self.values()), ZERO)

    @property
    def ran(self) -> list[tuple[str, str]]:
        """Who ran what: provider and command of every job that was started, in order of time."""
        runs = [(run.started_at, name, run) for name in self for run in self[name].runs]
        runs.sort(key=lambda run: run[0])
        return [(name, " ".join(run.job.argv)) for _, name, run in runs if not run.in_home]

    def assert_nothing_running(self) -> None:
        """Fail if a machine exists anywhere, naming all of them."""
        _together(cloud.assert_nothing_running for cloud in self.values())

    def assert_all_well(self) -> None:
        """Fail if anything is wrong with any of them, naming all of it."""
        _together(cloud.assert_all_well for cloud in self.values())


def still_under_way(calls: Iterable[str]) -> str:
    """The failure, in words."""
    return f"a thread was still waiting for {', '.join(calls)}, which was cut off; join it first"


def _together(checks: Iterable[Callable[[], None]]) -> None:
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except AssertionError as problem:
            problems.append(str(problem))
    if problems:
        raise AssertionError("; ".join(problems))
