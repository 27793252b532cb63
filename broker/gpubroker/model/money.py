"""Exact money in US dollars."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, DivisionByZero
from typing import Any, Final

from gpubroker.errors import InvalidValue

_MICRO: Final = Decimal("0.000001")
#: What an amount may be: below a trillion, so that micro-dollars fit the ledger's 64 bits.
#: More overflows to infinity and text that is no number becomes not-a-number: both refused.
#: Sums are worked out in here and not in the caller's context, which may round or raise.
_AMOUNT: Final = Context(
    prec=64, rounding=ROUND_HALF_EVEN, Emin=-40, Emax=11, traps=[DivisionByZero]
)
#: For counting micro-dollars, which are more than a trillion.
_WIDE: Final = Context(prec=64, rounding=ROUND_HALF_EVEN, traps=[])
_PROBLEM: Final = "must be an amount of US dollars, less than a trillion"


class Money:
    """An exact amount of US dollars.

    Built from text, ``int``, ``Decimal`` or a finite ``float`` (taken at its shortest decimal
    spelling, so ``Money(0.1)`` is ten cents). The ledger keeps whole micro-dollars: `micros`
    rounds to the nearest one, `micros_up` rounds up, for reserving.

    Raises:
        InvalidValue: it is not a finite number, or it is a trillion or more.
    """

    __slots__ = ("_amount",)
    _amount: Decimal

    def __init__(self, amount: Money | Decimal | float | str = 0) -> None:
        if isinstance(amount, Money):
            self._amount = amount._amount
            return
        exact = amount if isinstance(amount, Decimal) else str(amount).strip()
        if isinstance(exact, str):
            exact = exact.removeprefix("$").lstrip()
        self._amount = _AMOUNT.create_decimal(exact)
        if not self._amount.is_finite():
            raise InvalidValue("money", amount, _PROBLEM)

    @classmethod
    def _of(cls, amount: Decimal) -> Money:
        """What came out of a sum in the context of amounts."""
        if not amount.is_finite():
            raise InvalidValue("money", amount, _PROBLEM)
        money = cls.__new__(cls)
        money._amount = amount
        return money

    @classmethod
    def from_micros(cls, micros: int) -> Money:
        """The amount that the ledger writes as `micros` micro-dollars."""
        return cls(Decimal(micros).scaleb(-6, _WIDE))

    @property
    def amount(self) -> Decimal:
        """US dollars."""
        return self._amount

    @property
    def micros(self) -> int:
        """Micro-dollars, rounded to the nearest."""
        return int(self._amount.scaleb(6, _WIDE).to_integral_value(ROUND_HALF_EVEN, _WIDE))

    @property
    def micros_up(self) -> int:
        """Micro-dollars, rounded up: what a reservation takes."""
        return int(self._amount.scaleb(6, _WIDE).to_integral_value(ROUND_CEILING, _WIDE))

    def __add__(self, other: Money) -> Money:
        return Money._of(_AMOUNT.add(self._amount, other._amount))

    def __sub__(self, other: Money) -> Money:
        return Money._of(_AMOUNT.subtract(self._amount, other._amount))

    def __mul__(self, factor: Decimal | float) -> Money:
        return Money._of(_AMOUNT.multiply(self._amount, Decimal(str(factor))))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Decimal | float) -> Money:
        return Money._of(_AMOUNT.divide(self._amount, Decimal(str(divisor))))

    def __lt__(self, other: Money) -> bool:
        return self._amount < other._amount

    def __le__(self, other: Money) -> bool:
        return self._amount <= other._amount

    def __gt__(self, other: Money) -> bool:
        return self._amount > other._amount

    def __ge__(self, other: Money) -> bool:
        return self._amount >= other._amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self._amount == other._amount

    def __hash__(self) -> int:
        return hash(self._amount)

    def __bool__(self) -> bool:
        return bool(self._amount)

    def __str__(self) -> str:
        """Dollars with cents, and as many further digits as the amount needs, up to six."""
        rounded = self._amount.quantize(_MICRO, ROUND_HALF_EVEN, _WIDE)
        whole, _, fraction = f"{rounded.copy_abs():f}".partition(".")
        sign = "-" if rounded < 0 else ""
        return f"{sign}${whole}.{fraction.rstrip('0').ljust(2, '0')}"

    def __repr__(self) -> str:
        return f"Money('{self._amount:f}')"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In JSON, money is a decimal string: never a float."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda money: f"{money.amount:f}", return_schema=core_schema.str_schema()
            ),
        )


ZERO: Final = Money(0)


def parse_money(field: str, value: Money | Decimal | float | str) -> Money:
    """An amount that a caller gave: at least nothing.

    Args:
        field: the name to put in the error.
        value: anything that `Money` takes.

    Raises:
        InvalidValue: it is not an amount, or it is negative.
    """
    try:
        amount = Money(value)
    except InvalidValue as error:
        raise InvalidValue(field, value, error.problem) from None
    if amount < ZERO:
        raise InvalidValue(field, value, "must not be negative")
    return amount
