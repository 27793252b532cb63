"""Reading, changing and deleting pods."""

from __future__ import annotations

from typing import Any, Final

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_runpod.emulator.answers import (
    NO_GPUS_TO_START,
    SOMETHING_WRONG,
    invalid,
    no_pod,
    problem,
)
from gpubroker_runpod.emulator.bodies import BadBody, PodAction, parsed
from gpubroker_runpod.emulator.pods import ACTIONS, Pod, pod_row
from gpubroker_runpod.emulator.world import World

_MOST_ROWS: Final = 1000


class PodsApi:
    """Endpoints of pods."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (
            Endpoint("list", "GET", "/v2/pods", self._list),
            Endpoint("show", "GET", "/v2/pods/{id}", self._show),
            Endpoint("delete", "DELETE", "/v2/pods/{id}", self._delete),
            Endpoint("action", "POST", "/v2/pods/{id}/action", self._action),
        )

    def _list(self, call: Call) -> Answer:
        return self.listed(call, call.at)

    def listed(self, call: Call, at: float) -> Answer:
        """The list as it was at a moment."""
        clusters = call.query.get("includeClusterPods", "false").lower() == "true"
        pods = self._world.listed(at, clusters=clusters)
        if not self._world.behaviour.newer:
            return Answer.of({"pods": [self._row(pod, call.at) for pod in pods]})
        try:
            limit = int(call.query.get("limit", _MOST_ROWS))
            first = int(call.query.get("cursor") or 0)
        except ValueError:
            return invalid("$: invalid value of limit or cursor")
        if not 1 <= limit <= _MOST_ROWS or first < 0:
            return invalid("$: invalid value of limit or cursor")
        page = pods[first : first + limit]
        more = first + limit < len(pods)
        pages = {"nextCursor": str(first + limit) if more else None, "hasNextPage": more}
        return Answer.of({"pods": [self._row(p, call.at) for p in page], "pagination": pages})

    def _row(self, pod: Pod, now: float) -> dict[str, Any]:
        return pod_row(pod, now, newer=self._world.behaviour.newer)

    def _show(self, call: Call) -> Answer:
        pod = self._world.found(call.parameters["id"], call.at)
        return no_pod() if pod is None else Answer.of(self._row(pod, call.at))

    def _delete(self, call: Call) -> Answer:
        pod = self._world.owned(call.parameters["id"])
        return no_pod() if pod is None else self._end(pod)

    def _end(self, pod: Pod) -> Answer:
        if pod.cluster is not None:
            return problem(409, "pod belongs to a cluster and cannot be deleted here")
        if pod.destroy_errors:
            pod.destroy_errors -= 1
            return problem(500, SOMETHING_WRONG)
        if not pod.stubborn:
            self._world.lives.destroy(pod)
        return Answer(204)

    def _action(self, call: Call) -> Answer:
        try:
            action = parsed(PodAction, call.object()).action
        except BadBody as error:
            return invalid(*error.errors)
        pod = self._world.owned(call.parameters["id"])
        if pod is None:
            return no_pod()
        if action not in ACTIONS[pod.status]:
            return problem(409, f"action {action} is not allowed while the pod is {pod.status}")
        if pod.cluster is not None:
            return problem(409, "pod belongs to a cluster and cannot be changed here")
        if action == "terminate":
            return self._end(pod)
        lives = self._world.lives
        if action == "stop":
            lives.stop(pod)
        elif action == "restart":
            lives.restart(pod)
        elif not lives.start(pod):
            return problem(400, NO_GPUS_TO_START)
        return Answer.of(self._row(pod, call.at))
