"""Creating instances: everything that can be the answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

from gpubroker import Money
from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.answers import no_such_ask, refused
from gpubroker_vast.emulator.contracts import Contract
from gpubroker_vast.emulator.instance_faults import INSTANCE_FAULTS
from gpubroker_vast.emulator.market import Ask
from gpubroker_vast.emulator.offer_rows import search
from gpubroker_vast.emulator.query import BadQuery
from gpubroker_vast.emulator.world import World

_LONGEST_LABEL: Final = 256
_LONGEST_ONSTART: Final = 4096
_MOST_ENV: Final = 32_768
_MOST_PORTS: Final = 64
_RUN_WORDS: Final = ("ssh", "jupyter", "args")


class CreateApi:
    """Endpoints that make contracts."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (
            Endpoint("create", "PUT", "/api/v0/asks/{id}/", self._create),
            Endpoint("create-bulk", "POST", "/api/v0/asks/bulk/", self._bulk),
            Endpoint("launch", "PUT", "/api/v0/launch_instance/", self._launch),
        )

    def _create(self, call: Call) -> Answer:
        word = call.parameters["id"]
        if not word.isdigit():
            return refused(400, "invalid_args", "'id' is required and must be a valid offer ID")
        return self._answer(int(word), call.object(), call.at)

    def _bulk(self, call: Call) -> Answer:
        body = call.object()
        ids = cast("list[int]", body.get("ids") or [])
        if not ids or len(ids) > 64:
            return refused(400, "invalid_args", "ids list required")
        results: list[dict[str, Any]] = []
        for ask in ids:
            answer = self._answer(int(ask), body, call.at).json()
            answer["ask_id"] = ask
            if answer["success"]:
                answer["state"] = "running"
            results.append(answer)
        made = [one["new_contract"] for one in results if "new_contract" in one]
        failed = [one["ask_id"] for one in results if not one["success"]]
        good = len(failed) < len(ids)
        whole = {"success": good, "results": results, "created": made, "failed": failed}
        return Answer.of(whole | {"elapsed": 0.1}, 200 if good else 400)

    def _launch(self, call: Call) -> Answer:
        body = call.object()
        try:
            found = search(self._world.market, body.get("q") or {}, call.at, ids_match=False)
        except BadQuery as error:
            return refused(400, "invalid_request", str(error))
        if not found:
            return no_such_ask(0)
        return self._answer(int(found[0]["id"]), body, call.at)

    def _answer(self, ask_id: int, wanted: Mapping[str, Any], now: float) -> Answer:
        world = self._world
        problem = _what_is_wrong(wanted)
        if problem is not None:
            return refused(400, *problem, ask_id=ask_id)
        if world.credit() <= Money():
            return refused(400, "insufficient_credit", "You lack credit", ask_id=ask_id)
        ask = world.market.asks.get(ask_id)
        if ask is None:
            return no_such_ask(ask_id)
        if world.behaviour.races and world.chance.random() < world.behaviour.races:
            world.market.taken.add(ask_id)
        bid = wanted.get("price")
        wins = bid is None or Decimal(str(bid)) >= world.market.floor(ask, now)
        run = wins and world.market.free(ask, now) and wanted.get("target_state") != "stopped"
        given_up = wanted.get("cancel_unavail")
        if not run and (bid is None if given_up is None else given_up):
            return no_such_ask(ask_id, 410)
        contract = self.make(ask, wanted, now, run=run)
        return Answer.of(
            {"success": run, "new_contract": contract.id, "instance_api_key": contract.key}
        )

    def make(self, ask: Ask, wanted: Mapping[str, Any], now: float, *, run: bool) -> Contract:
        """Make a contract of a request that was found good."""
        world = self._world
        bid = wanted.get("price")
        env = wanted.get("env")
        base = world.market.price(ask, now) if bid is None else Decimal(str(bid))
        contract = Contract(
            id=next(world.contract_ids),
            ask=ask,
            label=wanted.get("label"),
            image=str(wanted.get("image") or "vastai/base-image:latest"),
            runtype=str(wanted.get("runtype") or "ssh"),
            env=cast("Mapping[str, str]", env) if isinstance(env, dict) else {},
            onstart=str(wanted.get("onstart") or ""),
            disk=Decimal(str(max(float(wanted.get("disk") or 10), 8.0))),
            base=base,
            floor=world.market.floor(ask, now),
            is_bid=bid is not None,
            created_at=now,
            visible_at=now + world.behaviour.visibility,
            keys=[key.public for key in world.ssh_keys.values()],
            log_polls=world.behaviour.log_polls,
            log_status=world.behaviour.log_status,
        )
        world.lives.begin(contract, run=run)
        rule = world.machine_faults.take("instance", {"id": contract.name, "offer": str(ask.id)})
        if rule is not None:
            INSTANCE_FAULTS[rule.fault](world, contract, rule.options)
        self._misfortune(contract)
        return contract

    def _misfortune(self, contract: Contract) -> None:
        """What may go wrong with a machine in a scenario, by chance."""
        behaviour, chance = self._world.behaviour, self._world.chance
        for probability, fault in (
            (behaviour.boot_failures, "boot-failure"),
            (behaviour.stuck, "stuck-loading"),
            (behaviour.unreachable, "no-ssh"),
            (behaviour.vanishing_hosts, "vanish"),
        ):
            if probability and chance.random() < probability:
                after = {"after": chance.uniform(1, 60)} if fault == "vanish" else {}
                INSTANCE_FAULTS[fault](self._world, contract, after)
                return


def _what_is_wrong(wanted: Mapping[str, Any]) -> tuple[str, str] | None:
    """The error and the message for a request that makes no sense; ``None`` if it does."""
    if not wanted.get("image") and not wanted.get("template_hash_id"):
        return "invalid_args", "image is required"
    if wanted.get("runtype") and "use_ssh" in wanted:
        return "invalid_args", "runtype and use_ssh cannot both be set"
    runtype = str(wanted.get("runtype") or "ssh")
    if not any(word in runtype for word in _RUN_WORDS):
        return "invalid_args", f"invalid runtype {runtype}"
    if len(str(wanted.get("label") or "")) > _LONGEST_LABEL:
        return "invalid_args", "label_too_long"
    if len(str(wanted.get("onstart") or "")) > _LONGEST_ONSTART:
        return "invalid_args", "onstart is too long"
    env = wanted.get("env")
    entries = cast("Mapping[str, Any]", env if isinstance(env, dict) else {})
    if sum(len(name) + len(str(value)) for name, value in entries.items()) > _MOST_ENV:
        return "invalid_args", "env is too long"
    if sum(name.startswith("-p ") for name in entries) > _MOST_PORTS:
        return "invalid_args", "too many ports"
    return _wrong_number(wanted)


def _wrong_number(wanted: Mapping[str, Any]) -> tuple[str, str] | None:
    price, disk = wanted.get("price"), wanted.get("disk")
    try:
        if price is not None and not Decimal("0.001") <= Decimal(str(price)) <= 128:
            return "invalid_price", "price must be between 0.001 and 128"
        if disk is not None and not 0 < Decimal(str(disk)) < 100_000:
            return "invalid_args", "invalid disk"
    except InvalidOperation:
        return "invalid_args", "not a number"
    return None
