"""How asynchronous code uses the ledger.

A SQLite transaction takes well under a millisecond and is done in the event loop itself; handing it
to a thread would cost more than it takes. Only waiting for another process is done by awaiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import anyio

from gpubroker.errors import LedgerBusy, LedgerUnusable
from gpubroker.ledger.ledger import Ledger

T = TypeVar("T")


class LedgerAccess:
    """The ledger, for drivers.

    Args:
        patience: seconds to wait for another process before giving up.
        source: randomness for spreading out the waiting.
    """

    def __init__(self, ledger: Ledger, *, patience: float, source: random.Random) -> None:
        self._ledger = ledger
        self._patience = patience
        self._random = source

    def at_once(self, operation: Callable[[Ledger], T]) -> T:
        """Carry out `operation` without awaiting anything.

        It holds the event loop for as long as the ledger's busy time-out at the most.

        Raises:
            LedgerBusy: another process was in the way for that long.
        """
        return operation(self._ledger)

    async def __call__(self, operation: Callable[[Ledger], T]) -> T:
        """Carry out `operation`, waiting for other processes as long as patience lasts.

        Raises:
            LedgerBusy: patience ran out; nothing has happened.
        """
        give_up = anyio.current_time() + self._patience
        while True:
            try:
                return operation(self._ledger)
            except LedgerBusy:
                if anyio.current_time() >= give_up:
                    raise
            await anyio.sleep(self._random.uniform(0.005, 0.05))

    async def insist(self, operation: Callable[[Ledger], T]) -> T:
        """Carry out `operation` however long it takes: what it records has happened already.

        Raises:
            StaleOwner: another process has taken the lease over.
            BrokerClosed: the ledger was closed.
        """
        pause = 0.1
        while True:
            try:
                return await self(operation)
            except (LedgerBusy, LedgerUnusable):
                await anyio.sleep(pause)
                pause = min(pause * 2, 15.0)
