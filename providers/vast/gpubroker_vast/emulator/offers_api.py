"""Searching for offers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.answers import no_such_ask, refused
from gpubroker_vast.emulator.offer_rows import search
from gpubroker_vast.emulator.query import BadQuery
from gpubroker_vast.emulator.world import World


class OffersApi:
    """Endpoints that read the market."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them; none needs a key."""
        return (
            Endpoint("search", "POST", "/api/v0/bundles/", self._post, open=True),
            Endpoint("search-get", "GET", "/api/v0/bundles/", self._get, open=True),
            Endpoint("search-asks", "PUT", "/api/v0/search/asks/", self._asks, open=True),
            Endpoint("gpu-names", "GET", "/api/v0/gpu_names/unique/", self._names, open=True),
            Endpoint("bid-hint", "PUT", "/api/v0/bundles_bid_price/{id}/", self._hint, open=True),
        )

    def _post(self, call: Call) -> Answer:
        try:
            query = call.json()
        except ValueError:
            return refused(400, "invalid_request", "Invalid json body")
        return self._found(query, None, call.at)

    def _get(self, call: Call) -> Answer:
        try:
            query = json.loads(call.query.get("q", "{}"))
            columns = json.loads(call.query.get("select_cols", "null"))
        except ValueError:
            return refused(400, "invalid_request", "Invalid json body")
        return self._found(query, columns, call.at)

    def _asks(self, call: Call) -> Answer:
        try:
            body = call.json()
        except ValueError:
            return refused(400, "invalid_request", "Invalid json body")
        return self._found(body.get("q", {}), body.get("select_cols"), call.at)

    def _found(self, query: Any, columns: Any, now: float) -> Answer:
        world = self._world
        remaining = world.quota.remaining(now)
        if remaining == 0:
            return self._quota_used_up(now)
        if not isinstance(query, dict):
            return refused(400, "invalid_request", "Invalid query: must be dict of conditions")
        conditions = cast("Mapping[str, Any]", query)
        columns = columns if columns is not None else conditions.get("select_cols")
        try:
            rows = search(world.market, conditions, now, ids_match=world.behaviour.ids_match)
        except BadQuery as error:
            return refused(400, "invalid_request", str(error))
        world.quota.use(len(rows), now)
        return Answer.of({"offers": [narrowed(row, columns) for row in rows]})

    def _quota_used_up(self, now: float) -> Answer:
        quota = self._world.quota
        resets = quota.resets_at(now)
        return Answer.of(
            {
                "success": False,
                "error": "search_quota_exceeded",
                "msg": "Daily search quota exceeded",
                "limit": quota.limit,
                "remaining": 0,
                "retry_after": int(resets - now),
            },
            429,
            X_RateLimit_Reset=str(resets),
        )

    def _names(self, call: Call) -> Answer:  # noqa: ARG002
        names = sorted({ask.host.card.name for ask in self._world.market.asks.values()})
        return Answer.of({"gpu_names": names})

    def _hint(self, call: Call) -> Answer:
        market = self._world.market
        found = [
            ask
            for ask in market.asks.values()
            if str(600_000_000 + ask.host.machine_id) == call.parameters["id"]
        ]
        if not found:
            return no_such_ask(call.parameters["id"])
        return Answer.of(market.floor(found[0], call.at) * Decimal("1.1"))


def narrowed(row: Mapping[str, Any], columns: Any) -> Mapping[str, Any]:
    """Only some columns of a row; those that do not exist are null."""
    if not isinstance(columns, list) or not columns or "*" in columns:
        return row
    return {name: row.get(name) for name in cast("list[str]", columns)}
