"""The account: its SSH keys, and the little of GraphQL that has no other way."""

from __future__ import annotations

import re
from typing import Any, Final

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_runpod.emulator.answers import GONE, invalid
from gpubroker_runpod.emulator.bodies import BadBody, SshKeys, parsed
from gpubroker_runpod.emulator.world import World

_MYSELF: Final = re.compile(r"^\s*(?:query\s*\w*\s*)?\{\s*myself\s*\{([\w\s,]*)\}\s*\}\s*$")
_TERMINATE: Final = re.compile(
    r"^\s*mutation\s*\w*\s*(?:\([^)]*\)\s*)?"
    r"\{\s*podTerminate\s*\(\s*input\s*:\s*\{\s*podId\s*:\s*(?:\"(\w+)\"|\$(\w+))\s*\}\s*\)\s*\}\s*$"
)


class AccountApi:
    """Endpoints of the account."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (
            Endpoint("ssh-keys", "GET", "/v2/account/ssh-keys", self._keys),
            Endpoint("ssh-keys-update", "PUT", "/v2/account/ssh-keys", self._set_keys),
            Endpoint("graphql", "POST", "/graphql", self._graphql),
        )

    def _keys(self, call: Call) -> Answer:  # noqa: ARG002
        return Answer.of({"keys": self._world.ssh_keys})

    def _set_keys(self, call: Call) -> Answer:
        """Replace the whole list."""
        try:
            self._world.ssh_keys = parsed(SshKeys, call.object()).keys
        except BadBody as error:
            return invalid(*error.errors)
        return Answer.of({"keys": self._world.ssh_keys})

    def _graphql(self, call: Call) -> Answer:
        if self._world.behaviour.graphql == "gone":
            return GONE
        body = call.object()
        query = str(body.get("query") or "")
        myself, terminate = _MYSELF.match(query), _TERMINATE.match(query)
        if terminate is not None:
            variables: dict[str, Any] = body.get("variables") or {}
            name = terminate[2]
            return self._terminate(terminate[1] or str(variables.get(name, "")), call)
        if myself is None:
            return _errors("Cannot query this here: balance and podTerminate alone", status=400)
        if call.bearer not in (self._world.key, self._world.read_only):
            return _errors("Unauthorized", "myself")
        if self._world.behaviour.graphql == "restricted":
            return _errors("Unauthorized", "myself")
        return self._myself(myself[1].replace(",", " ").split())

    def _myself(self, fields: list[str]) -> Answer:
        world = self._world
        known: dict[str, Any] = {
            "id": "user_2abcDEF",
            "email": "someone@example.org",
            "clientBalance": world.credit().amount,
            "currentSpendPerHr": world.books.hourly(),
            "spendLimit": world.behaviour.spend_limit,
            "minBalance": 0,
            "underBalance": False,
        }
        for name in fields:
            if name not in known:
                return _errors(f'Cannot query field "{name}" on type "User".', status=400)
        if not fields:
            return _errors("Syntax Error: Expected Name, found }.", status=400)
        return Answer.of({"data": {"myself": {name: known[name] for name in fields}}})

    def _terminate(self, word: str, call: Call) -> Answer:
        """End a pod: with the account key any, with a pod's key that pod."""
        world = self._world
        pod = world.owned(word)
        own = pod is not None and call.bearer == pod.key and world.behaviour.pod_key != "none"
        if call.bearer != world.key and not own:
            return _errors("Unauthorized", "podTerminate")
        if pod is None:
            return _errors("pod not found to terminate", "podTerminate", code="POD_NOT_FOUND")
        if not pod.stubborn:
            world.lives.destroy(pod)
        return Answer.of({"data": {"podTerminate": None}})


def _errors(
    message: str, path: str | None = None, *, status: int = 200, code: str | None = None
) -> Answer:
    """Errors as GraphQL has them: with a status of 200, unless the query itself is wrong."""
    error: dict[str, Any] = {"message": message}
    body: dict[str, Any] = {"errors": [error]}
    if path is not None:
        error["path"] = [path]
        body["data"] = {path: None}
    if code is not None:
        error["extensions"] = {"code": code}
    return Answer.of(body, status)
