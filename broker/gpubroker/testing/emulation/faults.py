"""Faults by name: which request they meet, and what they do to it."""

from __future__ import annotations

import difflib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from gpubroker.testing.emulation.exchange import DROPPED, Answer, Call

Act = Callable[[], Awaitable[Answer]]
"""Carries the request out, as if nothing were wrong, and gives the true answer."""

Fault = Callable[..., Awaitable[Answer]]
"""Called with an `Act`, the `Call` and the options of its rule."""


@dataclass(slots=True, kw_only=True)
class FaultRule:
    """Which calls a fault meets.

    Attributes:
        endpoint: the endpoint's name; ``"*"`` is any.
        fault: the fault's name.
        nth: the first call that is met, counted from 1 since the rule was added.
        times: how many calls in a row are met; ``None``: all from then on.
        parameters: what the path of a call must hold as well, such as ``{"id": "42"}``.
        options: for the fault.
        seen: calls that the rule could have met. met: those that it did meet.
    """

    endpoint: str
    fault: str
    nth: int = 1
    times: int | None = 1
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seen: int = 0
    met: int = 0

    def meets(self, endpoint: str, parameters: Mapping[str, str]) -> bool:
        """Count a call, and say whether it is one of those that the rule is for."""
        if self.endpoint not in ("*", endpoint):
            return False
        if any(parameters.get(name) != value for name, value in self.parameters.items()):
            return False
        self.seen += 1
        last = None if self.times is None else self.nth + self.times
        if self.seen < self.nth or (last is not None and self.seen >= last):
            return False
        self.met += 1
        return True


class FaultSchedule:
    """The rules of one emulator. Changed from any thread, read by the emulator's."""

    def __init__(self, endpoints: Collection[str], faults: Collection[str]) -> None:
        self._endpoints = frozenset({"*", *endpoints})
        self._faults = frozenset(faults)
        self._rules: tuple[FaultRule, ...] = ()

    def add(
        self,
        endpoint: str,
        fault: str,
        *,
        nth: int = 1,
        times: int | None = 1,
        parameters: Mapping[str, str] | None = None,
        **options: Any,
    ) -> FaultRule:
        """Let a fault happen; see `FaultRule`. The first rule that meets a call counts.

        Raises:
            ValueError: there is no such endpoint or fault.
        """
        for word, known in ((endpoint, self._endpoints), (fault, self._faults)):
            if word not in known:
                near = difflib.get_close_matches(word, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f": {', '.join(sorted(known))}"
                raise ValueError(f"nothing here is called {word!r}{hint}")
        rule = FaultRule(
            endpoint=endpoint,
            fault=fault,
            nth=nth,
            times=times,
            parameters={name: str(value) for name, value in (parameters or {}).items()},
            options=options,
        )
        self._rules = (*self._rules, rule)
        return rule

    def clear(self) -> None:
        """Forget all rules."""
        self._rules = ()

    @property
    def rules(self) -> tuple[FaultRule, ...]:
        """The rules, in the order in which they were added."""
        return self._rules

    def take(self, endpoint: str, parameters: Mapping[str, str]) -> FaultRule | None:
        """Count a call for every rule; the first rule that meets it."""
        met = [rule for rule in self._rules if rule.meets(endpoint, parameters)]
        return met[0] if met else None


def flake(
    call: Call,
    probability: float,
    chance: random.Random,
    flakes: Sequence[tuple[str, Mapping[str, Any]]],
) -> FaultRule | None:
    """A fault that a call meets by chance: one of some, each with its options."""
    if not probability or chance.random() >= probability:
        return None
    fault, options = chance.choice(flakes)
    return FaultRule(endpoint=call.endpoint, fault=fault, options=options)


async def _drop(act: Act, call: Call, *, when: str = "before") -> Answer:  # noqa: ARG001
    """The connection is cut, before or after the request was carried out."""
    if when == "after":
        await act()
    return DROPPED


async def _status(
    act: Act,
    call: Call,  # noqa: ARG001
    *,
    status: int = 502,
    when: str = "before",
    body: Any = None,
    retry_after: int | None = None,
) -> Answer:
    """Another status, before or after the request was carried out."""
    if when == "after":
        await act()
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if body is None or isinstance(body, str):
        return Answer(status, (body or "").encode(), headers, "text/html")
    return Answer.of(body, status, **headers)


async def _hang(act: Act, call: Call, *, when: str = "after", seconds: float = 3600.0) -> Answer:  # noqa: ARG001
    """No answer for as long as the client waits; the connection stays open."""
    if when == "after":
        await act()
    await anyio.sleep(seconds)
    return await act() if when == "before" else DROPPED


async def _slow(act: Act, call: Call, *, seconds: float = 0.05) -> Answer:  # noqa: ARG001
    """The body comes in small pieces, that many seconds apart."""
    return (await act()).but(pace=seconds)


async def _truncate(act: Act, call: Call, *, at: int = 20) -> Answer:  # noqa: ARG001
    """The connection is cut in the middle of the body."""
    return (await act()).but(cut_at=at)


async def _garbage(act: Act, call: Call, *, body: str | None = None) -> Answer:  # noqa: ARG001
    """The body is no JSON: its first half, or what is given."""
    answer = await act()
    return answer.but(body=answer.body[: len(answer.body) // 2] if body is None else body.encode())


async def _oversize(act: Act, call: Call, *, size: int = 64 << 20) -> Answer:  # noqa: ARG001
    """Far more than anybody should read."""
    answer = await act()
    return answer.but(body=answer.body + b" " * size)


async def _redirect(act: Act, call: Call, *, body: str = "{}") -> Answer:  # noqa: ARG001
    """Sent elsewhere, with a body that looks like an answer."""
    return Answer(301, body.encode(), {"Location": call.path.rstrip("/") + "//"})


async def _html(act: Act, call: Call, *, status: int = 403) -> Answer:  # noqa: ARG001
    """What stands in front of the API refuses, in a page for people."""
    page = "<!DOCTYPE html><html><head><title>Access denied</title></head><body></body></html>"
    return Answer.text(page, status, "text/html; charset=UTF-8")


#: Faults that any HTTP API can have.
WIRE_FAULTS: Final[Mapping[str, Fault]] = {
    "drop": _drop,
    "status": _status,
    "hang": _hang,
    "slow": _slow,
    "truncate": _truncate,
    "garbage": _garbage,
    "oversize": _oversize,
    "redirect": _redirect,
    "html": _html,
}
