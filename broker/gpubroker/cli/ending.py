"""How a run ended: its last lines, its JSON, its exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gpubroker.cli.durations import shown
from gpubroker.cli.failures import BAD_USAGE, BROKER_FAILED, TIMED_OUT, described, result_as_data
from gpubroker.cli.interrupts import Stopped
from gpubroker.cli.ledger import opened
from gpubroker.cli.proof import all_proven
from gpubroker.errors import BrokerError, InvalidValue
from gpubroker.model.leases import LeaseRow, LeaseState, ReleaseState
from gpubroker.model.money import ZERO, Money
from gpubroker.model.results import JobState, Result
from gpubroker.policy.pricing import spent
from gpubroker.settings import Settings

_FILES_SHOWN: Final = 10


@dataclass(slots=True)
class Ending:
    """What there is to say once a run is over.

    Attributes:
        result: what became of the job, if it got that far.
        problem: why the broker failed, if it did.
        stopped: who stopped it, if somebody did.
        leases: every lease that was made for it. releases: how far giving each up has come.
    """

    proof_wait: float
    settings: Settings
    result: Result | None = None
    problem: BrokerError | OSError | None = None
    stopped: Stopped | None = None
    leases: Sequence[str] = ()
    releases: dict[str, ReleaseState] = field(default_factory=dict[str, ReleaseState])

    @property
    def proven(self) -> bool:
        """Whether everything that was rented is proven gone."""
        return all_proven(self.releases) and set(self.releases) == set(self.leases)

    @property
    def well(self) -> bool:
        """Whether nothing needs anybody's attention."""
        return self.proven and self.problem is None

    @property
    def code(self) -> int:
        """The exit code."""
        if self.stopped is not None:
            return self.stopped.code
        if isinstance(self.problem, InvalidValue):
            return BAD_USAGE
        result = self.result
        if not self.proven or self.problem is not None or result is None:
            return BROKER_FAILED
        if result.state is JobState.TIMED_OUT:
            return TIMED_OUT
        if result.exit_code is None or (result.missing and result.exit_code == 0):
            return BROKER_FAILED
        return result.exit_code

    def result_lines(self) -> Iterator[str]:
        """What the job brought back, and what it did not."""
        result = self.result
        if result is None:
            return
        files = list(result.files.values())
        for file in files[:_FILES_SHOWN]:
            yield f"brought back {file.path} ({_size(file.size)})"
        if len(files) > _FILES_SHOWN:
            yield f"brought back {len(files) - _FILES_SHOWN} more files"
        if result.dropped:
            yield f"{_size(result.dropped)} of output were beyond the limit and dropped"

    def lines(self, elapsed: float) -> Iterator[str]:
        """The last line: machine, time, cost, and whether it is gone."""
        rows = self._rows()
        if not self.leases:
            return
        what = " and ".join(dict.fromkeys(f"{r.title} from {r.provider}" for r in rows))
        so_far = "" if self.proven else " so far"
        made = [row for row in rows if row.state is not LeaseState.REFUSED]
        gone = self._gone() if made or not rows else "nothing was rented"
        yield f"{what or 'machine'}, {shown(elapsed)}, {self.cost(rows)}{so_far}; {gone}"

    def _gone(self) -> str:
        if self.proven:
            return "released and proven gone"
        left = {i: s for i in self.leases if (s := self._state(i)) is not ReleaseState.PROVEN}
        named = ", ".join(f"{lease_id} ({state})" for lease_id, state in left.items())
        return (
            f"NOT proven gone after {shown(self.proof_wait)}: {named}."
            " It may still cost money; run `gpubroker reap`"
        )

    def _state(self, lease_id: str) -> ReleaseState:
        return self.releases.get(lease_id, ReleaseState.REQUESTED)

    def _rows(self) -> list[LeaseRow]:
        try:
            with opened(self.settings) as ledger:
                found = [ledger.lease(lease_id) for lease_id in self.leases]
        except BrokerError:
            return []
        return [row for row in found if row is not None]

    def cost(self, rows: Sequence[LeaseRow]) -> Money:
        """USD for all of these leases: settled where they are over, else so far."""
        now = time.time()
        costs = (spent(r, now) if r.state.open else r.spent for r in rows)
        return sum(costs, ZERO)

    def as_data(self) -> Any:
        """The result, or the error, as plain data."""
        if self.problem is not None:
            return {"error": described(self.problem) | self._leases_as_data()}
        if self.result is None:
            why = "" if self.stopped is None else str(self.stopped)
            return {"error": {"type": "Stopped", "message": why} | self._leases_as_data()}
        rows = [row for row in self._rows() if row.id == self.result.lease_id]
        final = replace(
            self.result,
            release=self._state(self.result.lease_id),
            cost=self.cost(rows) if rows else self.result.cost,
        )
        return result_as_data(final)

    def _leases_as_data(self) -> dict[str, Any]:
        return {"leases": {lease_id: str(self._state(lease_id)) for lease_id in self.leases}}


def _size(size: int) -> str:
    number, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
