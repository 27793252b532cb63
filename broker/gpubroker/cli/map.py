"""``gpubroker map``: one job for each line of a file, on a few machines, to go on after a crash."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.failures import result_as_data
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.narration import Narration
from gpubroker.cli.progress import Progress
from gpubroker.cli.proof import all_proven, prove
from gpubroker.cli.screen import show_json
from gpubroker.cli.sink import Sink
from gpubroker.errors import InvalidValue
from gpubroker.model.durations import parse_seconds
from gpubroker.model.jobs import Job
from gpubroker.model.leases import ReleaseState
from gpubroker.model.money import Money, parse_money
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import Result
from gpubroker.policy.budget import Limits
from gpubroker.policy.policy import Policy
from gpubroker.settings import Settings

#: What the program exits with where every item has a result, and not every one is well.
_SOME_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the options of ``map`` ask for.

    Attributes:
        total: USD that all of it may cost.
    """

    wanted: tuple[Requirements, ...]
    policy: Policy
    job: Job
    inputs: list[str]
    name: str
    machines: int
    per_machine: int
    again: int
    total: Money | None
    proof_wait: float


def batch(
    wanted: tuple[Requirements, ...],
    policy: Policy,
    job: Job,
    *,
    inputs: str,
    name: str,
    machines: int,
    per_machine: int,
    again: int,
    budget: str | None,
    proof_wait: str,
) -> Batch:
    """From the options' text.

    Raises:
        InvalidValue: naming the option.
        OSError: the inputs cannot be read.
    """
    return Batch(
        wanted=wanted,
        policy=policy,
        job=job,
        inputs=read_inputs(inputs),
        name=name,
        machines=machines,
        per_machine=per_machine,
        again=again,
        total=None if budget is None else parse_money("budget", budget),
        proof_wait=parse_seconds("proof-wait", proof_wait),
    )


def read_inputs(place: str) -> list[str]:
    """The inputs of a file, one for each line; of a ``.jsonl``, texts as themselves, the rest as JSON.

    Args:
        place: the file; ``-`` is standard input.
    """
    text = sys.stdin.read() if place == "-" else Path(place).read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    if not place.endswith(".jsonl"):
        return lines
    try:
        values = [json.loads(line) for line in lines]
    except ValueError as problem:
        raise InvalidValue("inputs", place, f"has a line that is no JSON: {problem}") from problem
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def map_inputs(settings: Settings, asked: Batch, *, quiet: bool, as_json: bool) -> int:
    """Do what is asked; returns the exit code."""
    progress = Progress(Sink(2), quiet=quiet)
    done: dict[int, Result] = {}
    try:
        proven, cost = anyio.run(_work, settings, asked, progress, done)
    except Stopped as stopped:
        progress.end()
        progress.wrong(f"{stopped}; {len(done)} of {len(asked.inputs)} are done")
        return stopped.code
    finally:
        if as_json:
            show_json(_as_data(asked.inputs, done))
    progress.end()
    failed = [index for index, result in done.items() if not result.ok]
    bill = "; nothing was rented" if cost is None else f", {cost}"
    gone = "; released and proven gone" if proven and cost is not None else ""
    progress.line(f"{len(done) - len(failed)} of {len(asked.inputs)} succeeded{bill}{gone}")
    if not proven:
        progress.wrong("not every machine is proven gone; `gpubroker reap` goes on")
        return 125
    return _SOME_FAILED if failed else 0


async def _work(
    settings: Settings, asked: Batch, progress: Progress, done: dict[int, Result]
) -> tuple[bool, Money | None]:
    """Run the batch; whether all that was rented is proven gone, and what it has cost, if any was."""
    narration = Narration(progress)
    proof: dict[str, ReleaseState] = {}

    async def work() -> tuple[bool, Money | None]:
        async with AsyncBroker(
            settings=settings, on_event=narration.tell, close_wait=1.0
        ) as broker:
            try:
                async for index, result in broker.map(
                    asked.job,
                    asked.inputs,
                    asked.wanted,
                    name=asked.name,
                    machines=asked.machines,
                    jobs_per_machine=asked.per_machine,
                    retries=asked.again,
                    policy=asked.policy,
                    budget=None if asked.total is None else Limits(total=asked.total),
                    tags=asked.job.tags,
                    secrets=bool(asked.job.secrets),
                ):
                    done[index] = result
                    _tell(progress, asked.inputs[index], result)
            finally:
                with anyio.CancelScope(shield=True):
                    proof.update(await prove(broker, narration.leases, within=asked.proof_wait))
            cost = await narration.cost(broker) if narration.leases else None
            return all_proven(proof), cost

    return await Stop().watch(work)


def _tell(progress: Progress, given: str, result: Result) -> None:
    shown = given if len(given) <= 60 else given[:59] + "…"
    if result.ok:
        progress.line(f"{shown}: done for {result.cost}, {len(result.files)} files")
    else:
        progress.wrong(f"{shown}: {result.failure}")


def _as_data(inputs: Sequence[str], done: dict[int, Result]) -> object:
    """Every input in order, with its result where there is one."""
    return [
        {
            "index": index,
            "input": given,
            "result": result_as_data(done[index]) if index in done else None,
        }
        for index, given in enumerate(inputs)
    ]
