"""The options of ``gpubroker plan``: the traffic, and what holds whatever becomes of machines."""

# Annotations are read when the commands are made, so they must be values and not text, except
# those of what is imported at first use.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from gpubroker.cli.plan import Asked
    from gpubroker.cli.traffic import Said

_TRAFFIC: Final = "The traffic"
_GROUND: Final = "Prices and machines"

Text = str | None


def traffic(
    usage: Annotated[
        Text,
        typer.Argument(
            metavar="[USAGE]",
            help="In words: '100 a day, 60 s each, 9 to 18 h, mon-fri'.",
        ),
    ] = None,
    per_day: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="Requests a day.  \\[default: 100]", rich_help_panel=_TRAFFIC
        ),
    ] = None,
    seconds: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="What each takes: 60, 90s, 2m.  \\[default: 60]",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    hours: Annotated[
        Text,
        typer.Option(
            metavar="HOURS",
            help="When they come: 9-18.  \\[default: all day]",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    days: Annotated[
        Text,
        typer.Option(
            metavar="DAYS",
            help="And on which days: mon-fri or sat,sun.  \\[default: every day]",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Requests as they came: CSV with the column arrival (a date and time, or seconds), "
            "and seconds and model where they are known.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    model: Annotated[
        Text,
        typer.Option(
            metavar="NAME", help="Only the trace's requests for this one.", rich_help_panel=_TRAFFIC
        ),
    ] = None,
    timezone: Annotated[
        Text,
        typer.Option(
            metavar="ZONE",
            help="Whose clock is meant, such as Europe/Berlin.  \\[default: the budget's]",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
) -> "Said":
    """What was said of the traffic."""
    from gpubroker.cli.traffic import Said

    return Said(
        usage=usage,
        per_day=per_day,
        seconds=seconds,
        hours=hours,
        days=days,
        trace=trace,
        model=model,
        timezone=timezone,
    )


def ground(
    price: Annotated[
        Text,
        typer.Option(
            metavar="USD",
            help="Of a machine for an hour, its disk included.  \\[default: the best offer now]",
            rich_help_panel=_GROUND,
        ),
    ] = None,
    disk_price: Annotated[
        Text,
        typer.Option(metavar="USD", help="What of that is for the disk.", rich_help_panel=_GROUND),
    ] = None,
    cold_start: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="How long until a new machine works.  \\[default: as the ledger has seen]",
            rich_help_panel=_GROUND,
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The same for a stopped one, for comparison.",
            rich_help_panel=_GROUND,
        ),
    ] = "30s",
    quantum: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Machines are billed by so much.", rich_help_panel=_GROUND
        ),
    ] = "1s",
    machines: Annotated[
        int,
        typer.Option(metavar="N", help="At most, at a time.", rich_help_panel=_GROUND),
    ] = 4,
    idle: Annotated[
        str,
        typer.Option(metavar="TIME", help="When the idle stop stops.", rich_help_panel=_GROUND),
    ] = "5m",
    schedule: Annotated[
        Text,
        typer.Option(
            metavar="WINDOWS",
            help="When machines may be warm: 'mon-fri 09:00-18:00', or '0 9 * * 1-5 for 9h'; "
            "several with ; between them.  \\[default: the hours of the usage]",
            rich_help_panel=_GROUND,
        ),
    ] = None,
    max_wait: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="Recommend what lets 95 of 100 requests wait no longer.",
            rich_help_panel=_GROUND,
        ),
    ] = None,
) -> "Asked":
    """What was said of prices and machines."""
    from gpubroker.cli.plan import Asked
    from gpubroker.model.durations import parse_seconds
    from gpubroker.model.money import parse_money

    def time(name: str, text: Text) -> float | None:
        return None if text is None else parse_seconds(name, text, none=True)

    return Asked(
        price=None if price is None else parse_money("price", price),
        disk_price=None if disk_price is None else parse_money("disk_price", disk_price),
        cold_start=time("cold_start", cold_start),
        resume=parse_seconds("resume", resume, none=True),
        quantum=parse_seconds("quantum", quantum),
        machines=machines,
        idle=parse_seconds("idle", idle, none=True),
        schedule=schedule,
        max_wait=time("max_wait", max_wait),
    )
