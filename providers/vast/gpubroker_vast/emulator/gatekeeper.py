"""Who may ask what, and how often."""

from __future__ import annotations

import math
from typing import Final

from gpubroker.testing.emulation import Answer, Call, ControlApi, Endpoint
from gpubroker_vast.emulator.answers import LOGIN_NEEDED, bad_key, refused
from gpubroker_vast.emulator.api_faults import too_early
from gpubroker_vast.emulator.world import World

#: What the key of an instance may do, to that instance.
_OWN: Final = frozenset({"show", "update", "destroy"})


class Gatekeeper:
    """Refuses calls whose key is not good, and those that come too early."""

    def __init__(self, world: World, control: ControlApi) -> None:
        self._world = world
        self._control = control

    def refuse(self, call: Call, endpoint: Endpoint) -> Answer | None:
        """The refusal; ``None`` lets the call pass."""
        if endpoint.name.startswith("_"):
            return None if self._control.admits(call) else LOGIN_NEEDED
        refusal = None if endpoint.open else self._key(call, endpoint)
        return refusal if refusal is not None else self._rate(call, endpoint)

    def _key(self, call: Call, endpoint: Endpoint) -> Answer | None:
        world = self._world
        key = call.bearer or call.query.get("api_key")
        if key is None:
            return LOGIN_NEEDED
        if key == world.key:
            if world.revoked is None:
                return None
            return LOGIN_NEEDED if world.revoked == 403 else bad_key(world.revoked)
        for contract in world.lives.contracts.values():
            if contract.key == key and contract.destroyed_at is None:
                if endpoint.name in _OWN and call.parameters.get("id") == contract.name:
                    return None
                return refused(403, "auth_error", "Not authorized for this.")
        return bad_key(world.behaviour.bad_key)

    def _rate(self, call: Call, endpoint: Endpoint) -> Answer | None:
        world = self._world
        identity = f"{call.bearer} {call.peer[0]}"
        wait = world.limits.wait(endpoint.name, identity, call.at)
        if not wait:
            return None
        threshold = world.limits.threshold(endpoint.name)
        return too_early(world.behaviour.limit_style, threshold, math.ceil(wait))
