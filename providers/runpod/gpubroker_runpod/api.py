"""The endpoints of RunPod that are used here: one function each, and no policy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from gpubroker import ProviderError
from gpubroker.rest import EventStream, Pace, Reply, RequestFailed, RestClient, Row, unreachable
from gpubroker_runpod import allowance
from gpubroker_runpod.failures import failure, path_is_gone, refusal, unreadable
from gpubroker_runpod.vocabulary import Meaning

# What is allowed is counted over all endpoints together.
_REQUESTS: Final = Pace("requests", 0.1)
_CREATE: Final = Pace("create", 1.0)
_DESTROY: Final = Pace("destroy", 0.1, urgent=True)

MOST_LINES: Final = 5000
"""Lines from before now that a log can be asked for by their number."""

#: Before any pod. A log that is read from some time on is not limited to its last lines.
_BEGINNING: Final = "2020-01-01T00:00:00Z"

_CATALOGUE_LIMIT: Final = 4 << 20
#: Seconds that a request waits for its turn; together with its answer, less than a hook may take.
_PATIENCE: Final = 14.0
#: Seconds: making a pod is said to take up to a minute.
_CREATE_WITHIN: Final = 90.0


class RunPodApi:
    """The API of one account.

    Every method but those that give a `Reply` raises `ProviderError` for whatever is no success.
    """

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def gpus(self, query: Mapping[str, str]) -> Row:
        """The GPU types, with what is in stock of each for a pod as in `query`."""
        return await self._object(
            "/v2/catalog/gpus",
            "reading the catalogue",
            query,
            patience=1.5,
            within=8.0,
            limit=_CATALOGUE_LIMIT,
        )

    async def create(self, body: Mapping[str, Any]) -> Reply:
        """Ask for a pod: sent once, and answered with whatever came back.

        Raises:
            RequestFailed: there is no answer.
        """
        await self._client.turn(_CREATE, patience=_PATIENCE)
        reply = await self._client.request(
            "POST", "/v2/pods", json=body, pace=_CREATE, in_turn=True, within=_CREATE_WITHIN
        )
        self._heed(reply)
        return reply

    async def pods(self, cursor: str | None) -> Row:
        """The account's pods, or one page of them; a cluster's are not among them."""
        query = {} if cursor is None else {"cursor": cursor}
        return await self._object("/v2/pods", "listing pods", query, limit=32 << 20)

    async def pod(self, pod_id: str) -> Row | None:
        """One pod; ``None`` if there is none with this id, or it cannot be seen yet."""
        doing = f"reading pod {pod_id}"
        reply = await self._reply("GET", f"/v2/pods/{pod_id}")
        if reply.status == 404 and not path_is_gone(reply):
            return None
        return self._checked(reply, doing)

    async def terminate(self, pod_id: str) -> Reply:
        """Ask for a pod's end.

        Raises:
            ProviderError: there is no answer.
        """
        return await self._reply("DELETE", f"/v2/pods/{pod_id}", pace=_DESTROY)

    @asynccontextmanager
    async def log_events(
        self,
        pod_id: str,
        *,
        tail: int,
        last_id: str | None,
        idle: float,
        source: str = "container",
    ) -> AsyncGenerator[EventStream]:
        """The lines of a pod's log, as they come.

        Args:
            tail: lines to begin with, from before now; with `MOST_LINES` everything there is.
            last_id: of the last event that was seen; what follows it is sent, and `tail` is ignored.
            idle: seconds of silence after which the stream ends.
            source: ``container`` or ``system``.

        Raises:
            ProviderError: there is no such log, or it broke off while it was read.
        """
        params = {"source": source, "tail": str(tail)}
        if tail == MOST_LINES:
            # A pod may print more than that before it is first looked at.
            params["since"] = _BEGINNING
        try:
            async with self._client.events(
                f"/v2/pods/{pod_id}/logs",
                params=params,
                last_id=last_id,
                pace=_REQUESTS,
                idle=idle,
            ) as stream:
                self._heed(stream.reply)
                if not stream.reply.ok:
                    raise self.failure(stream.reply, f"reading the log of pod {pod_id}")
                yield stream
        except RequestFailed as error:
            raise unreachable(error) from None

    async def bills(self, since: str, until: str) -> Row:
        """What pods cost in each hour between two moments of RFC 3339."""
        query = {"startTime": since, "endTime": until, "bucketSize": "hour"}
        return await self._object(
            "/v2/billing/pods", "reading the bills", query, within=30.0, limit=32 << 20
        )

    async def ask(self, query: str) -> Reply:
        """The answer to a query in GraphQL, which is about to be retired."""
        return await self._reply("POST", "/graphql", json={"query": query})

    async def _object(
        self,
        path: str,
        doing: str,
        params: Mapping[str, str],
        *,
        patience: float = _PATIENCE,
        within: float = 15.0,
        limit: int = 8 << 20,
    ) -> Row:
        reply = await self._reply(
            "GET", path, params=params, patience=patience, within=within, limit=limit
        )
        return self._checked(reply, doing)

    def _checked(self, reply: Reply, doing: str) -> Row:
        if not reply.ok:
            raise self.failure(reply, doing)
        body = reply.json_object()
        if body is None:
            raise unreadable(doing)
        return body

    def failure(self, reply: Reply, doing: str) -> ProviderError:
        """What an answer that is no success means; the key is struck out of its words."""
        return failure(reply, doing, self._client.without_key)

    def refusal(self, reply: Reply, doing: str, meaning: Meaning) -> ProviderError:
        """What a refused create means; the key is struck out of its words."""
        return refusal(reply, doing, meaning, self._client.without_key)

    async def _reply(
        self,
        method: str,
        path: str,
        *,
        pace: Pace = _REQUESTS,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        patience: float = _PATIENCE,
        within: float = 15.0,
        limit: int = 8 << 20,
    ) -> Reply:
        try:
            await self._client.turn(pace, patience=patience)
            reply = await self._client.request(
                method,
                path,
                params=params or None,
                json=json,
                pace=pace,
                in_turn=True,
                within=within,
                limit=limit,
            )
        except RequestFailed as error:
            raise unreachable(error) from None
        self._heed(reply)
        return reply

    def _heed(self, reply: Reply) -> None:
        """Leave the API alone for as long as its allowance asks for; never a destroy, though."""
        pause = allowance.pause(allowance.windows(reply.headers))
        if reply.status == 429:
            pause = max(pause, reply.retry_after() or 0.0)
        if pause > 0:
            for pace in (_REQUESTS, _CREATE):
                self._client.hold(pace, pause)
