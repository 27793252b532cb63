"""``gpubroker costs``: what was spent, on what, and how full the limits are. Opens no provider."""

from __future__ import annotations

import csv
import sys
import time
from datetime import date
from typing import Final, cast, get_args

from gpubroker.cli.ledger import opened
from gpubroker.cli.screen import Page, Table, drawn, show, show_json
from gpubroker.errors import InvalidValue
from gpubroker.model.codec import to_plain
from gpubroker.model.costs import CostLine, Costs, CostsBy
from gpubroker.model.durations import parse_seconds
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.windows import midnight
from gpubroker.settings import Settings

_WIDTH: Final = 24
_FULL, _HELD = "█", "░"
#: Parts of a full block, by eighths.
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
#: What leases without any are called.
_NAMELESS: Final = {"tag": "(no tag)", "job": "(no job)"}


def costs(
    settings: Settings, *, by: str, since: str, until: str | None, as_csv: bool, as_json: bool
) -> int:
    """Show what the leases asked for within an interval have cost."""
    if by not in get_args(CostsBy):
        raise InvalidValue.unknown("by", by, get_args(CostsBy), noun="sum")
    if as_csv and as_json:
        raise InvalidValue("csv", True, "say --csv or --json, not both")
    now, zone = time.time(), settings.budget.timezone
    start = moment("since", since, now, zone)
    end = None if until is None else moment("until", until, now, zone)
    with opened(settings) as ledger:
        found = ledger.costs(cast("CostsBy", by), settings.budget, since=start, until=end, now=now)
    if as_json:
        show_json(to_plain(Costs, found))
    elif as_csv:
        _write_csv(found)
    else:
        show(costs_page(found, charted=drawn()))
    return 0


def moment(field: str, text: str, now: float, timezone: str) -> float:
    """Unix seconds from a date, as its first midnight, or from how long ago, such as ``7d``.

    Raises:
        InvalidValue: it is neither.
    """
    try:
        return midnight(date.fromisoformat(text.strip()), timezone)
    except ValueError:
        pass
    try:
        return now - parse_seconds(field, text)
    except InvalidValue:
        problem = "must be a date such as 2026-11-30, or how long ago, such as 7d or 12h"
        raise InvalidValue(field, text, problem) from None


def _write_csv(found: Costs) -> None:
    """The lines, money in plain dollars: the first row names the columns."""
    columns = ("name", "title", "spent", "reserved", "leases", "open")
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow([found.by, *columns[1:]])
    for line in found.lines:
        spent, reserved = (f"{money.amount:f}" for money in (line.spent, line.reserved))
        rows.writerow([line.name, line.title, spent, reserved, line.leases, line.open])
    sys.stdout.flush()


def costs_page(found: Costs, *, charted: bool) -> Page:
    """The lines, with a bar for each where there is a terminal; and how full the limits are."""
    most = max((line.spent + line.reserved for line in found.lines), default=ZERO)
    rows = [_row(found, line, most, charted=charted) for line in found.lines]
    bars = [""] if charted else []
    titles = ["what"] if found.by == "job" else []
    limits = [
        [
            limit.name,
            str(limit.spent),
            str(limit.reserved),
            str(limit.amount),
            _share(limit.spent + limit.reserved, limit.amount),
            *([bar(limit.spent, limit.reserved, limit.amount)] if charted else []),
        ]
        for limit in found.limits
    ]
    limits += [
        [
            line.name,
            str(line.held),
            "-",
            str(line.machines),
            _share(Money(line.held), Money(line.machines)),
            *([bar(Money(line.held), ZERO, Money(line.machines))] if charted else []),
        ]
        for line in found.machines
    ]
    total = f"{found.spent} spent"
    if found.reserved:
        total += f", {found.reserved} more reserved for machines that run"
    closing = [total]
    if found.by == "tag":
        closing.append("a lease with several tags is part of several lines")
    return Page(
        heading=[] if rows else ["nothing was rented"],
        tables=[
            Table([found.by, *titles, ">spent", ">reserved", ">leases", *bars], rows),
            Table(["limit", ">spent", ">reserved", ">of", ">full", *bars], limits, "limits"),
        ],
        closing=closing,
    )


def _row(found: Costs, line: CostLine, most: Money, *, charted: bool) -> list[str]:
    return [
        line.name or _NAMELESS.get(found.by, "-"),
        *([line.title or "-"] if found.by == "job" else []),
        str(line.spent),
        str(line.reserved) if line.open else "-",
        f"{line.leases} ({line.open} open)" if line.open else str(line.leases),
        *([bar(line.spent, line.reserved, most)] if charted else []),
    ]


def _share(part: Money, whole: Money) -> str:
    return f"{part.amount / whole.amount:.0%}" if whole else "-"


def bar(spent: Money, reserved: Money, whole: Money) -> str:
    """A bar: what was spent, then what is reserved, of a `whole` that fills its width."""
    if not whole:
        return ""
    room = _WIDTH * 8
    filled = min(room, max(0, round(spent.amount / whole.amount * room)))
    both = min(room, max(0, round((spent + reserved).amount / whole.amount * room)))
    blocks, eighths = divmod(filled, 8)
    drawing = _FULL * blocks + (_EIGHTHS[eighths] if eighths else "")
    return drawing + _HELD * max(0, round(both / 8) - len(drawing))
