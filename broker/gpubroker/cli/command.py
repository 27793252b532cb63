"""How a function becomes a command: option groups, settings, and errors into exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gpubroker.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
LedgerPlace = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="PATH|URL",
        help="The file, or the PostgreSQL database, that keeps the record of leases and money;"
        " or set GPUBROKER_LEDGER, which keeps a password out of the list of processes.",
    ),
]
Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Rent from emulated vendors on this machine: no account, no money, no real GPU.",
    ),
]


def command(
    app: typer.Typer,
    name: str | None = None,
    *,
    sandboxed: bool = True,
    **groups: Callable[..., Any],
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command of a function that returns an exit code.

    The function's first parameter gets the settings. Errors of the broker end it with one line
    on stderr, or with a JSON object if it has a parameter `as_json` and that is set.

    Args:
        name: the command's name, where it is not the function's.
        sandboxed: whether it has the option ``--sandbox``.
        groups: by parameter: a function whose own parameters become options of the command, and
            whose return value the parameter gets.
    """

    def make(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            from gpubroker.cli.failures import report
            from gpubroker.errors import BrokerError

            in_sandbox = given.pop("sandbox", False)
            try:
                with _settings(ctx.obj, in_sandbox) as settings:
                    code = function(settings, **_grouped(groups, given))
            except (BrokerError, OSError) as error:
                code = report(error, as_json=bool(given.get("as_json")))
            raise typer.Exit(code)

        parameters = [_context(), *_flattened(function, groups)]
        if sandboxed:
            parameters.append(_sandbox())
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        words = {"allow_interspersed_args": False} if {"job", "server"} & set(groups) else {}
        app.command(name, context_settings=words)(run)
        return function

    return make


@contextmanager
def _settings(ledger: str | None, in_sandbox: bool) -> Generator[Settings]:
    """The user's settings; or, in a sandbox, those that point at its emulators."""
    from dataclasses import replace

    if not in_sandbox:
        from gpubroker.settings import load

        yield load(ledger=ledger)
        return
    from gpubroker.model.places import ledger_place
    from gpubroker.testing.sandboxing import sandbox

    with sandbox() as box:
        settings: Settings = box.settings
        yield settings if ledger is None else replace(settings, ledger=ledger_place(ledger))


def _sandbox() -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("sandbox", kind, default=False, annotation=Sandbox)


def _context() -> inspect.Parameter:
    return inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def _flattened(
    function: Callable[..., int], groups: dict[str, Callable[..., Any]]
) -> list[inspect.Parameter]:
    _settings, *own = inspect.signature(function).parameters.values()
    flat: list[inspect.Parameter] = []
    for parameter in own:
        if parameter.name in groups:
            flat += inspect.signature(groups[parameter.name]).parameters.values()
        else:
            flat.append(parameter)
    return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in flat]


def _grouped(groups: dict[str, Callable[..., Any]], given: dict[str, Any]) -> dict[str, Any]:
    grouped: dict[str, Any] = {}
    taken: set[str] = set()
    for name, group in groups.items():
        mine = inspect.signature(group).parameters
        grouped[name] = group(**{word: given[word] for word in mine})
        taken.update(mine)
    return grouped | {word: value for word, value in given.items() if word not in taken}
