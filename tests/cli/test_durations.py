from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker import InvalidValue
from gpubroker.cli.durations import shown
from gpubroker.model.durations import parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), (" 1.5 H ", 5400)],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    """Seconds, minutes and hours may be mixed, in either case."""
    assert parse_seconds("timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "10x", "5m3", "1e3", "nan", "9" * 400])
def test_nonsense_is_refused_by_the_name_of_its_option(text: str) -> None:
    """What is no time, no time at all, or without end is refused, naming the option."""
    with pytest.raises(InvalidValue) as refusal:
        parse_seconds("timeout", text)

    assert refusal.value.field == "timeout"


@given(st.text())
def test_any_text_is_a_positive_time_or_refused(text: str) -> None:
    """Nothing else ever comes out of what somebody typed."""
    try:
        seconds = parse_seconds("timeout", text)
    except InvalidValue:
        return

    assert 0 < seconds < float("inf")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.9, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float, text: str) -> None:
    """People read two units at the most."""
    assert shown(seconds) == text
