"""The options that say how a machine is chosen, in the words of ``[policy]`` in the settings."""

# Annotations are read when the commands are made, so they must be values and not text, except
# those of what is imported at first use.
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from gpubroker.policy.policy import Policy
    from gpubroker.settings import Settings

_CHOICE: Final = "The policy (each goes before the settings' own)"
_RULE: Final = re.compile(r"[^\W\d]+(?=\s*(?:\(|,|$))")

Text = str | None


def policy(
    rank: Annotated[
        Text,
        typer.Option(
            metavar="RANKING",
            help="Which to try first: cheapest, cheapest_to_finish, fastest, prefer(NAME), a sum "
            "such as 0.7*cheapest + 0.3*fastest, or several with commas between them, the later "
            "ones for ties.  \\[default: cheapest]",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    wait: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="How long to wait for capacity where nothing fits or everything failed.  "
            "\\[default: not at all]",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    acquire_timeout: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="How long getting a machine may take in all, waiting included.  \\[default: 30m]",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    attempt_timeout: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="How long one attempt may take.  \\[default: the provider's own time for booting]",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    quote_timeout: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="How long each provider may take to say what there is.  \\[default: 10s]",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many attempts there may be in all.  \\[default: 20]",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=RULE",
            help="What follows failures of one kind: 'capacity=here(3), elsewhere(60)' tries the "
            "same offer three times more, then others, and leaves it alone for 60 s; or stop. "
            "Repeatable.",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    work: Annotated[
        Text,
        typer.Option(
            metavar="WORDS",
            help="What the job needs, for cheapest_to_finish and fastest: 'seconds=40 sends=1.5 "
            "returns=0.1 speed.A100=2' (GB; how many times as fast a card runs it).",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
) -> dict[str, Any]:
    """The words that were said, as a settings file would have them."""
    words = {
        "rank": rank,
        "wait": wait,
        "acquire_timeout": acquire_timeout,
        "attempt_timeout": attempt_timeout,
        "quote_timeout": quote_timeout,
        "max_attempts": max_attempts,
        "retry": _rules(retry or ()),
        "work": None if work is None else _work(work),
    }
    return {name: value for name, value in words.items() if value not in (None, {})}


def policy_of(settings: "Settings", words: Mapping[str, Any]) -> "Policy":
    """The settings' policy, with each of these words in the place of its own.

    Raises:
        InvalidValue: naming the word, and the nearest known one.
    """
    from gpubroker.policy.policy import Policy

    merged = dict(settings.policy_words)
    for name, value in words.items():
        if name in ("retry", "work"):
            merged[name] = _over(merged.get(name, {}), value)
        else:
            merged[name] = value
    return Policy.from_mapping(merged)


def _over(kept: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A table with some of its words said anew. ``rate-limit`` and ``rate_limit`` are the same."""
    anew = {_plain(name) for name in said}
    return {**{name: value for name, value in kept.items() if _plain(name) not in anew}, **said}


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").lower()


def _rules(given: Iterable[str]) -> dict[str, str]:
    from gpubroker.errors import InvalidValue
    from gpubroker.policy.retry import Step

    rules: dict[str, str] = {}
    for text in given:
        kind, equals, rule = (part.strip() for part in text.partition("="))
        if not kind or not equals or not rule:
            raise InvalidValue("retry", text, "must be KIND=RULE, such as 'capacity=here(3)'")
        for name in _RULE.findall(rule):
            if name not in set(Step):
                raise InvalidValue.unknown("retry", name, list(Step), noun="rule")
        if _plain(kind) in map(_plain, rules):
            raise InvalidValue("retry", text, f"there are two rules for {kind}")
        rules[kind] = rule
    return rules


def _work(text: str) -> dict[str, Any]:
    from gpubroker.cli.alternatives import pairs
    from gpubroker.errors import InvalidValue

    words: dict[str, Any] = {}
    speeds: dict[str, float] = {}
    for name, value in pairs("work", text):
        if name == "seconds":
            words[name] = value  # a time such as 6h
            continue
        try:
            number = float(value)
        except ValueError:
            raise InvalidValue(f"work {name}", value, "must be a number") from None
        if name.startswith("speed."):
            speeds[name.removeprefix("speed.")] = number
        else:
            words[name] = number
    return words | ({"speed": speeds} if speeds else {})
