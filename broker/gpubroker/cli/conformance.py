"""``gpubroker conformance``: does a provider keep the promises that every provider keeps?"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from gpubroker.cli.failures import BROKER_FAILED
from gpubroker.cli.interrupts import Stop, Stopped
from gpubroker.cli.ledger import opened
from gpubroker.cli.progress import Progress
from gpubroker.cli.promises import Report, as_data, page_of
from gpubroker.cli.screen import say, show, show_json
from gpubroker.cli.sink import Sink
from gpubroker.errors import BrokerError, InvalidValue
from gpubroker.hookspecs import AccountSettings
from gpubroker.ledger.mark_key import load_mark_key
from gpubroker.model.marks import Mark
from gpubroker.model.money import ZERO, Money, parse_money
from gpubroker.plugins import Deadlines, Plugin, discover, open_provider
from gpubroker.settings import Settings, why_off
from gpubroker.testing.conformance import CHECKS, Check, SubjectMaker
from gpubroker.testing.conformance.finding import declared_subject, subject_names
from gpubroker.testing.conformance.real import SAFE, RealAccount, on_account
from gpubroker.testing.conformance.report import (
    Standing,
    Verdict,
    carry_out,
    counted,
    skipped,
)
from gpubroker.testing.conformance.session import BLOCKING
from gpubroker.testing.sandboxing import emulator_names, make_emulator
from gpubroker.watchdog import Watchdog

_BROKEN: Final = 1
#: USD of play money at an emulator that no plugin declared a subject for.
_PLAY_MONEY: Final = Money(1000)
_NOT_SAFE: Final = "it disturbs the vendor, or needs the vendor's own books"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to check.

    Attributes:
        name: the provider. only: checks; all of them, where empty.
        wanted: arguments of `Requirements` for what a real account rents.
        ceiling: USD that checks on the real account may cost at the worst; ``None``: not there.
    """

    name: str
    only: tuple[str, ...] = ()
    wanted: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ceiling: Money | None = None

    @classmethod
    def of(
        cls,
        name: str,
        only: Sequence[str],
        *,
        real: bool,
        ceiling: str | None,
        wanted: Mapping[str, Any],
    ) -> Asked:
        """What the options ask for.

        Raises:
            InvalidValue: naming the option.
        """
        for check in only:
            if check not in CHECKS:
                known = ", ".join(CHECKS)
                raise InvalidValue("only", check, f"is no check; they are: {known}")
        given = {word: value for word, value in wanted.items() if value}
        if not real:
            if ceiling is not None:
                raise InvalidValue("ceiling", ceiling, "is for --real: nothing else costs money")
            if given:
                raise InvalidValue(next(iter(given)), "…", "is for --real: what it rents")
            return cls(name=name, only=tuple(only))
        if ceiling is None:
            raise InvalidValue(
                "ceiling", "", "is not set: say what checks on a real account may cost"
            )
        most = parse_money("ceiling", ceiling)
        if most <= ZERO:
            raise InvalidValue("ceiling", ceiling, "must be more than nothing")
        return cls(name=name, only=tuple(only), wanted=given, ceiling=most)


def conformance(settings: Settings, asked: Asked, *, as_json: bool) -> int:
    """Carry the checks out, and report; returns the exit code."""
    # What an emulator's server says of connections that a check has cut is no news.
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    progress = Progress(Sink(2), quiet=False)
    checking = _Checking(settings, asked, progress)
    code = anyio.run(checking.main)
    progress.end()
    if as_json:
        show_json(as_data(checking.report))
    else:
        show(page_of(checking.report))
    return code


def list_subjects() -> int:
    """Print the providers that can be checked without an account."""
    print(*sorted({*subject_names(), *emulator_names()}), sep="\n")
    return 0


class _Checking:
    """The checks of one provider under way."""

    def __init__(self, settings: Settings, asked: Asked, progress: Progress) -> None:
        self._settings = settings
        self._asked = asked
        self._progress = progress
        self.report = Report(asked.name)

    async def main(self) -> int:
        """Carry them out; returns the exit code."""
        stopped: Stopped | None = None
        async with AsyncExitStack() as stack:
            make = await self._subject(stack)

            async def read_cost() -> Money | None:
                return None if self.report.account is None else self.report.account.reserved

            async def beside() -> None:
                await self._progress.keep_up(read_cost)

            try:
                await Stop().watch(lambda: self._each(make), beside=beside)
            except Stopped as error:
                say(f"{error}: the checks are not complete")
                stopped = error
        if self.report.account is not None and self.report.account.left:
            return BROKER_FAILED
        if stopped is not None:
            return stopped.code
        ends = counted(self.report.verdicts)
        return 0 if ends[Standing.PASSED] and not ends[Standing.FAILED] else _BROKEN

    async def _each(self, make: SubjectMaker) -> None:
        chosen = {name: CHECKS[name] for name in self._asked.only} or CHECKS
        for number, (name, check) in enumerate(chosen.items(), start=1):
            self._progress.advance(f"check {number} of {len(chosen)}: {name}")
            self.report.verdicts.append(await self._one(name, check, make))

    async def _one(self, name: str, check: Check, make: SubjectMaker) -> Verdict:
        if self.report.account is None:
            return await carry_out(name, check, make)
        if name not in SAFE:
            return skipped(name, check, _NOT_SAFE)
        if self.report.account.left:
            return skipped(name, check, "a machine of an earlier check is not proven gone")
        return await carry_out(name, check, make)

    async def _subject(self, stack: AsyncExitStack) -> SubjectMaker:
        """What to check: a real account, the subject that is declared, or the emulator."""
        name, ceiling = self._asked.name, self._asked.ceiling
        if ceiling is not None:
            return await self._real(stack, _plugin(name), ceiling)
        make = declared_subject(name)
        if make is not None:
            self.report.on = "the subject that its plugin declares"
            return make
        if name in emulator_names():
            emulator = stack.enter_context(make_emulator(name))
            account = AccountSettings(name, emulator.options, emulator.key, emulator.url)
            play = RealAccount(_PLAY_MONEY)
            return await self._opened(stack, _plugin(name), account, play, "its emulator")
        _plugin(name)
        raise BrokerError(
            f"{name} has neither a subject to check (the entry-point group gpubroker.conformance)"
            " nor an emulator; a real account can be checked with --real --ceiling USD"
        )

    async def _real(self, stack: AsyncExitStack, plugin: Plugin, ceiling: Money) -> SubjectMaker:
        account = self._settings.account(plugin.name)
        real = RealAccount(ceiling, _marks(self._settings))
        make = await self._opened(stack, plugin, account, real, "a real account")
        if account.url is not None:
            self.report.on += f", at {account.url}"
        return make

    async def _opened(
        self,
        stack: AsyncExitStack,
        plugin: Plugin,
        settings: AccountSettings,
        account: RealAccount,
        on: str,
    ) -> SubjectMaker:
        """An account, with what the plugin says of itself as what is declared."""
        self.report.on = on
        provider = await stack.enter_async_context(
            open_provider(plugin, settings, _unheard, Deadlines(), Watchdog(BLOCKING, _unheard))
        )
        off = why_off(
            provider.facts,
            settings,
            named=True,
            keyed=settings.key is not None or settings.url is not None,
            limited=True,
            real=settings.url is None,
            under_test="pytest" in sys.modules,
        )
        if off is not None:
            raise BrokerError(f"{plugin.name} cannot be checked: {off}")
        self.report.account = account
        return on_account(plugin, settings, provider, self._asked.wanted, account)


def _unheard(what: str, more: object) -> None:
    """What is reported while an account is looked at is the checks' business, later."""


def _plugin(name: str) -> Plugin:
    """An installed plugin.

    Raises:
        InvalidValue: there is none of this name.
        BrokerError: it is broken.
    """
    plugins, broken = discover()
    for plugin in plugins:
        if plugin.name == name:
            return plugin
    for problem in broken:
        if problem.name == name:
            raise BrokerError(f"{name} from {problem.origin} {problem.problem}")
    raise InvalidValue.unknown("provider", name, [p.name for p in plugins], noun="provider")


def _marks(settings: Settings) -> Callable[[], str]:
    """Makes marks that `gpubroker adopt` knows for this ledger's, should the checks be killed."""
    with opened(settings) as ledger:
        ledger_id = ledger.id
    place = None if str(settings.ledger) == ":memory:" else settings.ledger
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
    key = load_mark_key(place, os.environ, os.urandom(32))
    return lambda: str(Mark.make(key, ledger_id, os.urandom(10)))
