"""The policy: which offer to try first, and what follows a failure; one value for all of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from gpubroker.errors import ErrorKind, InvalidValue
from gpubroker.model.durations import parse_seconds
from gpubroker.model.names import is_a
from gpubroker.model.offers import Offer
from gpubroker.policy.estimate import Work
from gpubroker.policy.ranking import Ranking, cheapest, ranking_of
from gpubroker.policy.retry import Retry, Rule, elsewhere, here, stop

_RULE: Final = re.compile(r"^(here|elsewhere|stop)(?:\(([^)]*)\))?$")


@dataclass(frozen=True, slots=True, init=False)
class Policy:
    """How a machine is chosen, and what follows when it does not work out.

    Args:
        rank: a ranking, a function of an offer, or words such as ``"prefer(local), cheapest"``.
        retry: what follows failures, by kind.
        acquire_timeout: seconds that getting a machine may take in all.
        attempt_timeout: seconds that one attempt may take, from its create to a machine that
            runs; ``None`` leaves it to the provider's own boot time-out, counted from the last
            progress.
        quote_timeout: seconds that each provider may take to say what there is.
        wait: seconds to wait for capacity when nothing fits or everything failed; providers are
            asked again at a pace that they allow.
        work: what the job is expected to need, for the rankings ``cheapest_to_finish`` and
            ``fastest``.

    Raises:
        InvalidValue: naming the argument and the value.
    """

    rank: Ranking
    retry: Retry
    acquire_timeout: float
    attempt_timeout: float | None
    quote_timeout: float
    wait: float
    work: Work = field(default_factory=Work)

    def __init__(
        self,
        *,
        rank: Ranking | Callable[[Offer], float] | str | None = None,
        retry: Retry | None = None,
        acquire_timeout: float = 1800.0,
        attempt_timeout: float | None = None,
        quote_timeout: float = 10.0,
        wait: float = 0.0,
        work: Work | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "rank", cheapest() if rank is None else ranking_of(rank))
        put(self, "retry", retry or Retry())
        put(self, "acquire_timeout", _seconds("acquire_timeout", acquire_timeout))
        limit = None if attempt_timeout is None else _seconds("attempt_timeout", attempt_timeout)
        put(self, "attempt_timeout", limit)
        put(self, "quote_timeout", _seconds("quote_timeout", quote_timeout))
        if not 0 <= wait < math.inf:
            raise InvalidValue("wait", wait, "must be a number of seconds, not negative")
        put(self, "wait", float(wait))
        put(self, "work", work or Work())

    @classmethod
    def from_mapping(cls, words: Mapping[str, Any]) -> Self:
        """A policy from the words that ``gpubroker.toml`` and the command line use.

        ``rank``; ``acquire_timeout``, ``attempt_timeout``, ``quote_timeout`` and ``wait`` as
        seconds or text such as ``"10m"``; ``max_attempts``; a table ``retry`` of kinds and rules
        such as ``capacity = "here(3), elsewhere(60)"``; a table ``work``.

        Raises:
            InvalidValue: also for an unknown word, naming the nearest known one.
        """
        known = [*(f.name for f in fields(cls)), "max_attempts"]
        for word in words:
            if word not in known:
                raise InvalidValue.unknown("policy", word, known, noun="word")
        times = ("acquire_timeout", "attempt_timeout", "quote_timeout", "wait")
        arguments: dict[str, Any] = {
            name: parse_seconds(f"policy.{name}", words[name], none=name == "wait")
            for name in times
            if name in words
        }
        if "rank" in words:
            arguments["rank"] = words["rank"]
        if "work" in words:
            arguments["work"] = _work(words["work"])
        retry = words.get("retry", {})
        if not is_a(retry, Mapping):
            raise InvalidValue("policy.retry", retry, "must be a table of kinds and rules")
        rules = {_kind(kind): parse_rule(rule) for kind, rule in retry.items()}
        most = words.get("max_attempts", Retry().max_attempts)
        if not is_a(most, int):
            raise InvalidValue("policy.max_attempts", most, "must be a whole number")
        return cls(retry=Retry(rules, max_attempts=most), **arguments)


def parse_rule(text: str) -> Rule:
    """A rule from words: ``stop``, ``elsewhere(60)``, ``here(3), elsewhere``.

    ``here`` takes how often; ``elsewhere`` and ``stop`` take the cooldown in seconds.

    Raises:
        InvalidValue: it is no such text.
    """
    if not is_a(text, str):
        raise InvalidValue("retry", text, "must be words such as 'here(3), elsewhere(60)'")
    rules = [_one_rule(part.strip(), text) for part in re.split(r",(?![^(]*\))", text)]
    if len(rules) == 1:
        return rules[0]
    if len(rules) > 2:
        raise InvalidValue("retry", text, "has more than two parts")
    return rules[0] | rules[1]


def _one_rule(part: str, whole: str) -> Rule:
    match = _RULE.match(part)
    if match is None:
        raise InvalidValue("retry", whole, "not a rule such as 'here(3), elsewhere(60)' or 'stop'")
    name, argument = match.groups()
    try:
        if name == "here":
            return here(int(argument or 1))
        make = elsewhere if name == "elsewhere" else stop
        return (
            make() if not argument else make(cooldown=parse_seconds("retry", argument, none=True))
        )
    except InvalidValue:
        raise
    except ValueError:
        raise InvalidValue("retry", whole, f"{argument!r} is no number") from None


def _kind(text: str) -> ErrorKind:
    words = text.replace("_", " ").replace("-", " ").lower()
    try:
        return ErrorKind(words)
    except ValueError:
        raise InvalidValue.unknown("policy.retry", text, list(ErrorKind), noun="kind") from None


def _work(table: Any) -> Work:
    known = [f.name for f in fields(Work)]
    if not is_a(table, Mapping):
        raise InvalidValue("policy.work", table, "must be a table")
    for word in table:
        if word not in known:
            raise InvalidValue.unknown("policy.work", word, known, noun="word")
    words: dict[str, Any] = dict(table)
    if "seconds" in words:
        words["seconds"] = parse_seconds("policy.work.seconds", words["seconds"], none=True)
    return Work(**words)


def _seconds(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise InvalidValue(name, value, "must be a positive number of seconds")
    return float(value)
