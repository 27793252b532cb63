"""A request's body, for the HTTP client."""

from __future__ import annotations

from collections.abc import Callable

import httpx


class SentBody(httpx.AsyncByteStream):
    """Bytes to be sent in one piece.

    httpx's own stream of bytes is an async generator, which a request that is cancelled leaves open.

    Args:
        begin: called when it is sent, and so when there is a connection.
    """

    def __init__(self, data: bytes, begin: Callable[[], None]) -> None:
        self._data: bytes | None = data
        self._begin = begin

    def __aiter__(self) -> SentBody:
        return self

    async def __anext__(self) -> bytes:
        if self._data is not None:
            self._begin()
        data, self._data = self._data, None
        if not data:
            raise StopAsyncIteration
        return data
