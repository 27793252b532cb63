"""Which handler answers a request: endpoints by method and path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from gpubroker.testing.emulation.exchange import Answer, Call

Handler = Callable[[Call], Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of an emulated API.

    Attributes:
        name: what faults, limits and the log of requests call it.
        method: in capitals.
        path: a path, in which ``{word}`` stands for anything without a slash.
        handler: answers a request; called in the emulator's event loop.
        open: needs no key.
    """

    name: str
    method: str
    path: str
    handler: Handler
    open: bool = False
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = re.split(r"\{(\w+)\}", self.path)
        text = "".join(
            f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part)
            for index, part in enumerate(parts)
        )
        object.__setattr__(self, "pattern", re.compile(text))


def find(
    endpoints: Iterable[Endpoint], method: str, path: str
) -> tuple[Endpoint, dict[str, str]] | None:
    """The first endpoint that a request is for, and what its pattern found in the path."""
    for endpoint in endpoints:
        if endpoint.method == method:
            found = endpoint.pattern.fullmatch(path)
            if found is not None:
                return endpoint, found.groupdict()
    return None
