"""``gpubroker attach``: go on with a job whose broker has died, and deliver its result."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.ending import Ending
from gpubroker.cli.failures import BROKER_FAILED, TIMED_OUT
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.ledger import opened
from gpubroker.cli.neutralise import Neutraliser
from gpubroker.cli.proof import prove
from gpubroker.cli.screen import say, show_json
from gpubroker.cli.sink import Sink
from gpubroker.model.durations import parse_seconds
from gpubroker.model.events import Event, EventKind
from gpubroker.model.leases import JobRow, ReleaseState
from gpubroker.model.results import JobState, Result
from gpubroker.settings import Settings
from gpubroker.transport.job_io import Stream

_TOLD = (EventKind.FOUND, EventKind.ALARM, EventKind.RUNNING, EventKind.RELEASING)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A job whose end is on record, and what the record says of its delivery."""

    job: JobRow
    said: str


def attach(settings: Settings, name: str | None, *, proof_wait: str, as_json: bool) -> int:
    """Attach; returns the job's exit code, 124 or 125 as `run` does."""
    within = parse_seconds("proof-wait", proof_wait)
    ended = None if name is None else _ended(settings, name)
    if ended is not None:
        return _tell_again(ended, as_json=as_json)
    output, messages = Sink(2 if as_json else 1), Sink(2)
    ending, began = Ending(within, settings), time.monotonic()
    try:
        ending.result, ending.releases = anyio.run(_work, settings, name, within, output, messages)
    except Stopped as stopped:
        say(f"{stopped}; the release request is on record, and `gpubroker reap` goes on")
        return stopped.code
    output.finish()
    messages.finish()
    ending.leases = [ending.result.lease_id]
    for line in (*ending.result_lines(), *ending.lines(time.monotonic() - began)):
        say(line)
    if as_json:
        show_json(ending.as_data())
    return ending.code


async def _work(
    settings: Settings, name: str | None, within: float, output: Sink, messages: Sink
) -> tuple[Result, dict[str, ReleaseState]]:
    sinks: dict[Stream, tuple[Sink, Neutraliser | None]] = {
        "stdout": (output, Neutraliser() if output.terminal else None),
        "stderr": (messages, Neutraliser() if messages.terminal else None),
    }

    async def on_output(stream: Stream, data: bytes) -> None:
        sink, neutraliser = sinks[stream]
        sink.put(data if neutraliser is None else neutraliser.feed(data))
        await sink.drain()

    def tell(event: Event) -> None:
        if event.kind in _TOLD:
            say(f"{event.kind}: {event.text}")

    async def work() -> tuple[Result, dict[str, ReleaseState]]:
        async with AsyncBroker(settings=settings, on_event=tell, close_wait=1.0) as broker:
            result = await broker.attach(name, on_output=on_output)
            for sink, neutraliser in sinks.values():
                if neutraliser is not None:
                    sink.put(neutraliser.finish())
            proof: dict[str, ReleaseState] = {}
            with anyio.CancelScope(shield=True):
                proof |= await prove(broker, [result.lease_id], within=within)
            return result, proof

    return await Stop().watch(work)


def _ended(settings: Settings, name: str) -> _Ended | None:
    """The job that is meant, if somebody has delivered it already."""
    with opened(settings) as ledger:
        job = ledger.job(name) or next(iter(ledger.jobs(name)), None)
        if job is None or job.ended_at is None:
            return None
        events = ledger.events(job.lease_id)
    said = [event.detail for event in events if event.kind == "delivered"]
    return _Ended(job, said[-1] if said else f"{job.id} has ended: {job.state}")


def _tell_again(ended: _Ended, *, as_json: bool) -> int:
    say(ended.said)
    if as_json:
        job = ended.job
        show_json({"job_id": job.id, "state": job.state, "exit_code": job.exit_code})
    if ended.job.state == JobState.TIMED_OUT:
        return TIMED_OUT
    return BROKER_FAILED if ended.job.exit_code is None else ended.job.exit_code
