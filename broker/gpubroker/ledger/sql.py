"""What the ledger's statements ask of the engine under them; SQLite and PostgreSQL both give it.

Statements keep to what both understand: parameters as ``:name``, whole numbers as ``BIGINT``,
times as ``DOUBLE PRECISION``, patterns as parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = Mapping[str, Any]


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Row | None: ...
    def __iter__(self) -> Iterator[Row]: ...


class Sql(Protocol):
    """One transaction.

    Attributes:
        counting: the type of a primary key that counts up by itself. Its numbers rise; they may
            leave gaps.
    """

    counting: str

    def execute(self, statement: str, values: Mapping[str, Any] = ..., /) -> Rows:
        """Carry out one statement."""
        ...

    def version(self) -> int:
        """How many migrations the tables have seen."""
        ...

    def set_version(self, number: int) -> None:
        """Note that the tables have seen `number` migrations."""
        ...


class Engine(Protocol):
    """One open store, used from one thread at a time of one process."""

    def transaction(self) -> AbstractContextManager[Sql]:
        """Everything inside happens, durably and after every earlier one, or nothing does.

        Raises:
            LedgerBusy: somebody else was in the way for too long. Nothing has happened.
            LedgerUnusable: it cannot be written or read.
        """
        ...

    def reading(self) -> AbstractContextManager[Sql]:
        """One consistent look, which waits for no writer."""
        ...

    def concerns(self) -> list[str]:
        """What its owner should put right, though it can be used, one line each."""
        ...

    def damage(self) -> list[str]:
        """What the engine's own check finds wrong, one line each."""
        ...

    def abandon(self) -> None:
        """Make an operation that hangs fail, and all later ones; from any thread."""
        ...

    def close(self) -> None:
        """Close it. A child of a fork must leave its parent's connection alone."""
        ...
