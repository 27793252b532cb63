"""Names given by callers: lists of them, and environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gpubroker.errors import InvalidValue

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What the machine side uses itself; a job that set these could hide from its own release.
_RESERVED: Final = ("GPUBROKER_",)


def is_a(value: object, *kinds: type) -> bool:
    """Whether `value` really is of one of these types: not every caller runs a type checker.

    ``True`` and ``False`` are not numbers here.
    """
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def is_text(value: object) -> bool:
    """Whether `value` is text that an argument or a variable can hold: without NUL."""
    return isinstance(value, str) and "\0" not in value


def text_names(field: str, value: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, without blanks around them; empty ones are refused."""
    if not is_a(value, str, Iterable):
        raise InvalidValue(field, value, "must be a name or a list of names")
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not is_text(name) or not name.strip():
            raise InvalidValue(field, name, "must be a non-empty name")
    return tuple(name.strip() for name in names)


def env_names(field: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, checked: portable names, text values without NUL.

    Values are never put into the error, since they may be secrets.
    """
    if not is_a(variables, Mapping):
        raise InvalidValue(field, "…", "must be a mapping of names and values")
    for name, value in variables.items():
        if not is_text(name) or not _VARIABLE.fullmatch(name):
            raise InvalidValue(field, name, "not a name for an environment variable")
        if name.startswith(_RESERVED):
            raise InvalidValue(field, name, "names that begin with GPUBROKER_ are reserved")
        if not is_text(value):
            raise InvalidValue(f"{field}[{name}]", "…", "must be text without NUL")
    return dict(variables)
