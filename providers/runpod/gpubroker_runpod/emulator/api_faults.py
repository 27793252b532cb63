"""Faults of the API in the vendor's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpubroker.testing.emulation import WIRE_FAULTS, Act, Answer, Call, Fault
from gpubroker_runpod.emulator.answers import (
    BAD_TOKEN,
    DENIED,
    EDGE,
    GONE,
    NO_CAPACITY,
    NO_DISK,
    OTHER_MACHINE,
    SOMETHING_WRONG,
    low_balance,
    over_spend_limit,
    problem,
    window_used_up,
)
from gpubroker_runpod.emulator.create_api import CreateApi
from gpubroker_runpod.emulator.logs_api import LogsApi, StreamFault
from gpubroker_runpod.emulator.pods_api import PodsApi
from gpubroker_runpod.emulator.world import World

#: Texts for "no capacity", by a short name.
_CAPACITY: Final[Mapping[str, str]] = {
    "specifications": NO_CAPACITY,
    "disk": NO_DISK,
    "machine": OTHER_MACHINE,
    "none": "There are no instances currently available",
}


class ApiFaults:
    """The faults by name, made for one emulator."""

    def __init__(self, world: World, pods: PodsApi, create: CreateApi, logs: LogsApi) -> None:
        self._world = world
        self._pods = pods
        self._create = create
        self._logs = logs

    def by_name(self) -> Mapping[str, Fault]:
        """All of them, those of any HTTP API included."""
        return {
            **WIRE_FAULTS,
            "rate-limited": self._rate_limited,
            "bad-key": self._bad_key,
            "forbidden": self._forbidden,
            "edge": self._edge,
            "gone-410": self._gone,
            "problem": self._problem,
            "server-error": self._server_error,
            "no-capacity": self._no_capacity,
            "other-machine": self._other_machine,
            "low-balance": self._low_balance,
            "spend-limit": self._spend_limit,
            "create-twice": self._create_twice,
            "stale-list": self._stale_list,
            "empty-list": self._empty_list,
            "partial-list": self._partial_list,
            "malformed-row": self._malformed_row,
            "logs-cut": self._logs_cut,
            "logs-end": self._logs_end,
            "logs-stall": self._logs_stall,
            "logs-lose": self._logs_lose,
            "logs-again": self._logs_again,
        }

    async def _rate_limited(
        self,
        act: Act,  # noqa: ARG002
        call: Call,  # noqa: ARG002
        *,
        window: str = "minute",
        retry_after: int = 1,
    ) -> Answer:
        return window_used_up(window, retry_after)

    async def _bad_key(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return BAD_TOKEN

    async def _forbidden(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return DENIED

    async def _edge(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return EDGE

    async def _gone(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return GONE

    async def _problem(
        self,
        act: Act,
        call: Call,  # noqa: ARG002
        *,
        status: int = 400,
        detail: str = "request could not be processed",
        when: str = "before",
    ) -> Answer:
        """Any refusal, in a text that is given."""
        if when == "after":
            await act()
        return problem(status, detail)

    async def _server_error(self, act: Act, call: Call, *, when: str = "before") -> Answer:  # noqa: ARG002
        if when == "after":
            await act()
        return problem(500, SOMETHING_WRONG)

    async def _no_capacity(
        self,
        act: Act,  # noqa: ARG002
        call: Call,  # noqa: ARG002
        *,
        text: str = "specifications",
        status: int = 400,
    ) -> Answer:
        return problem(status, _CAPACITY.get(text, text))

    async def _other_machine(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return problem(400, OTHER_MACHINE)

    async def _low_balance(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return low_balance()

    async def _spend_limit(self, act: Act, call: Call, *, status: int = 400) -> Answer:  # noqa: ARG002
        return over_spend_limit(self._world.behaviour.spend_limit).but(status=status)

    async def _create_twice(self, act: Act, call: Call) -> Answer:
        """One request, two pods; the answer names the first."""
        answer = await act()
        if answer.status == 201:
            self._create.again(str(call.object()["name"]))
        return answer

    async def _stale_list(self, act: Act, call: Call, *, age: float = 60.0) -> Answer:  # noqa: ARG002
        """The list as it was so many seconds ago."""
        return self._pods.listed(call, call.at - age)

    async def _empty_list(self, act: Act, call: Call, *, body: str | None = None) -> Answer:  # noqa: ARG002
        """No pods, although there are some; or another body, such as ``""``."""
        if body is not None:
            return Answer(200, body.encode())
        return self._pods.listed(call, 0.0)

    async def _partial_list(self, act: Act, call: Call, *, keep: int = 0) -> Answer:  # noqa: ARG002
        """Fewer rows than there are."""
        whole = (await act()).json()
        whole["pods"] = whole["pods"][:keep]
        return Answer.of(whole)

    async def _malformed_row(self, act: Act, call: Call, *, row: Any = None) -> Answer:  # noqa: ARG002
        """One row is not what it should be: null, or what is given."""
        whole = (await act()).json()
        if whole["pods"]:
            whole["pods"][0] = row
        return Answer.of(whole)

    async def _logs_cut(self, act: Act, call: Call, *, events: int = 1) -> Answer:
        """The connection is cut in the middle of the event after so many."""
        return await self._logs_with(act, call, StreamFault(cut_after=events))

    async def _logs_end(self, act: Act, call: Call, *, events: int = 1) -> Answer:
        """The server ends the stream after so many events, as if all were well."""
        return await self._logs_with(act, call, StreamFault(end_after=events))

    async def _logs_stall(self, act: Act, call: Call, *, events: int = 1) -> Answer:
        """After so many events nothing comes any more, with the connection open."""
        return await self._logs_with(act, call, StreamFault(stall_after=events))

    async def _logs_lose(self, act: Act, call: Call, *, every: int = 2) -> Answer:
        """Lines are missing: of so many always the last."""
        return await self._logs_with(act, call, StreamFault(lose=every))

    async def _logs_again(self, act: Act, call: Call) -> Answer:
        """A reader who goes on after an event gets that event a second time."""
        return await self._logs_with(act, call, StreamFault(again=True))

    async def _logs_with(self, act: Act, call: Call, fault: StreamFault) -> Answer:
        """A stream with a fault, where there would be a good one."""
        answer = await act()
        return self._logs.answer(call, fault) if answer.stream is not None else answer
