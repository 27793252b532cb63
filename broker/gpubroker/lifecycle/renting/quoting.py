"""Ask every provider at once, each with its own deadline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.decisions import ProviderProblem
from gpubroker.model.events import EventKind
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.plugins import Provider
from gpubroker.policy.cooldown import provider_cooling
from gpubroker.policy.policy import Policy
from gpubroker.policy.retry import Step


@dataclass(slots=True)
class Quotes:
    """What came back.

    Attributes:
        offers: for each of the alternatives that were asked for.
        problems: the providers that gave no usable answer.
    """

    offers: list[list[Offer]]
    problems: list[ProviderProblem] = field(default_factory=list[ProviderProblem])


async def ask_all(
    parts: Parts, wanted: Sequence[Requirements], among: frozenset[str], policy: Policy
) -> Quotes:
    """Quotes of all providers in `among` that the requirements allow.

    One that fails costs only itself. One that asked to be left alone is, until its time is over.
    """
    quotes = Quotes([[] for _ in wanted])
    asked = {
        name: [n for n, requirements in enumerate(wanted) if _allows(requirements, name)]
        for name in parts.providers
        if name in among
    }
    names = [name for name, alternatives in asked.items() if alternatives]
    parts.emit(EventKind.QUOTING, f"asking {', '.join(names) or 'nobody'}")

    async def ask(provider: Provider, alternatives: list[int]) -> None:
        pause = _pause_asked_for(parts, provider)
        if pause is not None:
            quotes.problems.append(pause)
            return
        try:
            with anyio.move_on_after(policy.quote_timeout) as scope:
                for n in alternatives:
                    quotes.offers[n] += await _patiently(parts, provider, wanted[n], policy)
            if scope.cancelled_caught:
                raise ProviderError(
                    f"{provider.name}.quote took longer than {policy.quote_timeout:g} s",
                    kind=ErrorKind.TRANSIENT,
                )
        except ProviderError as error:
            parts.recall.provider_failed(error, provider.name, policy.retry, parts.now())
            problem = ProviderProblem(provider=provider.name, kind=error.kind, message=str(error))
            quotes.problems.append(problem)
            parts.emit(EventKind.PROVIDER_PROBLEM, str(error), provider=provider.name)

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(ask, parts.providers[name], asked[name])
    quotes.problems.sort(key=lambda problem: problem.provider)
    return quotes


def _allows(requirements: Requirements, provider: str) -> bool:
    listed = not requirements.providers or provider in requirements.providers
    return listed and provider not in requirements.exclude


def _pause_asked_for(parts: Parts, provider: Provider) -> ProviderProblem | None:
    """A provider that asked to be left alone is not asked before that time is over."""
    now = parts.now()
    cooldown = provider_cooling(provider.name, parts.recall.cooldowns, now)
    if cooldown is None:
        return None
    # What the account may not rent can still be asked for; a spent allowance of questions cannot.
    spent = cooldown.kind is ErrorKind.QUOTA and cooldown.scope is Scope.PROVIDER
    if cooldown.kind is not ErrorKind.RATE_LIMIT and not spent:
        return None
    text = f"not asked for {cooldown.until - now:.0f} s more: {cooldown.reason}"
    return ProviderProblem(provider=provider.name, kind=cooldown.kind, message=text)


async def _patiently(
    parts: Parts, provider: Provider, requirements: Requirements, policy: Policy
) -> list[Offer]:
    """One provider's offers, asked for again where the policy says so, as time allows."""
    failures: Counter[ErrorKind] = Counter()
    while True:
        try:
            return await _together(parts, provider, requirements)
        except ProviderError as error:
            failures[error.kind] += 1
            if policy.retry.step(error.kind, failures[error.kind]) is not Step.HERE:
                raise
            pause = policy.retry.pause(
                error.kind, failures[error.kind], error.retry_after, parts.source
            )
            if pause >= policy.quote_timeout:
                raise
        await anyio.sleep(pause)


class Asking:
    """A quote that is under way, for all who want the same of the same provider.

    Many requests at once, of a batch, ask one question: vendors count what they are asked.
    """

    def __init__(self, provider: str, requirements: Requirements) -> None:
        self.provider = provider
        self.requirements = requirements
        self.answered = anyio.Event()
        self.offers: list[Offer] | None = None
        self.error: ProviderError | None = None


async def _together(parts: Parts, provider: Provider, requirements: Requirements) -> list[Offer]:
    while True:
        mine = Asking(provider.name, requirements)
        other = next((a for a in parts.asking if _same(a, mine)), None)
        if other is None:
            break
        await other.answered.wait()
        if other.error is not None:
            raise other.error
        if other.offers is not None:
            return list(other.offers)
        # Whoever asked was cancelled: ask again.
    parts.asking.append(mine)
    try:
        mine.offers = await provider.quote(requirements)
    except ProviderError as error:
        mine.error = error
        raise
    finally:
        parts.asking.remove(mine)
        mine.answered.set()
    return list(mine.offers)


def _same(one: Asking, other: Asking) -> bool:
    return one.provider == other.provider and one.requirements == other.requirements
