"""``gpubroker serve``: a server on a rented machine, reached here until Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.failures import BROKER_FAILED, report
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.narration import Narration
from gpubroker.cli.progress import Progress
from gpubroker.cli.proof import all_proven, prove
from gpubroker.cli.screen import show_json
from gpubroker.cli.sink import Sink
from gpubroker.errors import BrokerError
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.lifecycle.leasing.service import AsyncServer
from gpubroker.model.durations import parse_seconds
from gpubroker.model.money import ZERO, Money, parse_money
from gpubroker.model.requirements import Requirements
from gpubroker.model.services import Service
from gpubroker.policy.policy import Policy
from gpubroker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the options of ``serve`` ask for; times in seconds."""

    wanted: tuple[Requirements, ...]
    policy: Policy
    service: Service
    budget: Money | None
    lifetime: float | None
    proof_wait: float

    @classmethod
    def of(
        cls,
        wanted: tuple[Requirements, ...],
        policy: Policy,
        service: Service,
        budget: str | None,
        lifetime: str | None,
        proof_wait: str,
    ) -> Self:
        """From the options' text.

        Raises:
            InvalidValue: naming the option.
        """
        return cls(
            wanted=wanted,
            policy=policy,
            service=service,
            budget=None if budget is None else parse_money("budget", budget),
            lifetime=None if lifetime is None else parse_seconds("lifetime", lifetime),
            proof_wait=parse_seconds("proof-wait", proof_wait),
        )


def serve(settings: Settings, asked: Asked, *, quiet: bool, as_json: bool) -> int:
    """Serve until interrupted, or until it fails; returns the exit code."""
    progress = Progress(Sink(2), quiet=quiet)
    serving = _Serving(settings, asked, progress, as_json=as_json)
    code = BROKER_FAILED
    try:
        anyio.run(serving.main)
    except Stopped as stopped:
        progress.line(str(stopped))
        code = stopped.code
    except (BrokerError, OSError) as problem:
        code = report(problem, as_json=False)
    progress.end()
    if not serving.proven:
        progress.wrong("the machine is not proven gone; `gpubroker reap` goes on")
        return BROKER_FAILED
    progress.line(f"released and proven gone, {serving.cost}")
    return code


class _Serving:
    """One server under way.

    Attributes:
        proven: whether all that was rented is proven gone.
        cost: USD that it has cost.
    """

    def __init__(
        self, settings: Settings, asked: Asked, progress: Progress, *, as_json: bool
    ) -> None:
        self._settings = settings
        self._asked = asked
        self._progress = progress
        self._as_json = as_json
        self._lease: AsyncLease | None = None
        self.proven = True
        self.cost = ZERO

    async def main(self) -> None:
        """Serve until somebody stops it.

        Raises:
            Stopped: somebody has.
            BrokerError: there is no machine, or the server failed.
        """
        await Stop(self._ask_for_release).watch(self._work)

    async def _ask_for_release(self, why: str) -> None:
        """Put the release on record, before anything else can happen."""
        if self._lease is not None:
            self._lease.release(why)

    async def _work(self) -> None:
        asked, narration = self._asked, Narration(self._progress)
        async with AsyncBroker(
            settings=self._settings, on_event=narration.tell, close_wait=1.0
        ) as broker:
            try:
                async with (
                    broker.lease(
                        asked.wanted,
                        policy=asked.policy,
                        budget=asked.budget,
                        lifetime=asked.lifetime,
                    ) as self._lease,
                    self._lease.service(asked.service) as server,
                ):
                    self._show(self._lease, server)
                    raise await server.wait_failed()
            finally:
                with anyio.CancelScope(shield=True):
                    proof = await prove(broker, narration.leases, within=asked.proof_wait)
                    self.proven = all_proven(proof)
                    self.cost = await narration.cost(broker) or ZERO

    def _show(self, lease: AsyncLease, server: AsyncServer) -> None:
        if self._as_json:
            show_json({"url": server.url, "lease": lease.id, "provider": lease.provider})
        else:
            print(server.url, flush=True)
        self._progress.line(f"{lease.machine} from {lease.provider}; Ctrl-C ends all of it")
