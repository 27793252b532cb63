"""Reading, changing and destroying instances."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from gpubroker import Money
from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.answers import no_such_instance, ok, refused
from gpubroker_vast.emulator.contracts import STORED, Contract, contract_row
from gpubroker_vast.emulator.offers_api import narrowed
from gpubroker_vast.emulator.query import BadQuery, in_order, matching
from gpubroker_vast.emulator.world import World

_PAGE: Final = 25
_AT_ONCE: Final = 64


class InstancesApi:
    """Endpoints of instances."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        one = "/api/v0/instances/{id}/"
        return (
            Endpoint("list", "GET", "/api/v1/instances/", self._list),
            Endpoint("list-old", "GET", "/api/v0/instances/", self._list_old),
            Endpoint("filters", "GET", "/api/v0/instances/filters/", self._filters),
            Endpoint("show", "GET", one, self._show),
            Endpoint("update", "PUT", one, self._update),
            Endpoint("update-bulk", "PUT", "/api/v0/instances/", self._update_bulk),
            Endpoint("destroy", "DELETE", one, self._destroy),
            Endpoint("destroy-bulk", "DELETE", "/api/v0/instances/", self._destroy_bulk),
            Endpoint("reboot", "PUT", "/api/v0/instances/reboot/{id}/", self._reboot),
            Endpoint("recycle", "PUT", "/api/v0/instances/recycle/{id}/", self._recycle),
            Endpoint("change-bid", "PUT", "/api/v0/instances/bid_price/{id}/", self._bid),
            Endpoint("fetch", "POST", "/api/v0/contracts/fetch/", self._fetch),
        )

    def _list(self, call: Call) -> Answer:
        return self.listed(call, self._world.visible(call.at))

    def listed(self, call: Call, contracts: list[Contract]) -> Answer:
        """The list, as if these were all contracts that there are."""
        rows = [contract_row(contract, call.at) for contract in contracts]
        try:
            filters = _parameter(call, "select_filters", {})
            order = _order(_parameter(call, "order_by", []))
            columns = _parameter(call, "select_cols", ["*"])
            limit = int(call.query.get("limit", _PAGE))
            rows = _filtered(rows, filters)
            ordered = in_order(rows, order)
        except BadQuery as error:
            return refused(400, "invalid_request", f"Error in query parameters: {error}")
        except ValueError as error:
            return refused(400, "invalid_request", f"Error in query parameters: {error}")
        counts: dict[str, int] = {}
        for row in rows:
            counts[row["label"] or ""] = counts.get(row["label"] or "", 0) + 1
        try:
            page, token = _page(ordered, order, call.query.get("after_token"), limit)
        except (ValueError, KeyError, TypeError):
            return refused(400, "invalid_token", "Invalid pagination token")
        return ok(
            instances_found=len(page),
            total_instances=len(rows),
            label_counts=counts,
            next_token=token,
            instances=[narrowed(row, columns) for row in page],
        )

    def _list_old(self, call: Call) -> Answer:
        if not self._world.behaviour.old_account:
            return refused(
                410,
                "deprecated_endpoint",
                "/api/v0/instances/ is deprecated. Use /api/v1/instances/ instead.",
            )
        rows = [contract_row(contract, call.at) for contract in self._world.visible(call.at)]
        return Answer.of({"instances_found": len(rows), "instances": rows})

    def _filters(self, call: Call) -> Answer:
        rows = [contract_row(contract, call.at) for contract in self._world.visible(call.at)]
        names = ("actual_status", "verification", "gpu_name")
        return Answer.of({"filters": [{name: row[name] for name in names} for row in rows]})

    def _show(self, call: Call) -> Answer:
        word = call.parameters["id"]
        if not word.isdigit():
            return refused(400, "invalid_args", "Invalid instance id")
        contract = self._world.lives.contracts.get(int(word))
        shown = contract is not None and contract.shown_at(call.at)
        row = contract_row(contract, call.at) if contract is not None and shown else None
        return Answer.of({"instances": row})

    def _update(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None:
            return no_such_instance(call.parameters["id"])
        return self._change(contract, call.object())

    def _change(self, contract: Contract, wanted: Mapping[str, Any]) -> Answer:
        if "label" in wanted:
            label = wanted["label"]
            if len(str(label or "")) > 1024:
                return refused(400, "invalid_args", "label_too_long")
            contract.label = label
            return ok(msg=f"label set to {label}")
        state = wanted.get("state")
        if state == "stopped":
            self._world.lives.stop(contract)
            return ok()
        if state == "running":
            if self._world.credit() <= Money():
                return refused(400, "missing_billing", "You lack credit")
            if self._world.lives.start(contract):
                return ok()
            return refused(
                200,
                "resources_unavailable",
                "Required resources are currently unavailable, state change queued.",
            )
        return refused(400, None, "Invalid target state")

    def _update_bulk(self, call: Call) -> Answer:
        body = call.object()
        ids = body.get("ids")
        if not isinstance(ids, list) or not ids:
            return refused(400, "invalid_args", "ids list required")
        many = cast("list[int]", ids)
        if len(many) > _AT_ONCE:
            return refused(400, "invalid_args", f"chunk length of {len(many)} > {_AT_ONCE}")
        found = [c for c in (self._world.owned(str(one)) for one in many) if c is not None]
        if not found:
            return refused(404, "no_such_instance", "No instances found.")
        for contract in found:
            self._change(contract, body)
        return ok()

    def _destroy(self, call: Call) -> Answer:
        word = call.parameters["id"]
        if not word.isdigit():
            return refused(400, "invalid_args", "Invalid instance id")
        contract = self._world.owned(word)
        if contract is None:
            return no_such_instance(word)
        if contract.destroy_errors:
            contract.destroy_errors -= 1
            return Answer(503, b"", {}, "text/html")
        if not contract.stubborn:
            self._world.lives.destroy(contract)
        return ok(msg=f"destroying instance {word}.")

    def _destroy_bulk(self, call: Call) -> Answer:
        ids = call.object().get("instance_ids")
        if not isinstance(ids, list):
            return refused(400, "invalid_args", "instance_ids array is required")
        many = cast("list[int]", ids)
        found = [c for c in (self._world.owned(str(one)) for one in many) if c is not None]
        if not found:
            return refused(404, "instances_not_found", "No instances found.")
        for contract in found:
            if not contract.stubborn:
                self._world.lives.destroy(contract)
        return ok(msg=f"destroying {len(found)} instances")

    def _reboot(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None:
            return refused(400, "invalid_args", "Invalid instance id")
        if contract.actual != "running":
            return refused(200, "invalid_id", "Container is not running.")
        self._world.lives.reboot(contract, "rebooting")
        return ok()

    def _recycle(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None or contract.actual != "running":
            return refused(400, "invalid_id", "Invalid instance id.")
        self._world.lives.reboot(contract, "recycling")
        return ok()

    def _bid(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None:
            return no_such_instance(call.parameters["id"])
        if not contract.is_bid:
            return refused(400, "invalid_args", "Can't change price of on-demand contract.")
        self._world.lives.reprice(contract, call.object().get("price"), call.at)
        return ok()

    def _fetch(self, call: Call) -> Answer:
        body = call.object()
        rows = [contract_row(contract, call.at) for contract in self._world.visible(call.at)]
        ids = body.get("contract_ids")
        kept = [
            row
            for row in rows
            if ("label" not in body or row["label"] == body["label"])
            and (ids is None or row["id"] in ids)
        ]
        return Answer.of({"contracts": kept})


def _parameter(call: Call, name: str, default: Any) -> Any:
    """A parameter of the query that is JSON."""
    value = call.query.get(name)
    return default if value is None else json.loads(value)


def _order(order: Any) -> list[list[str]]:
    """``order_by`` in the form of a search, with the id as the last word."""
    if not isinstance(order, list):
        raise BadQuery("order_by must be a list")
    steps: list[list[str]] = []
    for step in cast("list[Mapping[str, str]]", order):
        column = step.get("col", "")
        if column not in STORED:
            raise BadQuery(f"{column} is not a valid sort key")
        steps.append([column, "desc" if step.get("dir") == "desc" else "asc"])
    if not any(column == "id" for column, _ in steps):
        steps.append(["id", "asc"])
    return steps


def _filtered(rows: list[dict[str, Any]], filters: Any) -> list[dict[str, Any]]:
    if not isinstance(filters, dict):
        raise BadQuery("select_filters must be an object")
    conditions = cast("Mapping[str, Any]", filters)
    for name in conditions:
        if name not in STORED:
            raise BadQuery(f"{name} is not a valid search key")
    found = matching(rows, conditions, lambda row, name: row[name])
    return cast("list[dict[str, Any]]", found)


def _page(
    rows: list[Mapping[str, Any]], order: list[list[str]], token: str | None, limit: int
) -> tuple[list[Mapping[str, Any]], str | None]:
    """One page of ordered rows, and the token for the next one.

    A token holds the values that the last row was ordered by, so rows that come and go
    meanwhile make no other row be skipped or shown twice.
    """
    size = min(limit if limit > 0 else 5, _PAGE)
    if token is not None:
        values: Mapping[str, Any] = json.loads(base64.b64decode(token, validate=True))["values"]
        seen = dict(values) | {"\0": None}
        ordered = in_order([*rows, seen], order)
        at = next(index for index, row in enumerate(ordered) if "\0" in row)
        rows = [row for row in ordered[at + 1 :] if row["id"] != values["id"]]
    page = rows[:size]
    if len(rows) <= size:
        return page, None
    last = {"values": {column: page[-1][column] for column, _ in order}}
    return page, base64.b64encode(json.dumps(last).encode()).decode()
