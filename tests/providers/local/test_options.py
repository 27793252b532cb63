"""Settings of the local provider."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpubroker import AccountSettings, InvalidValue, Money, ProviderError, TrustTier
from gpubroker_local import create
from gpubroker_local.options import Options


def read(**options: str) -> Options:
    return Options.read(AccountSettings("local", options))


def test_nothing_set_means_the_usual_places_and_no_price() -> None:
    """Leases live in the user's state directory, locks where all users share them."""
    options = read()

    assert options.directory == Path.home() / ".local/state/gpubroker/local"
    assert options.lock_directory == Path("/tmp/gpubroker-cards")
    assert options.price == Money(0)
    assert (options.simulate, options.pass_env, options.images) == ((), (), False)


def test_settings_are_read_as_people_write_them() -> None:
    """Lists with commas, counts with an x, sizes with a unit."""
    options = read(simulate="2x RTX 4090, h100:80GB", price="0.40", pass_env="A, B,", images="True")

    assert [(cards.count, cards.vram) for cards in options.simulate] == [(2, None), (1, 80.0)]
    assert options.simulate[0].gpu == "RTX 4090"
    assert (options.price, options.pass_env, options.images) == (Money("0.40"), ("A", "B"), True)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("directry", "/x", "did you mean 'directory'"),
        ("simulate", "2x RTX 4091", "unknown GPU"),
        ("simulate", "0x RTX 4090", "must be 1 to 64"),
        ("simulate", "RTX 4090:lots", "simulate"),
        ("price", "free", "price = 'free': "),
        ("price", "-1", "must not be negative"),
        ("pass_env", "A B", "not a name"),
        ("images", "maybe", "true or false"),
    ],
)
def test_setting_that_makes_no_sense_is_named(name: str, value: str, says: str) -> None:
    """The error names the setting and says what is wrong with it."""
    with pytest.raises(InvalidValue, match=says):
        read(**{name: value})


def test_windows_is_told_plainly_that_it_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence from the factory; importing the package is harmless there."""
    monkeypatch.setattr(os, "name", "nt")

    with pytest.raises(ProviderError, match="under WSL"):
        create(AccountSettings("local"), print)


def test_facts_say_that_one_reading_is_proof() -> None:
    """It is free, the user's own, and its inventory is the process table."""
    facts = create(AccountSettings("local", {"images": "yes", "price": "1"}), print).facts

    assert (facts.paid, facts.trust, facts.runs_images) == (False, TrustTier.OWN, True)
    assert (facts.absence_readings, facts.visibility_horizon) == (1, 0.0)
