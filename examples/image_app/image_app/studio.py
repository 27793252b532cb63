"""Pictures through a pool of rented machines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from zoneinfo import ZoneInfo

from gpubroker import Broker, Event, Money, Pool, fixed
from gpubroker.integrations.comfyui import ComfyUI, GenerationFailed, Image, Preset, Why
from image_app.settings import Settings

Tell = Callable[[str], None]

#: What another machine may do better.
_MACHINES_FAULT = (Why.LOST, Why.UNREACHABLE, Why.OUT_OF_MEMORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """A picture, the lease that it was made on, and the USD that it has cost.

    The cost is that of the machine since its last use, its boot included if that was for this.
    """

    image: Image
    lease: str
    cost: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """USD spent today and this month, and what may be spent in the month, where that is limited."""

    today: Money
    month: Money
    cap: Money | None


class Studio:
    """One process's part of the pool. It opens itself when the first picture is asked for.

    An open broker belongs to its process: gunicorn's workers each have a studio of their own, and
    share the pool through the ledger.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.presets = {
            preset.name: preset
            for preset in map(Preset.load, sorted(settings.presets.glob("*.toml")))
        }
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._broker = Broker(on_event=self._note)
        self._pool: Pool | None = None
        self._news = "looking for a machine"

    def _note(self, event: Event) -> None:
        self._news = event.text

    @property
    def news(self) -> str:
        """What the broker does, for those who wait for a machine."""
        return self._news

    def open(self) -> Pool:
        """The pool; opened, if it is not."""
        with self._lock:
            if self._pool is None:
                told = self.settings
                self._stack.enter_context(self._broker)
                self._pool = self._stack.enter_context(
                    self._broker.pool(
                        told.requirements,
                        name="image-app",
                        service=told.service,
                        max_machines=told.machines,
                        queue=told.queue,
                        keep_warm=None if told.keep_warm is None else fixed(told.keep_warm),
                        activity="use",
                        tags=["image-app"],
                    )
                )
            return self._pool

    def close(self) -> None:
        """Give up what this process holds."""
        with self._lock:
            self._pool = None
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def paint(self, preset: Preset, inputs: Mapping[str, object], tell: Tell) -> Painted:
        """Make one picture; where a machine turns out to be at fault, on another one.

        Args:
            tell: called with what is being done, from several threads.

        Raises:
            BrokerError: there is no picture.
        """
        pool, spoilt = self.open(), Money(0)
        for last in (False, True):
            with pool.machine() as machine:
                tell(f"on {machine.lease.machine}")
                try:
                    [image, *_] = ComfyUI(machine.url, every=0.25, patience=15.0).generate(
                        preset,
                        inputs,
                        on_progress=lambda progress: tell(str(progress)),
                        timeout=self.settings.timeout,
                    )
                except GenerationFailed as error:
                    if last or error.why not in _MACHINES_FAULT:
                        raise
                    machine.discard(str(error))
                    spoilt = machine.cost
                else:
                    cost = machine.cost + spoilt
                    return Painted(image=image, lease=machine.lease.id, cost=cost)
        raise AssertionError("the last try returns or raises")

    def spending(self) -> Spending:
        """What has been spent."""
        costs = self._broker.costs("day")
        zone = ZoneInfo(self._broker.settings.budget.timezone)
        today = datetime.fromtimestamp(costs.at, zone).date().isoformat()
        days = {line.name: line.spent for line in costs.lines}
        month = [spent for day, spent in days.items() if day.startswith(today[:7])]
        caps = [limit.amount for limit in costs.limits if limit.name == "budget of this month"]
        return Spending(
            today=days.get(today, Money(0)),
            month=sum(month, Money(0)),
            cap=caps[0] if caps else None,
        )
