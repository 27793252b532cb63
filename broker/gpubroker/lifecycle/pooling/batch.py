"""A batch: one job for each input on the machines of a pool, and what is finished stays finished."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from gpubroker.errors import LedgerError, MachineLost
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.pooling.pool import AsyncPool
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.batches import Item
from gpubroker.model.codec import from_json, to_json
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.events import EventKind
from gpubroker.model.results import OutputFile, Result

#: Bytes of each stream that are kept on record.
_KEPT: Final = 4096

Done = tuple[int, Result]
OpenPool = Callable[[], AbstractAsyncContextManager[AsyncPool]]


class Batch:
    """One batch under way.

    Args:
        name: under which finished items are on record; empty keeps none.
        width: how many jobs run at a time at the most.
        retries: how often an item is started again whose job has failed.
    """

    def __init__(
        self,
        parts: Parts,
        name: str,
        items: Sequence[Item],
        open_pool: OpenPool,
        *,
        width: int,
        retries: int,
    ) -> None:
        self._parts = parts
        self._name = name
        self._items = items
        self._open_pool = open_pool
        self._width = width
        self._retries = retries
        self._scope = anyio.CancelScope()
        self._send, self._receive = anyio.create_memory_object_stream[Done](math.inf)
        self._error: Exception | None = None
        self._done = self._failed = 0

    async def results(self, supervisor: Supervisor) -> AsyncGenerator[Done]:
        """Every item's number and result, as they complete; those finished before first.

        The work is done in a task of the broker's: whoever leaves the loop early ends it, and may
        do so anywhere.
        """
        left: list[Item] = []
        try:
            known = await self._on_record()
            for item in self._items:
                result = await self._finished(item, known)
                if result is None:
                    left.append(item)
                    continue
                self._count(result)
                yield item.index, result
            if not left:
                return
            supervisor.start(self._work, left)
            async for done in self._receive:
                yield done
            if self._error is not None:
                raise self._error
        finally:
            self._scope.cancel()
            self._receive.close()
            self._send.close()

    # ---- what was finished before ---------------------------------------------------------

    async def _on_record(self) -> dict[str, str]:
        """The finished items, by their keys."""
        if not self._name:
            return {}
        return await self._parts.ledger(lambda ledger: ledger.items(self._name))

    async def _finished(self, item: Item, known: dict[str, str]) -> Result | None:
        """The result on record of an item, if its outputs are still what they were."""
        text = known.get(item.key)
        if text is None:
            return None
        try:
            result = from_json(Result, text)
        except ValueError:
            return None  # of another version: it is done again
        whole = partial(_are_whole, list(result.files.values()))
        return result if not result.files or await anyio.to_thread.run_sync(whole) else None

    async def _keep(self, item: Item, result: Result) -> None:
        """Put a finished item on record; its outputs are in place already."""
        if not self._name or not result.ok:
            return
        record = DecisionRecord(id=result.record.id, wanted="", asked_at=result.record.asked_at)
        short = replace(
            result, stdout=result.stdout[-_KEPT:], stderr=result.stderr[-_KEPT:], record=record
        )
        text, at = to_json(Result, short), self._parts.now()

        def put(ledger: Ledger) -> None:
            ledger.put_item(self._name, item.key, text, at)

        try:
            await self._parts.ledger(put)
        except LedgerError as error:
            self._parts.emit(EventKind.ALARM, f"item {item.index} may be done again: {error}")

    # ---- the work -------------------------------------------------------------------------

    async def _work(self, left: list[Item]) -> None:
        waiting = iter(left)
        with self._scope:
            try:
                async with self._open_pool() as pool, anyio.create_task_group() as tasks:
                    # Twice as many as can run: somebody always waits for a machine that is free.
                    for _ in range(min(2 * self._width, len(left))):
                        tasks.start_soon(self._one_by_one, pool, waiting, tasks.cancel_scope)
            except Exception as error:  # noqa: BLE001 - raised where the results are waited for
                self._error = self._error or error
        self._send.close()

    async def _one_by_one(
        self, pool: AsyncPool, waiting: Iterator[Item], all_of_them: anyio.CancelScope
    ) -> None:
        try:
            for item in waiting:
                result = await self._one(pool, item)
                await self._keep(item, result)
                self._count(result)
                await self._send.send((item.index, result))
        except Exception as error:  # noqa: BLE001 - raised where the results are waited for
            self._error = self._error or error
            all_of_them.cancel()

    async def _one(self, pool: AsyncPool, item: Item) -> Result:
        """Run one item, again elsewhere if it fails."""
        avoid: set[str] = set()
        for left in reversed(range(self._retries + 1)):
            try:
                result = await pool.run(item.job, avoid=avoid)
            except MachineLost as lost:
                result = lost.result
            if result.ok or not left:
                return result
            avoid.add(result.lease_id)
            text = f"item {item.index}: {result.failure}; it is started again"
            self._parts.emit(EventKind.BATCH, text)
        raise AssertionError("the last try returns")

    def _count(self, result: Result) -> None:
        self._done += 1
        self._failed += not result.ok
        failed = f", {self._failed} of them failed" if self._failed else ""
        text = f"{self._done} of {len(self._items)} done{failed}"
        self._parts.emit(EventKind.BATCH, text)


def _are_whole(files: Sequence[OutputFile]) -> bool:
    """Whether files are where they were put, and as they were."""
    try:
        return all(_digest(file.path) == file.sha256 for file in files)
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
