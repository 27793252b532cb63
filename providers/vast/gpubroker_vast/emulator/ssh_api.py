"""SSH keys of the account and of single instances."""

from __future__ import annotations

import json
import time
from typing import Any

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.answers import ok, refused
from gpubroker_vast.emulator.world import AccountKey, World


class SshApi:
    """Endpoints of SSH keys."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        of_instance = "/api/v0/instances/{id}/ssh/"
        return (
            Endpoint("ssh-keys", "GET", "/api/v0/ssh/", self._list),
            Endpoint("ssh-key-create", "POST", "/api/v0/ssh/", self._create),
            Endpoint("ssh-key-update", "PUT", "/api/v0/ssh/{key}/", self._update),
            Endpoint("ssh-key-delete", "DELETE", "/api/v0/ssh/{key}/", self._delete),
            Endpoint("instance-ssh-keys", "GET", of_instance, self._of_instance),
            Endpoint("attach", "POST", of_instance, self._attach),
            Endpoint("detach", "DELETE", of_instance + "{key}/", self._detach),
        )

    def _list(self, call: Call) -> Answer:  # noqa: ARG002
        return Answer.of([_shown(key) for key in self._world.ssh_keys.values()])

    def _create(self, call: Call) -> Answer:
        public = str(call.object().get("ssh_key") or "").strip()
        if not public:
            return refused(400, "invalid_args", "ssh_key is required")
        keys = self._world.ssh_keys
        if any(_same(key.public, public) for key in keys.values()):
            return refused(200, "invalid_args", "SSH key already exists.")
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(call.at))
        key = AccountKey(next(self._world.key_ids), public, created)
        keys[key.id] = key
        return ok(key=_shown(key))

    def _update(self, call: Call) -> Answer:
        key = self._key(call)
        if key is None:
            return refused(400, "no_ssh_key", "No such ssh key.")
        key.public = str(call.object().get("ssh_key") or key.public)
        return ok(key=_shown(key))

    def _delete(self, call: Call) -> Answer:
        key = self._key(call)
        if key is None:
            return refused(400, "no_ssh_key", "No such ssh key.")
        del self._world.ssh_keys[key.id]
        return ok()

    def _key(self, call: Call) -> AccountKey | None:
        word = call.parameters["key"]
        return self._world.ssh_keys.get(int(word)) if word.isdigit() else None

    def _of_instance(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None:
            return refused(200, "no_such_instance", "Instance not found.")
        keys = [{"id": number, "public_key": key} for number, key in enumerate(contract.keys)]
        return ok(ssh_keys=json.dumps(keys))

    def _attach(self, call: Call) -> Answer:
        body = call.object()
        contract = self._world.owned(str(body.get("instance_id") or call.parameters["id"]))
        if contract is None:
            return refused(400, "no_such_instance", "Instance not found.")
        public = str(body.get("ssh_key") or "").strip()
        if not public:
            return refused(400, "no_ssh_key", "ssh_key is required")
        if any(_same(key, public) for key in contract.keys):
            return refused(200, None, "SSH key already associated with instance.")
        contract.keys.append(public)
        self._world.lives.authorize(contract)
        row = {"id": len(contract.keys) - 1, "public_key": public}
        return ok(msg="SSH key added to instance.", key=json.dumps(row))

    def _detach(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None:
            return refused(200, "no_such_instance", "Instance not found.")
        word = call.parameters["key"]
        if not word.isdigit() or int(word) >= len(contract.keys):
            return refused(200, "no_such_ssh_key", "No such ssh key.")
        del contract.keys[int(word)]
        self._world.lives.authorize(contract)
        return ok()


def _shown(key: AccountKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "user_id": 1042,
        "public_key": key.public,
        "key": key.public,
        "created_at": key.created_at,
        "deleted_at": None,
    }


def _same(one: str, other: str) -> bool:
    return one.split()[:2] == other.split()[:2]
