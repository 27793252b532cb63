"""The settings of the local provider, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpubroker import AccountSettings, InvalidValue, Money, Requirements, gpu_name, parse_gpu

_KNOWN: Final = ("directory", "lock_directory", "simulate", "price", "pass_env", "images")
_LOCKS: Final = "/tmp/gpubroker-cards"  # noqa: S108  the one place all users of a machine share
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_CARDS: Final = re.compile(r"^(?:(\d+)\s*[xX*]\s*)?([^:]+?)\s*(?::\s*(.+))?$")
_MOST_CARDS: Final = 64


@dataclass(frozen=True, slots=True)
class SimulatedCards:
    """Cards to pretend to have: how many of which model, with how many GB each, if it was said."""

    count: int
    gpu: str
    vram: float | None


@dataclass(frozen=True, slots=True)
class Options:
    """What one account of the local provider was set to; see the package for the meanings."""

    directory: Path
    lock_directory: Path
    simulate: tuple[SimulatedCards, ...]
    price: Money
    pass_env: tuple[str, ...]
    images: bool

    @classmethod
    def read(cls, settings: AccountSettings) -> Options:
        """The options in `settings`.

        Raises:
            InvalidValue: one is unknown or makes no sense.
        """
        given = settings.options
        for name in given:
            if name not in _KNOWN:
                raise InvalidValue.unknown(settings.name, name, _KNOWN, noun="setting")
        home = Path("~").expanduser()
        directory = given.get("directory") or str(home / ".local/state/gpubroker/local")
        return cls(
            directory=Path(directory).expanduser().absolute(),
            lock_directory=Path(given.get("lock_directory") or _LOCKS).expanduser().absolute(),
            simulate=_simulated(given.get("simulate", "")),
            price=_price(given.get("price", "")),
            pass_env=_variables(given.get("pass_env", "")),
            images=_flag("images", given.get("images", "")),
        )


def _simulated(text: str) -> tuple[SimulatedCards, ...]:
    groups: list[SimulatedCards] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _CARDS.match(part)
        if match is None:
            raise InvalidValue("simulate", part, "write it as '2x RTX 4090' or 'RTX 4090:24GB'")
        count = int(match[1] or 1)
        if not 1 <= count <= _MOST_CARDS:
            raise InvalidValue("simulate", part, f"must be 1 to {_MOST_CARDS} cards")
        gpu, vram = parse_gpu(match[2], "simulate"), _gigabytes(match[3])
        groups.append(SimulatedCards(count, gpu_name(gpu, vram), vram))
    return tuple(groups)


def _gigabytes(text: str | None) -> float | None:
    try:
        wanted = Requirements(vram=text).vram
    except InvalidValue as error:
        raise InvalidValue("simulate", text, error.problem) from error
    return None if wanted is None else wanted.low


def _price(text: str) -> Money:
    try:
        price = Money(text or 0)
    except InvalidValue as error:
        raise InvalidValue("price", text, error.problem) from error
    if price < Money(0):
        raise InvalidValue("price", text, "must not be negative")
    return price


def _variables(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    for name in names:
        if not (name.isascii() and name.isidentifier()):
            raise InvalidValue("pass_env", name, "not a name for an environment variable")
    return names


def _flag(field: str, text: str) -> bool:
    if not text:
        return False
    if text.strip().lower() not in _TRUTH:
        raise InvalidValue(field, text, "must be true or false")
    return _TRUTH[text.strip().lower()]
