"""How work reaches a machine, and how its files come back: what providers need of it.

`run_job` is all that the ``run`` hook of a provider over SSH has to do; `announcement` is the part
of a machine's start script that proves its host keys, and `host_keys` finds them in its log.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpubroker.transport.host_identity import announcement, host_keys
    from gpubroker.transport.work import run_job

__all__ = ["announcement", "host_keys", "run_job"]

_MODULE_OF = {"announcement": "host_identity", "host_keys": "host_identity", "run_job": "work"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'gpubroker.transport' has no attribute {name!r}")
    return getattr(import_module(f"gpubroker.transport.{_MODULE_OF[name]}"), name)
