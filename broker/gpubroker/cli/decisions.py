"""Plans and decision records into pages for people. Pure: `gpubroker.cli.screen` prints them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gpubroker.cli.durations import shown
from gpubroker.cli.screen import Page, Table
from gpubroker.model.decisions import Attempt, Constraint, DecisionRecord, Rejection, Verdict
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Offer
from gpubroker.policy.cooldown import Cooldown, cooling

NONE: Final = "-"


def plan_page(
    record: DecisionRecord,
    *,
    ranking: str,
    cooldowns: Sequence[Cooldown],
    now: float,
    rejected_too: bool,
) -> Page:
    """What would be rented, and on demand what would not.

    Args:
        ranking: what the offers were ranked by.
        cooldowns: what is left alone for a while; those that are over may be among them.
    """
    ranked, rejected = _split(record.verdicts)
    closing = []
    if rejected and not rejected_too and ranked:
        closing = [
            f"{len(rejected)} more {'does' if len(rejected) == 1 else 'do'} not fit; --all shows why"
        ]
    several = _several(record)
    tables = [_ranked_table(ranked, several, cooldowns, now), _estimate_table(ranked)]
    if rejected_too or not ranked:
        tables.append(_rejected_table(rejected, several))
    tables += [_cooldown_table(cooldowns, now), _problem_table(record)]
    return Page([_winner(record, ranked, ranking)], tables, closing)


def _winner(record: DecisionRecord, ranked: Sequence[Verdict], ranking: str) -> str:
    if not ranked:
        said = "nothing fits" if record.verdicts else "nothing is offered"
        return f"{record.wanted}: {said}"
    best = ranked[0].offer
    rest = f"first of {len(ranked)} by {ranking}" if len(ranked) > 1 else "the only one that fits"
    return (
        f"{record.wanted}: {best.title} from {best.provider} at {best.price.hourly}/h would be"
        f" rented, {rest}"
    )


def record_page(record: DecisionRecord, *, cooldowns: Sequence[Cooldown], now: float) -> Page:
    """Everything about one decision, and what is left alone by now."""
    ranked, rejected = _split(record.verdicts)
    asked = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.asked_at))
    heading = [f"{record.id or 'request'}, {asked}", f"wanted: {record.wanted}"]
    if record.why:
        heading.append(f"outcome: {record.why}")
    several = _several(record)
    tables = [
        _ranked_table(ranked, several),
        _estimate_table(ranked),
        _rejected_table(rejected, several),
        _attempt_table(record.attempts),
        _problem_table(record),
        _cooldown_table(cooldowns, now),
    ]
    return Page(heading, tables, _total(record.attempts))


def _split(verdicts: Iterable[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    ranked: list[Verdict] = []
    rejected: list[Verdict] = []
    for verdict in verdicts:
        (ranked if verdict.rejection is None else rejected).append(verdict)
    return ranked, rejected


# ---- offers --------------------------------------------------------------------------------


def _ranked_table(
    verdicts: Sequence[Verdict],
    several: bool,
    cooldowns: Sequence[Cooldown] = (),
    now: float = 0.0,
) -> Table:
    rows = [
        [
            str((verdict.rank or 0) + 1),
            _choice(verdict, several),
            offer.title,
            offer.provider,
            str(offer.price.hourly),
            offer.region or NONE,
            NONE if offer.reliability is None else f"{offer.reliability:.3f}",
            score,
            _last_since(offer, cooldowns, now),
        ]
        for verdict, score in zip(verdicts, _scores(verdicts), strict=True)
        for offer in (verdict.offer,)
    ]
    columns = [">rank", "choice", "machine", "provider", ">$/h", "region", ">reliability"]
    return _told(Table([*columns, ">score", "last because"], rows, "offers that fit"))


def _last_since(offer: Offer, cooldowns: Sequence[Cooldown], now: float) -> str:
    found = cooling(offer, cooldowns, now)
    if found is None:
        return ""
    return f"{found.scope} failed {found.failures}x ({found.kind}), {shown(found.until - now)} more"


def _several(record: DecisionRecord) -> bool:
    """Whether there were alternatives, so that it must be said which an offer is for."""
    return any(verdict.alternative for verdict in record.verdicts)


def _choice(verdict: Verdict, several: bool) -> str:
    return str(verdict.alternative + 1) if several else ""


def _scores(verdicts: Sequence[Verdict]) -> list[str]:
    """The scores as text, each part in its unit: dollars an hour, dollars, or a time.

    A record holds the numbers alone; that a column of them is the prices, say, is seen from the
    offers. What is none of the three stays a number.
    """
    columns = zip(*(verdict.score or () for verdict in verdicts), strict=False)
    texts = [_column(list(column), verdicts) for column in columns]
    if not texts:
        return [""] * len(verdicts)
    return [", ".join(parts) for parts in zip(*texts, strict=True)]


def _column(values: Sequence[float], verdicts: Sequence[Verdict]) -> list[str]:
    for unit, said in _UNITS:
        expected = [unit(verdict) for verdict in verdicts]
        if any(expected) and all(
            number is not None and math.isclose(number, value)
            for number, value in zip(expected, values, strict=True)
        ):
            return [said(verdict, value) for verdict, value in zip(verdicts, values, strict=True)]
    return [f"{value:.6g}" for value in values]


def _to_finish(verdict: Verdict) -> float | None:
    return None if verdict.estimate is None else float(verdict.estimate.cost.amount)


def _until_finished(verdict: Verdict) -> float | None:
    return None if verdict.estimate is None else verdict.estimate.seconds / verdict.estimate.chance


_UNITS: Final[
    Sequence[tuple[Callable[[Verdict], float | None], Callable[[Verdict, float], str]]]
] = (
    (
        lambda verdict: verdict.offer.price.hourly_usd,
        lambda verdict, _: f"{verdict.offer.price.hourly}/h",
    ),
    (_to_finish, lambda verdict, _: f"{_expected(verdict)} to finish"),
    (_until_finished, lambda _, value: f"{shown(value)} to finish"),
)


def _expected(verdict: Verdict) -> str:
    """A cost that is only expected: more digits would claim too much."""
    cost = ZERO if verdict.estimate is None else verdict.estimate.cost
    return str(Money(f"{cost.amount:.4f}")) if cost.amount >= 1 else str(cost)


def _estimate_table(verdicts: Sequence[Verdict]) -> Table:
    rows = [
        [
            str((verdict.rank or 0) + 1),
            verdict.offer.title,
            shown(made.boot),
            shown(made.setup) if made.setup else "",
            shown(made.transfer) if made.transfer else "",
            shown(made.run),
            str(verdict.offer.price.hourly),
            str(made.bandwidth) if made.bandwidth else "",
            f"{made.chance:.0%}",
            _expected(verdict),
        ]
        for verdict in verdicts
        for made in (verdict.estimate,)
        if made is not None
    ]
    times = [">boot", ">set-up", ">transfer", ">run"]
    columns = [">rank", "machine", *times, ">at $/h", ">bandwidth", ">works", ">cost"]
    title = "what finishing is expected to cost: the times at the price, and the bandwidth, over"
    return _told(Table(columns, rows, f"{title} the chance that it works"))


def _rejected_table(verdicts: Sequence[Verdict], several: bool) -> Table:
    rows = [
        [
            _choice(verdict, several),
            offer.title,
            offer.provider,
            str(offer.price.hourly),
            _against(rejection),
        ]
        for verdict in verdicts
        for offer, rejection in ((verdict.offer, verdict.rejection),)
        if rejection is not None
    ]
    columns = ["choice", "machine", "provider", ">$/h", "reason against it"]
    return _told(Table(columns, rows, "offers that do not"))


def _against(rejection: Rejection) -> str:
    if rejection.constraint is Constraint.COOLING_DOWN:
        return f"{rejection.constraint}: {rejection.said}"
    return str(rejection)


# ---- what was tried ------------------------------------------------------------------------


def _attempt_table(attempts: Sequence[Attempt]) -> Table:
    rows = [
        [
            str(attempt.number),
            attempt.title,
            attempt.provider,
            str(attempt.hourly),
            str(attempt.state),
            attempt.kind or NONE,
            attempt.scope or NONE,
            shown(attempt.seconds),
            str(attempt.cost),
            attempt.reason or NONE,
        ]
        for attempt in attempts
    ]
    columns = ["machine", "provider", ">$/h", "outcome", "kind", "scope", ">took", ">cost", "why"]
    return Table([">try", *columns], rows, "attempts")


def _total(attempts: Sequence[Attempt]) -> list[str]:
    if len(attempts) < 2:
        return []
    took = shown(sum(attempt.seconds for attempt in attempts))
    cost = sum((attempt.cost for attempt in attempts), ZERO)
    return [f"{len(attempts)} attempts took {took} and {cost} by the time that each had ended"]


def _problem_table(record: DecisionRecord) -> Table:
    rows = [[p.provider, str(p.kind), p.message] for p in record.problems]
    return Table(["provider", "kind", "message"], rows, "providers without an answer")


def _cooldown_table(cooldowns: Iterable[Cooldown], now: float) -> Table:
    rows = [
        [
            each.provider,
            f"{each.scope} {each.key}".strip(),
            str(each.kind),
            f"{each.failures}x",
            shown(each.until - now),
            "not tried" if each.strict else "tried last",
            each.reason or NONE,
        ]
        for each in sorted(cooldowns, key=lambda cooldown: (cooldown.provider, cooldown.until))
        if each.until > now
    ]
    columns = ["provider", "what", "kind", ">failed", ">for another", "until then", "why"]
    return Table(columns, rows, "cooling down now")


def _told(table: Table) -> Table:
    """A table without the columns that say nothing in any row."""
    kept = [n for n in range(len(table.columns)) if any(row[n] for row in table.rows)]
    rows = [[row[n] for n in kept] for row in table.rows]
    return Table([table.columns[n] for n in kept], rows, table.title)
