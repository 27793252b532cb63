"""Refusals in the vendor's words: problem documents."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from gpubroker.testing.emulation import Answer

PROBLEM: Final = "application/problem+json"

NO_CAPACITY: Final = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)
NO_DISK: Final = "There are no longer any instances available with enough disk space."
OTHER_MACHINE: Final = (
    "This machine does not have the resources to deploy your pod. Please try a different machine"
)
NO_GPUS_TO_START: Final = "There are not enough free GPUs on the host machine to start this pod."
SOMETHING_WRONG: Final = "Something went wrong. Please try again later or contact support."
DISK_NEEDED: Final = "You must either provide a template id or pod configuration parameters"


def problem(status: int, detail: str, errors: Sequence[str] = (), **headers: str) -> Answer:
    """A problem document."""
    body: dict[str, Any] = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return Answer.of(body, status, **headers).but(content_type=PROBLEM)


def invalid(*errors: str) -> Answer:
    """A request that does not match the schema."""
    return problem(422, "Request validation failed.", errors)


def no_pod() -> Answer:
    """It is not this account's, or has gone."""
    return problem(404, "pod not found")


MISSING_TOKEN: Final = problem(401, "missing bearer token")
BAD_TOKEN: Final = problem(401, "invalid bearer token")
DENIED: Final = problem(403, "access denied")
GONE: Final = problem(410, "This API has been retired. Use https://api.runpod.io/v2 instead.")
NO_PATH: Final = problem(404, "The requested path was not found.")
#: What stands in front of the API says this to clients that it takes for robots.
EDGE: Final = Answer.text("error code: 1010", 403, "text/plain; charset=UTF-8")


def low_balance() -> Answer:
    """The account could not pay for an hour."""
    return problem(402, "Your account balance is too low to deploy this pod.")


def over_spend_limit(limit: float) -> Answer:
    """All pods together would cost too much per hour."""
    detail = f"Renting this pod would put you over your current spending limit (${limit:.2f}/hr)."
    return problem(400, detail)


def window_used_up(window: str, seconds: int) -> Answer:
    """Too many requests."""
    detail = f"rate limit exceeded for the {window} window"
    return problem(429, detail, Retry_After=str(seconds))
