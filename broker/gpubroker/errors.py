"""Every error gpubroker raises, as one tree.

::

    BrokerError                     catch this one to catch them all
    ├── InvalidValue                an argument or setting makes no sense (also a ValueError)
    ├── AcquireError                no machine; carries the decision record
    │   ├── NoOfferFits             nothing on the market meets the requirements
    │   ├── AttemptsExhausted       every offer that fits was tried and failed
    │   ├── AcquireStopped          a failure no other offer can mend (key refused, no credit)
    │   ├── BudgetExceeded          the worst case does not fit what may still be spent
    │   └── DeadlineExceeded        time ran out first
    ├── JobError                    a machine was there, the job did not succeed; carries the result
    │   ├── SetupFailed             the set-up script failed, so the job was never started
    │   ├── JobFailed               non-zero exit, time-out or missing output (``Result.check``)
    │   └── MachineLost             the machine went away under the job
    ├── PoolFull                    as many wait for a machine of the pool as may
    ├── PoolTimeout                 no machine of the pool became free in time
=======
    ├── ServiceFailed               a server did not get ready, ended, or stopped answering
    ├── LeaseReleased               the lease was used after its release was requested
    ├── SecretsRefused              the machine's identity is not proven: no secrets are sent there
    ├── LedgerError                 the durable record cannot be used: nothing is rented
    │   ├── LedgerBusy              held by another process, or out of reach, for too long
    │   ├── LedgerUnusable          unreadable, read-only, full, corrupt or of a newer version
    │   └── StaleOwner              another process has taken this lease over
    ├── BrokerClosed                used before it was opened, after it was closed, or after a fork
    └── ProviderError               raised by provider plugins: what kind, and what it condemns
        ├── CreateUnknown           the answer to a create was lost: a machine may exist and bill
        └── ChannelLost             the way to a machine broke: nobody knows what goes on there

A `ProviderError` says *what kind* of failure it is (`ErrorKind`) and *what scope* it condemns
(`Scope`); the broker decides from these two alone.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubroker.model.decisions import DecisionRecord
    from gpubroker.model.results import Result


class ErrorKind(enum.StrEnum):
    """What kind of thing went wrong at a provider."""

    CAPACITY = "capacity"  #: nothing to rent there now; someone else may have taken it
    QUOTA = "quota"  #: the account may not rent more of this
    CREDIT = "credit"  #: the account has no money left
    AUTH = "auth"  #: the key is missing, wrong, revoked or may not do this
    BAD_REQUEST = "bad request"  #: the request itself is wrong; sending it elsewhere may not help
    RATE_LIMIT = "rate limit"  #: asked too often; ``retry_after`` may say when to ask again
    TRANSIENT = "transient"  #: a passing fault: timeout, connection cut, 5xx
    HOST_BROKEN = "host broken"  #: this host does not deliver what it offers
    CREATE_UNKNOWN = "create unknown"  #: the answer to a create was lost: it may exist and bill
    PLUGIN = "plugin"  #: the plugin broke its contract: raised something else, hung, or blocked


class Scope(enum.StrEnum):
    """How much a failure condemns: what should not be tried again for a while."""

    OFFER = "offer"
    HOST = "host"
    MODEL = "model"
    REGION = "region"
    PROVIDER = "provider"
    ACCOUNT = "account"


class BrokerError(Exception):
    """Base class of every error raised by gpubroker."""


class InvalidValue(BrokerError, ValueError):
    """An argument or setting makes no sense.

    Attributes:
        field: the name of the argument or setting.
        value: what was given, as text; never a secret.
        suggestion: the nearest valid name, where one is near.
    """

    def __init__(
        self, field: str, value: object, problem: str, *, suggestion: str | None = None
    ) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.suggestion = suggestion
        hint = f"; did you mean {suggestion!r}?" if suggestion else ""
        super().__init__(f"{field} = {value!r}: {problem}{hint}")

    @classmethod
    def unknown(
        cls, field: str, value: object, known: Iterable[str], *, noun: str = "name"
    ) -> InvalidValue:
        """An unknown name, with the nearest known one as the suggestion."""
        import difflib

        names = sorted(map(str, known))
        near = difflib.get_close_matches(str(value).lower(), [n.lower() for n in names], n=1)
        suggestion = next((n for n in names if near and n.lower() == near[0]), None)
        shown = (
            f"; known: {', '.join(names)}" if suggestion is None and 0 < len(names) <= 12 else ""
        )
        return cls(field, value, f"unknown {noun}{shown}", suggestion=suggestion)


class AcquireError(BrokerError):
    """No machine could be acquired.

    Attributes:
        record: everything that was seen and tried, and why each of it failed.
    """

    def __init__(self, message: str, record: DecisionRecord) -> None:
        self.record = record
        super().__init__(message)


class NoOfferFits(AcquireError):
    """Nothing on the market meets the requirements."""


class AttemptsExhausted(AcquireError):
    """Every offer that fits was tried, and every attempt failed."""


class AcquireStopped(AcquireError):
    """A failure that no other offer can mend: a refused key, an empty account, a bad request."""


class BudgetExceeded(AcquireError):
    """The worst case of every offer that fits is more than may still be spent."""


class DeadlineExceeded(AcquireError):
    """The time allowed for getting a machine ran out."""


class JobError(BrokerError):
    """A machine was there, but the job did not succeed.

    Attributes:
        result: what there is of the result, partial outputs included.
    """

    def __init__(self, message: str, result: Result) -> None:
        self.result = result
        super().__init__(message)


class SetupFailed(JobError):
    """The set-up script failed or ran out of time; the job was never started."""


class JobFailed(JobError):
    """The job ended with a non-zero exit code, ran out of time, or left an output missing."""


class MachineLost(JobError):
    """The machine went away while the job ran, and the job did not say it may be restarted."""


class PoolFull(BrokerError):
    """As many wait for a machine of the pool as may: come back later."""


class PoolTimeout(BrokerError):
    """No machine of the pool became free within the time that a job may wait for one."""


class ServiceFailed(BrokerError):
    """A server on a machine did not get ready, ended, or stopped answering.

    Attributes:
        log: the end of what it printed, both streams.
    """

    def __init__(self, message: str, log: str = "") -> None:
        self.log = log
        super().__init__(message)


class LeaseReleased(BrokerError):
    """The lease was used after its release had been requested."""

    def __init__(self, lease_id: str, reason: str) -> None:
        self.lease_id = lease_id
        self.reason = reason
        super().__init__(f"lease {lease_id} is no longer usable: {reason}")


class SecretsRefused(BrokerError):
    """A job with secrets was meant for a machine whose identity could not be proven.

    Its log did not show its host keys in time, so that the key it showed first was believed. Jobs
    without secrets may run there; say at the start that there will be secrets (a lease's
    ``secrets=True``), and such a machine is not accepted.
    """


class LedgerError(BrokerError):
    """The durable record cannot be used. Nothing is rented without it."""


class LedgerBusy(LedgerError):
    """The ledger was held by others, or out of reach, for longer than the time allowed.

    Nothing has happened, unless the message says that it goes on.
    """


class LedgerUnusable(LedgerError):
    """The ledger is unreadable, read-only, full, corrupt, or written by a newer version.

    Nothing has happened, unless the message says that it may have.
    """


class StaleOwner(LedgerError):
    """Another process has taken this lease over; this one can change nothing any more."""


class BrokerClosed(BrokerError):
    """The broker was used before it was opened, after it was closed, or in a forked child."""


class ProviderError(BrokerError):
    """Raised by a provider plugin: what kind of failure it is, and what it condemns.

    Args:
        message: one sentence for people; never a key or other secret.
        kind: what kind of failure.
        scope: what should not be tried again for a while.
        retry_after: seconds to wait before asking again, where the provider said so.
        machine_id: the vendor's id, when a failed create left a machine behind. The broker
            records it and releases it.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind,
        scope: Scope = Scope.OFFER,
        retry_after: float | None = None,
        machine_id: str | None = None,
    ) -> None:
        self.kind = kind
        self.scope = scope
        self.retry_after = retry_after
        self.machine_id = machine_id
        super().__init__(message)

    def __repr__(self) -> str:
        return f"<ProviderError {self.kind} ({self.scope}): {self}>"


class CreateUnknown(ProviderError):
    """The answer to a create was lost: a machine may exist and bill.

    The broker never sends the create again. It looks for the mark in complete inventories until
    the provider's visibility horizon has passed, and releases what it finds.
    """

    def __init__(self, message: str, *, machine_id: str | None = None) -> None:
        super().__init__(
            message, kind=ErrorKind.CREATE_UNKNOWN, scope=Scope.OFFER, machine_id=machine_id
        )


class ChannelLost(ProviderError):
    """The way to a machine broke, or could not be had.

    It says nothing about what runs there: a job that was started goes on, and can be attached to
    again once there is a way.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind=ErrorKind.TRANSIENT, scope=Scope.HOST)
