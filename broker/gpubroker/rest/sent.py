"""A request's body, for the HTTP client."""

from __future__ import annotations

import httpx


class SentBody(httpx.AsyncByteStream):
    """Bytes to be sent in one piece.

    httpx's own stream of bytes is an async generator, which a request that is cancelled leaves open.
    """

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> SentBody:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if not data:
            raise StopAsyncIteration
        return data
