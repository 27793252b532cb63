"""Who wanted which job done, and what has become of it, as its caller has it."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

from gpubroker.errors import BrokerError, LeaseReleased, MachineLost, StaleOwner
from gpubroker.model.results import Result
from gpubroker.testing.simulation.world import Process


@dataclass(slots=True)
class Call:
    """One job that somebody wants done.

    Attributes:
        number: by which the job that a machine is given is known as this one.
        borrowing: which borrowing of a machine it is part of; ``None`` where it is of none.
        results: ids of the jobs whose results its caller has got.
        error: what it got instead. left: it was cancelled before it got anything.
        unknown: that is no error which callers of a pool are told to expect.
    """

    number: int
    process: Process
    borrowing: int | None
    results: list[str] = field(default_factory=list[str])
    error: str = ""
    left: bool = False
    unknown: bool = False

    async def answered(self, work: Awaitable[Result]) -> Result:
        """The result of the job, noted."""
        try:
            result = await work
        except MachineLost as lost:
            self.results.append(lost.result.job_id)
            self.error = str(lost)
            raise
        except BrokerError as error:
            self.error = f"{type(error).__name__}: {error}"
            self.unknown = self.borrowing is None and isinstance(error, (LeaseReleased, StaleOwner))
            raise
        except BaseException:
            self.left = True
            raise
        self.results.append(result.job_id)
        return result
