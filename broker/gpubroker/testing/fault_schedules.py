"""What goes wrong in a scripted cloud, as data: to be drawn, printed, told, and told again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from gpubroker.errors import ErrorKind, Scope
from gpubroker.testing.scripted import ScriptedCloud

#: Every verb of a story that is a fault for a while or a few calls, each with the arguments that it
#: may have; the mildest first. ``until`` is seconds from when it is told.
FAULTS: Final[Mapping[str, Mapping[str, tuple[Any, ...]]]] = MappingProxyType(
    {
        "next_create_fails": {
            "kind": (ErrorKind.CAPACITY, ErrorKind.TRANSIENT, ErrorKind.HOST_BROKEN),
            "scope": (Scope.OFFER, Scope.HOST, Scope.PROVIDER),
            "leaves_machine": (False, True),
        },
        "rate_limited": {"retry_after": (None, 5.0, 60.0)},
        "out_of_capacity": {"until": (30.0, 300.0)},
        "quote_fails": {"times": (1, 3)},
        "price_rises_before_create": {"price": ("9",)},
        "next_create_loses_reply": {"creates": (False, True)},
        "next_create_hangs": {"times": (1, 2)},
        "create_takes": {"seconds": (10.0, 60.0)},
        "boot_takes": {"seconds": (20.0, 90.0)},
        "never_boots": {"times": (1, 2)},
        "boot_breaks": {"times": (1, 2)},
        "delivers": {"gpu": ("RTX 3060", None)},
        "preempt_after": {"seconds": (90.0, 5.0)},
        "machine_vanishes": {"after": (30.0, 0.0)},
        "job_exits": {"code": (1,)},
        "release_fails": {"times": (1, 4)},
        "release_does_nothing": {"times": (1, 2)},
        "release_hangs": {"times": (1, 2)},
        "release_takes": {"seconds": (5.0, 20.0)},
        "inventory_fails": {"times": (1, 4)},
        "inventory_is_empty": {"times": (1, 2)},
        "inventory_hangs": {"times": (1, 2)},
        "revoke_key": {"until": (30.0, 300.0)},
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, as a verb of `ScriptedCloud` and its arguments.

    Attributes:
        what: the verb.
        how: its arguments; ``until`` is in seconds from when it is told.
    """

    what: str
    how: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        how = ", ".join(f"{name}={_shown(value)}" for name, value in self.how.items())
        return f"{self.what}({how})"

    def tell(self, cloud: ScriptedCloud) -> None:
        """Tell the cloud."""
        how = dict(self.how)
        if "until" in how:
            how["until"] += cloud.now()
        verb: Callable[..., None] = getattr(cloud, self.what)
        verb(**how)


def draw(source: random.Random) -> Fault:
    """One fault by chance; the same for the same state of `source`."""
    what = source.choice(list(FAULTS))
    return Fault(what, {name: source.choice(some) for name, some in FAULTS[what].items()})


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, (ErrorKind, Scope)) else repr(value)
