"""What a failure looks like: one clear line or one JSON object, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gpubroker.cli.screen import say, show_json
from gpubroker.errors import AcquireError, BrokerError, InvalidValue, JobError

if TYPE_CHECKING:
    from gpubroker.model.results import Result

BROKER_FAILED: Final = 125
TIMED_OUT: Final = 124
BAD_USAGE: Final = 2


def report(error: BrokerError | OSError, *, as_json: bool) -> int:
    """Tell of `error` in one line, or as JSON; returns what to exit with."""
    for line in told(error):
        say(line)
    if as_json:
        show_json({"error": described(error)})
    return BAD_USAGE if isinstance(error, InvalidValue) else BROKER_FAILED


def told(error: BrokerError | OSError) -> list[str]:
    """An error in a line, and where to read more in another."""
    if not isinstance(error, AcquireError):
        return [_sentence(error)]
    hint = "gpubroker explain" if error.record.verdicts else "gpubroker providers"
    return [_sentence(error), f"see `{hint}` for why"]


def _sentence(error: BrokerError | OSError) -> str:
    if isinstance(error, OSError) and not isinstance(error, BrokerError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error)


def described(error: BrokerError | OSError) -> dict[str, Any]:
    """An error as plain data, with the decision record or the result that it carries."""
    from gpubroker.model.codec import to_plain
    from gpubroker.model.decisions import DecisionRecord

    plain: dict[str, Any] = {"type": type(error).__name__, "message": _sentence(error)}
    if isinstance(error, InvalidValue):
        plain |= {"field": error.field, "suggestion": error.suggestion}
    if isinstance(error, AcquireError):
        plain["record"] = to_plain(DecisionRecord, error.record)
    if isinstance(error, JobError):
        plain["result"] = result_as_data(error.result)
    return plain


def result_as_data(result: Result) -> Any:
    """A result as plain data; what the job printed is base64, since it may be any bytes."""
    from gpubroker.model.codec import to_plain
    from gpubroker.model.results import Result

    return to_plain(Result, result)
