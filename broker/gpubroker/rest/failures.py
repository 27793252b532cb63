"""What a request without an answer means, and what a refusal says, whoever the vendor is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.rest import rows
from gpubroker.rest.reply import Reply, RequestFailed

_LONGEST: Final = 300


def unreachable(error: RequestFailed) -> ProviderError:
    """The error for a request without an answer, other than a create."""
    limited = error.retry_after is not None
    return ProviderError(
        str(error),
        kind=ErrorKind.RATE_LIMIT if limited else ErrorKind.TRANSIENT,
        scope=Scope.ACCOUNT if limited else Scope.PROVIDER,
        retry_after=error.retry_after,
    )


def create_unanswered(error: RequestFailed) -> ProviderError:
    """The error for a create without an answer: unknown, unless it surely was never sent."""
    if error.sent:
        return CreateUnknown(f"the answer to the create was lost: {error}")
    if error.retry_after is not None:
        return ProviderError(
            f"the create was not sent: {error}",
            kind=ErrorKind.RATE_LIMIT,
            scope=Scope.ACCOUNT,
            retry_after=error.retry_after,
        )
    # There never was a connection. "Transient" would be taken for a lost answer; what is certain
    # is that nothing can be rented there now.
    return ProviderError(
        f"the create was not sent: {error}", kind=ErrorKind.CAPACITY, scope=Scope.PROVIDER
    )


def said(reply: Reply, names: Iterable[str]) -> str:
    """What an answer says to people, on one line; nothing of a page in HTML.

    Args:
        names: where the words may be in a JSON object, itself and not one in it; the first that
            has any. Words that lie deeper are read with
            ``rows.text(rows.table(body.get("error")) or {}, "message")``.
    """
    body = reply.json_object()
    if body is not None:
        words = next(filter(None, (rows.text(body, name) for name in names)), "")
    else:
        words = reply.body[:_LONGEST].decode(errors="replace")
        if "<" in words:
            words = "a page in HTML"
    return one_line(words)


def one_line(text: str) -> str:
    """Text without control characters and with single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
