"""The steps at which a broker may die, by name; nothing of it is in the product.

The seams through which a broker changes anything outside of itself are wrapped, in a process that
is thrown away afterwards: transactions of the ledger, HTTP requests, SSH steps, and files that get
their name.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Final

import httpx

from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.store import Store
from gpubroker.ledger.store_postgres import PostgresStore
from gpubroker.transport.ssh.lease_key import LeaseKey
from gpubroker.transport.ssh.master import Master
from gpubroker.transport.work.patient import Conversation, PatientChannel

Reach = Callable[[str], None]
"""Called with the name of each point, in order."""

#: What httpcore says of a request, as far as it is a step of its own.
_HTTP: Final = {
    "send_request_headers.started": "before it is sent",
    "send_request_body.complete": "after it is sent",
    "receive_response_headers.complete": "before its answer is read",
    "receive_response_body.complete": "after its answer is read",
}


def install(reach: Reach) -> None:
    """From now on, and for as long as this process lives, have every step told."""
    _ledger(reach)
    _http(reach)
    _ssh(reach)
    for name in ("replace", "rename", "link", "fsync"):
        _wrap(os, name, functools.partial(_around, reach, f"file {name}"))


def _wrap(place: Any, name: str, make: Callable[[Any], Any]) -> None:
    setattr(place, name, make(getattr(place, name)))


def _around(reach: Reach, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        reach(f"{label}: before")
        result = function(*arguments, **named)
        reach(f"{label}: after")
        return result

    return call


def _awaited(
    reach: Reach, label: str, function: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any, **named: Any) -> Any:
        reach(f"{label}: before")
        result = await function(*arguments, **named)
        reach(f"{label}: after")
        return result

    return call


def _ledger(reach: Reach) -> None:
    """Name each transaction after the ledger's method that it belongs to."""
    current = [""]

    def naming(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            current.append(name)
            try:
                return function(*arguments, **named)
            finally:
                current.pop()

        return call

    for name, method in list(vars(Ledger).items()):
        if callable(method) and (not name.startswith("_") or name == "_prepare"):
            _wrap(Ledger, name, functools.partial(naming, name.strip("_")))

    def transaction(
        begin: Callable[..., AbstractContextManager[Any]],
    ) -> Callable[..., AbstractContextManager[Any]]:
        @contextmanager
        def told(self: Any) -> Generator[Any]:
            label = f"ledger {current[-1]}"
            reach(f"{label}: before")
            with begin(self) as sql:
                yield sql
                reach(f"{label}: before its commit")
            reach(f"{label}: after")

        return told

    for engine in (Store, PostgresStore):
        _wrap(engine, "transaction", transaction)


def shape(path: str) -> str:
    """A path without what differs between machines."""
    words = path.split("/")
    return "/".join(word if re.fullmatch(r"v\d|[^\d]{0,15}", word) else "{}" for word in words)


def _http(reach: Reach) -> None:
    def handling(handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def told(self: Any, request: httpx.Request) -> Any:
            label = f"{request.method} {shape(request.url.path)}"

            async def trace(event: str, info: Any) -> None:
                step = _HTTP.get(event.partition(".")[2])
                if step is not None:
                    reach(f"{label}: {step}")

            request.extensions = {**request.extensions, "trace": trace}
            return await handle(self, request)

        return told

    _wrap(httpx.AsyncHTTPTransport, "handle_async_request", handling)


def _ssh(reach: Reach) -> None:
    def of_class(label: str, make: Any) -> Any:
        return classmethod(_awaited(reach, label, make.__func__))

    for place, name, label in (
        (Master, "connect", "ssh connect"),
        (LeaseKey, "make", "ssh key"),
    ):
        setattr(place, name, of_class(label, vars(place)[name]))

    def talking(talk: Callable[..., Any]) -> Callable[..., Any]:
        @asynccontextmanager
        async def told(self: Any, name: Any, *arguments: str) -> AsyncGenerator[Any]:
            reach(f"ssh {name}: before")
            async with talk(self, name, *arguments) as conversation:
                reach(f"ssh {name}: begun")
                yield conversation
            reach(f"ssh {name}: after")

        return told

    _wrap(PatientChannel, "talk", talking)
    for name in ("send", "receive"):
        _wrap(Conversation, name, functools.partial(_awaited, reach, f"ssh bytes {name}"))
