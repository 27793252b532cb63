"""What follows a failed attempt: decided from the kind of failure and its scope alone."""

from __future__ import annotations

import enum
from typing import Final

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.offers import Offer


class Step(enum.StrEnum):
    """What to do after a failure."""

    ELSEWHERE = "elsewhere"  #: go on with the next offer that the failure does not condemn
    STOP = "stop"  #: no other offer can mend it


#: Failures of the account or of the request itself. With several providers in play an account's
#: failure only rules that provider out; `after` sees to that by scope.
_STOP: Final = frozenset({ErrorKind.BAD_REQUEST})

_ACCOUNT: Final = frozenset({ErrorKind.AUTH, ErrorKind.CREDIT})


def after(failure: ProviderError, *, others: bool) -> Step:
    """What follows a failed attempt.

    Args:
        others: whether another provider's offers are left to try.
    """
    if failure.kind in _STOP:
        return Step.STOP
    if failure.kind in _ACCOUNT and not others:
        return Step.STOP
    return Step.ELSEWHERE


def condemned(failure: ProviderError, failed: Offer, other: Offer) -> bool:
    """Whether the failure of one offer rules another one out for this request."""
    if other.provider != failed.provider:
        return False
    if other.id == failed.id:
        return True
    scope = Scope.ACCOUNT if failure.kind in _ACCOUNT else failure.scope
    match scope:
        case Scope.OFFER:
            return False
        case Scope.HOST:
            return failed.host is not None and other.host == failed.host
        case Scope.MODEL:
            return other.gpu == failed.gpu
        case Scope.REGION:
            return failed.region is not None and other.region == failed.region
        case Scope.PROVIDER | Scope.ACCOUNT:
            return True
