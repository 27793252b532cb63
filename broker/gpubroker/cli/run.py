"""``gpubroker run``: one job on one machine, from the first question to the proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self, cast

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.ending import Ending
from gpubroker.cli.failures import told
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.narration import Narration
from gpubroker.cli.neutralise import Neutraliser
from gpubroker.cli.progress import Progress
from gpubroker.cli.proof import prove
from gpubroker.cli.screen import show_json
from gpubroker.cli.sink import Sink
from gpubroker.errors import BrokerError
from gpubroker.model.durations import parse_seconds
from gpubroker.model.events import Event
from gpubroker.model.jobs import Job
from gpubroker.model.leases import OnOwnerDeath
from gpubroker.model.money import Money, parse_money
from gpubroker.model.requirements import Requirements
from gpubroker.policy.policy import Policy
from gpubroker.settings import Settings
from gpubroker.transport.job_io import Stream

#: Seconds that the result may be kept waiting for the destroy to be acknowledged; the proof, which
#: takes longer, is waited for when the result has been shown.
_RESULT_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the options of ``run`` ask for; times in seconds."""

    wanted: tuple[Requirements, ...]
    policy: Policy
    job: Job
    budget: Money | None
    lifetime: float | None
    proof_wait: float
    on_owner_death: OnOwnerDeath

    @classmethod
    def of(
        cls,
        wanted: tuple[Requirements, ...],
        policy: Policy,
        job: Job,
        budget: str | None,
        lifetime: str | None,
        proof_wait: str,
        on_owner_death: str,
    ) -> Self:
        """From the options' text.

        Raises:
            InvalidValue: naming the option.
        """
        return cls(
            wanted=wanted,
            policy=policy,
            job=job,
            budget=None if budget is None else parse_money("budget", budget),
            lifetime=None if lifetime is None else parse_seconds("lifetime", lifetime),
            proof_wait=parse_seconds("proof-wait", proof_wait),
            on_owner_death=cast("OnOwnerDeath", on_owner_death),  # checked by the broker
        )


def run(settings: Settings, asked: Asked, *, quiet: bool, as_json: bool) -> int:
    """Do what is asked; returns the exit code."""
    messages = Sink(2)
    output = messages if as_json else Sink(1)
    ending = Running(settings, asked, Progress(messages, quiet=quiet), output, messages).carry_out()
    if as_json:
        show_json(ending.as_data())
    return ending.code


class Director(Protocol):
    """Somebody who looks on, and may meddle with what the machines do."""

    def tell(self, event: Event, /) -> None:
        """Called with each event, before it is shown."""
        ...

    async def beside(self, broker: Callable[[], AsyncBroker | None], /) -> None:
        """Goes on beside the run, and is cancelled at its end. `broker` is the open one."""
        ...


class Running:
    """One run under way."""

    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        progress: Progress,
        output: Sink,
        messages: Sink,
        director: Director | None = None,
    ) -> None:
        self._settings = settings
        self._asked = asked
        self._progress = progress
        self._output = output
        self._messages = messages
        self._director = director
        self._narration = Narration(progress)
        self._streams: dict[Stream, tuple[Sink, Neutraliser | None]] = {
            "stdout": (output, Neutraliser() if output.terminal else None),
            "stderr": (messages, Neutraliser() if messages.terminal else None),
        }
        self._stop = Stop(self._ask_for_release)
        self._ending = Ending(asked.proof_wait, settings)
        self._broker: AsyncBroker | None = None

    def carry_out(self) -> Ending:
        """Run it to its end, whatever end that is, and say what that was."""
        progress = self._progress
        ending = anyio.run(self._main)
        progress.end()
        for line in ending.lines(progress.elapsed):
            (progress.line if ending.well else progress.wrong)(line)
        if ending.stopped is None:
            self._output.finish()
            self._messages.finish()
        return ending

    async def _main(self) -> Ending:
        try:
            await self._stop.watch(self._work, beside=self._beside)
        except Stopped as stopped:
            self._ending.stopped = stopped
        except (BrokerError, OSError) as problem:
            self._ending.problem = self._ending.problem or problem
            self._tell(problem)
        self._ending.leases = self._narration.leases
        return self._ending

    async def _beside(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._progress.keep_up, self._read_cost)
            if self._director is not None:
                tasks.start_soon(self._director.beside, lambda: self._broker)

    async def _work(self) -> None:
        asked = self._asked
        self._progress.step("opening the providers")
        async with AsyncBroker(
            settings=self._settings,
            on_event=self._on_event,
            release_wait=min(asked.proof_wait, _RESULT_WAIT),
            close_wait=1.0,
        ) as broker:
            self._broker = broker
            try:
                self._ending.result = await broker.run(
                    asked.job,
                    asked.wanted,
                    policy=asked.policy,
                    budget=asked.budget,
                    lifetime=asked.lifetime,
                    on_owner_death=asked.on_owner_death,
                    on_output=self._on_output,
                )
                await self._flush()
                for line in self._ending.result_lines():
                    self._progress.line(line)
            except (BrokerError, OSError) as problem:
                await self._flush()
                self._ending.problem = problem
                self._tell(problem)
            finally:
                await self._prove(broker)
                self._broker = None

    async def _prove(self, broker: AsyncBroker) -> None:
        """Wait until everything that was rented is proven gone; a first Ctrl-C does not end it."""
        with anyio.CancelScope(shield=True):
            self._ending.releases = await prove(
                broker, self._narration.leases, within=self._asked.proof_wait
            )

    def _tell(self, problem: BrokerError | OSError) -> None:
        for line in told(problem):
            self._progress.wrong(line)

    # ---- while it goes on -----------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if self._director is not None:
            self._director.tell(event)
        self._narration.tell(event)

    async def _on_output(self, stream: Stream, data: bytes) -> None:
        sink, neutraliser = self._streams[stream]
        await self._show(sink, data if neutraliser is None else neutraliser.feed(data))
        if sink.problem is not None:
            gone = isinstance(sink.problem, BrokenPipeError)
            why = f"{stream} cannot be written: {sink.problem.strerror}"
            await self._stop.now(128 + 13 if gone else 125, why)

    async def _flush(self) -> None:
        for sink, neutraliser in self._streams.values():
            if neutraliser is not None:
                await self._show(sink, neutraliser.finish())

    async def _show(self, sink: Sink, data: bytes) -> None:
        if sink.terminal and data:
            self._progress.make_way(data)
        sink.put(data)
        await sink.drain()

    async def _ask_for_release(self, why: str) -> None:
        """Put the release on record, before anything else can happen."""
        if self._broker is None or not self._narration.leases:
            self._progress.line(f"{why}; nothing is rented")
            return
        with anyio.move_on_after(1.0):
            for lease_id in self._narration.leases:
                try:
                    await self._broker.release(lease_id, reason=why)
                except BrokerError as problem:
                    self._tell(problem)
        self._progress.line(
            f"{why}: releasing the machine; press Ctrl-C again to leave at once"
            " (the release request is on record)"
        )

    async def _read_cost(self) -> Money | None:
        if self._broker is None:
            return None
        return await self._narration.cost(self._broker)
