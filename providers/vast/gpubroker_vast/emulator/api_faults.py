"""Faults of the API in the vendor's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubroker.testing.emulation import WIRE_FAULTS, Act, Answer, Call, Fault
from gpubroker_vast.emulator.answers import bad_key, no_such_ask, refused
from gpubroker_vast.emulator.create_api import CreateApi
from gpubroker_vast.emulator.instances_api import InstancesApi
from gpubroker_vast.emulator.world import World


def too_early(style: str, threshold: float, retry_after: int) -> Answer:
    """A request that came too early, refused in one of the vendor's three ways."""
    if style == "plain":
        return Answer.text(f"API requests too frequent: endpoint threshold={threshold:g}", 429)
    if style == "detail":
        detail = f"API requests too frequent endpoint threshold={threshold:g}"
        return Answer.of({"detail": detail}, 429)
    body = {
        "error": "HTTPTooManyRequests",
        "msg": "API requests too frequent",
        "retry_after": retry_after,
        "limit": 5,
        "remaining": 0,
    }
    return Answer.of(
        body,
        429,
        Retry_After=str(retry_after),
        X_RateLimit_Limit="5",
        X_RateLimit_Remaining="0",
        X_RateLimit_Reset=str(retry_after),
    )


class ApiFaults:
    """The faults by name, made for one emulator."""

    def __init__(self, world: World, instances: InstancesApi, create: CreateApi) -> None:
        self._world = world
        self._instances = instances
        self._create = create

    def by_name(self) -> Mapping[str, Fault]:
        """All of them, those of any HTTP API included."""
        return {
            **WIRE_FAULTS,
            "rate-limited": self._rate_limited,
            "quota": self._quota,
            "bad-key": self._bad_key,
            "gone-410": self._gone,
            "no-such-ask": self._no_such_ask,
            "insufficient-credit": self._insufficient_credit,
            "server-error": self._server_error,
            "stopped-contract": self._stopped_contract,
            "create-twice": self._create_twice,
            "stale-list": self._stale_list,
            "empty-list": self._empty_list,
            "partial-list": self._partial_list,
            "lost-page": self._lost_page,
            "malformed-row": self._malformed_row,
        }

    async def _rate_limited(
        self,
        act: Act,  # noqa: ARG002
        call: Call,  # noqa: ARG002
        *,
        style: str = "bucket",
        retry_after: int = 1,
    ) -> Answer:
        return too_early(style, 4.5, retry_after)

    async def _quota(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        quota = self._world.quota
        kept, quota.limit = quota.limit, 0
        try:
            return await act()
        finally:
            quota.limit = kept

    async def _bad_key(self, act: Act, call: Call, *, status: int = 404) -> Answer:  # noqa: ARG002
        return bad_key(status)

    async def _gone(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        message = f"{call.path} is deprecated."
        return refused(410, "deprecated_endpoint", message)

    async def _no_such_ask(
        self,
        act: Act,  # noqa: ARG002
        call: Call,
        *,
        status: int = 404,
        inside: bool = False,
    ) -> Answer:
        """`inside`: the code stands in the message alone."""
        ask = call.parameters.get("id", "0")
        if not inside:
            return no_such_ask(ask, status)
        return refused(status, "invalid_args", f"error 404/3603: no_such_ask id {ask}", ask_id=ask)

    async def _insufficient_credit(self, act: Act, call: Call) -> Answer:  # noqa: ARG002
        return refused(400, "insufficient_credit", "You lack credit")

    async def _server_error(self, act: Act, call: Call, *, when: str = "before") -> Answer:  # noqa: ARG002
        if when == "after":
            await act()
        return refused(500, "server_error", "Internal server error")

    async def _stopped_contract(
        self,
        act: Act,  # noqa: ARG002
        call: Call,
        *,
        error: str | None = None,
    ) -> Answer:
        """A status of 200, a refusal, and a contract that bills its disk all the same.

        `error`: the code that the refusal has besides.
        """
        ask = self._world.market.asks.get(int(call.parameters["id"]))
        if ask is None:
            return no_such_ask(call.parameters["id"])
        made = self._create.make(ask, call.object(), call.at, run=False)
        reason = {} if error is None else {"error": error, "msg": "not started"}
        return Answer.of(
            {"success": False, "new_contract": made.id, "instance_api_key": made.key, **reason}
        )

    async def _create_twice(self, act: Act, call: Call) -> Answer:
        """One request, two contracts; the answer names the first."""
        answer = await act()
        ask = self._world.market.asks.get(int(call.parameters["id"]))
        if ask is not None and answer.status == 200:
            self._create.make(ask, call.object(), call.at, run=True)
        return answer

    async def _stale_list(self, act: Act, call: Call, *, age: float = 60.0) -> Answer:  # noqa: ARG002
        """The list as it was so many seconds ago."""
        return self._instances.listed(call, self._world.visible(call.at - age))

    async def _empty_list(self, act: Act, call: Call, *, body: Any = None) -> Answer:  # noqa: ARG002
        """No instances, although there are some; or another body, such as ``""``."""
        if isinstance(body, str):
            return Answer(200, body.encode())
        return self._instances.listed(call, [])

    async def _partial_list(self, act: Act, call: Call, *, keep: int = 0) -> Answer:  # noqa: ARG002
        """Fewer rows than there are said to be."""
        answer = await act()
        whole = answer.json()
        whole["instances"] = whole["instances"][:keep]
        return Answer.of(whole)

    async def _lost_page(self, act: Act, call: Call) -> Answer:
        """The token for the next page is missing, or the page that it is for is empty."""
        answer = await act()
        whole = answer.json()
        if "after_token" in call.query:
            whole["instances"], whole["instances_found"] = [], 0
        whole["next_token"] = None
        return Answer.of(whole)

    async def _malformed_row(self, act: Act, call: Call, *, row: Any = None) -> Answer:  # noqa: ARG002
        """One row is not what it should be: null, or what is given."""
        answer = await act()
        whole = answer.json()
        if whole["instances"]:
            whole["instances"][0] = row
        return Answer.of(whole)
