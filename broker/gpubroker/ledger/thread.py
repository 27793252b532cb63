"""A thread that a broker owns, for a ledger whose answers come over a network."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import current_token

from gpubroker.errors import BrokerClosed, LedgerBusy, LedgerUnusable

T = TypeVar("T")


class LedgerThread:
    """Carries out calls one after the other, in the order in which they were asked for.

    What has begun is never given up half-way: a caller that stops waiting leaves it to be done.

    Args:
        grace: seconds for which a caller that is cancelled, or has no patience left, still waits
            to hear what has become of its change.
    """

    def __init__(self, grace: float = 5.0) -> None:
        self._grace = grace
        self._pid = os.getpid()
        self._ended = False
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        # As a daemon, because a program that ends must not wait for a server that does not answer;
        # until then it still works, so that what is asked for at the exit is done.
        self._thread = threading.Thread(target=self._work, name="gpubroker-ledger", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)
            else:
                future.set_result(result)
            del item, future, call

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        if self._pid != os.getpid():
            raise BrokerClosed("this broker belongs to the process before the fork; open a new one")
        if self._ended:
            raise BrokerClosed("the ledger is closed")
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def at_once(self, call: Callable[[], T], seconds: float) -> T:
        """Have `call` done, holding this thread and its event loop up to `seconds` for it.

        Raises:
            LedgerBusy: it takes longer, and goes on.
        """
        future = self._submit(call)
        try:
            return future.result(seconds)
        except TimeoutError:
            raise LedgerBusy(
                f"the ledger has not answered for {seconds:g} s; what was asked for goes on"
            ) from None

    async def carry_out(self, call: Callable[[], T], answer_by: float) -> T:
        """Have `call` done, and wait for it.

        Args:
            answer_by: when to stop waiting, by the event loop's clock.

        Raises:
            LedgerBusy: it had not begun by then, and never will.
            LedgerUnusable: there was no answer by then; it may still be done.
        """
        future = self._submit(call)
        answered = _answered(future)
        soon = anyio.current_time() + self._grace
        try:
            with anyio.CancelScope(deadline=min(soon, answer_by), shield=True):
                await answered.wait()
            if not future.done():
                with anyio.CancelScope(deadline=answer_by):
                    await answered.wait()
        finally:
            withdrawn = future.cancel()
        if withdrawn:
            raise LedgerBusy("the ledger was busy with something else; nothing has happened")
        if not future.done():
            # It has begun, and so it is worth some more patience to hear what becomes of it.
            with anyio.move_on_after(self._grace, shield=True):
                await answered.wait()
        if not future.done():
            raise LedgerUnusable("the ledger does not answer; what was asked for may still be done")
        return future.result()

    async def end(self, close: Callable[[], None], abandon: Callable[[], None]) -> None:
        """Do what was asked for so far, `close`, and end the thread.

        Args:
            abandon: called if that takes longer than a few seconds, to make what hangs fail.
        """
        if self._pid != os.getpid() or self._ended:
            return
        closed = self._submit(close)
        self._ended = True
        self._calls.put(None)
        answered = _answered(closed)
        with anyio.move_on_after(self._grace, shield=True):
            await answered.wait()
        if not closed.done():
            abandon()
            with anyio.move_on_after(self._grace, shield=True):
                await answered.wait()
        self._thread.join(1.0)


def _answered(future: Future[Any]) -> anyio.Event:
    """An event of this event loop, set when another thread has done what was asked for."""
    answered = anyio.Event()
    loop: Any = current_token().native_token
    wake = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and nobody waits any more
            wake(answered.set)

    future.add_done_callback(tell)
    return answered
