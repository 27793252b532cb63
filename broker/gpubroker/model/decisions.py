"""What was seen, chosen and tried, and why: kept as data, turned into text only when shown."""

from __future__ import annotations

# Rejection, Estimate and Verdict are made by the ten thousand for one plan, and freezing them would
# double what that takes. Nothing changes them once they are made.
import enum
from dataclasses import dataclass, replace

from gpubroker.errors import ErrorKind, Scope
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Offer


class Constraint(enum.StrEnum):
    """Which requirement an offer does not meet."""

    GPU = "gpu"
    COUNT = "count"
    VRAM = "vram"
    COMPUTE_CAPABILITY = "compute capability"
    CUDA = "cuda"
    CPUS = "cpus"
    RAM = "ram"
    DISK = "disk"
    REGION = "region"
    RELIABILITY = "reliability"
    TRUST = "trust"
    DOWNLOAD = "download"
    UPLOAD = "upload"
    SPOT = "spot"
    PROVIDER = "provider"
    MAX_PRICE = "max price"
    IMAGE = "image"
    PORTS = "ports"
    DRIVER = "driver"
    STATIC_IP = "static ip"
    SSH = "ssh"
    PRICE_INVALID = "price invalid"
    EXPIRED = "expired"
    BUDGET = "budget"
    COOLING_DOWN = "cooling down"


@dataclass(slots=True, unsafe_hash=True)
class Rejection:
    """Why an offer is out: the constraint, what was wanted, and what the offer has.

    Data, and only turned into words when it is shown.

    Attributes:
        offered: ``None`` where the offer does not say, which never meets a requirement.
        unit: of `offered`, if that is a number.
    """

    constraint: Constraint
    wanted: str
    offered: str | float | None
    unit: str = ""

    @property
    def said(self) -> str:
        """What the offer has, for people."""
        if self.offered is None:
            return "not stated"
        if isinstance(self.offered, str):
            return self.offered
        if self.constraint is Constraint.MAX_PRICE:
            return f"{Money(self.offered)}{self.unit}"
        return f"{self.offered:g}{self.unit}"

    def __str__(self) -> str:
        return f"{self.constraint}: wanted {self.wanted}, offered {self.said}"


@dataclass(slots=True, unsafe_hash=True)
class Estimate:
    """What finishing a job on an offer is expected to take and cost.

    Attributes:
        boot: seconds. setup: seconds. transfer: seconds. run: seconds.
        bandwidth: USD for the data sent.
        chance: that an attempt there works out, 0 to 1.
        cost: USD: the price for all these seconds, and the bandwidth, over the chance.
        hourly: USD per hour that the offer costs.
    """

    boot: float
    setup: float
    transfer: float
    run: float
    bandwidth: Money
    chance: float
    cost: Money
    hourly: Money = ZERO

    @property
    def seconds(self) -> float:
        """Until the job is done, if the first attempt works out."""
        return self.boot + self.setup + self.transfer + self.run

    def __str__(self) -> str:
        """The arithmetic, on one line."""
        times = {"boot": self.boot, "set-up": self.setup, "transfer": self.transfer}
        parts = [f"{name} {seconds:.0f} s" for name, seconds in times.items() if seconds]
        extra = f" + bandwidth {self.bandwidth}" if self.bandwidth else ""
        together = " + ".join([*parts, f"run {self.run:.0f} s"])
        price = f" at {self.hourly}/h" if self.hourly else ""
        return f"({together}){price}{extra}, over {self.chance:.0%} chance: {self.cost}"


@dataclass(slots=True, unsafe_hash=True)
class Verdict:
    """What became of one offer: ranked (0 is tried first) with its score, or rejected and why.

    Attributes:
        score: what the ranking gave it; the lowest is tried first.
        estimate: the arithmetic behind the score, where the ranking asked for it.
        alternative: which of several ordered requirements it was asked for, 0 the first.
    """

    offer: Offer
    rank: int | None = None
    score: tuple[float, ...] | None = None
    rejection: Rejection | None = None
    estimate: Estimate | None = None
    alternative: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderProblem:
    """A provider that could not be asked, or gave no usable answer."""

    provider: str
    kind: ErrorKind
    message: str


class AttemptState(enum.StrEnum):
    """How one try at one offer ended."""

    WON = "won"
    FAILED = "failed"
    REFUSED_BUDGET = "over budget"
    ABANDONED = "abandoned"  #: the caller left while it was under way
    LOST = "lost"  #: it had won, and its machine went away under a job


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one offer. Times are Unix seconds; `cost` is what it had cost when it ended."""

    number: int
    provider: str
    offer_id: str
    title: str
    hourly: Money
    state: AttemptState
    started_at: float
    ended_at: float
    lease_id: str | None = None
    kind: ErrorKind | None = None
    scope: Scope | None = None
    reason: str = ""
    cost: Money = ZERO

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_at - self.started_at


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """Why a machine was chosen, or why none was.

    Attributes:
        id: the id of the request; `lease_id` and `explain` find it by it.
        wanted: the requirements, as text.
        asked_at: Unix time.
        verdicts: every offer seen, the ranked ones first and in order.
        problems: providers that gave no usable answer.
        attempts: every try, in order.
        why: one sentence on the winner, or on why there is none.
    """

    id: str
    wanted: str
    asked_at: float
    verdicts: tuple[Verdict, ...] = ()
    problems: tuple[ProviderProblem, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    why: str = ""

    @property
    def winner(self) -> Attempt | None:
        """The attempt that got the machine, if one did."""
        return next((a for a in self.attempts if a.state is AttemptState.WON), None)

    @property
    def ranked(self) -> tuple[Offer, ...]:
        """The offers that fit, best first."""
        return tuple(v.offer for v in self.verdicts if v.rejection is None)

    def lost(self, lease_id: str, reason: str, at: float, cost: Money) -> DecisionRecord:
        """The record once a lease's machine was lost under a job.

        Args:
            at: Unix time. cost: USD that the machine had cost by then.
        """
        attempts = tuple(
            replace(a, state=AttemptState.LOST, reason=reason, ended_at=at, cost=cost)
            if a.lease_id == lease_id
            else a
            for a in self.attempts
        )
        return replace(self, attempts=attempts)

    def to_json(self) -> str:
        """The record as JSON; `from_json` reads it back unchanged."""
        from gpubroker.model.codec import to_json

        return to_json(DecisionRecord, self)

    @classmethod
    def from_json(cls, text: str) -> DecisionRecord:
        """A record from the JSON that `to_json` wrote."""
        from gpubroker.model.codec import from_json

        return from_json(cls, text)
