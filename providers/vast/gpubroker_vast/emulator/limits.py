"""The vendor's least times between two requests, in seconds, by endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

THRESHOLDS: Final[Mapping[str, float]] = {
    "search": 2.0,
    "search-get": 0.8,
    "create": 4.5,
    "create-bulk": 4.5,
    "launch": 2.0,
    "list": 1.0,
    "list-old": 20.0,
    "show": 2.0,
    "update": 1.0,
    "update-bulk": 4.0,
    "destroy": 3.0,
    "destroy-bulk": 3.0,
    "change-bid": 5.5,
    "bid-hint": 0.8,
    "reboot": 1.0,
    "recycle": 1.0,
    "execute": 1.5,
    "instance-ssh-keys": 2.0,
    "attach": 2.0,
    "detach": 2.0,
    "ssh-keys": 1.0,
    "ssh-key-create": 1.0,
    "ssh-key-update": 1.0,
    "ssh-key-delete": 1.0,
    "charges": 1.0,
    "invoices": 3.0,
    "invoices-old": 2.0,
    "spend-rate": 2.0,
    "deposit": 3.0,
    "api-keys": 1.0,
    "fetch": 2.0,
}
