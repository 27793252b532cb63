"""Statements with ``:name`` in the form that psycopg takes."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

#: What must be told from a parameter: quoted text, a cast, and the percent sign.
_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|::|:(?P<name>[A-Za-z_]\w*)|%")


@cache
def for_psycopg(statement: str) -> bytes:
    """The statement with ``%(name)s`` for each ``:name``. Each text is translated once."""
    return _TOKEN.sub(_replacement, statement).encode()


def _replacement(token: re.Match[str]) -> str:
    name = token["name"]
    return f"%({name})s" if name else token[0].replace("%", "%%")
