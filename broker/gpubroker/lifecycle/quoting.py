"""Ask every provider at once, each with its own deadline."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from gpubroker.errors import ProviderError
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.decisions import ProviderProblem
from gpubroker.model.events import EventKind
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.plugins import Provider


@dataclass(slots=True)
class Quotes:
    """What came back: offers, and the providers that gave no usable answer."""

    offers: list[Offer] = field(default_factory=list[Offer])
    problems: list[ProviderProblem] = field(default_factory=list[ProviderProblem])


async def ask_all(parts: Parts, requirements: Requirements, among: frozenset[str]) -> Quotes:
    """Quotes of all providers in `among` that the requirements allow.

    One that fails costs only itself.
    """
    quotes = Quotes()
    asked = [
        provider
        for provider in parts.providers.values()
        if provider.name in among
        and (not requirements.providers or provider.name in requirements.providers)
        and provider.name not in requirements.exclude
    ]
    parts.emit(EventKind.QUOTING, f"asking {', '.join(p.name for p in asked) or 'nobody'}")

    async def ask(provider: Provider) -> None:
        try:
            quotes.offers += await provider.quote(requirements)
        except ProviderError as error:
            quotes.problems.append(
                ProviderProblem(provider=provider.name, kind=error.kind, message=str(error))
            )
            parts.emit(EventKind.PROVIDER_PROBLEM, str(error), provider=provider.name)

    async with anyio.create_task_group() as tasks:
        for provider in asked:
            tasks.start_soon(ask, provider)
    quotes.problems.sort(key=lambda problem: problem.provider)
    return quotes
