from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.durations import parse_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (" 1 H 30 M ", 5400),
        ("1d 1s", 86_401),
    ],
)
def test_times_are_read_as_people_write_them(value: float | str, seconds: float) -> None:
    """Seconds, or numbers with units, one after another."""
    assert parse_seconds("wait", value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "h",
        "1h30",
        "1w",
        "-5",
        "-5m",
        "1e3",
        "1:30",
        "5m!",
        "٣s",
        "5m\n6",
        -1,
        math.nan,
        math.inf,
        None,
        True,
        [90],
        "9" * 400,
    ],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    """One error names the setting and what was given."""
    with pytest.raises(InvalidValue) as caught:
        parse_seconds("wait", value)

    assert caught.value.field == "wait"
    assert repr(caught.value.value) == repr(value)


@pytest.mark.parametrize("value", [-1, -0.5, "-5", " -5 m"])
def test_what_is_negative_is_told_so(value: float | str) -> None:
    """Rather than what a time looks like."""
    with pytest.raises(InvalidValue, match="must not be negative"):
        parse_seconds("wait", value)


@pytest.mark.parametrize("value", [0, 0.0, "0", "0s", "0h0m"])
def test_no_time_at_all_is_a_time_only_where_it_may_be(value: float | str) -> None:
    """A deadline of nothing is a mistake; waiting for nothing is not."""
    assert parse_seconds("wait", value, none=True) == 0
    with pytest.raises(InvalidValue, match="more than no time at all"):
        parse_seconds("timeout", value)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_parts_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Each unit counts for what it is."""
    text = f"{days}d{hours}h{minutes}m{seconds}s"

    assert parse_seconds("wait", text) == days * 86_400 + hours * 3600 + minutes * 60 + seconds


@given(st.text() | st.text("0123456789.smhd "))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    """Nothing but `InvalidValue` comes out of senseless text."""
    try:
        seconds = parse_seconds("wait", text)
    except InvalidValue:
        return
    assert 0 < seconds < math.inf
