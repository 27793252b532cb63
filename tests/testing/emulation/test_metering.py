from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpubroker import Money
from gpubroker.testing.emulation import Books

RATES = st.decimals(min_value=0, max_value=100, places=7)
MOMENTS = st.lists(
    st.integers(0, 10**9).map(lambda number: number / 1000), min_size=2, max_size=8
).map(sorted)


class TestBooks:
    def test_an_hour_costs_its_rate(self) -> None:
        """No more and no less."""
        books = Books()
        books.start("m", "gpu", Decimal("0.3466667"), 1000.0)
        books.stop("m", "gpu", 4600.0)

        assert books.cost("m", until=9999.0) == Money("0.3466667")

    def test_starting_twice_bills_once(self) -> None:
        """What goes on is not begun again."""
        books = Books()
        books.start("m", "gpu", Decimal(1), 0.0)
        books.start("m", "gpu", Decimal(1), 1800.0)

        assert books.cost("m", until=3600.0) == Money(1)

    def test_know_what_costs_money_now(self) -> None:
        """Machines with something that goes on, and not at no cost."""
        books = Books()
        books.start("a", "gpu", Decimal(1), 0.0)
        books.start("b", "gpu", Decimal(1), 0.0)
        books.start("c", "disk", Decimal(0), 0.0)
        books.stop_all("a", 10.0)

        assert books.billing_now() == ("b",)
        assert books.hourly() == 1

    @given(rate=RATES, moments=MOMENTS)
    def test_parts_of_a_time_cost_as_much_as_the_whole(
        self, rate: Decimal, moments: list[float]
    ) -> None:
        """However it is cut, to the last trillionth."""
        books = Books()
        books.start("m", "gpu", rate, moments[0])

        parts = sum(
            (
                Fraction(books.cost("m", until=end, since=start).amount)
                for start, end in pairwise(moments)
            ),
            Fraction(0),
        )
        whole = Fraction(books.cost("m", until=moments[-1]).amount)

        assert abs(parts - whole) <= Fraction(len(moments), 10**12)

    @given(rates=st.lists(RATES, min_size=1, max_size=5), end=st.integers(1, 10**6))
    def test_the_total_is_the_sum_of_the_machines(self, rates: list[Decimal], end: int) -> None:
        """Nothing is forgotten, and nothing counted twice."""
        books = Books()
        for number, rate in enumerate(rates):
            books.start(str(number), "gpu", rate, 0.0)
            books.start(str(number), "disk", rate / 10, 0.5)

        total = sum(
            (Fraction(money.amount) for money in books.charges(float(end)).values()), Fraction(0)
        )

        assert abs(total - Fraction(books.total(float(end)).amount)) <= Fraction(6, 10**12)
