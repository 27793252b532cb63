"""What an answer that is no success means, in the broker's words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker.rest import Reply, Row, rows, said
from gpubroker_vast.vocabulary import ERRORS, PHRASES, STATUSES, Meaning

_PASSING: Final[Meaning] = (ErrorKind.TRANSIENT, Scope.PROVIDER)
_THRESHOLD: Final = re.compile(r"threshold\s*=\s*([0-9]+(?:\.[0-9]+)?)")
_LONGEST: Final = 300


def succeeded(reply: Reply) -> Row | None:
    """The body of an answer that says that it worked; ``None`` for every other one."""
    body = reply.json_object() if reply.ok else None
    return body if body is not None and body.get("success", True) is True else None


def code_of(reply: Reply) -> str:
    """The error's code, in small letters; empty if there is none."""
    return rows.text(reply.json_object() or {}, "error").lower()


def failure(reply: Reply, doing: str, hide: Callable[[str], str] = str) -> ProviderError:
    """The error that an answer stands for.

    Args:
        doing: what was asked for, for people.
        hide: strikes out what no message may hold.
    """
    body = reply.json_object()
    code, words = code_of(reply), said(reply, ("msg", "message", "detail"))
    kind, scope = _meaning(reply.status, body is not None, f"{code} {words}".lower(), code)
    pause = _pause(reply, body or {}, words)
    limited = kind in (ErrorKind.RATE_LIMIT, ErrorKind.QUOTA)
    shown = hide(" ".join(filter(None, (code, words)))) or "no reason given"
    return ProviderError(
        f"{doing}: HTTP {reply.status}: {shown}"[:_LONGEST],
        kind=kind,
        scope=scope,
        retry_after=pause if limited else None,
    )


def _meaning(status: int, is_json: bool, words: str, code: str) -> Meaning:
    if status >= 500 or 300 <= status < 400:
        return _PASSING  # whatever it says: nobody knows what was done
    if status == 403 and not is_json:
        return _PASSING  # a guard in front of the API, not the API: it says nothing of the key
    for phrase, meaning in PHRASES:
        if phrase in words:
            return meaning
    if code in ERRORS and status != 429:
        return ERRORS[code]
    if status in STATUSES:
        return STATUSES[status]
    return STATUSES[400] if 400 <= status < 500 and is_json else _PASSING


def _pause(reply: Reply, body: Row, words: str) -> float | None:
    """Seconds to wait, by any of the ways in which they are told."""
    told = reply.retry_after()
    if told is None:
        told = rows.number(body, "retry_after")
    if told is None and (reset := rows.number(reply.headers, "x-ratelimit-reset")) is not None:
        told = reset - time.time()
    if told is None and (match := _THRESHOLD.search(words)):
        told = float(match[1])
    return None if told is None else max(0.0, told)
