"""``gpubroker plan``: costs side by side, a recommendation with its reason, and a picture."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from gpubroker.cli.plan_picture import picture
from gpubroker.cli.traffic import Said, traffic
from gpubroker.errors import InvalidValue
from gpubroker.model.money import Money
from gpubroker.model.offers import Price
from gpubroker.policy.outlook import outlook, strategies
from gpubroker.policy.replay import Arrival, Ground

from .program import Program

OFFICE = "20 a day, 60 s each, 9 to 18 h, mon-fri"
SVG = "{http://www.w3.org/2000/svg}"
GIVEN = ("--price", "0.36", "--disk-price", "0.02", "--cold-start", "2m")


def test_every_strategy_is_shown_with_its_cost_and_one_is_recommended(program: Program) -> None:
    """In a table, with the reason in a sentence."""
    done = program("plan", OFFICE, *GIVEN)

    shown = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "20 a day, 60 s each, mon-fri 09:00-18:00 (UTC): 400 requests" in shown
    assert "a cold start takes 2 min 00 s (given)" in shown
    for name in ("always on", "on demand", "idle stop 300 s", "break-even", "learnt", "scheduled"):
        assert f"\n{name}  " in shown
    assert re.search(r"recommended: on demand: \$7\.\d\d a month, 97% less than always on", shown)


def test_the_document_shows_what_the_program_prints(program: Program) -> None:
    """Its first command, and its table."""
    document = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()
    command = re.search(r"^```sh\n(.*)\n```$", document, re.MULTILINE)
    table = re.search(r"^```text\n(.*?)^…", document, re.MULTILINE | re.DOTALL)
    assert command
    assert table

    done = program(*shlex.split(command[1])[1:])

    assert done.stdout.decode().startswith(table[1])


def test_json_has_the_same_figures_for_other_programs(program: Program) -> None:
    """Money as decimal text, times in seconds."""
    found = program.json("plan", "--json", OFFICE, *GIVEN)

    by_name = {each["strategy"]: each for each in found["strategies"]}
    assert found["requests"] == 400
    assert found["cold_start"] == 120
    assert Money(by_name["always on"]["day"]) >= Money("8.64")
    assert by_name["on demand"]["wait_p95"] == 120
    assert by_name["on demand"]["latency_p95"] == 180
    assert not by_name["stop, keep disk"]["built"]
    assert found["recommended"] == "on demand"


def test_the_picture_is_svg_with_two_bars_for_each_strategy(program: Program) -> None:
    """No script in it, nothing fetched; the recommendation is set off, and keeps to the wait."""
    done = program("plan", OFFICE, *GIVEN, "--max-wait", "60s", "--svg", "plan.svg")

    root = Xml.parse(program.work / "plan.svg").getroot()
    texts = {each.text: each for each in root.iter(SVG + "text")}
    assert done.returncode == 0, done.stderr
    assert {"always on", "on demand", "learnt", "USD a month"} <= set(texts)
    assert len(list(root.iter(SVG + "rect"))) == 2 + 2 * 7
    assert texts["scheduled"].get("font-weight") == "600"


def test_text_from_outside_is_only_text_in_the_picture() -> None:
    """A trace may have any name."""
    ground = Ground(since=0, until=1, cold_start=1, resume=1, most=1)
    price = Price(machine=Money(1))
    outlooks = [outlook([Arrival(0, 1)], each, ground, price) for each in strategies(60, None)]

    drawn = picture(outlooks, "<script>alert(1)</script>", None)

    assert b"<script" not in drawn


def test_without_a_price_the_best_offer_is_reckoned_with(program: Program) -> None:
    """What it would cost now, and the cold start as it is known there."""
    local = {
        "GPUBROKER_LOCAL_SIMULATE": "2x RTX 4090",
        "GPUBROKER_LOCAL_PRICE": "0.36",
        "GPUBROKER_BUDGET_JOB": "5",
    }

    found = program.json("plan", "--json", OFFICE, "--gpu", "4090", **local)

    assert Money(found["hourly"]) == Money("0.36")
    assert re.fullmatch(r".*RTX 4090.* at local", found["price_from"])


def test_a_machine_that_costs_nothing_is_said_to_decide_nothing(program: Program) -> None:
    """Where no vendor takes part the best offer is this machine, and everything costs the same."""
    free = program("plan", OFFICE, "--cold-start", "60")
    priced = program("plan", OFFICE, "--cold-start", "60", "--price", "0.36")

    assert b"this machine costs nothing, so the prices above decide nothing: --price" in free.stdout
    assert b"decide nothing" not in priced.stdout


def test_where_nothing_fits_a_price_must_be_said(program: Program) -> None:
    """Exit code 125, as `offers` has it."""
    done = program("plan", OFFICE, "--gpu", "H200")

    assert done.returncode == 125
    assert b"--price says what to reckon with" in done.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["100 an hour"], b"usage = '100 an hour': must be such as '100 a day"),
        (["--machines", "0"], b"machines = 0: must be 1 or more"),
        (["--disk-price", "1"], b"is more than the whole price"),
    ],
)
def test_what_makes_no_sense_is_one_clear_sentence(
    program: Program, words: list[str], problem: bytes
) -> None:
    """And exit code 2, as everywhere."""
    done = program("plan", "--price", "0.36", "--cold-start", "60", *words)

    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count(b"\n") == 1


# ---- the traffic ---------------------------------------------------------------------------


def said(
    usage: str | None = None,
    *,
    per_day: float | None = None,
    seconds: str | None = None,
    hours: str | None = None,
    days: str | None = None,
    trace: Path | None = None,
    model: str | None = None,
    timezone: str | None = None,
) -> Said:
    return Said(
        usage=usage,
        per_day=per_day,
        seconds=seconds,
        hours=hours,
        days=days,
        trace=trace,
        model=model,
        timezone=timezone,
    )


def written(folder: Path, text: str) -> Path:
    trace = folder / "trace.csv"
    trace.write_text(text)
    return trace


def test_options_say_the_usage_anew() -> None:
    """Each goes before the same part of the words."""
    found = traffic(said(OFFICE, per_day=10, seconds="2m", hours="8-10", days="sat"), "UTC")

    assert found.title == "10 a day, 120 s each, sat 08:00-10:00 (UTC)"
    assert len(found.arrivals) == 40


def test_a_trace_is_replayed_as_it_came(tmp_path: Path) -> None:
    """Dates in the zone that is said; what takes no time said takes the usual."""
    trace = written(
        tmp_path,
        "arrival,seconds,model\n2026-03-30 09:01:00+02:00,30,b\n2026-03-30T09:00,60,a\n"
        "2026-03-30T10:00,,a\n",
    )

    every = traffic(said(trace=trace, seconds="90"), "Europe/Berlin")
    one = traffic(said(trace=trace, model="a"), "Europe/Berlin")

    assert [each.seconds for each in every.arrivals] == [60, 30, 90]
    assert [each.at - every.since for each in every.arrivals] == [0, 60, 3_600]
    assert every.until - every.since == 3_690
    assert len(one.arrivals) == 2


def test_a_trace_may_tell_the_time_in_seconds(tmp_path: Path) -> None:
    """And nothing else."""
    found = traffic(said(trace=written(tmp_path, "arrival\n10\n4.5\n")), "UTC")

    assert found.arrivals == [Arrival(4.5, 60), Arrival(10, 60)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("when\n1\n", "its first line must name a column arrival"),
        ("arrival\nsoon\n", "csv:2 = 'soon': an arrival must be a date and time, or seconds"),
        ("arrival,seconds\n1,-2\n", "csv:2 = '-2': must not be negative"),
        ("arrival;seconds\n1;2\n", "must name a column arrival, with commas .*: 'arrival;seconds'"),
        ("", "is empty"),
        ("arrival\n", "there are no requests in it"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    """So that it can be found."""
    with pytest.raises(InvalidValue, match=problem):
        traffic(said(trace=written(tmp_path, text)), "UTC")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (said(per_day=0), "per_day = 0: must be above 0"),
        (said(hours="nine"), "hours = 'nine': must be such as 9-18"),
        (said(days="mo"), "schedule = 'mo': unknown day"),
        (said(timezone="Mars"), "timezone = 'Mars': unknown time zone"),
        (said(model="x"), "only a trace has models"),
        (said(trace=Path("any"), per_day=3), "a trace says that by itself"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused_with_its_reason(words: Said, problem: str) -> None:
    """By the name of the option."""
    with pytest.raises(InvalidValue, match=problem):
        traffic(words, "UTC")


def test_a_trace_that_is_not_there_is_named() -> None:
    """Rather than taken for an empty one."""
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        traffic(said(trace=Path("nowhere.csv")), "UTC")
