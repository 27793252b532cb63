"""The endpoints of Vast.ai that are used here: one function each, and no policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker.rest import Pace, Reply, RequestFailed, RestClient, Row, unreachable
from gpubroker_vast.failures import failure, succeeded

# A tenth above what is allowed: requests do not arrive as evenly as they leave.
_SEARCH: Final = Pace("search", 0.9)
_WIDE_SEARCH: Final = Pace("search in full", 2.2)
_CREATE: Final = Pace("create", 5.0)
_LIST: Final = Pace("list", 1.1)
DESTROY: Final = Pace("destroy", 3.3, urgent=True)
_ATTACH: Final = Pace("attach key", 2.2)
_LOGS: Final = Pace("logs", 2.2)
_CHARGES: Final = Pace("charges", 1.1)
_ACCOUNT: Final = Pace("account", 1.1)

PAGE: Final = 25
"""Machines on one page of the listing, at the most."""

MOST_DESTROYED: Final = 64
"""Machines that one request may destroy."""

#: The largest row measured was 4 kB; an answer ten times too large is no list of offers.
_SEARCH_LIMIT: Final = 4 << 20
_LOG_LIMIT: Final = 1 << 20
#: Answers of an older server that does not know the narrow form of a search.
_NOT_NARROW: Final = (400, 404, 405, 410)


class VastApi:
    """The API of one account.

    Every method but `create` raises `ProviderError` for whatever is no success.
    """

    def __init__(self, client: RestClient) -> None:
        self._client = client
        self._narrow = True

    async def search(self, query: Mapping[str, Any], columns: Sequence[str]) -> Row:
        """Offers that fit a query; with these columns alone, where the server can do that."""
        doing = "searching offers"
        if self._narrow:
            reply = await self._reply(
                "GET",
                "/api/v0/bundles/",
                pace=_SEARCH,
                params={"q": _compact(query), "select_cols": _compact(list(columns))},
                within=8.0,
                limit=_SEARCH_LIMIT,
            )
            error = None if succeeded(reply) else self.failure(reply, doing)
            plain = error is not None and error.kind in (ErrorKind.BAD_REQUEST, ErrorKind.TRANSIENT)
            if reply.status not in _NOT_NARROW or not plain:
                return self._checked(reply, doing)
        reply = await self._reply(
            "POST",
            "/api/v0/bundles/",
            pace=_WIDE_SEARCH,
            json=query,
            within=8.0,
            limit=_SEARCH_LIMIT,
        )
        body = self._checked(reply, doing)
        self._narrow = False
        return body

    async def create(self, ask_id: str, body: Mapping[str, Any]) -> Reply:
        """Accept an offer: sent once, and answered with whatever came back.

        Raises:
            RequestFailed: there is no answer.
        """
        path = f"/api/v0/asks/{ask_id}/"
        reply = await self._client.request("PUT", path, json=body, pace=_CREATE, within=90.0)
        self._heed(reply, _CREATE)
        return reply

    async def listing(self, after: str | None) -> Row:
        """One page of the account's machines, by id."""
        params = {
            "select_filters": "{}",
            "order_by": _compact([{"col": "id", "dir": "asc"}]),
            "limit": str(PAGE),
        }
        if after is not None:
            params["after_token"] = after
        return await self._call("GET", "/api/v1/instances/", "listing machines", _LIST, params)

    async def destroy_turn(self) -> None:
        """Wait until the next destroy may be sent."""
        try:
            await self._client.turn(DESTROY, patience=15.0)
        except RequestFailed as error:
            raise unreachable(error) from None

    async def destroy(self, machine_id: str) -> Reply:
        """Ask for one machine's destruction, after `destroy_turn`."""
        path = f"/api/v0/instances/{machine_id}/"
        return await self._reply("DELETE", path, pace=DESTROY, in_turn=True, json={}, within=12.0)

    async def destroy_all(self, machine_ids: Sequence[str]) -> Reply:
        """Ask for the destruction of up to 64 machines at once, after `destroy_turn`."""
        body = {"instance_ids": [int(machine_id) for machine_id in machine_ids]}
        path = "/api/v0/instances/"
        return await self._reply("DELETE", path, pace=DESTROY, in_turn=True, json=body, within=12.0)

    async def attach_key(self, machine_id: str, public_key: str) -> Reply:
        """Let an SSH key in at one machine."""
        path = f"/api/v0/instances/{machine_id}/ssh/"
        return await self._reply("POST", path, pace=_ATTACH, json={"ssh_key": public_key})

    async def request_logs(self, machine_id: str, lines: int) -> Row:
        """Have the last lines of a machine's log written to where ``result_url`` says."""
        path = f"/api/v0/instances/request_logs/{machine_id}/"
        return await self._call("PUT", path, "asking for logs", _LOGS, json={"tail": str(lines)})

    async def fetch_log(self, url: str, *, patience: float, pause: float) -> bytes:
        """What lies at a ``result_url``, once it is there; nothing if it is not within `patience`.

        It is somebody else's storage: the account's key is not sent there.
        """
        with anyio.move_on_after(patience):
            while True:
                try:
                    reply = await self._client.download(url, within=patience, limit=_LOG_LIMIT)
                except RequestFailed as error:
                    raise unreachable(error) from None
                if reply.ok:
                    return reply.body
                if reply.status not in (403, 404):
                    raise self.failure(Reply(reply.status), "reading logs")
                await anyio.sleep(pause)
        return b""

    async def charges(self, days: Mapping[str, int], after: str | None) -> Row:
        """One page of what was billed for machines on some days."""
        params = {
            "select_filters": _compact({"day": days, "type": {"in": ["instance"]}}),
            "format": "table",
            "latest_first": "false",
            "limit": "500",
        }
        if after is not None:
            params["after_token"] = after
        return await self._call("GET", "/api/v0/charges/", "reading charges", _CHARGES, params)

    async def account(self) -> Row:
        """The account itself. Holds secrets: nothing of it may be shown."""
        return await self._call("GET", "/api/v0/users/current", "reading the balance", _ACCOUNT)

    async def _call(
        self,
        method: str,
        path: str,
        doing: str,
        pace: Pace,
        params: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> Row:
        reply = await self._reply(method, path, pace=pace, params=params, json=json, within=15.0)
        return self._checked(reply, doing)

    def _checked(self, reply: Reply, doing: str) -> Row:
        body = succeeded(reply)
        if body is not None:
            return body
        if reply.ok and reply.json_object() is None:
            raise ProviderError(
                f"{doing}: HTTP {reply.status}: the answer cannot be read",
                kind=ErrorKind.TRANSIENT,
                scope=Scope.PROVIDER,
            )
        raise self.failure(reply, doing)

    def failure(self, reply: Reply, doing: str) -> ProviderError:
        """What an answer that is no success means; the key is struck out of its words."""
        return failure(reply, doing, self._client.without_key)

    async def _reply(
        self,
        method: str,
        path: str,
        *,
        pace: Pace,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        in_turn: bool = False,
        within: float = 15.0,
        limit: int = 8 << 20,
    ) -> Reply:
        try:
            reply = await self._client.request(
                method,
                path,
                params=params,
                json=json,
                pace=pace,
                in_turn=in_turn,
                within=within,
                limit=limit,
            )
        except RequestFailed as error:
            raise unreachable(error) from None
        self._heed(reply, pace)
        return reply

    def _heed(self, reply: Reply, pace: Pace) -> None:
        """Leave an endpoint alone that was asked too often, also where no header says how long."""
        if reply.status == 429:
            self._client.hold(pace, self.failure(reply, "").retry_after or 2 * pace.interval)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
