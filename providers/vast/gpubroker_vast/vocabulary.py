"""Vast.ai's words and ours: tables, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gpubroker import ErrorKind, MachineState, Scope

Meaning = tuple[ErrorKind, Scope]

_STALE: Final[Meaning] = (ErrorKind.CAPACITY, Scope.OFFER)
_KEY: Final[Meaning] = (ErrorKind.AUTH, Scope.ACCOUNT)
_MONEY: Final[Meaning] = (ErrorKind.CREDIT, Scope.ACCOUNT)
_OFTEN: Final[Meaning] = (ErrorKind.RATE_LIMIT, Scope.ACCOUNT)
_OURS: Final[Meaning] = (ErrorKind.BAD_REQUEST, Scope.PROVIDER)
_THIS_OFFER: Final[Meaning] = (ErrorKind.BAD_REQUEST, Scope.OFFER)
_PASSING: Final[Meaning] = (ErrorKind.TRANSIENT, Scope.PROVIDER)

ERRORS: Final[Mapping[str, Meaning]] = {
    # the key
    "auth_error": _KEY,
    "unauthorized": _KEY,
    "not_authorized": _KEY,
    # the offer
    "no_such_ask": _STALE,
    "offer_not_found": _STALE,
    "resources_unavailable": _STALE,
    "rental_too_long": _THIS_OFFER,
    "invalid_price": _THIS_OFFER,
    "no_ssh_key_for_vm": _THIS_OFFER,
    # the account
    "insufficient_credit": _MONEY,
    "missing_billing": _MONEY,
    "spend_rate_limit": (ErrorKind.QUOTA, Scope.ACCOUNT),
    "search_quota_exceeded": (ErrorKind.QUOTA, Scope.ACCOUNT),
    "rate_limit_exceeded": _OFTEN,
    "httptoomanyrequests": _OFTEN,
    # the request
    "invalid_args": _OURS,
    "invalid_request": _OURS,
    "invalid_json_body": _OURS,
    "invalid date range": _OURS,
    "label_too_long": _OURS,
    "missing_id": _OURS,
    "missing_input": _OURS,
    "empty_input": _OURS,
    "no_ssh_key": _OURS,
    "no_such_ssh_key": _OURS,
    "team_ssh_keys_not_supported": _OURS,
    # A machine that cannot be seen: it may be too new, or gone. Only a listing tells.
    "no_such_instance": _PASSING,
    "instances_not_found": _PASSING,
    "invalid_instance_id": _PASSING,
    "invalid_id": _PASSING,
    "not_found": _PASSING,
    # the service
    "add_ssh_to_instance": _PASSING,
    "deprecated_endpoint": _PASSING,
    "invalid_token": _PASSING,
    "server_error": _PASSING,
}
"""What each error code means, in small letters."""

PHRASES: Final[tuple[tuple[str, Meaning], ...]] = (
    # Before the codes: `invalid_args` is the code of many things, and some have no code at all.
    ("invalid user key", _KEY),
    ("requires login", _KEY),
    ("session expired", _KEY),
    ("session has expired", _KEY),
    ("hosts can only rent", _KEY),
    ("no_such_ask", _STALE),
    ("no longer available", _STALE),
    ("currently unavailable", _STALE),
    ("no_ssh_key_for_vm", _THIS_OFFER),
    ("valid offer id", _THIS_OFFER),
    ("invalid_price", _THIS_OFFER),
    ("blacklist", (ErrorKind.CAPACITY, Scope.HOST)),
    ("spend_rate_limit", (ErrorKind.QUOTA, Scope.ACCOUNT)),
    ("spend rate", (ErrorKind.QUOTA, Scope.ACCOUNT)),
    ("lack credit", _MONEY),
    ("insufficient credit", _MONEY),
    ("insufficient_credit", _MONEY),
    ("search_quota_exceeded", (ErrorKind.QUOTA, Scope.ACCOUNT)),
    ("requests too frequent", _OFTEN),
    ("too many requests", _OFTEN),
)
"""What is looked for in an error's code and message, small letters, the first that fits."""

STATUSES: Final[Mapping[int, Meaning]] = {
    400: _OURS,
    401: _KEY,
    402: _MONEY,
    # With JSON only: a page in HTML comes from a guard in front of the API.
    403: _KEY,
    404: _PASSING,
    408: _PASSING,
    410: _PASSING,
    429: _OFTEN,
    483: _OURS,
}
"""What a status means where neither code nor message is known. Others are passing faults."""

GONE: Final = frozenset({"no_such_instance", "instances_not_found"})
"""Codes that say, as the answer to a destroy, that there is nothing left to destroy."""

ATTACHED: Final = "already associated"
"""In the answer to an attempt to attach an SSH key that was attached before."""

STATES: Final[Mapping[str, MachineState]] = {
    "created": MachineState.BOOTING,
    "loading": MachineState.BOOTING,
    "rebooting": MachineState.BOOTING,
    "recycling": MachineState.BOOTING,
    "restarting": MachineState.BOOTING,
    "running": MachineState.RUNNING,
    "stopped": MachineState.STOPPED,
    "frozen": MachineState.STOPPED,
    "exited": MachineState.BROKEN,
    "unknown": MachineState.BROKEN,
    "offline": MachineState.BROKEN,
}
"""What ``actual_status`` means; anything else, and nothing at all, is a machine that boots."""

HEARSAY: Final = frozenset({"exited", "unknown", "offline"})
"""States that were seen on machines that worked: believed when they are read twice in a row."""

BEFORE_RUNNING: Final = frozenset({"", "created", "loading", "exited"})
"""States in which ``status_msg`` may hold the reason why a boot failed."""

BOOT_FAILURES: Final = (
    "error response from daemon",
    "oci runtime create failed",
    "manifest unknown",
    "pull access denied",
    "unauthorized",
    "failed to resolve reference",
    "no space left",
    "permission denied",
    "exception",
    "traceback",
)
"""What ``status_msg`` holds, in small letters, when a machine will not come up."""

GPU_LABELS: Final[Mapping[str, tuple[int, ...]]] = {
    "A10": (),
    "A100 PCIE": (40, 80),
    "A100 SXM4": (40, 80),
    "A100X": (),
    "A16": (),
    "A30": (),
    "A40": (),
    "A800 PCIE": (40, 80),
    "B200": (),
    "B300": (),
    "GH200 SXM": (96, 144),
    "GTX 1050": (2, 3),
    "GTX 1050 Ti": (),
    "GTX 1060": (3, 6),
    "GTX 1070": (),
    "GTX 1070 Ti": (),
    "GTX 1080": (),
    "GTX 1080 Ti": (),
    "GTX 1650": (),
    "GTX 1650 S": (),
    "GTX 1660": (),
    "GTX 1660 S": (),
    "GTX 1660 Ti": (),
    "H100 NVL": (),
    "H100 PCIE": (),
    "H100 SXM": (),
    "H200": (),
    "H200 NVL": (),
    "L4": (),
    "L40": (),
    "L40S": (),
    "MI100": (),
    "MI210": (),
    "MI250X": (),
    "MI300X": (),
    "Q RTX 4000": (),
    "Q RTX 5000": (),
    "Q RTX 6000": (),
    "Q RTX 8000": (),
    "Quadro P2000": (),
    "Quadro P4000": (),
    "Quadro P5000": (),
    "Quadro P6000": (),
    "RTX 2000Ada": (),
    "RTX 2060": (6, 12),
    "RTX 2060S": (),
    "RTX 2070": (),
    "RTX 2070S": (),
    "RTX 2080": (),
    "RTX 2080S": (),
    "RTX 2080 Ti": (),
    "RTX 3050": (6, 8),
    "RTX 3060": (8, 12),
    "RTX 3060 laptop": (),
    "RTX 3060 Ti": (),
    "RTX 3070": (),
    "RTX 3070 laptop": (),
    "RTX 3070 Ti": (),
    "RTX 3080": (10, 12),
    "RTX 3080 Ti": (),
    "RTX 3090": (),
    "RTX 3090 Ti": (),
    "RTX 4000Ada": (),
    "RTX 4060": (),
    "RTX 4060 Ti": (8, 16),
    "RTX 4070": (),
    "RTX 4070 laptop": (),
    "RTX 4070S": (),
    "RTX 4070 Ti": (),
    "RTX 4070S Ti": (),
    "RTX 4080": (),
    "RTX 4080S": (),
    "RTX 4090": (),
    "RTX 4090D": (),
    "RTX 4500Ada": (),
    "RTX 5000Ada": (),
    "RTX 5060": (),
    "RTX 5060 Ti": (8, 16),
    "RTX 5070": (),
    "RTX 5070 Ti": (),
    "RTX 5080": (),
    "RTX 5090": (),
    "RTX 5880Ada": (),
    "RTX 6000Ada": (),
    "RTX A2000": (6, 12),
    "RTX A4000": (),
    "RTX A4500": (),
    "RTX A5000": (),
    "RTX A5500": (),
    "RTX A6000": (),
    "RTX PRO 4000": (),
    "RTX PRO 4500": (),
    "RTX PRO 5000": (48, 72),
    "RTX PRO 6000 S": (),
    "RTX PRO 6000 WS": (),
    "RX 7900 XTX": (),
    "Tesla K80": (),
    "Tesla P4": (),
    "Tesla P40": (),
    "Tesla P100": (12, 16),
    "Tesla T4": (),
    "Tesla V100": (16, 32),
    "Titan RTX": (),
    "Titan V": (),
    "Titan Xp": (),
}
"""How ``gpu_name`` is spelt in a search, with the GB of memory that tell the models apart."""
