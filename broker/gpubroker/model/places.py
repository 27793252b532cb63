"""Where a ledger is kept: a file, or a PostgreSQL database."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from gpubroker.errors import InvalidValue

_SCHEME: Final = re.compile(r"(?i)[a-z][a-z0-9+.-]*://")
#: Greedy up to the last "@": too much hidden is better than too little.
_USER: Final = re.compile(r"(?s)^([^:]*://[^:@/?]*):(.*)@")
_PARAMETER: Final = re.compile(r"(?i)([?&](?:ssl)?password=)([^&#]*)")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A PostgreSQL database by its URL, as libpq reads it. As text it is without its password.

    Attributes:
        secret: the URL with everything in it.
    """

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return _PARAMETER.sub(r"\1…", _USER.sub(r"\1:…@", self.secret))

    def __repr__(self) -> str:
        return f"PostgresUrl({str(self)!r})"

    def without_password(self, text: str) -> str:
        """`text`, such as a driver's error, with the password taken out wherever it is quoted."""
        passwords = [match[2] for match in _USER.finditer(self.secret)]
        passwords += [match[2] for match in _PARAMETER.finditer(self.secret)]
        for password in filter(None, {*passwords, *map(unquote, passwords)}):
            text = text.replace(password, "…")
        return text


Place = Path | PostgresUrl


def ledger_place(given: str | Path) -> Place:
    """The file or database that a setting names.

    Raises:
        InvalidValue: a URL, but not of PostgreSQL.
    """
    if isinstance(given, Path) or not (scheme := _SCHEME.match(given)):
        return Path(given).expanduser()
    if scheme[0].lower() not in ("postgresql://", "postgres://"):
        shown = str(PostgresUrl(given))
        raise InvalidValue("ledger", shown, "must be a file or begin with postgresql://")
    return PostgresUrl(given)
