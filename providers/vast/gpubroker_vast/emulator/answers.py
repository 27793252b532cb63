"""Errors in the vendor's words."""

from __future__ import annotations

from typing import Any

from gpubroker.testing.emulation import Answer


def ok(**parts: Any) -> Answer:
    """Success."""
    return Answer.of({"success": True, **parts})


def refused(status: int, error: str | None, message: str, **parts: Any) -> Answer:
    """A refusal; a status of 200 is a normal way to refuse here."""
    body: dict[str, Any] = {"success": False}
    if error is not None:
        body["error"] = error
    return Answer.of(body | {"msg": message} | parts, status)


def no_such_instance(name: object) -> Answer:
    """It is not this account's, or has gone."""
    return refused(404, "no_such_instance", f"Instance {name} not found.")


def no_such_ask(ask: object, status: int = 404) -> Answer:
    """An offer that cannot be rented."""
    message = (
        f"Instance type {ask} is no longer available."
        if status == 410
        else f"error 404/3603: no_such_ask Instance type by id {ask} is not available."
    )
    return refused(status, "no_such_ask", message, ask_id=ask)


LOGIN_NEEDED = refused(403, "auth_error", "This action requires login.")


def bad_key(status: int) -> Answer:
    """A key that nobody knows: 404 for some endpoints and accounts, 401 for others."""
    return refused(status, "auth_error", "Invalid user key")
