from __future__ import annotations

import copy
import decimal
import math
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.money import ZERO, Money, parse_money

amounts = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=12)
money = amounts.map(Money)
micros = st.integers(-(10**17), 10**17)


def exact(value: Money) -> Fraction:
    return Fraction(value.amount)


class TestBuilding:
    @pytest.mark.parametrize(
        ("given_as", "text"),
        [
            (0.1, "$0.10"),
            (0.1 + 0.2, "$0.30"),
            ("0.123456", "$0.123456"),
            (" $1.5 ", "$1.50"),
            ("$ 2", "$2.00"),
            ("1e3", "$1000.00"),
            (7, "$7.00"),
            (Decimal("-0.25"), "-$0.25"),
            ("-0", "$0.00"),
            (Money("3.3"), "$3.30"),
        ],
    )
    def test_an_amount_is_read_as_it_is_written(self, given_as: Any, text: str) -> None:
        """Text, whole numbers, decimals and floats give the dollars that they show."""
        assert str(Money(given_as)) == text

    @pytest.mark.parametrize(
        "senseless",
        ["", "abc", "1,000", "nan", "inf", math.nan, math.inf, -math.inf, True, None, [1], "1 2"],
    )
    def test_what_is_no_amount_is_refused(self, senseless: Any) -> None:
        """Not-a-number, infinities and other things are no amount of dollars."""
        with pytest.raises(InvalidValue, match="amount of US dollars"):
            Money(senseless)

    @pytest.mark.parametrize(
        "huge", ["1e12", "-1e12", 10**12, 1e300, "1e999999999", Decimal("1e99")]
    )
    def test_an_amount_that_the_ledger_cannot_keep_is_refused(self, huge: Any) -> None:
        """Micro-dollars must fit 64 bits, so a trillion dollars is too much."""
        with pytest.raises(InvalidValue, match="less than a trillion"):
            Money(huge)

    def test_a_vanishing_amount_stays_short(self) -> None:
        """A hostile exponent makes neither the amount nor its text large."""
        assert len(repr(Money("1e-999999999"))) < 200

    def test_an_argument_is_named_in_the_error(self) -> None:
        """`parse_money` says which argument was wrong."""
        with pytest.raises(InvalidValue, match="max_price = 'cheap'"):
            parse_money("max_price", "cheap")
        with pytest.raises(InvalidValue, match="max_price = -1: must not be negative"):
            parse_money("max_price", -1)

        assert parse_money("max_price", "$2.5") == Money("2.50")


class TestArithmetic:
    @given(money, money)
    def test_sums_and_differences_are_exact(self, a: Money, b: Money) -> None:
        """Adding and taking away lose nothing."""
        assert exact(a + b) == exact(a) + exact(b)
        assert a + b - b == a

    @given(st.decimals(-1000, 1000, places=12).map(Money), st.integers(-1000, 1000))
    def test_products_are_exact(self, a: Money, factor: int) -> None:
        """Multiplying loses nothing, from either side."""
        assert exact(a * factor) == exact(a) * factor
        assert factor * a == a * factor

    @given(money, money)
    def test_comparing_is_comparing_the_amounts(self, a: Money, b: Money) -> None:
        """Order, equality and hashes follow the exact amounts."""
        assert (a < b, a <= b, a == b) == (
            exact(a) < exact(b),
            exact(a) <= exact(b),
            exact(a) == exact(b),
        )
        assert (a > b, a >= b) == (b < a, b <= a)
        assert hash(a + Money("0.0000000000000000")) == hash(a)

    @given(amounts, amounts)
    def test_the_callers_decimal_context_does_not_matter(self, a: Decimal, b: Decimal) -> None:
        """A program that lowers decimal precision for itself does not make money inexact."""
        total, text = Money(a) + Money(b), str(Money(a))
        with decimal.localcontext() as context:
            context.prec = 3
            context.traps[decimal.Inexact] = True

            assert Money(a) + Money(b) == total
            assert str(Money(a)) == text
            assert Money.from_micros(123_456_789).micros == 123_456_789

    def test_dividing_by_nothing_fails(self) -> None:
        """A division by zero is an error and never an amount."""
        with pytest.raises(ZeroDivisionError):
            _ = Money(1) / 0

    @pytest.mark.parametrize("factor", [math.nan, math.inf])
    def test_a_senseless_factor_gives_no_amount(self, factor: float) -> None:
        """Not-a-number does not creep into money."""
        with pytest.raises(InvalidValue):
            _ = Money(1) * factor
        with pytest.raises(InvalidValue):
            _ = ZERO * factor

    def test_only_zero_is_false(self) -> None:
        """Money is true unless there is none."""
        assert not Money("0.00")
        assert Money("0.000001")
        assert Money(-1)


class TestMicros:
    @given(micros)
    def test_micros_come_back_unchanged(self, count: int) -> None:
        """What the ledger wrote is what is read."""
        assert Money.from_micros(count).micros == count
        assert Money.from_micros(count).micros_up == count

    @given(amounts)
    def test_a_reservation_is_never_too_small(self, amount: Decimal) -> None:
        """`micros_up` is the least whole number of micros that covers the amount."""
        covered = Fraction(Money(amount).micros_up, 1_000_000)

        assert 0 <= covered - Fraction(amount) < Fraction(1, 1_000_000)

    @given(amounts)
    def test_rounding_is_to_the_nearest(self, amount: Decimal) -> None:
        """`micros` is at most half a micro-dollar away."""
        away = Fraction(Money(amount).micros, 1_000_000) - Fraction(amount)

        assert abs(away) <= Fraction(1, 2_000_000)


class TestText:
    @given(micros)
    def test_the_text_shows_every_micro(self, count: int) -> None:
        """Down to micro-dollars, the text is the amount, with two digits of cents at least."""
        amount = Money.from_micros(count)
        sign, _, digits = str(amount).partition("$")

        assert Money(sign + digits) == amount
        assert len(digits.partition(".")[2]) >= 2

    @given(money)
    def test_the_repr_builds_the_same_amount(self, amount: Money) -> None:
        """``repr`` is exact."""
        assert eval(repr(amount)) == amount

    @given(money)
    def test_copies_are_equal(self, amount: Money) -> None:
        """Money survives copying and pickling."""
        assert copy.deepcopy(amount) == amount
        assert pickle.loads(pickle.dumps(amount)) == amount
