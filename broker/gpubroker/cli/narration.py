"""Events of the broker into what a person waiting for a job wants to read."""

from __future__ import annotations

import re
import time
from typing import Final

from gpubroker.broker import AsyncBroker
from gpubroker.cli.progress import Progress
from gpubroker.errors import BrokerError
from gpubroker.model.events import Event, EventKind
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.pricing import spent

_STEPS: Final = {
    EventKind.QUOTING: "{text}",
    EventKind.ATTEMPT: "{text}",
    EventKind.ACCEPTED: "booting: {text}",
    EventKind.BOOTING: "booting: {text}",
    EventKind.PROBING: "checking the machine: {text}",
    EventKind.SETTING_UP: "setting up: {text}",
    EventKind.READY: "{text}",
    EventKind.SERVING: "{text}",
    EventKind.RUNNING: "running {text}",
    EventKind.BATCH: "{text}",
    EventKind.RELEASING: "releasing the machine ({text})",
    EventKind.ACKNOWLEDGED: "waiting for proof that it is gone: {text}",
}
_PAUSE: Final = re.compile(r"(.*); (asking )?again in ([\d.]+ s)", re.DOTALL)
_WRONG: Final = {
    EventKind.FAILED: "this attempt failed: {text}",
    EventKind.PROVIDER_PROBLEM: "{provider} was left out: {text}",
    EventKind.ALARM: "look at this: {text}",
    EventKind.BUDGET: "{text}",
}


class Narration:
    """Tells of one request, and remembers which leases it made.

    Attributes:
        leases: ids of this request's leases, in order.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._costs: dict[str, Money] = {}
        self._over: set[str] = set()
        self.leases: list[str] = []

    def tell(self, event: Event) -> None:
        """Show one event. Those of leases that a sweep found are shown only if they matter."""
        if event.kind is EventKind.ATTEMPT and event.lease_id is not None:
            self.leases.append(event.lease_id)
        form = _WRONG.get(event.kind)
        if form is not None:
            self._progress.wrong(form.format(text=event.text, provider=event.provider))
        elif event.kind is EventKind.NOTE:
            self._progress.line(f"{event.provider}: {event.text}")
        elif event.kind is EventKind.FOUND:
            self._progress.line(f"found by the sweep: {event.text}")
        elif event.lease_id is not None and event.lease_id not in self.leases:
            return
        elif event.kind is EventKind.TRANSFERRING:
            self._progress.advance(event.text)
        elif event.kind is EventKind.JOB_ENDED:
            self._progress.line(event.text)
        elif event.kind is EventKind.WAITING:
            self._progress.step(_waiting(event.text))
        elif event.kind in _STEPS:
            self._progress.step(_STEPS[event.kind].format(text=event.text))

    async def cost(self, broker: AsyncBroker) -> Money | None:
        """USD that this request has cost so far; ``None`` while nothing is rented."""
        if not self.leases:
            return None
        try:
            rows = {row.id: row for row in await broker.leases()}
            if set(self.leases) - rows.keys() - self._over:
                # Those that are over stay so: the whole ledger is read once for each of them.
                rows |= {row.id: row for row in await broker.leases(open_only=False)}
        except BrokerError:
            rows = {}
        for row in rows.values():
            if row.id not in self.leases:
                continue
            if row.state.open:
                self._costs[row.id] = spent(row, time.time())
            else:
                self._costs[row.id] = row.spent
                self._over.add(row.id)
        return sum(self._costs.values(), ZERO)


def _waiting(text: str) -> str:
    """A pause, with its length first: the reason may be longer than the screen is wide."""
    match = _PAUSE.fullmatch(text)
    if match is None:
        return f"waiting: {text}"
    reason, for_capacity, pause = match.groups()
    return f"waiting {pause} {'for capacity' if for_capacity else 'to try it again'}: {reason}"
