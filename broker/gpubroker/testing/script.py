"""What a scripted cloud was told to do, kept in order and ticked off when it happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from gpubroker.errors import InvalidValue
from gpubroker.model.machines import MachineState
from gpubroker.model.money import Money

T = TypeVar("T")

Hook = Literal["quote", "provision", "inventory", "run", "release", "charges"]
HOOKS: Final[tuple[Hook, ...]] = (
    "quote",
    "provision",
    "inventory",
    "run",
    "release",
    "charges",
)

#: Two moments closer than this, in seconds, are one: Unix time as a float is no finer.
SAME_MOMENT: Final = 1e-6


def reached(moment: float, at: float) -> bool:
    """Whether it is `moment` or later; both in Unix seconds."""
    return at >= moment - SAME_MOMENT


@dataclass(slots=True)
class Step(Generic[T]):
    """One thing that was told, and what became of it.

    Attributes:
        verb: how it was told, for people.
        effect: what to do.
        times: for so many calls, unless `until` is given.
        until: Unix seconds before which it holds for every call.
        used: for how many calls it held.
        pending: where its effect comes later: for each such call, whether it has come about.
    """

    verb: str
    effect: T
    times: int = 1
    until: float | None = None
    used: int = 0
    pending: list[Callable[[], bool]] = field(default_factory=list[Callable[[], bool]])

    @property
    def happened(self) -> int:
        """For how many calls its effect came about."""
        return self.used - sum(not came_about() for came_about in self.pending)

    @property
    def used_up(self) -> bool:
        """Whether it has held for as many calls as it was told for."""
        return self.until is None and self.used >= self.times

    def over(self, at: float) -> bool:
        """Whether it holds for no further call."""
        return self.used_up if self.until is None else reached(self.until, at)

    @property
    def left_over(self) -> str:
        """What of it never happened, for people; empty if nothing."""
        if self.until is not None:
            return "" if self.happened else self.verb
        left = self.times - self.happened
        if left <= 0:
            return ""
        return self.verb if left == 1 else f"{self.verb}, {left} times"


class Steps(Generic[T]):
    """The steps of one kind, in the order in which they were told.

    Args:
        told: every step of the story, of whatever kind; new ones are added to it.
    """

    def __init__(self, told: list[Step[Any]]) -> None:
        self._told = told
        self._steps: deque[Step[T]] = deque()

    def add(
        self, verb: str, effect: T, *, times: int | None = None, until: float | None = None
    ) -> None:
        """Tell one more: for `times` calls, or for all calls before `until`; once by default."""
        if times is not None and until is not None:
            raise InvalidValue("until", until, f"{verb}: say how often or until when, not both")
        step = Step(verb, effect, 1 if times is None else times, until)
        self._steps.append(step)
        self._told.append(step)

    def holding(self, at: float) -> Iterator[Step[T]]:
        """The steps that hold for a call at this time, oldest first; none is used up."""
        return (step for step in self._steps if not step.over(at))

    def take(self, at: float) -> T | None:
        """What holds for a call at this time, if anything does; used up by one."""
        step = self.take_step(at)
        return None if step is None else step.effect

    def take_step(self, at: float) -> Step[T] | None:
        """The same, with all that was told of it."""
        while self._steps and self._steps[0].used_up:
            self._steps.popleft()
        step = next(self.holding(at), None)
        if step is not None:
            step.used += 1
        return step


# --------------------------------------------------------------------------------------------
# What one call of a hook can do instead of answering well
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fails:
    """It raises; a create may leave a machine behind all the same."""

    error: Callable[[str | None], BaseException]  #: made from the machine's id, if there is one
    leaves_machine: bool = False


@dataclass(frozen=True, slots=True)
class Hangs:
    """It never answers."""


@dataclass(frozen=True, slots=True)
class LosesReply:
    """A create whose answer is lost: the machine, if any, exists `after` seconds later."""

    creates: bool = True
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class DoesNothing:
    """It answers as if all were well: an empty inventory, a release that releases nothing."""


Turn = Fails | Hangs | LosesReply | DoesNothing


@dataclass(frozen=True, slots=True)
class Boot:
    """How a machine boots: when its last change comes, and to which state."""

    seconds: float
    ends_as: MachineState = MachineState.RUNNING
    progress_every: float | None = None


class Script:
    """Everything that a scripted cloud was told."""

    def __init__(self) -> None:
        told: list[Step[Any]] = []
        self._told = told
        self.turns = {hook: Steps[Turn](told) for hook in HOOKS}
        self.delays = {hook: Steps[float](told) for hook in HOOKS}
        self.shortages = Steps[str | None](told)
        self.revocations = Steps[float](told)
        self.rises = Steps[Money](told)
        self.boots = Steps[Boot](told)
        self.preemptions = Steps[float](told)
        self.vanishings = Steps[float](told)
        self.job_rises = Steps[tuple[float, Money]](told)
        self.cards = Steps[tuple[str | None, float | None, int]](told)
        self.job_start_failures = Steps[str](told)
        self.job_seconds = Steps[float](told)
        self.job_exits = Steps[int](told)
        self.job_prints = Steps[tuple[bytes, bytes]](told)
        self.job_writes = Steps[Mapping[str, bytes]](told)
        self.machine_sends = Steps[Mapping[str, bytes]](told)
        self.setup_seconds = Steps[float](told)
        self.setup_exits = Steps[int](told)
        self.unexpected: set[Hook] = set()

    def end(self) -> None:
        """Nothing that was told holds any more."""
        for step in self._told:
            step.times, step.until = step.happened, None
        self.unexpected.clear()

    def happened(self) -> list[str]:
        """What was told and came about for some call."""
        return [step.verb for step in self._told if step.happened]

    def left_over(self) -> list[str]:
        """What was told and never happened, for people."""
        return [step.left_over for step in self._told if step.left_over]
