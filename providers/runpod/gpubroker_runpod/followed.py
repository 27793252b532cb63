"""One pod that runs jobs by itself: how far its log was read, and how long its container has run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gpubroker import PlannedJob
from gpubroker.rest import Row, ServerEvent, rows
from gpubroker_runpod.sentinels import PodLog

#: Lines that are known again: more than a stream ever repeats.
_SEEN: Final = 10_000
#: Seconds that two answers may differ by in telling the same moment.
_SAME: Final = 2.0


@dataclass
class FollowedPod:
    """What is known of one pod.

    Attributes:
        plan: the jobs of its order; empty where another process ordered it.
        asked: how many of them were asked for.
        last_id: id of the last line that was read. seen: hashes of the last ids and lines.
        unread: lines that could not be read.
        started, uptime: when its container was started (Unix time), and seconds it has run for.
        restarted: one of the two went the wrong way.
    """

    id: str
    log: PodLog
    plan: tuple[PlannedJob, ...] = ()
    asked: int = 0
    last_id: str | None = None
    seen: dict[int, None] = field(default_factory=dict[int, None])
    unread: int = 0
    started: float | None = None
    uptime: float = 0.0
    restarted: bool = False

    def reread(self) -> None:
        """Begin at the beginning, as far as the log still has it."""
        self.log = PodLog(self.log.nonce)
        self.last_id, self.unread = None, 0
        self.seen.clear()

    def is_new(self, event: ServerEvent) -> bool:
        """Whether a line was not read before; a stream that is resumed may repeat some."""
        if event.id is None:
            return True
        self.last_id = event.id
        key = hash((event.id, event.data))
        if key in self.seen:
            return False
        self.seen[key] = None
        if len(self.seen) > _SEEN:
            del self.seen[next(iter(self.seen))]
        return True

    def observe(self, row: Row) -> None:
        """Compare what the vendor says of its container with what it said before."""
        started = rows.moment(row, "startedAt")
        up = rows.number(rows.table(row.get("runtime")) or {}, "uptime")
        if started is not None:
            if self.started is not None and started - self.started > _SAME:
                self.restarted = True
            self.started = self.started or started
        # Nothing, or none yet, is no time to compare with.
        if up:
            self.restarted = self.restarted or up < self.uptime
            self.uptime = up
