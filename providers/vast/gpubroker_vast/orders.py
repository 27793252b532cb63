"""An order in the vendor's words, and what its answer means. Nothing here sends anything."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from gpubroker import (
    CreateUnknown,
    ErrorKind,
    Machine,
    MachineState,
    Offer,
    Order,
    ProviderError,
    Scope,
)
from gpubroker.rest import Reply, rows
from gpubroker_vast.options import Options
from gpubroker_vast.search import LEAST_DISK

_LONGEST_ENTRY: Final = 256
_LONGEST_ENVIRONMENT: Final = 32_768
_MOST_PORTS: Final = 64
_LEAST_BID: Final = Decimal("0.001")
_CENT_OF_A_CENT: Final = Decimal("0.0001")


def body_of(offer: Offer, order: Order, options: Options, onstart: str) -> dict[str, Any]:
    """The create request for an order.

    Raises:
        ProviderError: the vendor could not take it.
    """
    body: dict[str, Any] = {
        "client_id": "me",
        "image": order.image or options.image,
        "disk": max(LEAST_DISK, order.disk),
        "label": order.mark,
        "runtype": "ssh_direct",
        "target_state": "running",
        # Otherwise a machine that is taken is queued, and its disk bills from now on.
        "cancel_unavail": True,
        "env": _environment(order),
        "onstart": onstart,
    }
    if offer.spot:
        body["price"] = float(_bid(offer, order))
    if options.image_login is not None:
        body["image_login"] = options.image_login
    return body


def _environment(order: Order) -> dict[str, str]:
    """Variables and ports, which the vendor takes as variables with names of Docker's options."""
    if len(order.ports) > _MOST_PORTS:
        raise _refused(f"{len(order.ports)} ports, and {_MOST_PORTS} are allowed")
    env = {**order.env, **{f"-p {port}:{port}": "1" for port in order.ports}}
    for name, value in env.items():
        if len(name) + len(value) + 1 > _LONGEST_ENTRY:
            raise _refused(f"the variable {name} is longer than {_LONGEST_ENTRY} characters")
    if sum(len(name) + len(value) + 1 for name, value in env.items()) > _LONGEST_ENVIRONMENT:
        raise _refused(f"the environment is longer than {_LONGEST_ENVIRONMENT} characters")
    return env


def _bid(offer: Offer, order: Order) -> Decimal:
    """What to bid: as offered, and never so much that it is above the ceiling with its disk."""
    left = (order.price_ceiling - offer.price.disk).amount
    bid = min(offer.price.machine.amount, left).quantize(_CENT_OF_A_CENT, "ROUND_FLOOR")
    if bid < _LEAST_BID:
        raise ProviderError(
            f"the price ceiling of {order.price_ceiling}/h leaves nothing to bid",
            kind=ErrorKind.CAPACITY,
            scope=Scope.OFFER,
        )
    return bid


def machine_of(reply: Reply, offer: Offer, order: Order, failure: ProviderError) -> Machine:
    """The machine that a create made.

    The id is looked for before anything else: an answer that says "no" may name a machine that
    bills all the same.

    Args:
        failure: what the answer means if it is no success.

    Raises:
        CreateUnknown: nobody knows whether there is a machine.
        ProviderError: there is none, or it names one that is to be released.
    """
    body = reply.json_object()
    machine_id = None if body is None else rows.identifier(body, "new_contract")
    agreed = reply.ok and body is not None and body.get("success", True) is True
    if machine_id is not None and agreed:
        return Machine(
            id=machine_id,
            state=MachineState.BOOTING,
            mark=order.mark,
            progress="accepted",
            host=offer.host,
        )
    if machine_id is not None and reply.ok:
        raise ProviderError(
            f"not started, though made: {failure}",
            kind=ErrorKind.CAPACITY,
            scope=Scope.OFFER,
            machine_id=machine_id,
        )
    if _is_refusal(reply, body is not None, failure):
        raise failure
    raise CreateUnknown(str(failure), machine_id=machine_id)


def _is_refusal(reply: Reply, is_json: bool, failure: ProviderError) -> bool:
    """Whether an answer that names no machine surely says that there is none."""
    if failure.kind is ErrorKind.TRANSIENT:
        return False
    if reply.ok:
        return is_json  # ``success: false`` with a reason that is known
    # 401 and 429 are given before the request is looked at, and need no JSON to be believed.
    return 400 <= reply.status < 500 and (is_json or reply.status in (401, 429))


def _refused(problem: str) -> ProviderError:
    return ProviderError(problem, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
