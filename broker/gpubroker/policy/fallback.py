"""What follows a failed attempt, with the other offers of the request in view."""

from __future__ import annotations

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.policy.retry import Retry, Step

#: Failures of an account, whatever scope a plugin gave them.
_ACCOUNT = frozenset({ErrorKind.AUTH, ErrorKind.CREDIT})
_WHOLE = frozenset({Scope.PROVIDER, Scope.ACCOUNT})


def rules_out(failure: ProviderError) -> bool:
    """Whether a failure speaks against all offers of its provider, for the rest of a request.

    An account that may not rent, or a vendor that does not take what is asked for in the form in
    which it is asked. Another provider may still do the job.
    """
    if failure.kind is ErrorKind.BAD_REQUEST:
        return failure.scope in _WHOLE
    return failure.kind in _ACCOUNT


def after(failure: ProviderError, failures: int, retry: Retry, *, others: bool) -> Step:
    """What follows the `failures`-th failure of this kind at the same offer (1 is the first).

    Args:
        others: whether offers of another provider are left to try.
    """
    step = retry.step(failure.kind, failures)
    if step is Step.STOP and others and rules_out(failure):
        return Step.ELSEWHERE
    return step
