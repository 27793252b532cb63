"""What emulated machines really cost, exactly: the oracle that other books are held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from gpubroker.model.money import Money

_HOUR = 3_600_000_000  # microseconds


@dataclass(slots=True)
class Span:
    """A time for which one item of one machine was billed.

    Attributes:
        machine: its id. item: what was billed, such as ``"gpu"``.
        rate: USD per hour.
        start: Unix microseconds. end: the same; ``None`` while it goes on.
    """

    machine: str
    item: str
    rate: Decimal
    start: int
    end: int | None = None

    def cost(self, since: int, until: int) -> Fraction:
        """USD between two moments, exactly."""
        start = max(self.start, since)
        end = until if self.end is None else min(self.end, until)
        return Fraction(self.rate) * max(end - start, 0) / _HOUR

    def micros(self, since: int, until: int) -> int:
        """Microseconds billed between two moments."""
        end = until if self.end is None else min(self.end, until)
        return max(end - max(self.start, since), 0)


@dataclass(slots=True)
class Books:
    """Every span of every machine. Moments are Unix seconds, kept as whole microseconds."""

    _spans: dict[str, list[Span]] = field(default_factory=dict[str, list[Span]])

    def start(self, machine: str, item: str, rate: Decimal, at: float) -> None:
        """Bill an item from a moment on; nothing, if it is being billed already."""
        if self._going_on(machine, item) is None:
            self._spans.setdefault(machine, []).append(Span(machine, item, rate, _micros(at)))

    def stop(self, machine: str, item: str, at: float) -> None:
        """Bill an item no more; nothing, if it is not being billed."""
        span = self._going_on(machine, item)
        if span is not None:
            span.end = max(_micros(at), span.start)

    def stop_all(self, machine: str, at: float) -> None:
        """Bill nothing of a machine any more."""
        for span in self.of(machine):
            self.stop(machine, span.item, at)

    def of(self, machine: str) -> list[Span]:
        """Everything that was billed for one machine."""
        return list(self._spans.get(machine, ()))

    @property
    def spans(self) -> list[Span]:
        """Everything that was billed."""
        return [span for spans in self._spans.values() for span in spans]

    def billing_now(self) -> tuple[str, ...]:
        """Machines that cost money at this moment, whatever anybody was told."""
        return tuple(dict.fromkeys(s.machine for s in self.spans if s.end is None and s.rate > 0))

    def hourly(self, machine: str | None = None) -> Decimal:
        """USD per hour that one machine, or all of them together, cost at this moment."""
        spans = self.spans if machine is None else self.of(machine)
        return sum((span.rate for span in spans if span.end is None), Decimal(0))

    def cost(self, machine: str, until: float, since: float = 0.0) -> Money:
        """What one machine cost between two moments."""
        return money(sum_of(self.of(machine), _micros(since), _micros(until)))

    def charges(self, until: float) -> dict[str, Money]:
        """What each machine has cost."""
        return {machine: self.cost(machine, until) for machine in self._spans}

    def total(self, until: float) -> Money:
        """What all of them have cost together."""
        return money(sum_of(self.spans, 0, _micros(until)))

    def _going_on(self, machine: str, item: str) -> Span | None:
        return next(
            (
                span
                for span in reversed(self._spans.get(machine, ()))
                if span.item == item and span.end is None
            ),
            None,
        )


def sum_of(spans: list[Span], since: int, until: int) -> Fraction:
    """What some spans cost between two moments in microseconds."""
    return sum((span.cost(since, until) for span in spans), Fraction(0))


def money(amount: Fraction) -> Money:
    """An exact amount as money, to the trillionth of a dollar."""
    return Money(Decimal(round(amount * 10**12)).scaleb(-12))


def _micros(at: float) -> int:
    return round(at * 1_000_000)
