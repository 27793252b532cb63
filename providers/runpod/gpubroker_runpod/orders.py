"""An order in the vendor's words, and what its answer means. Nothing here sends anything."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from gpubroker import (
    CreateUnknown,
    ErrorKind,
    Machine,
    MachineState,
    Money,
    Offer,
    Order,
    ProviderError,
    Scope,
)
from gpubroker.rest import Reply, rows
from gpubroker_runpod.options import Options, WayChoice
from gpubroker_runpod.pods import MARK, SSH_PORT
from gpubroker_runpod.vocabulary import Cloud

BODY_LIMIT: Final = 102_400
"""Bytes that a request's body may have."""

_MOST_VARIABLES: Final = 50
#: The vendor puts variables of its own in place of these.
_RESERVED: Final = "RUNPOD_"


class Way(enum.Enum):
    """How work reaches a pod."""

    SSH = "over SSH"
    LOG = "through its log"


def way_of(offer: Offer, order: Order, choice: WayChoice) -> tuple[Way, str]:
    """How work is to reach the pod of an order, and why."""
    if choice is WayChoice.SSH:
        return Way.SSH, "the settings say so"
    if not order.jobs:
        return Way.SSH, "what it will run is not all known, or has files, outputs or secrets"
    if order.ports:
        return Way.SSH, "its ports are to be reached"
    if choice is WayChoice.LOG:
        return Way.LOG, "the settings say so"
    if offer.extra.get("cloud") == Cloud.COMMUNITY:
        return Way.LOG, "a public port is not certain in the community cloud"
    return Way.SSH, "pods of the secure cloud have public ports"


def body_of(offer: Offer, order: Order, options: Options, way: Way, args: str) -> dict[str, Any]:
    """The create request for an order.

    Args:
        args: the container's command.

    Raises:
        ProviderError: the vendor could not take it.
    """
    told = offer.extra
    gpu: dict[str, Any] = {"id": told.get("gpu", ""), "count": offer.count}
    if "cuda" in told:
        gpu["minCudaVersion"] = told["cuda"]
    body: dict[str, Any] = {
        "name": order.mark,
        "image": order.image or options.image,
        "gpu": gpu,
        "cloud": told.get("cloud", ""),
        # Left out, the whole request is refused.
        "disk": max(1, math.ceil(order.disk)),
        "env": _environment(order, way),
        "ports": _ports(order, way),
        "args": args,
    }
    if "dataCenters" in told:
        body["dataCenterIds"] = told["dataCenters"].split(",")
    if options.registry is not None:
        body["registry"] = options.registry
    if not gpu["id"] or body["cloud"] not in set(Cloud) or offer.count < 1:
        raise _refused(f"{offer.id!r} is no offer of this provider's")
    size = len(json.dumps(body).encode())
    if size > BODY_LIMIT:
        raise _refused(f"the order has {size} bytes, and {BODY_LIMIT} are allowed")
    return body


def _environment(order: Order, way: Way) -> Mapping[str, str]:
    env = {**order.env, MARK: order.mark}
    if way is Way.SSH:
        env["PUBLIC_KEY"] = order.public_key
    for name in env:
        if name.upper().startswith(_RESERVED):
            raise _refused(f"the variable {name} is RunPod's own")
    if len(env) > _MOST_VARIABLES:
        raise _refused(f"{len(env)} variables, and {_MOST_VARIABLES} are allowed")
    return env


def _ports(order: Order, way: Way) -> list[str]:
    wanted = [f"{port}/tcp" for port in order.ports]
    return list(dict.fromkeys([SSH_PORT, *wanted])) if way is Way.SSH else []


def made_by(reply: Reply, order: Order, way: Way) -> Machine | None:
    """The pod that a create made, if the answer names one.

    The id is looked for before anything else: an answer that says "no" may name a pod that bills
    all the same.

    Raises:
        CreateUnknown: the answer is no success, and names a pod.
    """
    body = reply.json_object() or {}
    pod_id = rows.text_identifier(body, "id") or rows.text_identifier(body, "podId")
    if pod_id is None:
        return None
    if not reply.ok:
        raise CreateUnknown(
            f"the create was answered with HTTP {reply.status}, and names a pod",
            machine_id=pod_id,
        )
    cost = rows.decimal(body, "cost")
    return Machine(
        id=pod_id,
        state=MachineState.BOOTING,
        mark=order.mark,
        hourly=Money(cost) if cost is not None and cost > 0 else None,
        progress="accepted",
        ssh=way is Way.SSH,
    )


def _refused(problem: str) -> ProviderError:
    return ProviderError(problem, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
