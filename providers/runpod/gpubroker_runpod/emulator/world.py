"""Everything one emulator knows."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gpubroker import InvalidValue, Money
from gpubroker.testing.emulation import (
    Books,
    FaultSchedule,
    LifeTasks,
    RateWindow,
    RateWindows,
    Span,
    afflict,
    sum_of,
)
from gpubroker_runpod.emulator.lives import Lives
from gpubroker_runpod.emulator.market import Market
from gpubroker_runpod.emulator.pod_faults import POD_FAULTS
from gpubroker_runpod.emulator.pods import Pod, pod_row
from gpubroker_runpod.emulator.scenarios import Behaviour

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(slots=True)
class World:
    """The account, the market, the pods, and what they cost.

    Attributes:
        url: where the API is.
        key: the account key. read_only: another one, which changes nothing.
        revoked: how a revoked key is refused: a status, or ``None``.
        ssh_keys: of the account.
        leaks: what of a secret came where it must not.
        machine_faults: faults that the next pods get.
    """

    url: str
    key: str = field(repr=False)
    read_only: str = field(repr=False)
    behaviour: Behaviour
    market: Market
    books: Books
    lives: Lives
    chance: random.Random
    machine_faults: FaultSchedule
    limits: RateWindows
    revoked: int | None = None
    ssh_keys: list[str] = field(default_factory=list[str])
    leaks: list[str] = field(default_factory=list[str])

    @property
    def tasks(self) -> LifeTasks:
        """What pods go through."""
        return self.lives.tasks

    def credit(self) -> Money:
        """USD left in the account."""
        return Money(str(self.behaviour.credit)) - self.books.total(time.time())

    def fresh_id(self) -> str:
        """The id of a new pod."""
        return "".join(self.chance.choice(_LETTERS) for _ in range(14))

    def found(self, word: str, now: float) -> Pod | None:
        """A pod by its id, as far as readings show it."""
        pod = self.lives.pods.get(word)
        return pod if pod is not None and pod.found_at(now) else None

    def owned(self, word: str) -> Pod | None:
        """A pod by its id, shown or not, unless it was deleted."""
        pod = self.lives.pods.get(word)
        return pod if pod is not None and pod.destroyed_at is None else None

    def listed(self, now: float, *, clusters: bool = False) -> list[Pod]:
        """The pods on the list at a moment, the newest first."""
        pods = reversed(self.lives.pods.values())
        return [p for p in pods if p.listed_at(now) and (clusters or p.cluster is None)]

    def machines(self, now: float) -> Sequence[dict[str, Any]]:
        """Every pod that there ever was."""
        pods = self.lives.pods.values()
        return [pod_row(pod, now) | {"destroyed_at": pod.destroyed_at} for pod in pods]

    def afflict(self, machine: str, fault: str, options: dict[str, Any]) -> None:
        """Let a fault happen to a pod.

        Raises:
            InvalidValue: there is no such pod or fault.
        """
        pod = self.lives.pods.get(machine)
        if pod is None:
            raise InvalidValue("pod", machine, "there is no such pod")
        afflict(POD_FAULTS, self, pod, fault, options)

    def amounts(self, pod: str, since: float, until: float) -> dict[str, Decimal]:
        """What the billing history shows of a pod between two moments: for cards, and for disks."""
        digits = self.behaviour.charge_digits
        start, end = round(since * 1e6), round(until * 1e6)

        def amount(spans: list[Span]) -> Decimal:
            exact = sum_of(spans, start, end)
            return Decimal(round(exact * 10**digits)).scaleb(-digits)

        spans = self.books.of(pod)
        cards = [span for span in spans if span.item == "gpu"]
        return {
            "gpuAmount": amount(cards),
            "diskAmount": amount([span for span in spans if span.item != "gpu"]),
        }

    def billed(self, machine: str) -> Money:
        """What the billing history of a pod comes to, once it has settled.

        Taken as one bucket: where its life spans several, each of them is rounded by itself.
        """
        return Money(sum(self.amounts(machine, 0.0, time.time()).values(), Decimal(0)))

    async def close(self) -> None:
        """End every pod."""
        await self.lives.close()


def windows(behaviour: Behaviour) -> tuple[RateWindow, ...]:
    """The windows that requests are counted in; none for an account that is exempt."""
    if behaviour.exempt:
        return ()
    return (
        RateWindow("minute", behaviour.minute, 60),
        RateWindow("hour", behaviour.hour, 3_600),
        RateWindow("day", behaviour.day, 86_400),
    )
