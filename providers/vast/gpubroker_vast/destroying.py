"""Destroying machines: those that wait for the same turn go in one request."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker_vast.api import MOST_DESTROYED, VastApi
from gpubroker_vast.failures import code_of, succeeded
from gpubroker_vast.vocabulary import GONE


@dataclass(eq=False)
class _Wish:
    """One machine that a caller wants destroyed.

    Attributes:
        settled: an answer came; `error` says if it was no good.
    """

    machine_id: str
    settled: bool = False
    error: ProviderError | None = None


class Destroyer:
    """Sends destroys for callers that come one by one.

    Whoever is at the head of the queue sends for all that wait by then. When that caller is
    cancelled, nothing is settled, and the next one sends for all again: a destroy may be repeated.
    """

    def __init__(self, api: VastApi) -> None:
        self._api = api
        self._turn = anyio.Lock()
        self._wishes: list[_Wish] = []
        self._together = True

    async def destroy(self, machine_id: str) -> None:
        """Return once the vendor accepted, or there is nothing left to destroy.

        Raises:
            ProviderError: not yet.
        """
        wish = _Wish(machine_id)
        self._wishes.append(wish)
        try:
            async with self._turn:
                if not wish.settled:
                    await self._api.destroy_turn()
                    await self._send(wish)
        finally:
            if wish in self._wishes:
                self._wishes.remove(wish)
        if (error := wish.error) is not None:
            # An exception of its own for each caller: they are raised in different tasks.
            raise ProviderError(
                str(error), kind=error.kind, scope=error.scope, retry_after=error.retry_after
            )

    async def _send(self, first: _Wish) -> None:
        others = [wish for wish in self._wishes if wish.machine_id != first.machine_id]
        wanted = dict.fromkeys([first.machine_id, *(wish.machine_id for wish in others)])
        machine_ids = list(wanted)[: MOST_DESTROYED if self._together else 1]
        try:
            problem = await self._ask(machine_ids)
        except ProviderError as error:
            problem = error
        if problem is not None and len(machine_ids) > 1 and problem.kind is ErrorKind.BAD_REQUEST:
            # It does not take them together, then: from now on each is asked for alone.
            self._together = False
            machine_ids = [first.machine_id]
            await self._api.destroy_turn()
            problem = await self._ask(machine_ids)
        for wish in [wish for wish in self._wishes if wish.machine_id in machine_ids]:
            wish.settled, wish.error = True, problem
            self._wishes.remove(wish)

    async def _ask(self, machine_ids: list[str]) -> ProviderError | None:
        """One request; what was wrong with its answer.

        Raises:
            ProviderError: there is no answer.
        """
        if len(machine_ids) == 1:
            reply = await self._api.destroy(machine_ids[0])
        else:
            reply = await self._api.destroy_all(machine_ids)
        if succeeded(reply) is not None:
            return None
        if 200 <= reply.status < 500 and reply.status != 429 and code_of(reply) in GONE:
            return None
        if reply.ok and reply.json_object() is None:
            return ProviderError(
                "destroying: the answer cannot be read",
                kind=ErrorKind.TRANSIENT,
                scope=Scope.PROVIDER,
            )
        return self._api.failure(reply, "destroying")
