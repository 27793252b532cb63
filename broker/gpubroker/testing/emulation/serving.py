"""An HTTP API on loopback, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, Final, TypeVar

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpubroker.testing.emulation.exchange import Answer, Call, Cut

T = TypeVar("T")

_PIECE: Final = 16
_CHUNK: Final = 1 << 18


class ApiServer:
    """Serves one handler of calls.

    A thread of its own, so that any code can use it: on asyncio, on trio, or synchronous. What
    the emulator knows is touched in its event loop alone; `call` and `run` go there.
    """

    def __init__(self, answer: Callable[[Call], Awaitable[Answer]]) -> None:
        self._answer = answer
        self._connections: dict[tuple[str, int], asyncio.Transport] = {}
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._problem: BaseException | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._thread is not None

    def start(self, port: int = 0) -> None:
        """Begin to listen on 127.0.0.1.

        Args:
            port: 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        # Inherited by each connection; asyncio does not do it for a listener made elsewhere, and
        # an answer in two pieces would wait for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener)), name="emulator", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            self._thread.join()
            raise self._problem

    def stop(self) -> None:
        """Cut every connection and end the thread. Again: nothing."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the emulator's event loop, from another thread, and wait for it."""
        assert self._loop is not None
        assert threading.current_thread() is not self._thread, "this would wait for itself"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the emulator's event loop; at once, where this is called there."""
        if threading.current_thread() is self._thread:
            return function()

        async def work() -> T:
            return function()

        return self.run(work())

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = _Server(
            uvicorn.Config(
                self._application,
                http=_protocol(self._connections),
                ws="none",
                lifespan="off",
                interface="asgi3",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=300,
            ),
            self._stopping,
            self._connections,
        )
        try:
            server.on_ready = self._ready.set
            await server.serve(sockets=[listener])
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._problem = error
        finally:
            self._ready.set()

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        peer = (request.client.host, request.client.port) if request.client else ("", 0)
        try:
            call = Call(
                method=request.method,
                path=request.url.path,
                query=dict(request.query_params),
                headers=dict(request.headers),
                body=await request.body(),
                peer=peer,
                at=time.time(),
            )
        except ClientDisconnect:
            return
        # What has begun is carried out, as servers do; only waiting is cut short.
        answer = await _unless_gone(self._answer(call), receive)
        if answer is None:
            return
        if answer.stream is None:
            await self._send(answer, peer, send)
            return
        async with aclosing(answer.stream):
            await _unless_gone(self._send(answer, peer, send), receive)

    async def _send(self, answer: Answer, peer: tuple[str, int], send: Send) -> None:
        if answer.cut_at == -1:
            self._cut(peer)
            return
        body = answer.body if answer.cut_at is None else answer.body[: answer.cut_at]
        headers = {"content-type": answer.content_type, **answer.headers}
        if answer.stream is None:
            headers["content-length"] = str(len(answer.body))
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }
        await send(start)
        for piece in _pieces(body, answer.pace):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if answer.pace:
                await asyncio.sleep(answer.pace)
        if answer.cut_at is None and await self._streamed(answer, send):
            await send({"type": "http.response.body", "body": b""})
        else:
            await asyncio.sleep(0.02)  # lets the piece leave before the connection is cut
            self._cut(peer)

    async def _streamed(self, answer: Answer, send: Send) -> bool:
        """Send the stream of an answer, if it has one; whether it came to its end."""
        if answer.stream is None:
            return True
        try:
            async for whole in answer.stream:
                for piece in _pieces(whole, answer.pace):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    # In any case a moment in which it can be seen that the client has gone.
                    await asyncio.sleep(answer.pace)
        except Cut:
            return False
        return True

    def _cut(self, peer: tuple[str, int]) -> None:
        transport = self._connections.get(peer)
        if transport is not None:
            transport.abort()


def _pieces(body: bytes, pace: float) -> Iterator[bytes]:
    size = _PIECE if pace else _CHUNK
    return (body[at : at + size] for at in range(0, len(body), size))


async def _unless_gone(work: Awaitable[T], receive: Receive) -> T | None:
    """What some work gives. It is given up when the client has gone before it is done."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def _protocol(connections: dict[tuple[str, int], asyncio.Transport]) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which keeps its connections where they can be cut."""

    class Connected(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if self.client is not None:
                connections[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                connections.pop(self.client, None)
            super().connection_lost(exc)

    return Connected


class _Server(uvicorn.Server):
    """uvicorn's server, which ends when it is told to, at once, and ignores signals."""

    def __init__(
        self,
        config: uvicorn.Config,
        stopping: asyncio.Event,
        connections: dict[tuple[str, int], asyncio.Transport],
    ) -> None:
        super().__init__(config)
        self.on_ready: Callable[[], None] = lambda: None
        self._told = stopping
        self._connections = connections

    async def main_loop(self) -> None:
        self.on_ready()
        await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything now; uvicorn's own way waits for clients."""
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for transport in list(self._connections.values()):
            transport.abort()
        tasks = list(self.server_state.tasks)
        if tasks:
            # They see that their clients have gone. Cancelled, they would be reported as failed.
            await asyncio.wait(tasks, timeout=1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
