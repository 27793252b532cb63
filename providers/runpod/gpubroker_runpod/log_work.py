"""Work whose only way back is the log of its pod: jobs that the pod runs by itself."""

from __future__ import annotations

import enum
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Protocol

import anyio

from gpubroker import (
    ErrorKind,
    Job,
    JobIO,
    JobState,
    Machine,
    Outcome,
    PlannedJob,
    ProviderError,
    Scope,
)
from gpubroker.rest import Row, ServerEvent, rows
from gpubroker_runpod.followed import FollowedPod
from gpubroker_runpod.sentinels import AGAIN, PodLog

TAIL: Final = 5000
"""Lines from before now that a log is asked for; more cannot be had."""

GONE: Final = "the pod is gone, and its log with it"
CUT: Final = "the beginning of its output was not in the log any more"

_IDLE: Final = 20.0
_LONGEST_IDLE: Final = 90.0
_SETTLED: Final = 1.5
_SNAPSHOT: Final = 8 << 20
_LONGEST_PAUSE: Final = 15.0
#: Refusals in a row, of a pod that is there, after which its log will not be had.
_REFUSALS: Final = 5
_MOST_PODS: Final = 1000


class Unreadable(enum.Enum):
    """Where a line should be, and is none."""

    LINE = "line"


UNREADABLE: Final = Unreadable.LINE


class LogEvents(Protocol):
    """An open stream of a log's lines."""

    def __aiter__(self) -> AsyncIterator[ServerEvent]: ...

    @property
    def ended(self) -> str | None:
        """Why the iteration ended: ``"quiet"`` where everything there is was read."""
        ...


class LogSource(Protocol):
    """What is needed of the vendor's API. Everything raises `ProviderError` for no success."""

    def log_events(
        self, pod_id: str, *, tail: int, last_id: str | None, idle: float, source: str = "container"
    ) -> AbstractAsyncContextManager[LogEvents]:
        """The lines of a pod's log, as they come."""
        ...

    async def pod(self, pod_id: str) -> Row | None:
        """One pod; ``None`` if there is none with this id."""
        ...


async def snapshot(
    api: LogSource,
    pod_id: str,
    *,
    source: str = "container",
    until: str = "",
    idle: float = _SETTLED,
    patience: float = 8.0,
) -> str:
    """What a pod's log has now, as far as it can be had at once.

    Args:
        source: ``container`` or ``system``.
        until: read no further than a line that has this in it.
        idle: seconds of silence that are taken for the end, since the stream has none.
        patience: most seconds that it may take.

    Raises:
        ProviderError: the log cannot be had.
    """
    lines: list[str] = []
    size = 0
    with anyio.move_on_after(patience):
        async with api.log_events(
            pod_id, tail=TAIL, last_id=None, idle=idle, source=source
        ) as events:
            async for event in events:
                line = _line(event, source)
                if not isinstance(line, str):
                    continue
                lines.append(line)
                size += len(line)
                if size > _SNAPSHOT or (until and until in line):
                    break
    return "\n".join(lines)


class LogWork:
    """Reads out of logs what became of the jobs that pods run by themselves.

    Args:
        idle: seconds without a line after which the pod itself is looked at; more and more of
            them, while nothing changes.
        settled: seconds of silence after which what a log has now is all there.
        pause: seconds between the first tries of what fails.
    """

    def __init__(
        self,
        source: LogSource,
        *,
        idle: float = _IDLE,
        settled: float = _SETTLED,
        pause: float = 0.5,
        jitter: random.Random | None = None,
    ) -> None:
        self._source = source
        self._idle = idle
        self._settled = settled
        self._pause = pause
        self._jitter = jitter or random.Random()  # noqa: S311 - not for secrets
        self._pods: dict[str, FollowedPod] = {}

    def ordered(self, pod_id: str, nonce: str, jobs: Sequence[PlannedJob]) -> None:
        """A pod was made that runs `jobs` by itself."""
        self._pods[pod_id] = FollowedPod(pod_id, PodLog(nonce), tuple(jobs))
        if len(self._pods) > _MOST_PODS:
            del self._pods[next(iter(self._pods))]

    def forget(self, pod_id: str) -> None:
        """A pod was given up."""
        self._pods.pop(pod_id, None)

    async def log(self, pod_id: str) -> str:
        """What a pod's log has now; of one that runs jobs by itself, enough to see that it does.

        Raises:
            ProviderError: the log cannot be had.
        """
        pod = self._pods.get(pod_id)
        if pod is None or pod.log.nonce is None:
            return await snapshot(self._source, pod_id, idle=self._settled)
        nonce = pod.log.nonce
        text = await snapshot(self._source, pod_id, until=nonce, idle=self._settled)
        if nonce not in text and text.count("\n") + 1 >= TAIL:
            # Only our container prints to it, and it prints the nonce before anything else.
            return f"{nonce}: what it printed first is not in the log any more\n{text}"
        return text

    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        """Hand on what the pod printed for `job`, and what became of it.

        A log that cannot be read now is read later, for as long as it takes. Being cancelled
        ends the reading, and not the job.

        Raises:
            ProviderError: the pod does not run such a job, or has broken down.
        """
        pod = self._pods.get(machine.id)
        if pod is None:
            nonce = machine.details.get("nonce") or None
            pod = self._pods[machine.id] = FollowedPod(machine.id, PodLog(nonce))
        pod.started = pod.started or rows.moment(machine.details, "started")
        _check(pod, job, io.purpose)
        if io.purpose in pod.log.starts or io.purpose in pod.log.endings:
            pod.reread()  # what was read of it went to somebody else
        pod.unread = 0
        return await _Reading(self._source, pod, job, io, self._pause, self._jitter).outcome(
            self._idle
        )


class _Reading:
    """One job's output, on its way from the log to the caller."""

    def __init__(
        self,
        source: LogSource,
        pod: FollowedPod,
        job: Job,
        io: JobIO,
        pause: float,
        jitter: random.Random,
    ) -> None:
        self._source = source
        self._pod = pod
        self._job = job
        self._io = io
        self._pause = pause
        self._jitter = jitter
        self._written = 0
        self._dropped = 0

    async def outcome(self, shortest_idle: float) -> Outcome:
        """Follow the log until it says how the job ended, or the pod cannot say so any more."""
        failures, refusals, idle = 0, 0, shortest_idle
        while True:
            error: ProviderError | None = None
            quiet, before = False, self._pod.last_id
            try:
                async with self._source.log_events(
                    # Where the vendor does not know the id any more, what is repeated is skipped.
                    self._pod.id,
                    tail=TAIL,
                    last_id=before,
                    idle=idle,
                ) as events:
                    found = await self._follow(events)
                    if found is not None:
                        return found
                    quiet = events.ended == "quiet"
            except ProviderError as caught:
                error = caught
            news = self._pod.last_id != before
            failures = 0 if news or quiet else failures + 1
            found = await self._look(read_all=quiet, in_vain=failures > 1)
            if found is not None:
                return found
            idle = shortest_idle if news else min(idle * 1.5, max(_LONGEST_IDLE, shortest_idle))
            refused = error is not None and error.kind is ErrorKind.BAD_REQUEST
            refusals = refusals + 1 if refused else 0
            if error is not None and (error.kind is ErrorKind.AUTH or refusals >= _REFUSALS):
                raise error
            if not quiet:
                await anyio.sleep(self._delay(failures, error))

    async def _follow(self, events: LogEvents) -> Outcome | None:
        """Read on, until the stream ends or the log says what became of the job."""
        pod, purpose = self._pod, self._io.purpose
        async for event in events:
            if not pod.is_new(event):
                continue
            line = _line(event, "container")
            pod.unread += line is UNREADABLE
            if not isinstance(line, str):
                continue
            data = pod.log.take(line, purpose)
            if data:
                await self._hand_on(data)
            if purpose in pod.log.endings:
                return self._with_gaps(pod.log.endings[purpose])
            if pod.log.lost:
                return self._lost(pod.log.lost)
        return None

    async def _hand_on(self, data: bytes) -> None:
        """What is beyond the limit is counted, and goes no further."""
        kept = data[: max(0, self._job.output_limit - self._written)]
        self._dropped += len(data) - len(kept)
        self._written += len(kept)
        if kept:
            await self._io.output("stdout", kept)

    async def _look(self, *, read_all: bool, in_vain: bool) -> Outcome | None:
        """Ask the vendor whether there still is something to wait for.

        Args:
            read_all: the log had nothing more. Otherwise it may yet say how the job had ended
                before its container was started again.
            in_vain: the log could not be had, more than once in a row.
        """
        row = None
        for attempt in range(2):
            if attempt:
                await anyio.sleep(self._pause)
            try:
                row = await self._source.pod(self._pod.id)
            except ProviderError as error:
                if error.kind is ErrorKind.AUTH:
                    raise
                return None
            if row is not None and row.get("status") != "TERMINATED":
                break
        else:
            return self._lost(GONE)
        status = row.get("status")
        if status in ("EXITED", "ERROR") and (read_all or in_vain):
            raise ProviderError(
                f"pod {self._pod.id} is {status} while its job should run",
                kind=ErrorKind.HOST_BROKEN,
                scope=Scope.HOST,
            )
        self._pod.observe(row)
        return self._lost(AGAIN) if self._pod.restarted and read_all else None

    def _delay(self, failures: int, error: ProviderError | None) -> float:
        """Seconds until the next try: more and more, and never fewer than were asked for."""
        most = min(_LONGEST_PAUSE, self._pause * 2.0 ** min(failures, 10))
        asked = (error.retry_after if error is not None else None) or 0.0
        return max(self._jitter.uniform(most / 2, most), min(asked, 300.0))

    def _with_gaps(self, outcome: Outcome) -> Outcome:
        """An ending, with what is missing of the output before it."""
        remarks = [outcome.message] if outcome.message else []
        if outcome.state is not JobState.NOT_STARTED:
            if self._io.purpose not in self._pod.log.starts:
                remarks.append(CUT)
            if self._pod.unread:
                remarks.append(f"{self._pod.unread} lines of the log could not be read")
        return replace(outcome, message="; ".join(remarks), dropped=self._dropped)

    def _lost(self, why: str) -> Outcome:
        return Outcome(state=JobState.LOST, message=why, dropped=self._dropped)


def _check(pod: FollowedPod, job: Job, purpose: str) -> None:
    """Whether a pod runs this job, and whether it is its turn to be asked for."""
    if job.files or job.outputs or job.secrets:
        raise _unfit(f"pod {pod.id} is not reached over SSH: it takes no files and no secrets")
    if not pod.plan:
        return
    turns = {str(planned.purpose): turn for turn, planned in enumerate(pod.plan)}
    turn = turns.get(purpose)
    if turn is None or pod.plan[turn].argv != job.argv:
        raise _unfit(f"pod {pod.id} runs the jobs of its order, and no other {purpose}")
    if turn > pod.asked:
        raise _unfit(
            f"pod {pod.id} is asked for its {purpose} before {pod.plan[pod.asked].purpose}"
        )
    pod.asked = max(pod.asked, turn + 1)


def _line(event: ServerEvent, source: str) -> str | Unreadable | None:
    """The line that an event brings; ``None`` where it comes from somewhere else."""
    try:
        row = rows.table(json.loads(event.data))
    except (ValueError, RecursionError):
        return UNREADABLE
    line = None if row is None else row.get("line")
    if row is None or not isinstance(line, str):
        return UNREADABLE
    return line if row.get("source", source) == source else None


def _unfit(problem: str) -> ProviderError:
    return ProviderError(problem, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
