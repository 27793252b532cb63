"""What was seen of hosts: how often they worked, how long they took to boot and to be set up.

Counts fade with a half-life, so that a host which failed a month ago gets its chance again. What is
not known of a host is taken from its provider, and what is not known of a provider from a stated
prior.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

HALF_LIFE: Final = 7 * 86_400.0
"""Seconds after which what was seen counts half."""

PRIOR_CHANCE: Final = 0.9
"""The chance that an attempt at a host nobody has tried works out."""

PRIOR_BOOT: Final = 120.0
"""Seconds that a paid machine which nobody has tried is taken to boot."""

_PRIOR_WEIGHT: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """What was seen of one host with one image; counts are fractional, since they fade.

    Attributes:
        host: the vendor's id of the physical machine, or ``""`` where it is not told.
        image: the container image, or ``""``.
        tries: attempts. successes: those that gave a usable machine.
        boot_seconds: of the successes, all together.
        setups: set-ups that ran to their end. setup_seconds: of these, all together.
        at: Unix seconds up to which the counts have faded.
    """

    provider: str
    host: str
    image: str
    tries: float = 0.0
    successes: float = 0.0
    boot_seconds: float = 0.0
    setups: float = 0.0
    setup_seconds: float = 0.0
    at: float = 0.0

    def faded(self, now: float) -> Experience:
        """The same as it counts at Unix time `now`."""
        left = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        return replace(
            self,
            tries=self.tries * left,
            successes=self.successes * left,
            boot_seconds=self.boot_seconds * left,
            setups=self.setups * left,
            setup_seconds=self.setup_seconds * left,
            at=max(now, self.at),
        )

    def worked(self, boot: float, now: float) -> Experience:
        """With one more success, which took `boot` seconds to boot."""
        past = self.faded(now)
        return replace(
            past,
            tries=past.tries + 1,
            successes=past.successes + 1,
            boot_seconds=past.boot_seconds + boot,
        )

    def failed(self, now: float) -> Experience:
        """With one more failure of the host."""
        past = self.faded(now)
        return replace(past, tries=past.tries + 1)

    def was_set_up(self, seconds: float, now: float) -> Experience:
        """With one more set-up, which took so long."""
        past = self.faded(now)
        return replace(past, setups=past.setups + 1, setup_seconds=past.setup_seconds + seconds)


class Memory:
    """Experience by provider, host and image, for many questions about one moment."""

    def __init__(self, experiences: Iterable[Experience], now: float) -> None:
        self._hosts: dict[tuple[str, str, str], Experience] = {}
        self._providers: dict[str, Experience] = {}
        for each in experiences:
            seen = each.faded(now)
            self._hosts[each.provider, each.host, each.image] = seen
            before = self._providers.get(each.provider)
            self._providers[each.provider] = seen if before is None else _together(before, seen)

    def _of(
        self, provider: str, host: str | None, image: str | None
    ) -> tuple[Experience, Experience]:
        nothing = Experience(provider=provider, host="", image="")
        key = (provider, host or "", image or "")
        # A host that is not told apart is the provider at large, which must not count twice.
        own = self._hosts.get(key, nothing) if host else nothing
        return self._providers.get(provider, nothing), own

    def chance(self, provider: str, host: str | None, image: str | None) -> float:
        """The chance that an attempt there gives a usable machine, above 0."""
        at_large, own = self._of(provider, host, image)
        prior = _mean(PRIOR_CHANCE, at_large.successes, at_large.tries)
        return max(0.01, _mean(prior, own.successes, own.tries))

    def boot(self, provider: str, host: str | None, image: str | None, prior: float) -> float:
        """Seconds that a machine there is expected to take from create to usable."""
        at_large, own = self._of(provider, host, image)
        usual = _mean(prior, at_large.boot_seconds, at_large.successes)
        return _mean(usual, own.boot_seconds, own.successes)

    def setup(self, provider: str, host: str | None, image: str | None, prior: float) -> float:
        """Seconds that set-up is expected to take there."""
        at_large, own = self._of(provider, host, image)
        usual = _mean(prior, at_large.setup_seconds, at_large.setups)
        return _mean(usual, own.setup_seconds, own.setups)


def _mean(prior: float, total: float, count: float) -> float:
    """The mean of what was seen, drawn towards the prior while little was seen."""
    return (prior * _PRIOR_WEIGHT + total) / (_PRIOR_WEIGHT + count)


def _together(one: Experience, other: Experience) -> Experience:
    return replace(
        one,
        tries=one.tries + other.tries,
        successes=one.successes + other.successes,
        boot_seconds=one.boot_seconds + other.boot_seconds,
        setups=one.setups + other.setups,
        setup_seconds=one.setup_seconds + other.setup_seconds,
    )
