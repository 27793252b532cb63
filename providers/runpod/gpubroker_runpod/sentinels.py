"""What the lines of a pod's log mean, where the pod runs its jobs by itself.

Between the lines ``GPUBROKER-LOG <nonce> start <purpose>`` and ``… end <purpose> <how>`` stands
what a job printed. The container prints a newline before each line of its own, since what a job
prints last may have none; so the newline before such a line is never the job's.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from gpubroker import JobState, Outcome

_OWN: Final = re.compile(
    r"GPUBROKER-LOG ([A-Za-z0-9_-]{8,128}) "
    r"(?:(begin|again|broken)|start (probe|setup|job)|end (probe|setup|job) ([a-z-]+)(?: (.*))?)",
    re.DOTALL,
)
_REASON: Final = 300
#: Bytes of output that are held while nobody can tell whose they are.
_HELD: Final = 8 << 20

AGAIN: Final = "its container was started again while it ran, so that nobody knows how it ended"
BROKEN: Final = "what ran the jobs in its container was killed"
NOT_RUN: Final = "what came before it failed, so that it was not run"


@dataclass
class PodLog:
    """How far the log of one pod has been read, and what it said.

    Attributes:
        nonce: stands in the lines that count; ``None`` until the first of them is taken at its
            word.
        endings: what became of each job that has ended.
        starts: of which jobs the first line of output was seen.
        lost: why nothing more will come of the jobs that have not ended.
    """

    nonce: str | None = None
    endings: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    starts: set[str] = field(default_factory=set[str])
    lost: str = ""
    _begun: bool = False
    _within: str | None = None
    _joined: bool = False
    _held: deque[bytes] | None = field(default_factory=deque[bytes])
    _held_size: int = 0

    def take(self, line: str, purpose: str) -> bytes:
        """Read the next line; gives what it adds to the output of the job for `purpose`."""
        said = _OWN.fullmatch(line)
        if said is not None and self.nonce in (None, said[1]):
            self.nonce = said[1]
            return self._own(said, purpose)
        if self._held is None and self._within != purpose:  # another job's, or nobody's
            return b""
        data = (b"\n" if self._joined else b"") + line.encode("utf-8", "replace")
        self._joined = True
        return data if self._held is None else self._hold(self._held, data)

    def _hold(self, held: deque[bytes], data: bytes) -> bytes:
        """Keep what stands before anything of our own: which job it is of will be said."""
        held.append(data)
        self._held_size += len(data)
        while self._held_size > _HELD:
            self._held_size -= len(held.popleft())
        return b""

    def _own(self, said: re.Match[str], purpose: str) -> bytes:
        sign, started, ended, how, detail = said[2], said[3], said[4], said[5], said[6] or ""
        held, self._held, self._joined = self._held, None, False
        if sign is not None:
            again = sign != "broken" and (sign == "again" or self._begun)
            self._begun = True
            if again or sign == "broken":
                self.lost = self.lost or (AGAIN if again else BROKEN)
        elif started is not None:
            self._within = started
            self.starts.add(started)
        else:
            self._within = None
            self.endings.setdefault(ended, _ending(how, detail))
            if held and ended == purpose:
                return b"".join(held)
        return b""


def _ending(how: str, detail: str) -> Outcome:
    if how == "exited" and re.fullmatch(r"\d{1,3}", detail) and int(detail) < 256:
        return Outcome(state=JobState.EXITED, exit_code=int(detail))
    if how == "timed-out":
        return Outcome(state=JobState.TIMED_OUT)
    if how == "not-started":
        return Outcome(state=JobState.NOT_STARTED, message=_shown(detail))
    if how == "not-run":
        return Outcome(state=JobState.NOT_STARTED, message=NOT_RUN)
    return Outcome(state=JobState.LOST, message="the container does not say how it ended")


def _shown(detail: str) -> str:
    """A sentence of ours in which there may be a name of the caller's."""
    return "".join(c if c.isprintable() else " " for c in detail[:_REASON]).strip()
