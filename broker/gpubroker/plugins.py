"""Provider plugins: found, kept apart from each other, and called one hook at a time.

Each plugin object gets a pluggy manager of its own, so that no plugin can hide, slow down or
break another one's answer. Nothing but `Provider` touches a hook.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Final, TypeVar, cast

import anyio
import pluggy

from gpubroker import hookspecs
from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.hookspecs import AccountSettings, Emit
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, Order
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import Outcome
from gpubroker.transport.job_io import JobIO
from gpubroker.watchdog import Watchdog

T = TypeVar("T")
Factory = Callable[[AccountSettings, Emit], Any]

ENTRY_POINTS: Final = "gpubroker"
_REQUIRED: Final = ("quote", "provision", "run", "release")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A provider that could be opened.

    Attributes:
        name: the provider's name.
        factory: what makes it: the account's settings and an event callback in, hooks out.
        origin: the distribution that it comes from.
        given: handed over in code, and so chosen on purpose; it needs neither a key nor to be
            named in the settings.
    """

    name: str
    factory: Factory
    origin: str
    given: bool = False


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that was skipped, and why."""

    name: str
    origin: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that each hook may take. ``run`` has no limit of its own: the lease's lifetime is one."""

    open: float = 10.0
    quote: float = 10.0
    provision: float = 120.0
    inventory: float = 30.0
    release: float = 30.0


def discover(
    entry_points: Iterable[metadata.EntryPoint] | None = None,
) -> tuple[list[Plugin], list[BrokenPlugin]]:
    """Every installed plugin, and every one that had to be skipped.

    One that fails to import, in whatever way, is skipped. A name registered by two distributions
    belongs to neither of them: both are skipped and named.
    """
    points = metadata.entry_points(group=ENTRY_POINTS) if entry_points is None else entry_points
    plugins: list[Plugin] = []
    broken: list[BrokenPlugin] = []
    by_name: dict[str, list[metadata.EntryPoint]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    for name, claims in sorted(by_name.items()):
        origins = ", ".join(_origin(point) for point in claims)
        if len({point.value for point in claims}) > 1:
            broken.append(BrokenPlugin(name, origins, "the name is registered more than once"))
            continue
        try:
            plugins.append(Plugin(name, claims[0].load(), origins))
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit at import is a broken plugin too
            problem = f"failed to import: {type(error).__name__}: {error}"
            broken.append(BrokenPlugin(name, origins, problem))
    return plugins, broken


def _origin(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


class Provider:
    """One plugin plus one account, open: typed hooks, each with its deadline and error mapping.

    Every failure leaves as a `ProviderError`, whatever the plugin raised.
    """

    def __init__(
        self,
        plugin: Plugin,
        instance: Any,
        facts: ProviderFacts,
        hooks: frozenset[str],
        caller: Any,
        deadlines: Deadlines,
        watchdog: Watchdog,
    ) -> None:
        self.name = plugin.name
        self.origin = plugin.origin
        self.given = plugin.given
        self.facts = facts
        self.hooks = hooks
        self._instance = instance
        self._caller = caller
        self._deadlines = deadlines
        self._watchdog = watchdog

    def __repr__(self) -> str:
        return f"<Provider {self.name} from {self.origin}>"

    async def quote(self, requirements: Requirements) -> list[Offer]:
        """Its offers, with its name filled in."""
        offers = await self._call("quote", self._deadlines.quote, requirements=requirements)
        named = [replace(offer, provider=self.name) for offer in _each(offers, Offer, "quote")]
        if len({offer.id for offer in named}) < len(named):
            raise self._fault("quote returned two offers with the same id")
        return named

    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Send one create. Whatever is not a clear answer is `CreateUnknown`."""
        try:
            machine = await self._call(
                "provision", self._deadlines.provision, offer=offer, order=order
            )
        except ProviderError as error:
            # A timeout or a crash of the plugin says nothing about what the vendor did.
            if error.kind in (ErrorKind.TRANSIENT, ErrorKind.PLUGIN) and error.machine_id is None:
                raise CreateUnknown(str(error)) from error
            raise
        if not isinstance(machine, Machine) or not machine.id:
            raise CreateUnknown(f"{self.name}: provision returned {machine!r}, not a machine")
        return replace(machine, provider=self.name)

    async def inventory(self) -> list[Machine]:
        """Every machine of the account, with the provider's name filled in."""
        machines = await self._call("inventory", self._deadlines.inventory)
        return [replace(m, provider=self.name) for m in _each(machines, Machine, "inventory")]

    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        """Run a job to its end."""
        outcome = await self._call("run", None, machine=machine, job=job, io=io)
        if not isinstance(outcome, Outcome):
            raise self._fault(f"run returned {outcome!r}, not an outcome")
        return outcome

    async def release(self, machine: Machine) -> None:
        """Ask for the machine's destruction; returning means acknowledged."""
        await self._call("release", self._deadlines.release, machine=machine)

    async def _call(self, hook: str, deadline: float | None, **arguments: Any) -> Any:
        label = f"{self.name}.{hook}"
        with anyio.move_on_after(deadline) as scope:
            try:
                # Without implementations pluggy returns None, which is not awaitable.
                waiting: Awaitable[Any] = getattr(self._caller, hook)(**arguments)
                return await self._watchdog.watched(label, waiting)
            except ProviderError:
                raise
            except Exception as error:
                raise self._fault(f"{hook} raised {type(error).__name__}: {error}") from error
        assert scope.cancelled_caught
        raise ProviderError(
            f"{label} took longer than {deadline:g} s",
            kind=ErrorKind.TRANSIENT,
            scope=Scope.PROVIDER,
        )

    def _fault(self, problem: str) -> ProviderError:
        return ProviderError(f"{self.name}: {problem}", kind=ErrorKind.PLUGIN, scope=Scope.PROVIDER)


def _each(values: Any, kind: type[T], hook: str) -> Sequence[T]:
    if isinstance(values, (list, tuple)):
        items = cast("Sequence[object]", values)
        if all(isinstance(item, kind) for item in items):
            return cast("Sequence[T]", items)
    raise ProviderError(
        f"{hook} returned something else than a list of {kind.__name__}",
        kind=ErrorKind.PLUGIN,
        scope=Scope.PROVIDER,
    )


@asynccontextmanager
async def open_provider(
    plugin: Plugin,
    settings: AccountSettings,
    emit: Emit,
    deadlines: Deadlines,
    watchdog: Watchdog,
) -> AsyncGenerator[Provider]:
    """Make and enter one plugin's provider.

    Raises:
        ProviderError: the factory failed, or what it made breaks the contract.
    """
    try:
        instance = plugin.factory(settings, emit)
        provider = _provider(plugin, instance, deadlines, watchdog)
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(
            f"{plugin.name}: {type(error).__name__}: {error}",
            kind=ErrorKind.PLUGIN,
            scope=Scope.PROVIDER,
        ) from error
    if not hasattr(instance, "__aenter__"):
        yield provider
        return
    with anyio.move_on_after(deadlines.open) as scope:
        await instance.__aenter__()
    if scope.cancelled_caught:
        raise ProviderError(
            f"{plugin.name} took longer than {deadlines.open:g} s to open",
            kind=ErrorKind.PLUGIN,
            scope=Scope.PROVIDER,
        )
    try:
        yield provider
    finally:
        with anyio.move_on_after(deadlines.open, shield=True):
            await instance.__aexit__(None, None, None)


def _provider(plugin: Plugin, instance: Any, deadlines: Deadlines, watchdog: Watchdog) -> Provider:
    """Check an instance against the contract and wrap it."""

    def broken(problem: str) -> ProviderError:
        return ProviderError(problem, kind=ErrorKind.PLUGIN, scope=Scope.PROVIDER)

    pm = pluggy.PluginManager("gpubroker")
    pm.add_hookspecs(hookspecs)
    try:
        pm.register(instance, name=plugin.name)
        pm.check_pending()
    except pluggy.PluginValidationError as error:
        raise broken(str(error)) from error
    found: Mapping[str, Any] = {
        caller.name: caller.get_hookimpls()[0].function
        for caller in pm.get_hookcallers(instance) or ()
    }
    facts = getattr(instance, "facts", None)
    if not isinstance(facts, ProviderFacts):
        raise broken("it has no `facts` of type ProviderFacts")
    required = (*_REQUIRED, "inventory") if facts.paid else _REQUIRED
    missing = [name for name in required if name not in found]
    if missing:
        raise broken(f"it lacks the hook {', '.join(missing)}")
    for name, function in found.items():
        if not inspect.iscoroutinefunction(function):
            raise broken(f"its hook {name} is not `async def`")
    return Provider(plugin, instance, facts, frozenset(found), pm.hook, deadlines, watchdog)
