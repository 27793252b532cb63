"""The options of ``gpubroker serve``: the server."""

# Annotations are read when the commands are made, so they must be values and not text, except
# those of what is imported at first use.
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpubroker.cli.options import Texts, files_of, pairs_of

if TYPE_CHECKING:
    from gpubroker.model.services import Service

_SERVER: Final = "The server"


def server(
    words: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="What starts the server, in the foreground."),
    ],
    listen: Annotated[
        int,
        typer.Option(
            metavar="PORT",
            help="The TCP port that it listens on there. 0: one is chosen, which {port} in the"
            " command stands for.",
            rich_help_panel=_SERVER,
        ),
    ] = 0,
    ready: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="What it is asked for over HTTP until it answers; - if it does not speak HTTP.",
            rich_help_panel=_SERVER,
        ),
    ] = "/",
    start_timeout: Annotated[
        str,
        typer.Option(metavar="TIME", help="How long that may take.", rich_help_panel=_SERVER),
    ] = "10m",
    in_: Annotated[
        Texts,
        typer.Option(
            "--in",
            metavar="FILE[:NAME]",
            help="File or folder to place in the server's folder.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    env: Annotated[
        Texts,
        typer.Option(
            metavar="NAME=VALUE", help="Environment of the server.", rich_help_panel=_SERVER
        ),
    ] = None,
) -> "Service":
    """The server that the options describe."""
    from gpubroker.model.durations import parse_seconds
    from gpubroker.model.services import Service

    path = None if ready == "-" else ready
    return Service(
        words,
        listen,
        ready=path,
        files=files_of(in_ or ()),
        env=pairs_of(env or ()),
        start_timeout=parse_seconds("start-timeout", start_timeout),
        health=path,
    )
