"""What follows a failure: small rules per kind, composed into one value.

A rule says how often to try the same offer again, how long to wait between, and whether to go on
elsewhere after that::

    here(3) | elsewhere()      three more tries at the same offer, then the next one
    elsewhere()                the next offer at once
    stop()                     nothing else: it would fail in the same way

What a failure condemns is said by its scope; how long the condemned is left alone, by `cooldown`.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gpubroker.errors import ErrorKind, InvalidValue

_LONGEST_WAIT: Final = 300.0


class Step(enum.StrEnum):
    """What to do after a failure."""

    HERE = "here"  #: try the same offer again, after a pause
    ELSEWHERE = "elsewhere"  #: go on with the next offer that the failure does not condemn
    STOP = "stop"  #: no other offer can mend it


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows failures of one kind. Made by `here`, `elsewhere` and `stop`.

    Attributes:
        tries: how often to try the same offer again first.
        first: seconds that the first pause may take at the most; it doubles each time.
        cap: seconds that no pause exceeds, unless the provider asks for more.
        then: what follows when these tries are used up.
        cooldown: seconds for which what the failure condemns is left alone. It doubles with each
            further failure of the same thing, up to a day.
    """

    tries: int = 0
    first: float = 1.0
    cap: float = 30.0
    then: Step = Step.ELSEWHERE
    cooldown: float = 60.0

    def __post_init__(self) -> None:
        if self.tries < 0:
            raise InvalidValue("tries", self.tries, "must not be negative")
        for name in ("first", "cap", "cooldown"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InvalidValue(name, value, "must be a number of seconds, not negative")
        if self.then is Step.HERE:
            raise InvalidValue("then", str(self.then), "must be elsewhere or stop")

    def __or__(self, other: Rule) -> Rule:
        """This rule's tries first, then what `other` says."""
        if not self.tries:
            raise InvalidValue("rule", self, "only tries at the same offer can come before another")
        return replace(self, then=other.then, cooldown=other.cooldown)


def here(tries: int, *, first: float = 1.0, cap: float = 30.0) -> Rule:
    """Try the same offer again, `tries` times, with exponential pauses and full jitter."""
    if tries < 1:
        raise InvalidValue("tries", tries, "must be at least 1")
    return Rule(tries=tries, first=first, cap=cap)


def elsewhere(*, cooldown: float = 60.0) -> Rule:
    """Go on with the next offer; leave what failed alone for `cooldown` seconds."""
    return Rule(cooldown=cooldown)


def stop(*, cooldown: float = 60.0) -> Rule:
    """Try nothing else that the failure condemns; with nothing else left, give up at once."""
    return Rule(then=Step.STOP, cooldown=cooldown)


_DEFAULT: Final[dict[ErrorKind, Rule]] = {
    ErrorKind.CAPACITY: elsewhere(cooldown=60.0),
    ErrorKind.QUOTA: elsewhere(cooldown=600.0),
    ErrorKind.CREDIT: stop(cooldown=600.0),
    ErrorKind.AUTH: stop(cooldown=600.0),
    ErrorKind.BAD_REQUEST: stop(cooldown=0.0),
    ErrorKind.RATE_LIMIT: here(4, first=2.0) | elsewhere(cooldown=30.0),
    ErrorKind.TRANSIENT: here(2) | elsewhere(cooldown=30.0),
    ErrorKind.HOST_BROKEN: elsewhere(cooldown=3600.0),
    ErrorKind.CREATE_UNKNOWN: elsewhere(cooldown=300.0),
    ErrorKind.PLUGIN: elsewhere(cooldown=60.0),
}


@dataclass(frozen=True, slots=True)
class Retry:
    """The rules for every kind of failure; kinds left out follow the default.

    Args:
        rules: a rule for each kind that should differ from the default.
        max_attempts: how many attempts one request may make, whatever the rules say.

    Raises:
        InvalidValue: a kind does not exist, or a number makes no sense.
    """

    rules: Mapping[ErrorKind, Rule] = field(default_factory=dict[ErrorKind, Rule])
    max_attempts: int = 20

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise InvalidValue("max_attempts", self.max_attempts, "must be at least 1")
        for kind in self.rules:
            if kind not in set(ErrorKind):
                raise InvalidValue.unknown("retry", kind, list(ErrorKind), noun="kind")
            if kind is ErrorKind.CREATE_UNKNOWN and self.rules[kind].tries:
                problem = "a create whose answer was lost is never repeated at the same offer"
                raise InvalidValue("retry", str(kind), problem)

    def rule(self, kind: ErrorKind) -> Rule:
        """The rule for failures of this kind."""
        return self.rules.get(kind) or _DEFAULT[kind]

    def step(self, kind: ErrorKind, failures: int) -> Step:
        """What follows the `failures`-th failure of this kind at the same offer (1 is the first)."""
        rule = self.rule(kind)
        return Step.HERE if failures <= rule.tries else rule.then

    def pause(
        self, kind: ErrorKind, failures: int, retry_after: float | None, source: random.Random
    ) -> float:
        """Seconds to wait before the same offer is tried again.

        Full jitter up to an exponential ceiling; never less than what the provider asked for, of
        which five minutes are obeyed at the most.
        """
        rule = self.rule(kind)
        ceiling = min(rule.cap, rule.first * 2.0 ** min(failures - 1, 30))
        waiting = source.uniform(0.0, ceiling)
        return waiting if retry_after is None else max(waiting, asked_for(retry_after))


def asked_for(retry_after: float) -> float:
    """The wait that a provider asked for, in seconds, as far as it is obeyed."""
    if math.isnan(retry_after):
        return 0.0
    return min(max(retry_after, 0.0), _LONGEST_WAIT)
