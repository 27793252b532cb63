"""The checks carried out one by one, outside of pytest, and what is said of each."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import anyio

from gpubroker.testing.conformance.session import LIFETIME
from gpubroker.testing.conformance.subject import NotDeclared, Subject, SubjectMaker

Check = Callable[[Subject], Awaitable[None]]
"""One promise, tried out on a subject."""

_KEPT: Final = 1000


class Standing(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one check ended.

    Attributes:
        check: its name.
        promise: what is promised, in one sentence.
        mending: why that matters, and how to mend a plugin that breaks it; may be empty.
        said: what was seen, or why the check was skipped; empty where it passed.
        seconds: how long it took.
    """

    check: str
    standing: Standing
    promise: str
    mending: str = ""
    said: str = ""
    seconds: float = 0.0


async def carry_out(name: str, check: Check, make: SubjectMaker) -> Verdict:
    """Try one promise out, on a subject of its own."""
    began = time.monotonic()
    standing, said = await _tried(check, make)
    promise, mending = words_of(check)
    return Verdict(
        check=name,
        standing=standing,
        promise=promise,
        mending=mending,
        said=said[:_KEPT],
        seconds=round(time.monotonic() - began, 3),
    )


async def _tried(check: Check, make: SubjectMaker) -> tuple[Standing, str]:
    with anyio.move_on_after(LIFETIME) as scope:
        try:
            with make() as subject:
                await check(subject)
        except NotDeclared as reason:
            return Standing.SKIPPED, str(reason)
        except AssertionError as broken:
            return Standing.FAILED, str(broken) or "it does not say what"
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
            return Standing.FAILED, f"{type(error).__name__}: {error}"
        if not scope.cancelled_caught and not scope.cancel_called:
            return Standing.PASSED, ""
    return Standing.FAILED, f"it took longer than {LIFETIME:g} s"


def skipped(name: str, check: Check, reason: str) -> Verdict:
    """The verdict on a check that is not tried."""
    promise, mending = words_of(check)
    return Verdict(
        check=name, standing=Standing.SKIPPED, promise=promise, mending=mending, said=reason
    )


def words_of(check: Check) -> tuple[str, str]:
    """What a check promises, and why and how to mend it, out of its docstring."""
    promise, _, mending = (inspect.getdoc(check) or "").partition("\n\n")
    return _plain(promise), _plain(mending)


def _plain(text: str) -> str:
    """Text out of a docstring on one line, without its markup for code."""
    return " ".join(text.replace("``", "`").split())


def counted(verdicts: list[Verdict]) -> Mapping[Standing, int]:
    """How many ended in which way."""
    return {
        standing: sum(verdict.standing is standing for verdict in verdicts) for standing in Standing
    }
