"""The settings of an account: what each does, and that mistakes are refused."""

from __future__ import annotations

import pytest

from gpubroker import AccountSettings, InvalidValue
from gpubroker_runpod import create
from gpubroker_runpod.options import API, IMAGE, Options, WayChoice
from gpubroker_runpod.vocabulary import Cloud

from .vendor import KEY, URL


def read(url: str | None = None, **options: str) -> Options:
    return Options.read(AccountSettings("runpod", options, KEY, url))


def test_nothing_set_is_the_vendor_itself() -> None:
    """With both clouds, and the defaults that the package names."""
    options = read()

    assert (options.url, options.emulated, options.image) == (API, False, IMAGE)
    assert options.clouds == (Cloud.SECURE, Cloud.COMMUNITY)
    assert (options.way, options.boot_timeout) == (WayChoice.AUTO, 900)


def test_what_is_set_is_used() -> None:
    """As text, the way settings come."""
    options = read(
        URL,
        clouds="Community",
        way="log",
        image="a/b:1",
        registry="clx_1",
        boot_timeout="60",
        visibility_horizon="1",
        pacing="off",
    )

    assert (options.clouds, options.way) == ((Cloud.COMMUNITY,), WayChoice.LOG)
    assert (options.image, options.registry, options.boot_timeout) == ("a/b:1", "clx_1", 60)
    assert (options.emulated, options.visibility_horizon, options.pacing) == (True, 1, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clouds", "secret"),
        ("clouds", "secure,"),
        ("way", "both"),
        ("registry", "a/b"),
        ("boot_timeout", "0"),
        ("boot_timeout", "soon"),
        ("charges_after", "nan"),
        ("imag", "a"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(name: str, value: str) -> None:
    """Before anything is asked for with it."""
    with pytest.raises(InvalidValue) as caught:
        read(URL, **{name: value})

    assert name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["poll_interval", "visibility_horizon", "absence_interval", "release_margin", "pacing"],
)
def test_some_settings_are_for_an_emulator_only(name: str) -> None:
    """At the vendor itself they could lose a pod that bills."""
    with pytest.raises(InvalidValue, match="emulator"):
        read(None, **{name: "1"})


def test_the_key_goes_over_https_alone() -> None:
    """An address in the clear is refused, save on this machine."""
    with pytest.raises(InvalidValue, match="https"):
        read("http://api.runpod.io")


def test_the_factory_makes_the_provider_and_shows_no_key() -> None:
    """It is what the broker calls; nothing is opened yet."""
    provider = create(AccountSettings("runpod", {}, KEY), lambda _kind, _text: None)

    assert (provider.facts.paid, provider.facts.ssh, provider.facts.spot) == (True, True, False)
    # An id may be missing for a minute, and time and again: three readings show it gone.
    assert (provider.facts.visibility_horizon, provider.facts.absence_readings) == (60, 3)
    assert KEY not in repr(provider) + repr(read())
