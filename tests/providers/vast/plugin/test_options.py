"""Settings and facts of the Vast.ai provider."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gpubroker import AccountSettings, ErrorKind, InvalidValue, ProviderError, TrustTier
from gpubroker_vast import create
from gpubroker_vast.options import API, IMAGE, Options

EMULATOR = "http://127.0.0.1:8000/"


def read(url: str | None = None, **options: str) -> Options:
    return Options.read(AccountSettings("vast", options, "the-key", url))


def test_nothing_set_means_vast_itself() -> None:
    """Its own address, one search of 64 rows, and nothing emulated."""
    options = read()

    assert (options.url, options.image, options.emulated) == (API, IMAGE, False)
    assert (options.limit, options.pages, options.bid) == (64, 1, Decimal("1.05"))


def test_settings_are_read_as_text() -> None:
    """As they come from the environment or a file."""
    options = read(image="x/y", limit="5", pages="3", bid="1.5", charges_after="7200")

    assert (options.image, options.limit, options.pages) == ("x/y", 5, 3)
    assert (options.bid, options.charges_after) == (Decimal("1.5"), 7200.0)


def test_a_loopback_address_is_an_emulator() -> None:
    """Whose clock may run faster than a vendor's."""
    options = read(
        EMULATOR, poll_interval="0.1", visibility_horizon="2", absence_interval="0", pacing="off"
    )

    assert (options.url, options.emulated) == ("http://127.0.0.1:8000", True)
    assert (options.poll_interval, options.visibility_horizon) == (0.1, 2.0)
    assert (options.absence_interval, options.pacing) == (0.0, False)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("imge", "x", "did you mean 'image'"),
        ("limit", "65", "1 to 64"),
        ("limit", "0", "1 to 64"),
        ("limit", "2.5", "whole number"),
        ("pages", "many", "must be a number"),
        ("bid", "0.9", "1 to 100"),
        ("bid", "nan", "1 to 100"),
        ("charges_after", "-1", "0 to"),
        ("pacing", "off", "emulator"),
        ("poll_interval", "0.1", "emulator"),
        ("visibility_horizon", "1", "emulator"),
        ("absence_interval", "1", "emulator"),
    ],
)
def test_setting_that_makes_no_sense_is_named(name: str, value: str, says: str) -> None:
    """Also one that would lose machines at the real vendor's."""
    with pytest.raises(InvalidValue, match=says):
        read(**{name: value})


@pytest.mark.parametrize("url", ["http://console.vast.ai", "vast.ai", "http://127.0.0.1.evil.test"])
def test_the_key_goes_to_https_or_this_machine(url: str) -> None:
    """Before there is a connection."""
    with pytest.raises(InvalidValue, match="https"):
        create(AccountSettings("vast", {}, "the-key", url), print)


def test_secrets_are_in_no_repr() -> None:
    """The key, and the registry's password."""
    options = read(image_login="-u me -p hush r.example")

    assert "the-key" not in repr(options)
    assert "hush" not in repr(options)


def test_facts_can_be_read_without_a_key() -> None:
    """What the provider is does not depend on an account."""
    facts = create(AccountSettings("vast"), print).facts

    assert (facts.paid, facts.trust, facts.ssh, facts.spot) == (
        True,
        TrustTier.VERIFIED,
        True,
        True,
    )
    assert (facts.visibility_horizon, facts.absence_readings, facts.poll_interval) == (60.0, 2, 2.0)
    assert (facts.mark_limit, facts.charges_after, facts.ports) == (256, 3600.0, True)


@pytest.mark.anyio
async def test_hooks_without_a_key_say_so() -> None:
    """Before anything is sent."""
    async with create(AccountSettings("vast"), print) as provider:
        with pytest.raises(ProviderError) as refused:
            await provider.inventory()

    assert refused.value.kind is ErrorKind.AUTH
