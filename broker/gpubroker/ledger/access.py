"""How asynchronous code uses the ledger.

A SQLite transaction takes well under a millisecond and is done in the event loop itself; handing it
to a thread would cost more than it takes. Only waiting for another process is done by awaiting.
PostgreSQL answers over a network, so it has a thread of its own, and its answers are awaited.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from gpubroker.errors import LedgerBusy, LedgerUnusable
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.thread import LedgerThread
from gpubroker.model.places import Place, PostgresUrl

T = TypeVar("T")

#: Seconds for which the event loop may be held.
_AT_ONCE = 0.2
#: Seconds that a transaction in the thread waits for its turn among other processes.
_IN_TURN = 2.0


class LedgerAccess:
    """The ledger, for drivers.

    Args:
        patience: seconds to wait for another process before giving up.
        source: randomness for spreading out the waiting.
        thread: does what is asked for; without one it is done in the event loop.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        patience: float,
        source: random.Random,
        thread: LedgerThread | None = None,
    ) -> None:
        self._ledger = ledger
        self._patience = patience
        self._random = source
        self._thread = thread

    def at_once(self, operation: Callable[[Ledger], T]) -> T:
        """Carry out `operation` without awaiting anything.

        It holds the event loop for 0.2 s at the most.

        Raises:
            LedgerBusy: another process was in the way for that long. Where a thread does the work,
                it goes on with it.
        """
        if self._thread is None:
            return operation(self._ledger)
        return self._thread.at_once(lambda: operation(self._ledger), _AT_ONCE)

    async def __call__(self, operation: Callable[[Ledger], T]) -> T:
        """Carry out `operation`, waiting for other processes as long as patience lasts.

        Raises:
            LedgerBusy: patience ran out; nothing has happened.
            LedgerUnusable: it cannot be read or written, or does not say what has happened.
        """
        give_up = anyio.current_time() + self._patience
        return await self._tried(operation, give_up, answer_by=give_up)

    async def insist(self, operation: Callable[[Ledger], T]) -> T:
        """Carry out `operation` however long it takes: what it records has happened already.

        Raises:
            StaleOwner: another process has taken the lease over.
            BrokerClosed: the ledger was closed.
        """
        pause = 0.1
        while True:
            try:
                # Not begun anew while it may still be done: done twice it would be refused.
                give_up = anyio.current_time() + self._patience
                return await self._tried(operation, give_up, answer_by=math.inf)
            except (LedgerBusy, LedgerUnusable):
                await anyio.sleep(pause)
                pause = min(pause * 2, 15.0)

    async def _tried(
        self, operation: Callable[[Ledger], T], give_up: float, *, answer_by: float
    ) -> T:
        while True:
            try:
                if self._thread is None:
                    return operation(self._ledger)
                return await self._thread.carry_out(lambda: operation(self._ledger), answer_by)
            except LedgerBusy:
                if anyio.current_time() >= give_up:
                    raise
            await anyio.sleep(self._random.uniform(0.005, 0.05))


@asynccontextmanager
async def open_ledger(
    place: Place | None, *, entropy: bytes, patience: float, source: random.Random
) -> AsyncGenerator[LedgerAccess]:
    """The ledger at `place`, open for one broker.

    Raises:
        LedgerError: it cannot be opened.
    """
    thread = LedgerThread() if isinstance(place, PostgresUrl) else None
    opened: list[Ledger] = []

    def open_it() -> None:
        busy = _AT_ONCE if thread is None else _IN_TURN
        opened.append(Ledger(place, entropy=entropy, busy=busy, resolving=math.inf))

    def end(act: Callable[[Ledger], None]) -> None:
        for ledger in opened:
            act(ledger)

    give_up = anyio.current_time() + patience
    try:
        while not opened:
            try:
                open_it() if thread is None else await thread.carry_out(open_it, give_up)
            except LedgerBusy:
                # Several processes may be making the same ledger at the same moment.
                if anyio.current_time() >= give_up:
                    raise
                await anyio.sleep(source.uniform(0.005, 0.05))
        yield LedgerAccess(opened[0], patience=patience, source=source, thread=thread)
    finally:
        if thread is None:
            end(Ledger.close)
        else:
            await thread.end(lambda: end(Ledger.close), lambda: end(Ledger.abandon))
