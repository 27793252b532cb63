"""What is asked for: the first choice from the options, and others from the words of ``--or``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gpubroker.errors import InvalidValue
from gpubroker.model.durations import parse_seconds
from gpubroker.model.requirements import Requirements, Setup

#: What describes the cards: an alternative that says any of it does not keep the rest.
_CARDS: Final = ("gpu", "count", "vram", "compute-capability")
#: What may be said several times.
_SEVERAL: Final = ("gpu", "region", "provider", "exclude", "port")
_SPOT: Final = {"yes": True, "true": True, "no": False, "false": False, "any": None}


def choices(first: Mapping[str, Any], others: Iterable[str]) -> tuple[Requirements, ...]:
    """The machines that will do, in order.

    Args:
        first: values of the options, by their names without dashes in front.
        others: words such as ``gpu=A100 count=2``, each text one alternative.

    Raises:
        InvalidValue: naming the option, or the word, and the nearest known one.
    """
    return (_machine(first), *(_machine(_replaced(first, text)) for text in others))


def _replaced(first: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The options' values with those of one alternative in their places."""
    said = _said(text, first)
    kept = dict(first)
    if said.keys() & set(_CARDS):
        kept |= dict.fromkeys(_CARDS)
    return kept | said


def _said(text: str, known: Iterable[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for word, value in pairs("or", text):
        name = word.replace("_", "-")
        if name not in known:
            raise InvalidValue.unknown("or", word, known, noun="word")
        if name in _SEVERAL:
            said.setdefault(name, []).append(_port(value) if name == "port" else value)
        elif name in said:
            raise InvalidValue("or", text, f"says {word} twice")
        else:
            said[name] = _READ[name](value) if name in _READ else value
    return said


def pairs(option: str, text: str) -> list[tuple[str, str]]:
    """Names and values from ``name=value 'name=two words'``.

    Raises:
        InvalidValue: naming the option.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidValue(option, text, f"cannot be read: {str(error).lower()}") from None
    if not words:
        raise InvalidValue(option, text, "must be words such as name=value")
    split = [word.partition("=") for word in words]
    for name, equals, value in split:
        if not name or not equals or not value:
            raise InvalidValue(option, text, f"{name!r} must be name=value")
    return [(name, value) for name, _, value in split]


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InvalidValue("port", value, "a TCP port is between 1 and 65535")
    return int(value)


def _spot(value: str) -> bool | None:
    if value not in _SPOT:
        raise InvalidValue("spot", value, "must be yes, no or any")
    return _SPOT[value]


def _static_ip(value: str) -> bool:
    said = _SPOT.get(value)
    if said is None:
        raise InvalidValue("static-ip", value, "must be yes or no")
    return said


#: Words whose values are no text.
_READ: Final = {"spot": _spot, "static-ip": _static_ip}


def _machine(words: Mapping[str, Any]) -> Requirements:
    script = None if words["setup"] is None else _text_of(words["setup"])
    longest = parse_seconds("setup-timeout", words["setup-timeout"])
    return Requirements(
        gpu=words["gpu"] or (),
        count=words["count"],
        vram=words["vram"],
        compute_capability=words["compute-capability"],
        cuda=words["cuda"],
        cpus=words["cpus"],
        ram=words["ram"],
        disk=words["disk"],
        region=words["region"] or (),
        reliability=words["reliability"],
        trust=words["trust"],
        download=words["download"],
        upload=words["upload"],
        spot=words["spot"],
        providers=words["provider"] or (),
        exclude=words["exclude"] or (),
        max_price=words["max-price"],
        image=words["image"],
        ports=words["port"] or (),
        driver=words["driver"],
        static_ip=words["static-ip"],
        setup=None if script is None else Setup(Setup.of(script).argv, longest),
    )


def _text_of(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue("setup", given, f"cannot be read: {error}") from None
