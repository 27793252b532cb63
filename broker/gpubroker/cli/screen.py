"""Where everything that is shown goes: tables, lines and JSON on stdout, messages on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpubroker.cli.neutralise import harmless


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text.

    Attributes:
        columns: their titles; one that begins with ``>`` is aligned to the right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What a command shows: sentences above and below some tables. Empty tables are left out."""

    heading: Sequence[str] = ()
    tables: Sequence[Table] = ()
    closing: Sequence[str] = field(default=())


def drawn() -> bool:
    """Whether pages are drawn, and not written as plain text: on a terminal that can."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def show(page: Page) -> None:
    """Print a page: drawn on a terminal, plain aligned text anywhere else."""
    tables = [table for table in page.tables if table.rows]
    if drawn():
        _draw(page, tables)
        return
    lines = [harmless(line) for line in page.heading]
    for table in tables:
        lines += [f"{table.title}:"] if table.title else []
        lines += aligned(table)
    lines += [harmless(line) for line in page.closing]
    print(*lines, sep="\n", flush=True)


def _draw(page: Page, tables: Sequence[Table]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(highlight=False, color_system=None if plain else "auto")
    for line in page.heading:
        console.print(Text(harmless(line)))
    for table in tables:
        if table.title:
            console.print(Text(f"\n{table.title}", style="bold"))
        drawing = Drawing(box=SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
        for column in table.columns:
            right = column.startswith(">")
            drawing.add_column(
                Text(column.removeprefix(">")),
                justify="right" if right else "left",
                no_wrap=right or column == table.columns[0],
                overflow="fold",
            )
        for row in table.rows:
            drawing.add_row(*(Text(harmless(cell)) for cell in row))
        console.print(drawing)
    for line in page.closing:
        console.print(Text(harmless(line)))


def aligned(table: Table) -> list[str]:
    """A table as lines of plain text, columns apart by two blanks."""
    titles = [column.removeprefix(">") for column in table.columns]
    rows = [titles, *([harmless(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(titles))]
    lines: list[str] = []
    for row in rows:
        cells = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def show_json(value: Any) -> None:
    """Print one JSON value, on one line where it is piped and indented where it is looked at."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent), flush=True)


def say(text: str) -> None:
    """Print one message on stderr."""
    print(f"gpubroker: {harmless(text)}", file=sys.stderr, flush=True)
