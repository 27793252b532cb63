"""The account: who it is, what it has, what it was charged."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, cast

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.answers import ok, refused
from gpubroker_vast.emulator.world import ChargedItem, World

_DAY: Final = 86_400
_MOST: Final = 500


class AccountApi:
    """Endpoints of the user, and of money."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them. Two answer without a slash at the end, too."""
        invoices = "/api/v0/users/me/invoices"
        return (
            Endpoint("user", "GET", "/api/v0/users/current", self._user),
            Endpoint("user", "GET", "/api/v0/users/current/", self._user),
            Endpoint("spend-rate", "GET", "/api/v0/users/spend-rate/", self._spend_rate),
            Endpoint("charges", "GET", "/api/v0/charges/", self._charges),
            Endpoint("invoices", "GET", "/api/v1/invoices/", self._invoices),
            Endpoint("invoices-old", "GET", invoices, self._invoices_old),
            Endpoint("invoices-old", "GET", f"{invoices}/", self._invoices_old),
            Endpoint("deposit", "GET", "/api/v0/instances/balance/{id}/", self._deposit),
            Endpoint("api-keys", "GET", "/api/v0/auth/apikeys/", self._api_keys),
        )

    def _user(self, call: Call) -> Answer:
        if "owner" in call.query:
            return refused(400, "invalid_args", "Invalid parameter: owner")
        world = self._world
        first = next(iter(world.ssh_keys.values()), None)
        return Answer.of(
            {
                "id": 1042,
                "key_id": 7,
                "email": "someone@example.org",
                "username": "someone",
                "fullname": "Someone",
                "credit": world.credit().amount,
                "balance": 0.0,
                "balance_threshold": 1.0,
                "balance_threshold_enabled": False,
                "can_pay": True,
                "has_billing": True,
                "ssh_key": first.public if first else "",
                "sid": "0",
                "api_key": world.key,
            }
        )

    def _spend_rate(self, call: Call) -> Answer:  # noqa: ARG002
        open_spans = [span for span in self._world.books.spans if span.end is None]
        hourly = {
            item: sum((s.rate for s in open_spans if s.item == item), Decimal(0))
            for item in ("gpu", "disk")
        }
        return ok(
            gpu_cost_per_hour=hourly["gpu"],
            container_storage_cost_per_hour=hourly["disk"],
            volume_storage_cost_per_hour=0.0,
            has_active_resources=bool(open_spans),
        )

    def _charges(self, call: Call) -> Answer:
        try:
            filters = json.loads(call.query.get("select_filters", "{}"))
            day = filters.get("day", {})
            since, until = float(day["gte"]), float(day["lte"])
        except (ValueError, KeyError, TypeError, AttributeError):
            message = "Must provide both 'day' gte and lte filters for instance charges"
            return refused(400, None, message)
        kinds = filters.get("type", {}).get("in")
        rows = [] if kinds and "instance" not in kinds else self._rows(since, until)
        latest_first = call.query.get("latest_first", "true").lower() == "true"
        rows.sort(key=lambda row: (row["start"], row["source"]), reverse=latest_first)
        return _paged(rows, call)

    def _rows(self, since: float, until: float) -> list[dict[str, Any]]:
        """One row for each contract that was billed on one of the days."""
        start = since // _DAY * _DAY
        end = (until // _DAY + 1) * _DAY
        end = min(end, time.time() - self._world.behaviour.settling)
        rows: list[dict[str, Any]] = []
        for contract in self._world.lives.contracts.values():
            items = [_item(one) for one in self._world.items(contract.name, start, end)]
            if items:
                rows.append(
                    {
                        "start": min(item["start"] for item in items),
                        "end": max(item["end"] for item in items),
                        "type": "instance",
                        "source": f"instance-{contract.id}",
                        "description": f"Instance {contract.id} Charges - 1 days",
                        "amount": sum((item["amount"] for item in items), Decimal(0)),
                        "metadata": {} if contract.label is None else {"label": contract.label},
                        "items": items,
                    }
                )
        return rows

    def _invoices(self, call: Call) -> Answer:
        try:
            when = json.loads(call.query.get("select_filters", "{}")).get("when", {})
            wrong = float(when.get("lte", 2e12)) < float(when.get("gte", 0))
        except (ValueError, AttributeError):
            wrong = True
        if wrong:
            return refused(200, "invalid_args", "Invalid date range")
        return ok(count=0, total=0, next_token=None, results=[])

    def _invoices_old(self, call: Call) -> Answer:
        spent = self._world.books.total(call.at).amount
        current = {"charges": spent, "service_fee": 0, "total": spent}
        return Answer.of(
            {"invoices": [], "current": current | {"credit": self._world.credit().amount}}
        )

    def _deposit(self, call: Call) -> Answer:
        if self._world.owned(call.parameters["id"]) is None:
            return refused(404, "no_such_instance", "Instance not found.")
        return ok(refundable_deposit=0, total_discount=0, discount_months=0)

    def _api_keys(self, call: Call) -> Answer:  # noqa: ARG002
        return Answer.of({"apikeys": [{"id": 7, "name": "main", "permissions": {"api": {}}}]})


def _item(item: ChargedItem) -> dict[str, Any]:
    return {
        "start": item.start,
        "end": item.end,
        "type": item.kind,
        "source": None,
        "description": f"{item.hours:.3f} hours at ${item.rate:.3f}/hour",
        "amount": item.amount,
        "metadata": {},
        "items": [],
    }


def _paged(rows: list[dict[str, Any]], call: Call) -> Answer:
    """One page of charges; the token says after which row the next one begins."""
    total = len(rows)
    token = call.query.get("after_token")
    if token:
        try:
            values = cast("Mapping[str, Any]", json.loads(base64.b64decode(token)))["values"]
            sources = [row["source"] for row in rows]
            rows = rows[sources.index(values["source"]) + 1 :]
        except (ValueError, KeyError, TypeError):
            return refused(400, "invalid_token", "Invalid pagination token")
    try:
        limit = min(max(int(call.query.get("limit", 100)), 1), _MOST)
    except ValueError:
        return refused(400, "invalid_args", "Invalid limit")
    page = rows[:limit]
    following = None
    if len(rows) > limit:
        last = {"values": {"source": page[-1]["source"]}}
        following = base64.b64encode(json.dumps(last).encode()).decode()
    return ok(count=len(page), total=total, next_token=following, results=page)
