"""Figures, what they are compared with, and the table that shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value, what was measured beside it, and what it should be.

    Attributes:
        what: what was measured.
        value: how much, in `unit`.
        beside: what it is compared with, measured in the same run; empty if nothing is.
        other: how much that was, in the same unit.
        limit: the most that is acceptable, in `unit`; ``None`` sets no target.
        of_other: the limit is a multiple of `other` instead.
        note: what else is worth knowing.
    """

    what: str
    value: float
    unit: str
    beside: str = ""
    other: float | None = None
    limit: float | None = None
    of_other: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times what was measured beside it."""
        return self.value / self.other if self.other else None

    @property
    def target(self) -> str:
        """The target, for people; empty if there is none."""
        if self.limit is None:
            return ""
        return f"≤ {self.limit:g}x" if self.of_other else f"≤ {amount(self.limit, self.unit)}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; ``None`` if there is none."""
        compared = self.ratio if self.of_other else self.value
        return None if self.limit is None or compared is None else compared <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "beside": self.beside,
            "other": self.other,
            "ratio": self.ratio,
            "target": self.target,
            "met": self.met,
            "note": self.note,
        }


def amount(value: float, unit: str) -> str:
    """A value with its unit, in as many digits as mean something."""
    text = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table that can be read as it is, with the notes below it."""
    rows = [("what", "measured", "beside it", "ratio", "target", "")]
    notes: list[str] = []
    for figure in figures:
        beside = ""
        if figure.other is not None:
            beside = f"{amount(figure.other, figure.unit)}: {figure.beside}"
        rows.append(
            (
                figure.what,
                amount(figure.value, figure.unit),
                beside,
                "" if figure.ratio is None else f"{figure.ratio:.2f}x",
                figure.target,
                {True: "pass", False: "**miss**", None: ""}[figure.met],
            )
        )
        if figure.note:
            notes.append(f"- {figure.what}: {figure.note}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, "", *notes]).rstrip()
