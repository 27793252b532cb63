"""What became of a provider's promises, as a page for people and as data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpubroker.cli.screen import Page, Table
from gpubroker.model.money import ZERO
from gpubroker.testing.conformance.real import RealAccount
from gpubroker.testing.conformance.report import Standing, Verdict, counted


@dataclass(slots=True)
class Report:
    """The checks of one provider, as far as they have come.

    Attributes:
        on: what they are carried out on, in words.
        account: what was spent and left; ``None`` where that is no account.
    """

    provider: str
    on: str = ""
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    account: RealAccount | None = None


def page_of(report: Report) -> Page:
    """A row for each check, and below it what to know of each promise that is broken."""
    rows = [[v.check, str(v.standing), f"{v.seconds:.1f}", _told(v)] for v in report.verdicts]
    ends = ", ".join(f"{number} {end}" for end, number in counted(report.verdicts).items())
    broken = [line for verdict in report.verdicts for line in _failure(verdict)]
    return Page(
        heading=[f"{report.provider}, checked on {report.on}"],
        tables=[Table(["check", "", ">s", "what is promised, or why it was skipped"], rows)],
        closing=[*broken, "", ends, *_spending(report.account)],
    )


def as_data(report: Report) -> dict[str, Any]:
    """All of it, with money as exact text."""
    account = report.account
    return {
        "provider": report.provider,
        "on": report.on,
        "verdicts": [
            {word: getattr(verdict, word) for word in Verdict.__dataclass_fields__}
            for verdict in report.verdicts
        ],
        **{str(standing): number for standing, number in counted(report.verdicts).items()},
        "account": None
        if account is None
        else {
            "ceiling": str(account.ceiling.amount),
            "reserved": str(account.reserved.amount),
            "left": sorted(account.left),
        },
    }


def _told(verdict: Verdict) -> str:
    return verdict.said if verdict.standing is Standing.SKIPPED else verdict.promise


def _failure(verdict: Verdict) -> Sequence[str]:
    if verdict.standing is not Standing.FAILED:
        return []
    lines = ["", f"FAILED {verdict.check}", f"  promised: {verdict.promise}"]
    lines += [f"  why, and how to mend it: {verdict.mending}"] if verdict.mending else []
    return [*lines, f"  seen: {verdict.said}"]


def _spending(account: RealAccount | None) -> Sequence[str]:
    if account is None:
        return []
    lines = [f"worst case of all that was rented: {account.reserved} of {account.ceiling}"]
    if account.left:
        lines.append(
            f"NOT PROVEN GONE: {', '.join(sorted(account.left))}; look at the account now, or run"
            " `gpubroker adopt`"
        )
    elif account.reserved > ZERO:
        lines.append("everything that was rented is released and proven gone")
    return lines
