"""What the plugins of vendors with a REST API have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVarTuple

import anyio
from anyio.abc import TaskGroup

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.rest.client import RestClient

Arguments = TypeVarTuple("Arguments")

_MOST_NOTES: Final = 100


class RestProvider:
    """A provider over one account's `RestClient`, which is open for as long as the provider is.

    A base for plugins; the hooks are the plugin's own. Enter it before the first hook.

    Args:
        emit: the broker's callback for events.
        key: the account's key. key_name: how people set it, such as ``ACME_API_KEY``.
    """

    def __init__(
        self,
        client: RestClient,
        emit: Callable[[str, str], None],
        *,
        key: str | None,
        key_name: str,
    ) -> None:
        self.client = client
        self.emit = emit
        self._has_key = key is not None
        self._key_name = key_name
        self._skipped: set[str] = set()
        self._opened: AbstractAsyncContextManager[TaskGroup] | None = None
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._opened = self._opening()
        self._tasks = await self._opened.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            self._tasks = None
            # What was raised in the block is its own: a task group would wrap it up.
            await self._opened.__aexit__(None, None, None)

    @asynccontextmanager
    async def _opening(self) -> AsyncGenerator[TaskGroup]:
        async with self.client, anyio.create_task_group() as tasks:
            yield tasks
            tasks.cancel_scope.cancel()

    def start_soon(
        self, work: Callable[[*Arguments], Coroutine[Any, Any, object]], *arguments: *Arguments
    ) -> None:
        """Run `work` beside everything else, until the provider is left. It must raise nothing."""
        if self._tasks is not None:
            self._tasks.start_soon(work, *arguments)

    def need_key(self) -> None:
        """Refuse to go on without a key.

        Raises:
            ProviderError: `AUTH`: there is none.
        """
        if not self._has_key:
            raise ProviderError(
                f"there is no key: set {self._key_name}", kind=ErrorKind.AUTH, scope=Scope.ACCOUNT
            )

    def skipped(self, text: str) -> None:
        """Say why something was left out: once, however often it is."""
        if text not in self._skipped and len(self._skipped) < _MOST_NOTES:
            self._skipped.add(text)
            self.emit("skipped", text)
