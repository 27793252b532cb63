from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from gpubroker import (
    Attempt,
    AttemptState,
    DecisionRecord,
    ErrorKind,
    Event,
    EventKind,
    Money,
    Offer,
    ProviderFacts,
    Requirements,
    Scope,
)
from gpubroker.cli.decisions import plan_page, record_page
from gpubroker.cli.narration import Narration
from gpubroker.cli.progress import Progress
from gpubroker.cli.screen import Page
from gpubroker.cli.sink import Sink
from gpubroker.policy.cooldown import Cooldown
from gpubroker.policy.estimate import Work
from gpubroker.policy.plan import Market, Terms, plan
from gpubroker.policy.ranking import ranking_of
from gpubroker.testing import offer

from .program import Program

NOW: Final = 1_000_000.0
FACTS: Final = {"acme": ProviderFacts(paid=True)}
SLOW: Final = replace(offer("4090", id="slow", price="0.40", host="h1"), provider="acme")
DEAR: Final = replace(offer("A100", id="dear", price="1.25", host="h2"), provider="acme")


def cooldown(kind: ErrorKind, scope: Scope, key: str) -> Cooldown:
    """One that lasts for another minute and five seconds."""
    return Cooldown(
        provider="acme",
        scope=scope,
        key=key,
        kind=kind,
        reason="no such luck",
        failures=2,
        since=NOW - 10,
        until=NOW + 65,
    )


def decided(
    *offers: Offer, rank: str = "cheapest", cooldowns: tuple[Cooldown, ...] = ()
) -> DecisionRecord:
    """The record of a request for a 4090 or, in its place, an A100."""
    wanted = (Requirements(gpu="4090"), Requirements(gpu="A100"))
    market = Market(offers=(offers, offers), facts=FACTS, cooldowns=cooldowns, now=NOW)
    work = Work(seconds=3600, sends=1.25)
    verdicts = plan(market, wanted, Terms(), ranking_of(rank), work)
    return DecisionRecord(id="request-1", wanted="…", asked_at=NOW, verdicts=verdicts)


def table(page: Page, title: str) -> list[dict[str, str]]:
    """The rows of the table whose title begins so, each as its cells by column."""
    (found,) = (table for table in page.tables if table.title.startswith(title))
    names = [column.removeprefix(">") for column in found.columns]
    return [dict(zip(names, row, strict=True)) for row in found.rows]


def of_offers(record: DecisionRecord, *cooldowns: Cooldown) -> Page:
    return plan_page(record, ranking="…", cooldowns=cooldowns, now=NOW, rejected_too=True)


@pytest.mark.parametrize(
    ("rank", "scores"),
    [
        ("cheapest", ["$0.40/h", "$1.25/h"]),
        ("cheapest_to_finish", ["$0.460494 to finish", "$1.439 to finish"]),
        ("fastest", ["1 h 09 min to finish", "1 h 09 min to finish"]),
        ("prefer(acme), cheapest", ["0, $0.40/h", "0, $1.25/h"]),
        ("fastest, cheapest", ["1 h 09 min to finish, $0.40/h", "1 h 09 min to finish, $1.25/h"]),
        ("0.5*cheapest", ["0.5", "0.5"]),
    ],
)
def test_scores_are_shown_in_the_unit_of_the_ranking(rank: str, scores: list[str]) -> None:
    """Dollars an hour, dollars or a time; a sum of several has no unit."""
    record = decided(SLOW, DEAR, rank=rank)

    rows = table(of_offers(record), "offers that fit")

    assert [row["score"] for row in rows] == scores
    assert [row["choice"] for row in rows] == ["1", "2"]
    assert rows == table(record_page(record, cooldowns=(), now=NOW), "offers that fit")


def test_the_arithmetic_is_shown_where_there_is_one() -> None:
    """Each time, the price and the chance, so that anybody can do the sum again."""
    (row, _) = table(of_offers(decided(SLOW, DEAR, rank="cheapest_to_finish")), "what finishing")

    assert row == {
        "rank": "1",
        "machine": SLOW.title,
        "boot": "2 min 00 s",
        "transfer": "10 s",
        "run": "1 h 00 min",
        "at $/h": "$0.40",
        "works": "90%",
        "cost": "$0.460494",
    }
    assert table(of_offers(decided(SLOW, DEAR)), "what finishing") == []


def test_a_host_that_failed_is_ruled_out_and_says_for_how_long() -> None:
    """The reason says what failed, how often, how, and for how long it is left alone."""
    broken = cooldown(ErrorKind.HOST_BROKEN, Scope.HOST, "h1")

    page = of_offers(decided(SLOW, cooldowns=(broken,)), broken)

    assert table(page, "offers that do not")[0]["reason against it"] == (
        "cooling down: host failed 2x, left alone for 65 s more: no such luck"
    )
    assert table(page, "cooling down now") == [
        {
            "provider": "acme",
            "what": "host h1",
            "kind": "host broken",
            "failed": "2x",
            "for another": "1 min 05 s",
            "until then": "not tried",
            "why": "no such luck",
        }
    ]


def test_what_is_tried_last_says_why() -> None:
    """The cheaper one comes second, and the reason is in its row; a cooldown that is over is not."""
    full = cooldown(ErrorKind.CAPACITY, Scope.OFFER, "slow")
    over = replace(cooldown(ErrorKind.CAPACITY, Scope.OFFER, "dear"), until=NOW - 1)
    other = replace(SLOW, id="other", price=DEAR.price)

    page = of_offers(decided(SLOW, other, cooldowns=(full, over)), full, over)

    assert [row["last because"] for row in table(page, "offers that fit")] == [
        "",
        "offer failed 2x (capacity), 1 min 05 s more",
    ]
    assert [row["until then"] for row in table(page, "cooling down now")] == ["tried last"]


def test_attempts_are_added_up() -> None:
    """Kind, scope, how long, how much, and why of each; the sum of all below."""
    attempt = Attempt(
        number=1,
        provider="acme",
        offer_id="slow",
        title="RTX 4090",
        hourly=Money("0.40"),
        state=AttemptState.FAILED,
        started_at=NOW,
        ended_at=NOW + 90,
        kind=ErrorKind.HOST_BROKEN,
        scope=Scope.HOST,
        reason="never booted",
        cost=Money("0.01"),
    )
    record = replace(decided(SLOW), attempts=(attempt, replace(attempt, number=2)))

    page = record_page(record, cooldowns=(), now=NOW)

    (row, _) = table(page, "attempts")
    assert (row["kind"], row["scope"], row["took"], row["cost"], row["why"]) == (
        "host broken",
        "host",
        "1 min 30 s",
        "$0.01",
        "never booted",
    )
    assert page.closing == ["2 attempts took 3 min 00 s and $0.02 by the time that each had ended"]


def test_explain_shows_attempts_that_failed_and_what_cools_down(program: Program) -> None:
    """From the ledger, by the program itself; its JSON is the record, unchanged."""
    cards = {
        "GPUBROKER_LOCAL_SIMULATE": "1x RTX 4090",
        "GPUBROKER_LOCAL_PRICE": "0.36",
        "GPUBROKER_BUDGET_JOB": "5",
    }
    policy = ("--attempt-timeout", "0.001", "--rank", "cheapest_to_finish")

    program("run", "--gpu", "4090", *policy, "true", **cards)
    shown = program("explain").stdout.decode()
    offers = program("offers", "--gpu", "4090", **cards)
    text = program("explain", "--json").stdout.decode()

    assert "failed   host broken  host " in shown
    assert "what finishing is expected to cost" in shown
    assert "cooling down now:" in shown
    assert offers.returncode == 0  # what is free is only tried last
    assert b"host broken      1x" in offers.stdout
    record = DecisionRecord.from_json(text)
    assert record.attempts[0].kind is ErrorKind.HOST_BROKEN
    assert record.verdicts[0].estimate is not None
    assert DecisionRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (
            EventKind.WAITING,
            "none of 2 offers fits; too dear; asking again in 12 s",
            "waiting 12 s for capacity: none of 2 offers fits; too dear",
        ),
        (EventKind.WAITING, "busy; again in 1.5 s", "waiting 1.5 s to try it again: busy"),
        (EventKind.WAITING, "for the moon", "waiting: for the moon"),
        (EventKind.PROBING, "asking acme's", "checking the machine: asking acme's"),
    ],
)
def test_waiting_and_probing_are_steps(
    kind: EventKind, text: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The length of a pause comes first: the reason may be longer than the screen is wide."""
    narration = Narration(Progress(Sink(2), quiet=False))

    narration.tell(Event(at=NOW, kind=kind, text=text))

    assert capfd.readouterr().err.endswith(f"  {said}\n")
