from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gpubroker.errors import ErrorKind, Scope
from gpubroker.model.codec import from_json, to_json, to_plain
from gpubroker.model.decisions import (
    Attempt,
    AttemptState,
    Constraint,
    DecisionRecord,
    Estimate,
    ProviderProblem,
    Rejection,
    Verdict,
)
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow, LeaseState, LedgerEvent, ReleaseState
from gpubroker.model.machines import Machine, MachineState, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.ranges import Range
from gpubroker.model.requirements import Requirements, Setup, TrustTier
from gpubroker.model.results import (
    JobState,
    Outcome,
    OutputFile,
    Result,
    Timings,
)

T = TypeVar("T")
few = settings(deadline=None, max_examples=50)

text = st.text(max_size=20)
times = st.floats(0, 1e12)
amounts = st.decimals(0, 10**6, places=9, allow_nan=False, allow_infinity=False).map(Money)
prices = st.builds(Price, machine=amounts, disk=amounts, upload=amounts, download=amounts)
numbers = st.none() | st.floats(0, 1e6)
offers = st.builds(
    Offer,
    id=text,
    price=prices,
    provider=text,
    gpu=st.none() | text,
    count=st.integers(0, 16),
    vram=numbers,
    cuda=numbers,
    trust=st.none() | st.sampled_from(TrustTier),
    spot=st.booleans(),
    expires_at=st.none() | st.floats(allow_nan=False),
    extra=st.dictionaries(text, text, max_size=2),
)
finite = st.floats(0, 1e6)
rejections = st.builds(
    Rejection,
    constraint=st.sampled_from(Constraint),
    wanted=text,
    offered=st.none() | text | st.floats(allow_nan=False, allow_infinity=False),
    unit=text,
)
estimates = st.builds(
    Estimate,
    boot=finite,
    setup=finite,
    transfer=finite,
    run=finite,
    bandwidth=amounts,
    chance=st.floats(0.01, 1),
    cost=amounts,
    hourly=amounts,
)
scores = st.lists(st.floats(allow_nan=False), min_size=1, max_size=3).map(tuple)
verdicts = st.builds(
    Verdict,
    offer=offers,
    rank=st.none() | st.integers(0, 99),
    score=st.none() | scores,
    rejection=st.none() | rejections,
    estimate=st.none() | estimates,
    alternative=st.integers(0, 9),
)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 99),
    provider=text,
    offer_id=text,
    title=text,
    hourly=amounts,
    state=st.sampled_from(AttemptState),
    started_at=times,
    ended_at=times,
    kind=st.none() | st.sampled_from(ErrorKind),
    scope=st.none() | st.sampled_from(Scope),
    cost=amounts,
)
problems = st.builds(ProviderProblem, provider=text, kind=st.sampled_from(ErrorKind), message=text)
records = st.builds(
    DecisionRecord,
    id=text,
    wanted=text,
    asked_at=times,
    verdicts=st.lists(verdicts, max_size=2).map(tuple),
    problems=st.lists(problems, max_size=2).map(tuple),
    attempts=st.lists(attempts, max_size=2).map(tuple),
    why=text,
)

RECORD = DecisionRecord(id="r1", wanted="A100", asked_at=1.5)
PRICE = Price(machine=Money("0.123456789"))
VALUES: list[Any] = [
    Money("1.10"),
    Range(1.5, None),
    Setup(("make",), timeout=5.0),
    Requirements(
        gpu=["A100", "4090"],
        vram="24..",
        region="DE",
        max_price=1.5,
        spot=None,
        ports=[22],
        env={"A": "b"},
        setup="true",
    ),
    Requirements(),
    PRICE,
    Offer(id="1", price=PRICE, gpu="A100 80GB SXM", count=1, vram=80.0, trust=TrustTier.OWN),
    RECORD,
    Verdict(
        Offer(id="1", price=PRICE),
        rank=0,
        score=(1.0, math.inf, 0.25),
        estimate=Estimate(120.0, 60.0, 8.0, 40.0, Money("0.01"), 0.9, Money(1) / 3),
        alternative=1,
    ),
    Rejection(Constraint.VRAM, "24.. GB", 23.9, " GB"),
    Machine(id="7", state=MachineState.BROKEN, hourly=Money("0.5"), details={"a": "b"}),
    Order(
        mark="m",
        lease_id="l",
        image=None,
        disk=10.0,
        ports=(22, 80),
        env={"A": "b"},
        price_ceiling=Money(1),
        deadline=2.0,
    ),
    LeaseRow(
        id="l",
        request_id="r",
        provider="local",
        state=LeaseState.UNKNOWN,
        epoch=3,
        owner="o",
        mark="m",
        title="1x",
        offer_id="1",
        machine_id=None,
        hourly=Money("0.1"),
        quantum=1.0,
        reserved=Money(1),
        spent=Money(0),
        created_at=1.0,
        deadline=2.0,
        tags=("a",),
    ),
    LedgerEvent(
        number=1, lease_id="l", at=1.0, epoch=1, kind="k", source=None, target=LeaseState.READY
    ),
    ProviderFacts(paid=True, trust=TrustTier.DATACENTER),
    Outcome(state=JobState.EXITED, exit_code=0),
    OutputFile(path=Path("a/b"), size=3, sha256="00"),
    Timings(acquire=1.5),
    Result(
        state=JobState.TIMED_OUT,
        exit_code=None,
        provider="local",
        machine="8 CPUs",
        lease_id="l",
        job_id="j",
        stdout=bytes(range(256)),
        stderr="gruß".encode(),
        files={"a": OutputFile(path=Path("a"), size=1, sha256="00")},
        cost=Money("0.01"),
        release=ReleaseState.PROVEN,
        record=RECORD,
    ),
    Job(["true"], files=["x.py"], outputs="*.png", timeout=5.0, tags="a"),
]


def again(kind: type[T], value: T) -> T:
    return from_json(kind, to_json(kind, value))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_json_unchanged(value: Any) -> None:
    """Every value of the model survives JSON, whatever bytes and numbers it holds."""
    kind = cast("type[object]", type(value))
    copy = again(kind, value)

    assert copy == value
    assert type(copy) is type(value)


@few
@given(records)
def test_a_decision_record_comes_back_unchanged(record: DecisionRecord) -> None:
    """What was seen, chosen and tried is kept to the last digit."""
    assert DecisionRecord.from_json(record.to_json()) == record


@few
@given(st.binary())
def test_output_may_be_any_bytes(output: bytes) -> None:
    """A job's output need not be text to be kept."""
    outcome = Result(
        state=JobState.EXITED,
        exit_code=0,
        provider="p",
        machine="m",
        lease_id="l",
        job_id="j",
        stdout=output,
        record=RECORD,
    )

    assert again(Result, outcome).stdout == output


@pytest.mark.parametrize("at", [math.inf, -math.inf])
def test_an_endless_time_comes_back_endless(at: float) -> None:
    """JSON has no infinity, yet ``None`` would be another value."""
    offer = Offer(id="1", price=PRICE, expires_at=at)

    assert again(Offer, offer) == offer


def test_text_that_is_no_unicode_does_not_lose_the_record() -> None:
    """A vendor's lone surrogate is replaced; the rest of the record is kept."""
    record = DecisionRecord(id="r", wanted="a\ud800b", asked_at=1.0, why="ü")

    assert DecisionRecord.from_json(record.to_json()) == DecisionRecord(
        id="r", wanted="a?b", asked_at=1.0, why="ü"
    )


def test_money_is_a_decimal_string() -> None:
    """No reader of the JSON can turn an amount into a float by accident."""
    assert to_json(Money, Money("0.10")) == '"0.10"'
    assert to_plain(Price, PRICE)["machine"] == "0.123456789"


@few
@given(records)
def test_plain_data_is_what_the_json_says(record: DecisionRecord) -> None:
    """`to_plain` and `to_json` tell the same."""
    assert to_plain(DecisionRecord, record) == json.loads(to_json(DecisionRecord, record))


@pytest.mark.parametrize(
    "broken", ["", "{", "[]", "null", "{}", '{"id":1}', '{"id":"a","wanted":"b","asked_at":1},{}']
)
def test_other_json_is_refused(broken: str) -> None:
    """What is not one such value is an error, never half a value."""
    with pytest.raises(ValidationError):
        from_json(DecisionRecord, broken)
