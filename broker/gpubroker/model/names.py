"""Names given by callers: lists of them, and environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gpubroker.errors import InvalidValue

_VARIABLE: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
#: What the machine side uses itself; a job that set these could hide from its own release.
_RESERVED: Final = ("GPUBROKER_",)


def text_names(field: str, value: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, without blanks around them; empty ones are refused."""
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InvalidValue(field, name, "must be a non-empty name")
    return tuple(name.strip() for name in names)


def env_names(field: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, checked: portable names, text values without NUL.

    Values are never put into the error, since they may be secrets.
    """
    for name, value in variables.items():
        if not _VARIABLE.match(name):
            raise InvalidValue(field, name, "not a name for an environment variable")
        if name.startswith(_RESERVED):
            raise InvalidValue(field, name, "names that begin with GPUBROKER_ are reserved")
        if not isinstance(value, str) or "\0" in value:
            raise InvalidValue(f"{field}[{name}]", "…", "must be text without NUL")
    return dict(variables)
