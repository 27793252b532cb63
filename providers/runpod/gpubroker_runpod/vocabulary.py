"""RunPod's words and ours: tables, and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from gpubroker import ErrorKind, MachineState, Scope, TrustTier

Meaning = tuple[ErrorKind, Scope]


class Cloud(enum.StrEnum):
    """Where a pod runs, in the vendor's words."""

    SECURE = "SECURE"  #: in a data centre; its TCP ports are public
    COMMUNITY = "COMMUNITY"  #: on somebody's machine; its TCP ports may not be public


TRUST: Final[Mapping[Cloud, TrustTier]] = {
    Cloud.SECURE: TrustTier.DATACENTER,
    Cloud.COMMUNITY: TrustTier.VERIFIED,
}
"""How far each cloud's hosts are trusted."""

STOCK: Final = ("HIGH", "MEDIUM", "LOW")
"""``availability`` of what can be rented, the best first. Of ``NONE`` there is nothing."""

NO_GPU: Final = "unknown"
"""The id of a row of the catalogue that stands for no GPU type."""

CONTINENTS: Final = frozenset({"AF", "AP", "AS", "EU", "EUR", "ME", "OC", "SA", "SEA"})
"""What a data centre's id begins with where the country is its second part: ``EU-RO-1``."""

COUNTRIES: Final = frozenset({"CA", "US"})
"""Countries that a data centre's id begins with, before a state or a city: ``US-TX-3``."""

# ---- errors --------------------------------------------------------------------------------

_KEY: Final[Meaning] = (ErrorKind.AUTH, Scope.ACCOUNT)
_MONEY: Final[Meaning] = (ErrorKind.CREDIT, Scope.ACCOUNT)
_OFTEN: Final[Meaning] = (ErrorKind.RATE_LIMIT, Scope.ACCOUNT)
_OURS: Final[Meaning] = (ErrorKind.BAD_REQUEST, Scope.PROVIDER)
_PASSING: Final[Meaning] = (ErrorKind.TRANSIENT, Scope.PROVIDER)
_EMPTY: Final[Meaning] = (ErrorKind.CAPACITY, Scope.OFFER)
_CLOSED: Final[Meaning] = (ErrorKind.CAPACITY, Scope.PROVIDER)
_UNSAID: Final[Meaning] = (ErrorKind.CREATE_UNKNOWN, Scope.OFFER)

BUSY: Final[Meaning] = (ErrorKind.RATE_LIMIT, Scope.OFFER)
"""The host that was picked was taken meanwhile; asked again a little later, another one is.

Of all kinds this is the one after which the same offer is tried again, some times and after the pause
that is asked for, and which leaves no doubt that nothing was made.
"""

BUSY_PAUSE: Final = 10.0
"""Seconds after which the same offer is worth another try."""

STATUSES: Final[Mapping[int, Meaning]] = {
    400: _OURS,
    401: _KEY,
    402: _MONEY,
    403: _KEY,  # as JSON only: a page comes from a guard in front of the API
    409: (ErrorKind.BAD_REQUEST, Scope.OFFER),
    413: _OURS,
    422: _OURS,
    429: _OFTEN,
}
"""What a status means for every request but a create. Others are passing faults."""

CREATE_STATUSES: Final[Mapping[int, Meaning]] = {
    401: _KEY,
    402: _MONEY,
    # No such path, method or version: nothing can be rented here, and elsewhere it may.
    404: _CLOSED,
    405: _CLOSED,
    409: _CLOSED,
    410: _CLOSED,
    413: _OURS,
    422: _OURS,
    429: _OFTEN,
}
"""What a status means for a create whose text is not known. 400 and 403 are not decided by it."""

CREATE_PHRASES: Final[tuple[tuple[str, Meaning], ...]] = (
    ("spending limit", _MONEY),
    ("insufficient balance", _MONEY),
    ("insufficient_balance", _MONEY),
    ("insufficient funds", _MONEY),
    ("balance is too low", _MONEY),
    ("does not have the resources to deploy", BUSY),
    ("try a different machine", BUSY),
    ("no longer any instances available", _EMPTY),
    ("no instances currently available", _EMPTY),
    ("enough disk space", _EMPTY),
    ("not enough free gpus", _EMPTY),
    ("insufficient capacity", _EMPTY),
    ("no available machine", _EMPTY),
    ("out of stock", _EMPTY),
    ("please refresh and try again", _EMPTY),
    ("must either provide a template", _OURS),
    # Seen on creates that were carried out all the same.
    ("something went wrong", _UNSAID),
    ("contact support", _UNSAID),
)
"""What is looked for in the text of a refused create, small letters, the first that fits."""

NO_PATH: Final = "requested path"
"""In the detail of a 404 that is about the path and not about what it leads to."""

GONE: Final = frozenset({404, 405, 410})
"""Statuses that, of a path that must exist, say that the API itself is gone."""

# ---- pods ----------------------------------------------------------------------------------

STATES: Final[Mapping[str, MachineState]] = {
    "PROVISIONING": MachineState.BOOTING,
    "STARTING": MachineState.BOOTING,
    "RUNNING": MachineState.RUNNING,  # if its container shows that it runs, too
    "EXITED": MachineState.STOPPED,
    "ERROR": MachineState.BROKEN,
    "TERMINATED": MachineState.GONE,
}
"""What ``status`` means; anything else, and nothing at all, is a pod that boots."""

PULL_FAILURES: Final = (
    "toomanyrequests",
    "manifest unknown",
    "failed to pull image",
    "error creating container",
    "pull access denied",
    "layer does not exist",
)
"""What the system's log of a pod holds, in small letters, when its image will not come."""
