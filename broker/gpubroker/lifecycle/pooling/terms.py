"""What a pool is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gpubroker.errors import InvalidValue
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.lifecycle.renting.acquire import Wish
from gpubroker.model.names import is_a
from gpubroker.model.pools import PoolShare
from gpubroker.policy.keep_warm import KeepWarm
from gpubroker.policy.pool import PoolRules

if TYPE_CHECKING:
    from gpubroker.model.services import Service

Activity = Literal["jobs", "use"] | Callable[[AsyncLease], float]
"""What an idle time begins with: the end of the last job, or of a borrowing without any; the end of
a borrowing; or the Unix time of the last activity, which is asked for when the idle limit is over."""

Health = Sequence[str] | Callable[[AsyncLease], Awaitable[bool]]
"""What an idle machine is asked every so often: a command that exits with 0 if it is well, or a
function that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """What a pool is asked for.

    Attributes:
        wish: what each of its machines is asked for with. share: what makes it part of the pool.
        queue: how many may wait for a machine. wait: seconds that each of them may.

    Raises:
        InvalidValue: one of them makes no sense.
    """

    wish: Wish
    share: PoolShare
    rules: PoolRules
    keep_warm: KeepWarm
    queue: int = 100
    wait: float = 600.0
    service: Service | None = None
    health: Health | None = None
    activity: Activity = "jobs"

    def __post_init__(self) -> None:
        if not self.share.name.strip():
            raise InvalidValue("name", self.share.name, "must be a non-empty name")
        if not is_a(self.queue, int) or self.queue < 0:
            raise InvalidValue("queue", self.queue, "must be a whole number, 0 or more")
        if not is_a(self.wait, int, float) or not self.wait > 0:
            raise InvalidValue("wait", self.wait, "must be a number of seconds above 0")
        if not callable(self.keep_warm):
            raise InvalidValue("keep_warm", self.keep_warm, "must be a rule, such as fixed(300)")
        if self.service is not None:
            # Imported here: most pools need none of it.
            from gpubroker.model.services import Service

            if not is_a(self.service, Service):
                raise InvalidValue("service", self.service, "must be a Service")
        if not callable(self.activity) and self.activity not in ("jobs", "use"):
            raise InvalidValue.unknown("activity", self.activity, ("jobs", "use"))
