"""What is left alone for a while after a failure: an offer, a host, a model, a region, a provider.

A cooldown is remembered in the ledger, for other requests and other processes. It ends by itself.
What fails again soon after is left alone for twice as long; what has been quiet for as long as its
last cooldown took starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.offers import Offer
from gpubroker.policy.retry import Retry, asked_for

LONGEST: Final = 86_400.0
"""Seconds that no cooldown exceeds."""

#: Failures of the account, whatever scope a plugin gave them.
_ACCOUNT: Final = frozenset({ErrorKind.AUTH, ErrorKind.CREDIT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """One thing of one provider that is left alone until `until` (Unix seconds).

    Attributes:
        key: which offer, host, model or region; empty for a whole provider or account.
        failures: how often in a row it has failed.
        since: Unix seconds of the last failure.
    """

    provider: str
    scope: Scope
    key: str
    kind: ErrorKind
    reason: str
    failures: int
    since: float
    until: float

    def ended(self, now: float) -> Cooldown:
        """The same, over at Unix time `now`: what it covers works again."""
        return replace(self, until=min(self.until, now), failures=0)

    @property
    def strict(self) -> bool:
        """Whether what it covers is ruled out; otherwise it is only tried after everything else.

        A host that did not deliver costs money each time it is tried; anything else may have
        changed since, and trying it beats giving up.
        """
        return self.kind is ErrorKind.HOST_BROKEN

    def covers(self, offer: Offer) -> bool:
        """Whether `offer` is among what is left alone."""
        return offer.provider == self.provider and _key(self.scope, offer) == self.key


def _key(scope: Scope, offer: Offer) -> str | None:
    """What names `offer` at this scope; ``None`` where the offer does not say."""
    match scope:
        case Scope.OFFER:
            return offer.id
        case Scope.HOST:
            return offer.host
        case Scope.MODEL:
            return offer.gpu
        case Scope.REGION:
            return offer.region
        case Scope.PROVIDER | Scope.ACCOUNT:
            return ""


def condemned(failure: ProviderError, offer: Offer) -> tuple[Scope, str]:
    """What the failure of an attempt at `offer` condemns.

    An offer that does not name its host, model or region condemns only itself.
    """
    scope = Scope.ACCOUNT if failure.kind in _ACCOUNT else failure.scope
    key = _key(scope, offer)
    return (Scope.OFFER, offer.id) if key is None else (scope, key)


def cool_down(
    failure: ProviderError,
    provider: str,
    thing: tuple[Scope, str],
    known: Iterable[Cooldown],
    retry: Retry,
    now: float,
) -> Cooldown:
    """The cooldown that follows a failure.

    Args:
        thing: what the failure condemns, from `condemned`.
        known: earlier cooldowns, those that are over included.
    """
    scope, key = thing
    earlier = next(
        (c for c in known if (c.provider, c.scope, c.key) == (provider, scope, key)), None
    )
    failures = 1
    if earlier is not None and now - earlier.until <= earlier.until - earlier.since:
        failures = earlier.failures + 1
    rest = min(LONGEST, retry.rule(failure.kind).cooldown * 2.0 ** min(failures - 1, 30))
    if failure.retry_after is not None:
        rest = max(rest, asked_for(failure.retry_after))
    until = now + rest
    if earlier is not None and earlier.strict and earlier.until >= until:
        # A lesser failure does not make a broken host any better.
        return replace(earlier, failures=failures, since=now)
    return Cooldown(
        provider=provider,
        scope=scope,
        key=key,
        kind=failure.kind,
        reason=str(failure)[:200],
        failures=failures,
        since=now,
        until=until,
    )


def cooling(offer: Offer, cooldowns: Iterable[Cooldown], now: float) -> Cooldown | None:
    """The cooldown that `offer` is under at Unix time `now`, the longest if there are several."""
    found = [c for c in cooldowns if c.until > now and c.covers(offer)]
    return max(found, key=lambda cooldown: cooldown.until, default=None)


def provider_cooling(provider: str, cooldowns: Iterable[Cooldown], now: float) -> Cooldown | None:
    """The cooldown that a whole provider, or its account, is under."""
    whole = (Scope.PROVIDER, Scope.ACCOUNT)
    found = [c for c in cooldowns if c.provider == provider and c.scope in whole and c.until > now]
    return max(found, key=lambda cooldown: cooldown.until, default=None)
