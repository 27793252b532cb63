"""What an answer that is no success means, in the broker's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker.rest import Reply, one_line, rows, said
from gpubroker_runpod.vocabulary import (
    BUSY,
    BUSY_PAUSE,
    CREATE_PHRASES,
    CREATE_STATUSES,
    GONE,
    NO_PATH,
    STATUSES,
    Meaning,
)

_PASSING: Final[Meaning] = (ErrorKind.TRANSIENT, Scope.PROVIDER)
_UNSAID: Final[Meaning] = (ErrorKind.CREATE_UNKNOWN, Scope.OFFER)
_EMPTY: Final[Meaning] = (ErrorKind.CAPACITY, Scope.OFFER)
_OURS: Final[Meaning] = (ErrorKind.BAD_REQUEST, Scope.PROVIDER)
_CLOSED: Final[Meaning] = (ErrorKind.CAPACITY, Scope.PROVIDER)
_POOL: Final[Meaning] = (ErrorKind.QUOTA, Scope.OFFER)
_KEY: Final[Meaning] = (ErrorKind.AUTH, Scope.ACCOUNT)
_LONGEST: Final = 300
#: Where the words for people are: a problem document's, and an older API's.
_WORDS: Final = ("detail", "title", "error", "message")
#: Refusals in a row after which what they do not say is held for our own mistake.
_TOO_MANY: Final = 3


class Streak:
    """Counts refusals in a row that do not say whether the offer or the request is at fault.

    A mistake of ours fails in the same way at every offer; a lack of capacity does not last.
    """

    def __init__(self, most: int = _TOO_MANY) -> None:
        self._most = most
        self._length = 0

    def one_more(self) -> bool:
        """Count one; true once there were too many to blame the offers."""
        self._length += 1
        return self._length >= self._most

    def end(self) -> None:
        """An answer came that shows that such requests are understood."""
        self._length = 0


class Refusals:
    """What the answers to creates mean, those of doubtful meaning in view of the ones before."""

    def __init__(self) -> None:
        self._unclear = Streak()
        self._denied = Streak()

    def accepted(self) -> None:
        """A pod was made."""
        self._unclear.end()
        self._denied.end()

    def meaning(self, reply: Reply) -> Meaning:
        """What an answer that names no pod means; ``CREATE_UNKNOWN`` if there may be one."""
        is_json = reply.json_object() is not None
        words = words_of(reply).lower()
        if not 400 <= reply.status < 500 or reply.status == 408:
            return _UNSAID  # whatever it says: creates that failed so were carried out
        if reply.status in (401, 429):
            return CREATE_STATUSES[reply.status]  # given before the request is looked at
        if reply.status == 403:
            # A page comes from a guard in front of the API, which lets nothing through.
            return self._denial() if is_json else _CLOSED
        if not is_json:
            return CREATE_STATUSES[413] if reply.status == 413 else _UNSAID
        for phrase, meaning in CREATE_PHRASES:
            if phrase in words:
                self._unclear.end()
                return meaning
        if reply.status in CREATE_STATUSES:
            return CREATE_STATUSES[reply.status]
        return _OURS if self._unclear.one_more() else _EMPTY

    def _denial(self) -> Meaning:
        """A kind of pod that this account may not have, or, time after time, a key without rights."""
        return _KEY if self._denied.one_more() else _POOL


def refusal(
    reply: Reply, doing: str, meaning: Meaning, hide: Callable[[str], str]
) -> ProviderError:
    """The error that a refused create stands for, with the meaning that it was found to have."""
    kind, scope = meaning
    pause = reply.retry_after() if kind is ErrorKind.RATE_LIMIT else None
    if meaning == BUSY:
        pause = BUSY_PAUSE
    return ProviderError(_text(reply, doing, hide), kind=kind, scope=scope, retry_after=pause)


def failure(reply: Reply, doing: str, hide: Callable[[str], str] = str) -> ProviderError:
    """The error that an answer to anything but a create stands for.

    Args:
        doing: what was asked for, for people.
        hide: strikes out what no message may hold.
    """
    kind, scope = STATUSES.get(reply.status, _PASSING)
    if reply.json_object() is None and reply.status not in (401, 429):
        kind, scope = _PASSING  # not from the API, but from something in front of it
    return ProviderError(
        _text(reply, doing, hide),
        kind=kind,
        scope=scope,
        retry_after=reply.retry_after() if kind is ErrorKind.RATE_LIMIT else None,
    )


def unreadable(doing: str, problem: str = "the answer cannot be read") -> ProviderError:
    """The error for a success whose content makes no sense."""
    return ProviderError(f"{doing}: {problem}", kind=ErrorKind.TRANSIENT, scope=Scope.PROVIDER)


def words_of(reply: Reply) -> str:
    """Everything that an answer says to people, single faults included."""
    body = reply.json_object() or {}
    faults = rows.entries(body.get("errors")) or []
    listed = "; ".join(one_line(fault) for fault in faults if isinstance(fault, str))
    return ": ".join(filter(None, (said(reply, _WORDS), listed)))


def path_is_gone(reply: Reply) -> bool:
    """Whether an answer says that there is no such path, rather than nothing at its end."""
    if reply.status not in GONE:
        return False
    return reply.status != 404 or reply.json_object() is None or NO_PATH in words_of(reply).lower()


def _text(reply: Reply, doing: str, hide: Callable[[str], str]) -> str:
    words = words_of(reply) or "no reason given"
    if path_is_gone(reply):
        words = f"{words} (this version of the API may have been retired)"
    request = one_line(reply.headers.get("x-request-id", ""))[:64]
    suffix = f" [request {request}]" if request else ""
    return hide(f"{doing}: HTTP {reply.status}: {words}"[:_LONGEST] + suffix)
