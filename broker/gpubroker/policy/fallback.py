"""What follows a failed attempt, with the other offers of the request in view."""

from __future__ import annotations

from gpubroker.errors import ErrorKind, ProviderError
from gpubroker.policy.retry import Retry, Step

#: Failures of an account rule its provider out; another provider may still do the job.
_ACCOUNT = frozenset({ErrorKind.AUTH, ErrorKind.CREDIT})


def after(failure: ProviderError, failures: int, retry: Retry, *, others: bool) -> Step:
    """What follows the `failures`-th failure of this kind at the same offer (1 is the first).

    Args:
        others: whether offers of another provider are left to try.
    """
    step = retry.step(failure.kind, failures)
    if step is Step.STOP and others and failure.kind in _ACCOUNT:
        return Step.ELSEWHERE
    return step
