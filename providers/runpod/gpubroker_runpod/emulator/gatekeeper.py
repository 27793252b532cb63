"""Who may ask what, and how often."""

from __future__ import annotations

from typing import Final

from gpubroker.testing.emulation import Answer, Call, ControlApi, Endpoint
from gpubroker_runpod.emulator.answers import (
    BAD_TOKEN,
    DENIED,
    EDGE,
    GONE,
    MISSING_TOKEN,
    problem,
    window_used_up,
)
from gpubroker_runpod.emulator.world import World

_MOST_BODY: Final = 102_400
#: What the key of a pod may do, to that pod.
_OWN: Final = frozenset({"show", "delete", "action", "logs"})


class Gatekeeper:
    """Refuses calls whose key is not good, and those that are too many."""

    def __init__(self, world: World, control: ControlApi) -> None:
        self._world = world
        self._control = control

    def before(self, call: Call) -> Answer | None:
        """The refusal of what stands in front of the API, whatever the call is for."""
        if call.path.startswith("/_emulator/"):
            return None
        self._note_leak(call)
        agent = call.headers.get("user-agent", "").strip().lower()
        if self._world.behaviour.edge and (not agent or agent.startswith("python-urllib")):
            return EDGE
        if call.path == "/v1" or call.path.startswith("/v1/"):
            return GONE
        if len(call.body) > _MOST_BODY:
            return problem(413, f"request body exceeds {_MOST_BODY} bytes")
        return None

    def _note_leak(self, call: Call) -> None:
        """Write down that the account key is somewhere else than in its header."""
        key = self._world.key
        places = {
            "the path": key in call.path,
            "the query": any(key in value for value in call.query.values()),
            "the body": key.encode() in call.body,
        }
        found = [place for place, there in places.items() if there]
        if found:
            path = call.path.replace(key, "***")
            self._world.leaks.append(f"{call.method} {path} with the key in {' and '.join(found)}")

    def refuse(self, call: Call, endpoint: Endpoint) -> Answer | None:
        """The refusal; ``None`` lets the call pass."""
        if endpoint.name.startswith("_"):
            return None if self._control.admits(call) else MISSING_TOKEN
        refusal = self._key(call, endpoint)
        return refusal if refusal is not None else self._rate(call)

    def dress(self, call: Call, answer: Answer) -> Answer:
        """An answer with the headers that tell the caller how much he may still ask."""
        windows = self._world.limits
        if answer.status == 401 or not windows.windows or call.endpoint.startswith("_"):
            return answer
        return answer.but(headers={**windows.headers(call.at), **answer.headers})

    def _key(self, call: Call, endpoint: Endpoint) -> Answer | None:
        world = self._world
        key = call.bearer
        if key is None:
            return MISSING_TOKEN
        if key == world.key:
            if world.revoked is None:
                return None
            return BAD_TOKEN if world.revoked == 401 else problem(world.revoked, "access denied")
        if key == world.read_only:
            reads = endpoint.method == "GET" or endpoint.name == "graphql"
            return None if reads else DENIED
        pod = next((p for p in world.lives.pods.values() if p.key == key), None)
        if pod is None or pod.destroyed_at is not None:
            return BAD_TOKEN
        if endpoint.name == "graphql":
            return None
        own = endpoint.name in _OWN and call.parameters.get("id") == pod.id
        return None if own and world.behaviour.pod_key == "works" else DENIED

    def _rate(self, call: Call) -> Answer | None:
        windows = self._world.limits
        used_up = windows.count(call.at)
        if used_up is None:
            return None
        return window_used_up(used_up.name, windows.resets_in(used_up, call.at))
