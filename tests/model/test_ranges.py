from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.ranges import Range, parse_range

numbers = st.floats(0, 1e300)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = draw(st.none() | numbers), draw(st.none() | numbers)
    if low is None and high is None:
        low = draw(numbers)
    if low is not None and high is not None:
        low, high = sorted((low, high))
    return Range(low, high)


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("24..", Range(24, None)),
            ("..0.5", Range(None, 0.5)),
            ("1..2", Range(1, 2)),
            (" 1 .. 2 ", Range(1, 2)),
            ("8", Range(8, 8)),
            (8, Range(8, 8)),
            (8.5, Range(8.5, 8.5)),
            ("1e3..", Range(1000, None)),
            (Range(1, 2), Range(1, 2)),
        ],
    )
    def test_ranges_are_read_as_people_write_them(self, text: Any, expected: Range) -> None:
        """Open ends, both ends, single numbers and ready-made ranges are understood."""
        assert parse_range("cpus", text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("24GB..", Range(24, None)),
            ("24 gb..80g", Range(24, 80)),
            ("512MB..1TB", Range(0.512, 1000)),
            ("16", Range(16, 16)),
        ],
    )
    def test_memory_may_have_units(self, text: str, expected: Range) -> None:
        """MB, GB and TB are turned into GB by factors of 1000."""
        assert parse_range("ram", text, gigabytes=True) == expected

    def test_a_single_number_may_mean_at_least(self) -> None:
        """Amounts are lower limits; an explicit range stays as it is."""
        assert parse_range("ram", 16, at_least=True) == Range(16, None)
        assert parse_range("ram", "16..16", at_least=True) == Range(16, 16)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("lots", "not a number or a range"),
            ("24GB", "not a number or a range"),
            ("..", "at least one end"),
            ("1..2..3", "not a number or a range"),
            ("5...", "not a number or a range"),
            ("", "not a number or a range"),
            ("2..1", "impossible range: 2 is more than 1"),
            (Range(2, 1), "impossible range"),
            (-1, "must be at least 0"),
            ("..-1", "must be at least 0"),
            (math.nan, "finite"),
            ("nan..", "finite"),
            (math.inf, "finite"),
            ("-inf..", "finite"),
            ("1e999", "finite"),
            (Range(math.nan, None), "finite"),
            (True, "must be a number"),
            (None, "not a number or a range"),
            ([1, 2], "not a number or a range"),
            ("1\n\n..x", "not a number or a range"),
            (Range("24", None), "must be a number"),  # type: ignore[arg-type]
        ],
    )
    def test_what_is_no_range_is_refused(self, value: Any, problem: str) -> None:
        """One error names the argument, the value and what is wrong with it."""
        with pytest.raises(InvalidValue, match=problem) as caught:
            parse_range("cpus", value)

        assert (caught.value.field, repr(caught.value.value)) == ("cpus", repr(value))

    def test_whole_numbers_may_be_demanded(self) -> None:
        """Half a GPU cannot be counted."""
        with pytest.raises(InvalidValue, match=r"count = 1\.5: must be a whole number"):
            parse_range("count", 1.5, whole=True)

    @given(ranges())
    def test_the_text_of_a_range_reads_back_as_that_range(self, value: Range) -> None:
        """``str`` loses no digit."""
        assert parse_range("ram", str(value), gigabytes=True) == value

    @given(st.text() | st.text("0123456789.eE+-GBMT "))
    def test_any_text_is_a_range_or_refused(self, text: str) -> None:
        """Nothing but `InvalidValue` comes out of senseless text."""
        try:
            value = parse_range("ram", text, gigabytes=True)
        except InvalidValue:
            return
        assert value.low is not None or value.high is not None


class TestRange:
    @given(ranges(), numbers)
    def test_both_ends_belong_to_the_range(self, value: Range, number: float) -> None:
        """A range holds its ends and what lies between, and nothing beyond."""
        low = -math.inf if value.low is None else value.low
        high = math.inf if value.high is None else value.high

        assert (number in value) == (low <= number <= high)
        assert value.low is None or value.low in value
        assert value.high is None or value.high in value

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (Range(24, None), "24.."),
            (Range(None, 0.5), "..0.5"),
            (Range(1, 2), "1..2"),
            (Range(8, 8), "8"),
            (Range(1234567, None), "1234567.."),
        ],
    )
    def test_a_range_is_shown_as_people_write_it(self, value: Range, text: str) -> None:
        """The text is short and exact."""
        assert str(value) == text

    def test_nothing_is_in_a_range_of_not_a_number(self) -> None:
        """Not-a-number meets no requirement."""
        number = math.nan

        for value in (Range(1, 2), Range(1, None), Range(None, 2)):
            assert number not in value
