"""How far a workflow has come."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Stage(enum.StrEnum):
    """What is being done."""

    UPLOADING = "uploading"
    QUEUED = "queued"
    RUNNING = "running"
    FETCHING = "fetching"


@dataclass(frozen=True, slots=True)
class Progress:
    """A change of stage, or of the place in the queue.

    Attributes:
        stage: what is being done.
        ahead: other workflows that come first, while it is queued.
    """

    stage: Stage
    ahead: int = 0

    def __str__(self) -> str:
        return f"{self.stage}, {self.ahead} ahead" if self.ahead else str(self.stage)


ProgressCallback = Callable[[Progress], None]
