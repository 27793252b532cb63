"""What one test has of scripted clouds, and what is asked of them when it is done."""

# It puts itself in the place of a broker's parts, as a simulation does.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from anyio.from_thread import BlockingPortal

from gpubroker.broker import AsyncBroker
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.leases import LeaseRow, LeaseState, ReleaseState
from gpubroker.sync import Broker
from gpubroker.testing.clouds import Clouds, still_under_way
from gpubroker.testing.virtual_time import PATIENCE, in_virtual_time

_STRANGER: Final = (
    "a broker was opened outside of this test's clouds: ask for the fixture gpubroker_no_wait,"
    " or set gpubroker_no_wait = true in pytest's settings, and it rents from them"
)
_REAL_TIME: Final = (
    "an AsyncBroker rents from scripted clouds in real time, so that an hour is an hour: run its"
    " event loop in virtual time, by @pytest.mark.gpubroker on an async test, or by"
    " gpubroker.testing.run_virtual"
)


@dataclass(slots=True)
class Use:
    """The clouds of one test, and the brokers that rent from them.

    Attributes:
        folder: for the ledgers of the code under test.
        open: brokers of the code under test that are open, synchronous ones by what is in them.
        checked: whether the clouds were asked already.
    """

    clouds: Clouds
    folder: Path
    open: list[AsyncBroker] = field(default_factory=list[AsyncBroker])
    checked: bool = False
    _brokers: list[Broker] = field(default_factory=list[Broker])
    _strangers: bool = False
    _ledgers: dict[str, Path] = field(default_factory=dict[str, Path])

    def own(self, broker: Broker) -> Broker:
        """Close this one too before the clouds are asked."""
        self._brokers.append(broker)
        return broker

    def keep_others_out(self, replaced: Callable[[type, str, object], None]) -> None:
        """Have no broker open the real providers; `replaced` as in `stand_in`."""
        open_parts = AsyncBroker._open_parts

        async def open_given(broker: AsyncBroker, stack: AsyncExitStack) -> Parts:
            if broker._plugins is None:
                self._strangers = True
                raise RuntimeError(_STRANGER)
            return await open_parts(broker, stack)

        replaced(AsyncBroker, "_open_parts", open_given)

    def stand_in(self, replaced: Callable[[type, str, object], None]) -> None:
        """Have all brokers that are opened from now on rent here.

        Args:
            replaced: puts something in the place of a class's attribute, until the test is done.
        """
        open_parts = AsyncBroker._open_parts

        async def open_here(broker: AsyncBroker, stack: AsyncExitStack) -> Parts:
            if broker._plugins is None:
                # Undone last: one that an app keeps rents elsewhere the next time.
                stack.callback(vars(broker).update, dict(vars(broker)))
                self._move_here(broker)
                if not in_virtual_time():
                    warnings.warn(_REAL_TIME, RuntimeWarning, stacklevel=1)
            self.open.append(broker)
            stack.callback(self.open.remove, broker)
            return await open_parts(broker, stack)

        def start_here(broker: Broker) -> AbstractContextManager[BlockingPortal]:
            self.own(broker)
            return self.clouds.thread.portal()

        replaced(AsyncBroker, "_open_parts", open_here)
        replaced(Broker, "_start_portal", start_here)

    def _move_here(self, broker: AsyncBroker) -> None:
        options = self.clouds.options()
        broker._plugins, broker._now = options["plugins"], options["now"]
        broker._seed, broker._close_wait = options["seed"], options["close_wait"]
        # Brokers that shared a ledger go on sharing one, and it is never the user's own.
        place = str(broker.settings.ledger)
        ledger = self._ledgers.setdefault(place, self.folder / f"ledger-{len(self._ledgers)}.db")
        broker.settings = replace(broker.settings, ledger=ledger)

    def close(self) -> list[str]:
        """Close synchronous brokers, and name the leases that nobody had left.

        One that an app keeps for its life opens anew when it is next called.
        """
        held: list[str] = []
        for broker in tuple(self._brokers):
            # One that another thread opens just now is open soon, and then to be closed.
            if broker._lock.acquire(timeout=PATIENCE):
                broker._lock.release()
            if broker._portal is not None:
                rows = broker.leases()
                held += [row.id for row in rows if _in_hand(row)]
                broker.close()
                broker._closed = False
        return held

    def end(self) -> list[str]:
        """Close the clouds too, and name the calls that had to be cut off for that."""
        self.close()
        cut_off = self.clouds.close()
        for broker in self._brokers:
            broker._portal = None  # its loop has ended under it
            broker._contexts.clear()
        return cut_off

    def problem(self) -> str:
        """What is wrong at the end, if anything is; empty if nothing, or if it is too early to say.

        It is, while a fixture of the code under test has an `AsyncBroker` open.
        """
        opening = ["a broker to open" for broker in self._brokers if broker._lock.locked()]
        calls = [*opening, *self.clouds.calls_under_way]
        held = self.close()
        if self.open and not calls:
            return ""
        self.checked = True
        if calls:
            return still_under_way(calls)
        if self._strangers:
            return _STRANGER
        try:
            self.clouds.assert_all_well()
        except AssertionError as problem:
            return str(problem)
        strict = all(cloud.strict for cloud in self.clouds.values())
        return f"nobody left the lease {', '.join(held)}" if held and strict else ""


def _in_hand(lease: LeaseRow) -> bool:
    """Whether somebody has it who should have left it.

    An app may keep a pool open for its life: a machine that is idle there waits for nobody's leave.
    """
    idle_in_pool = bool(lease.pool) and lease.state is LeaseState.IDLE
    return lease.release_state is ReleaseState.HELD and not idle_in_pool
