"""``gpubroker costs``: what was spent, in a table, a chart, CSV and JSON."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.cli.costs import bar, costs_page, moment
from gpubroker.errors import InvalidValue
from gpubroker.model.codec import from_json
from gpubroker.model.costs import CostLine, Costs, LimitLine
from gpubroker.model.money import ZERO, Money

from .program import Program

#: This machine, for 36 dollars an hour: a cent each second.
PRICED = {"GPUBROKER_LOCAL_PRICE": "36", "GPUBROKER_BUDGET_DAY": "1000"}

micros = st.integers(0, 10**9).map(Money.from_micros)


@pytest.fixture
def spent(program: Program) -> Program:
    """Two jobs have run, one of them with tags."""
    for options in ([], ["--tag", "night", "--tag", "batch"]):
        done = program("run", *options, "--", "sh", "-c", "sleep 0.1", **PRICED)
        assert done.returncode == 0, done.stderr
    return program


def read(program: Program, *words: str) -> Costs:
    done = program("costs", "--json", *words, **PRICED)
    return from_json(Costs, done.stdout.decode())


def test_every_sum_is_of_the_same_money(spent: Program) -> None:
    """By day, by provider and by job it is the whole; by tag a lease with two counts twice."""
    by_day, by_provider, by_job, by_tag = (
        read(spent, "--by", by) for by in ("day", "provider", "job", "tag")
    )

    leases = spent.leases()
    whole = sum((lease.spent for lease in leases), ZERO)
    assert whole > ZERO
    assert [len(found.lines) for found in (by_day, by_provider, by_job, by_tag)] == [1, 1, 2, 3]
    for found in (by_day, by_provider, by_job):
        assert sum((line.spent for line in found.lines), ZERO) == found.spent == whole
    assert {line.title for line in by_job.lines} == {"sleep 0.1"}
    assert {line.name for line in by_tag.lines} == {"night", "batch", ""}
    assert [(limit.name, limit.spent) for limit in by_day.limits] == [("budget of this day", whole)]


def test_csv_has_a_row_for_each_line_and_plain_dollars(spent: Program) -> None:
    """For a spreadsheet: the columns named, no dollar signs."""
    done = spent("costs", "--by", "tag", "--csv", **PRICED)

    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert {row["tag"] for row in rows} == {"night", "batch", ""}
    assert all(Money(row["spent"]) > ZERO and row["leases"] == "1" for row in rows)
    assert "$" not in done.stdout.decode()


def test_a_terminal_gets_a_chart_and_a_pipe_plain_text(spent: Program) -> None:
    """Bars where somebody looks at them; anywhere else, columns for other programs."""
    code, drawn = spent.on_terminal("costs", "--by", "provider", **PRICED)
    piped = spent("costs", "--by", "provider", **PRICED).stdout.decode()

    assert code == 0
    assert "████" in drawn
    assert "█" not in piped
    for shown in (drawn, piped):
        assert re.search(r"local\s+\$0\.\d+", shown)
        assert "budget of this day" in shown
        assert "spent" in shown


def test_only_what_was_rented_within_the_interval_counts(spent: Program) -> None:
    """Dates are those of the budget's time zone; a duration is so long ago."""
    assert read(spent, "--since", "1h").spent > ZERO
    assert read(spent, "--until", "1h").spent == ZERO
    assert read(spent, "--since", "2000-01-01", "--until", "2000-02-01").lines == ()
    assert b"nothing was rented" in spent("costs", "--until", "2000-01-01").stdout


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--by", "host"], b"by = 'host': unknown sum; known: day, job, provider, tag"),
        (["--since", "yesterday"], b"since = 'yesterday': must be a date such as"),
        (["--csv", "--json"], b"not both"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    program: Program, words: list[str], problem: bytes
) -> None:
    """In one sentence that says what can."""
    done = program("costs", *words)

    assert done.returncode != 0
    assert problem in done.stderr + done.stdout


def test_a_moment_is_a_date_or_a_time_ago() -> None:
    """A date begins at midnight of the zone that is named."""
    assert (
        moment("since", "2026-06-01", 0.0, "UTC")
        - moment("since", "2026-06-01", 0.0, "Europe/Berlin")
        == 7200
    )
    assert moment("since", "2d", 500_000.0, "UTC") == 500_000.0 - 2 * 86_400
    with pytest.raises(InvalidValue, match="how long ago"):
        moment("since", "soon", 0.0, "UTC")


@given(micros, micros, micros)
def test_a_bar_never_leaves_its_width(spent: Money, reserved: Money, whole: Money) -> None:
    """Also where more was spent than there should be."""
    assert len(bar(spent, reserved, whole)) <= 24


def test_reserved_money_is_shown_apart_from_spent_money() -> None:
    """In columns of their own, in the bar, and in the closing sentence."""
    line = CostLine(name="acme", spent=Money(3), reserved=Money(1), leases=4, open=1)
    found = Costs(
        by="provider",
        at=0.0,
        since=None,
        until=None,
        lines=(line,),
        spent=Money(3),
        reserved=Money(1),
        limits=(LimitLine(name="budget", amount=Money(8), spent=Money(3), reserved=Money(1)),),
    )

    page = costs_page(found, charted=True)

    costs, limits = page.tables
    assert list(costs.rows[0]) == ["acme", "$3.00", "$1.00", "4 (1 open)", "█" * 18 + "░" * 6]
    assert list(limits.rows[0]) == ["budget", "$3.00", "$1.00", "$8.00", "50%", "█" * 9 + "░" * 3]
    assert page.closing[0] == "$3.00 spent, $1.00 more reserved for machines that run"
