"""Exact money in US dollars."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

from gpubroker.errors import InvalidValue

_MICRO: Final = Decimal(1_000_000)


class Money:
    """An exact amount of US dollars.

    Built from text, ``int``, ``Decimal`` or a finite ``float`` (taken at its shortest decimal
    spelling, so ``Money(0.1)`` is ten cents). The ledger keeps whole micro-dollars: `micros`
    rounds to the nearest one, `micros_up` rounds up, for reserving.

    Raises:
        InvalidValue: the amount is not a finite number.
    """

    __slots__ = ("_amount",)
    _amount: Decimal

    def __init__(self, amount: Money | Decimal | int | float | str = 0) -> None:
        if isinstance(amount, Money):
            self._amount = amount._amount
            return
        try:
            text = amount.strip().removeprefix("$") if isinstance(amount, str) else amount
            value = text if isinstance(text, Decimal) else Decimal(str(text))
        except InvalidOperation:
            raise InvalidValue("money", amount, "not an amount of US dollars") from None
        if not value.is_finite() or isinstance(amount, bool):
            raise InvalidValue("money", amount, "not a finite amount of US dollars")
        self._amount = value

    @classmethod
    def from_micros(cls, micros: int) -> Money:
        """The amount that the ledger writes as `micros` micro-dollars."""
        return cls(Decimal(micros) / _MICRO)

    @property
    def amount(self) -> Decimal:
        """US dollars."""
        return self._amount

    @property
    def micros(self) -> int:
        """Micro-dollars, rounded to the nearest."""
        return int((self._amount * _MICRO).to_integral_value(ROUND_HALF_EVEN))

    @property
    def micros_up(self) -> int:
        """Micro-dollars, rounded up: what a reservation takes."""
        return int((self._amount * _MICRO).to_integral_value(ROUND_CEILING))

    def __add__(self, other: Money) -> Money:
        return Money(self._amount + other._amount)

    def __sub__(self, other: Money) -> Money:
        return Money(self._amount - other._amount)

    def __mul__(self, factor: Decimal | int | float) -> Money:
        return Money(self._amount * Decimal(str(factor)))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Decimal | int | float) -> Money:
        return Money(self._amount / Decimal(str(divisor)))

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
        rounded = self._amount.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
        whole, _, fraction = f"{abs(rounded):f}".partition(".")
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
