"""What the vendor billed, summed up per machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from gpubroker import Charge, ErrorKind, Money, ProviderError, Scope
from gpubroker.rest import Row, rows

_DAY: Final = 86_400
_SOURCE: Final = re.compile(r"instance-(\d+)")
_MOST_PAGES: Final = 200


def days(since: float, until: float) -> Mapping[str, int]:
    """The whole days (UTC) between two moments, as the vendor's filter."""
    first = math.floor(since / _DAY) * _DAY
    return {"gte": first, "lte": max(first, math.floor(until / _DAY) * _DAY) + _DAY - 1}


class Bills:
    """The pages of one answer, summed up."""

    def __init__(self) -> None:
        self._sums: dict[str, Decimal] = {}
        self._unreadable: set[str] = set()
        self._tokens: set[str] = set()

    def add(self, page: Row) -> str | None:
        """Take one page.

        Returns:
            The token of the next page; ``None`` after the last one.

        Raises:
            ProviderError: the page is malformed, or the pages never end.
        """
        found = rows.entries(page.get("results"))
        if found is None:
            raise _unreadable("a page has no list of charges")
        for entry in found:
            self._count(rows.table(entry) or {})
        token = page.get("next_token")
        if token is None:
            return None
        if not isinstance(token, str) or token in self._tokens or len(self._tokens) >= _MOST_PAGES:
            raise _unreadable("the pages never end")
        self._tokens.add(token)
        return token

    def _count(self, row: Row) -> None:
        match = _SOURCE.fullmatch(rows.text(row, "source"))
        if match is None:
            return  # a volume, say: no machine of ours
        amount = rows.decimal(row, "amount")
        if amount is None:
            self._unreadable.add(match[1])
        else:
            self._sums[match[1]] = self._sums.get(match[1], Decimal(0)) + amount

    def charges(self) -> list[Charge]:
        """One charge per machine; none for a machine of which a part cannot be read."""
        return [
            Charge(machine_id=machine_id, amount=Money(amount))
            for machine_id, amount in self._sums.items()
            if machine_id not in self._unreadable
        ]


def _unreadable(problem: str) -> ProviderError:
    return ProviderError(
        f"the charges cannot be read: {problem}", kind=ErrorKind.TRANSIENT, scope=Scope.PROVIDER
    )
