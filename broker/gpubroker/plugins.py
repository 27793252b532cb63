"""Provider plugins: found, kept apart from each other, and called one hook at a time.

Each plugin object gets a pluggy manager of its own, so that no plugin can hide, slow down or
break another one's answer. Nothing but `Provider` touches a hook.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio
import pluggy

from gpubroker import hookspecs
from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.hookspecs import AccountSettings, Emit
from gpubroker.model.charges import Charge
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, MachineState, Order, Route
from gpubroker.model.money import Money
from gpubroker.model.names import is_a
from gpubroker.model.offers import Offer, Price
from gpubroker.model.requirements import Requirements, TrustTier
from gpubroker.model.results import Outcome
from gpubroker.watchdog import Watchdog

if TYPE_CHECKING:
    from importlib import metadata

    from gpubroker.transport.channel import Channel
    from gpubroker.transport.job_io import JobIO

T = TypeVar("T")
Factory = Callable[[AccountSettings, Emit], Any]

ENTRY_POINTS: Final = "gpubroker"
_REQUIRED: Final = ("quote", "provision", "run", "release")
#: Characters of a mark: what the field that carries it must hold at the least.
_MARK: Final = 38


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
    logs: float = 30.0
    charges: float = 60.0
    balance: float = 30.0


def discover(
    entry_points: Iterable[metadata.EntryPoint] | None = None,
) -> tuple[list[Plugin], list[BrokenPlugin]]:
    """Every installed plugin, and every one that had to be skipped.

    One that fails to import, in whatever way, is skipped. A name registered by two distributions
    belongs to neither of them: both are skipped and named.
    """
    from importlib import metadata  # costs more than all else here, and not every broker needs it

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
        contract: int,
        facts: ProviderFacts,
        hooks: frozenset[str],
        caller: Any,
        deadlines: Deadlines,
        watchdog: Watchdog,
    ) -> None:
        self.name = plugin.name
        self.origin = plugin.origin
        self.given = plugin.given
        self.contract = contract
        self.facts = facts
        self.hooks = hooks
        self.has_account = True  #: a key for it, or where else it is, is known
        self._instance = instance
        self._caller = caller
        self._deadlines = deadlines
        self._watchdog = watchdog

    def __repr__(self) -> str:
        return f"<Provider {self.name} from {self.origin}>"

    async def quote(self, requirements: Requirements) -> list[Offer]:
        """Its offers, with its name filled in."""
        answer = await self._call("quote", self._deadlines.quote, requirements=requirements)
        offers = self._each(answer, Offer, "quote")
        if len({offer.id for offer in offers}) < len(offers):
            raise self._fault("quote returned two offers with the same id")
        return [replace(offer, provider=self.name) for offer in offers]

    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Send one create. Whatever is not a clear answer is `CreateUnknown`."""
        try:
            machine = await self._call(
                "provision", self._deadlines.provision, offer=offer, order=order
            )
        except CreateUnknown:
            raise
        except ProviderError as error:
            # A timeout or a crash of the plugin says nothing about what the vendor did.
            if error.kind in _NO_ANSWER and error.machine_id is None:
                raise CreateUnknown(str(error)) from error
            raise
        problem = _what_is_wrong(machine, Machine)
        if problem is not None:
            # What names the machine is kept all the same, so that it can be released.
            given = getattr(machine, "id", None)
            machine_id = str(given) if is_a(given, str, int) and given else None
            raise CreateUnknown(f"{self.name}: provision returned {problem}", machine_id=machine_id)
        made: Machine = machine
        return replace(made, provider=self.name)

    async def inventory(self) -> list[Machine]:
        """Every machine of the account, with the provider's name filled in."""
        machines = await self._call("inventory", self._deadlines.inventory)
        return [replace(m, provider=self.name) for m in self._each(machines, Machine, "inventory")]

    async def run(
        self, machine: Machine, job: Job, io: JobIO, channel: Channel | None = None
    ) -> Outcome:
        """Run a job to its end."""
        outcome = await self._call("run", None, machine=machine, job=job, io=io, channel=channel)
        if not isinstance(outcome, Outcome):
            raise self._fault(f"run returned {outcome!r}, not an outcome")
        return outcome

    async def release(self, machine: Machine) -> None:
        """Ask for the machine's destruction; returning means acknowledged."""
        await self._call("release", self._deadlines.release, machine=machine)

    async def logs(self, machine: Machine) -> str:
        """What a machine printed; nothing, where the provider cannot tell."""
        if "logs" not in self.hooks:
            return ""
        text = await self._call("logs", self._deadlines.logs, machine=machine)
        if not isinstance(text, str):
            raise self._fault(f"logs returned {_shown(text)}, not text")
        return text

    async def charges(self, since: float, until: float) -> list[Charge]:
        """What was really billed, between two moments."""
        answer = await self._call("charges", self._deadlines.charges, since=since, until=until)
        return list(self._each(answer, Charge, "charges"))

    async def balance(self) -> Money:
        """What the account has left."""
        answer = await self._call("balance", self._deadlines.balance)
        if not isinstance(answer, Money):
            raise self._fault(f"balance returned {_shown(answer)}, not money")
        return answer

    async def _call(self, hook: str, deadline: float | None, **arguments: Any) -> Any:
        label = f"{self.name}.{hook}"
        with anyio.move_on_after(deadline) as scope:
            try:
                # Without implementations pluggy returns None, which is not awaitable.
                waiting: Awaitable[Any] = getattr(self._caller, hook)(**arguments)
                return await self._watchdog.watched(label, waiting)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                if isinstance(error, ProviderError) and error.machine_id is not None:
                    raise
                if not _is_cancelled(error):
                    if isinstance(error, ProviderError):
                        raise
                    raise self._fault(f"{hook} raised {type(error).__name__}: {error}") from error
                if not isinstance(error, (Exception, SystemExit)):
                    raise
                # What a plugin makes of its own cancellation is no answer of the vendor's.
        late = scope.cancel_called
        raise ProviderError(
            f"{label} took longer than {deadline:g} s" if late else f"{label} was cancelled",
            kind=ErrorKind.TRANSIENT,
            scope=Scope.PROVIDER,
        )

    def _each(self, values: Any, kind: type[T], hook: str) -> Sequence[T]:
        """The answer to a hook that gives a list, if it is one in every part."""
        if not isinstance(values, (list, tuple)):
            raise self._fault(f"{hook} returned no list of {kind.__name__}: {_shown(values)}")
        items = cast("Sequence[T]", values)
        for item in items:
            problem = _what_is_wrong(item, kind)
            if problem is not None:
                raise self._fault(f"{hook} returned {problem}")
        return items

    def _fault(self, problem: str) -> ProviderError:
        return ProviderError(f"{self.name}: {problem}", kind=ErrorKind.PLUGIN, scope=Scope.PROVIDER)


#: Kinds of failure after which a create may have been carried out.
_NO_ANSWER: Final = frozenset({ErrorKind.TRANSIENT, ErrorKind.PLUGIN, ErrorKind.CREATE_UNKNOWN})


def _is_cancelled(error: BaseException) -> bool:
    """Whether the current task is being cancelled from outside of the hook that raised `error`.

    A hook that awaits a task of its own which was cancelled raises the same exception, and must
    not be able to end its caller with it.
    """
    import asyncio

    if anyio.current_effective_deadline() == -math.inf:
        return True
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    if not isinstance(error, asyncio.CancelledError):
        return True  # trio's own, which nobody else can make
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


_NUMBER: Final = (int, float)
_SOME_NUMBER: Final = (int, float, type(None))
_SOME_TEXT: Final = (str, type(None))

#: What the core counts on in an answer, by the name of the part: the types that it may have.
_PARTS: Final[Mapping[type, Mapping[str, tuple[type, ...]]]] = {
    Offer: {
        "id": (str,),
        "price": (Price,),
        "gpu": _SOME_TEXT,
        "count": (int,),
        **dict.fromkeys(
            (
                *("vram", "compute_capability", "cuda", "cpus", "ram", "disk", "reliability"),
                *("download", "upload", "expires_at"),
            ),
            _SOME_NUMBER,
        ),
        "region": _SOME_TEXT,
        "trust": (TrustTier, type(None)),
        "spot": (bool,),
        "single": (bool,),
        "driver": _SOME_TEXT,
        "open_ports": (int, type(None)),
        "static_ip": (bool, type(None)),
        "ssh": (bool,),
        "host": _SOME_TEXT,
        "extra": (Mapping,),
    },
    Machine: {
        "id": (str,),
        "state": (MachineState,),
        "mark": _SOME_TEXT,
        "hourly": (Money, type(None)),
        "created_at": _SOME_NUMBER,
        "progress": (str,),
        "host": _SOME_TEXT,
        "routes": (tuple,),
        "ssh": (bool,),
        "details": (Mapping,),
    },
    Charge: {"machine_id": (str,), "amount": (Money,)},
}


def _what_is_wrong(answer: object, kind: type) -> str | None:
    """Why an answer is no sound value of `kind`; ``None`` if it is."""
    if not isinstance(answer, kind):
        return f"{_shown(answer)}, which is no {kind.__name__}"
    for name, types in _PARTS[kind].items():
        value = getattr(answer, name)
        if not is_a(value, *types):
            return f"a {kind.__name__} whose {name} is {_shown(value)}"
    if isinstance(answer, Machine) and not all(is_a(route, Route) for route in answer.routes):
        return f"a Machine whose routes are {_shown(answer.routes)}"
    if not isinstance(answer, Charge) and not getattr(answer, "id", None):
        return f"a {kind.__name__} without an id"
    price = getattr(answer, "price", None)
    if price is not None:
        amounts = {name: getattr(price, name) for name in ("machine", "disk", "upload", "download")}
        for name, amount in amounts.items():
            if not isinstance(amount, Money):
                return f"a price whose {name} part is {_shown(amount)}"
        if max(abs(amounts["machine"].amount), abs(amounts["disk"].amount)) >= _MOST:
            return f"a price of {amounts['machine']} and {amounts['disk']} an hour"
    return None


#: USD an hour that sums of prices can still be worked out with.
_MOST: Final = 10**11


def _shown(value: object) -> str:
    """A value from a plugin as it is put into an error: short, whatever it is."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


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
        ProviderError: the factory failed, or what it made breaks the contract, or does not open.
    """

    def broken(error: BaseException) -> ProviderError:
        return ProviderError(
            f"{plugin.name}: {type(error).__name__}: {error}",
            kind=ErrorKind.PLUGIN,
            scope=Scope.PROVIDER,
        )

    async def make() -> Any:
        return plugin.factory(settings, emit)

    try:
        instance = await watchdog.watched(f"{plugin.name}.create", make())
        provider = _provider(plugin, instance, deadlines, watchdog)
    except ProviderError:
        raise
    except (Exception, SystemExit) as error:
        raise broken(error) from error
    if not hasattr(instance, "__aenter__"):
        yield provider
        return
    entered = False
    problem: BaseException | None = None
    # One scope around everything: a plugin may open scopes of its own (a task group) when it is
    # entered, and close them when it is left, and scopes must be closed in order.
    with anyio.CancelScope(deadline=anyio.current_time() + deadlines.open) as scope:
        try:
            await watchdog.watched(f"{plugin.name}.open", instance.__aenter__())
            entered = not scope.cancel_called
        except ProviderError:
            raise
        except (Exception, SystemExit) as error:
            if not scope.cancel_called:
                raise broken(error) from error
        if entered:
            scope.deadline = math.inf
            try:
                yield provider
            except BaseException as error:  # noqa: BLE001 - raised again below
                problem = error
            scope.shield = True
            scope.deadline = anyio.current_time() + deadlines.open
            try:
                await watchdog.watched(f"{plugin.name}.close", instance.__aexit__(None, None, None))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the work is done by now
                emit("closing failed", f"{type(error).__name__}: {error}")
    if problem is not None:
        raise problem
    if not entered:
        raise ProviderError(
            f"{plugin.name} took longer than {deadlines.open:g} s to open",
            kind=ErrorKind.PLUGIN,
            scope=Scope.PROVIDER,
        )


def _provider(plugin: Plugin, instance: Any, deadlines: Deadlines, watchdog: Watchdog) -> Provider:
    """Check an instance against the contract and wrap it."""

    def broken(problem: str) -> ProviderError:
        return ProviderError(problem, kind=ErrorKind.PLUGIN, scope=Scope.PROVIDER)

    contract = getattr(instance, "contract", _UNDECLARED)
    problem = _misfit(contract)
    if problem is not None:
        raise broken(problem)  # before its hooks are looked at: they may be of another contract
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
    problem = _senseless(facts)
    if problem is not None:
        raise broken(problem)
    required = (*_REQUIRED, "inventory") if facts.paid else _REQUIRED
    missing = [name for name in required if name not in found]
    if missing:
        raise broken(f"it lacks the hook {', '.join(missing)}")
    for name, function in found.items():
        if not inspect.iscoroutinefunction(function):
            raise broken(f"its hook {name} is not `async def`")
    hooks = frozenset(found)
    return Provider(plugin, instance, contract, facts, hooks, pm.hook, deadlines, watchdog)


#: The contract of a plugin that names none: the one that came before plugins could name it.
_UNDECLARED: Final = 1


def _misfit(contract: object) -> str | None:
    """Why a plugin for this version of the contract cannot be used; ``None`` if it can."""
    newest, oldest = hookspecs.CONTRACT_VERSION, hookspecs.OLDEST_CONTRACT
    if type(contract) is not int:
        return f"its `contract` is {_shown(contract)}, not the number of a version"
    written = f"it was written for version {contract} of the provider contract"
    if contract > newest:
        return f"{written}, and this gpubroker knows none after {newest}: update gpubroker"
    if contract < oldest:
        return f"{written}, and this gpubroker knows none before {oldest}: update the plugin"
    return None


#: Facts that may not be nothing, with the least that they must be.
_LEAST: Final = {"billing_quantum": 1e-6, "absence_readings": 1, "max_creates_at_once": 1}


def _senseless(facts: ProviderFacts) -> str | None:
    """Why the facts make no sense; ``None`` if they do."""
    for one in fields(ProviderFacts):
        value, default = getattr(facts, one.name), one.default
        if is_a(default, *_NUMBER):
            least = _LEAST.get(one.name, 0)
            if not is_a(value, *_NUMBER) or not least <= value < math.inf:
                return f"its fact {one.name} is {_shown(value)}"
        elif type(value) is not (bool if one.name == "paid" else type(default)):
            return f"its fact {one.name} is {_shown(value)}"
    if facts.paid and facts.mark_limit < _MARK:
        return f"its fact mark_limit is {facts.mark_limit}: a mark has {_MARK} characters"
    return None
