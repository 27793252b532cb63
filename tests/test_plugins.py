"""Provider plugins: found, checked against the contract, and never fatal to anything else."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker.errors import CreateUnknown, ErrorKind, InvalidValue, ProviderError, Scope
from gpubroker.hookspecs import CONTRACT_VERSION, AccountSettings, hookimpl
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import JobState, Outcome
from gpubroker.plugins import Deadlines, Plugin, Provider, discover, open_provider
from gpubroker.testing import offer
from gpubroker.transport.job_io import JobIO
from gpubroker.transport.receive import Receiver
from gpubroker.watchdog import Watchdog

AddModule = Callable[..., EntryPoint]

ORDER = Order(
    mark="gb1-aaaaaaaa-aaaaaaaaaaaaaaaa-aaaaaaaa",
    lease_id="lease-1",
    image=None,
    disk=10.0,
    ports=(),
    env={},
    price_ceiling=Money(1),
    deadline=2000.0,
)
MACHINE = Machine(id="m-1")
SHORT = Deadlines(open=0.05, quote=0.05, provision=0.05, inventory=0.05, release=0.05)


class Sound:
    """A plugin that keeps the contract, and nothing more."""

    facts: Any = ProviderFacts(paid=True)
    contract: Any

    @hookimpl
    async def quote(self, requirements: Requirements) -> Any:
        return [offer(id="a"), offer(id="b")]

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Any:
        return MACHINE

    @hookimpl
    async def inventory(self) -> Any:
        return [MACHINE]

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO) -> Any:
        return Outcome(state=JobState.EXITED, exit_code=0)

    @hookimpl
    async def release(self, machine: Machine) -> Any:
        return None


def ignore(kind: str, text: str) -> None:
    """Events are of no interest here."""


def plugin_of(instance: object) -> Plugin:
    return Plugin("acme", lambda settings, emit: instance, "acme 1.0")


@asynccontextmanager
async def opened(
    instance: object,
    deadlines: Deadlines = SHORT,
    watchdog: Watchdog | None = None,
    emit: Callable[[str, str], None] = ignore,
) -> AsyncGenerator[Provider]:
    """The provider around a plugin's object."""
    watching = watchdog or Watchdog(60.0, lambda label, seconds: None)
    plugin, account = plugin_of(instance), AccountSettings("acme")
    async with open_provider(plugin, account, emit, deadlines, watching) as provider:
        yield provider


def doing(hook: str, act: Callable[..., Any]) -> Sound:
    """A sound plugin one of whose hooks does something else."""

    async def replaced(self: Any) -> Any:
        return await act()

    return with_hooks(**{hook: hookimpl(replaced)})


def returning(hook: str, value: object) -> Sound:
    async def give() -> object:
        return value

    return doing(hook, give)


def raising(hook: str, error: BaseException) -> Sound:
    async def give() -> object:
        raise error

    return doing(hook, give)


async def hide() -> None:
    """A hook's body that takes every exception for the same answer."""
    try:
        await anyio.sleep_forever()
    except BaseException as error:
        raise ProviderError("sold out", kind=ErrorKind.CAPACITY) from error


async def call(provider: Provider, hook: str, tmp_path: Path = Path()) -> Any:
    """Call one hook with whatever it needs."""
    io = JobIO(job_id="job-1", env={}, receiver=Receiver(tmp_path, token="job-1"))
    arguments: dict[str, tuple[Any, ...]] = {
        "quote": (Requirements(),),
        "provision": (offer(), ORDER),
        "inventory": (),
        "run": (MACHINE, Job(["x"]), io),
        "release": (MACHINE,),
    }
    return await getattr(provider, hook)(*arguments[hook])


def changed(value: Any, **parts: Any) -> Any:
    """A value with parts that its type does not allow."""
    value = copy.copy(value)
    for name, part in parts.items():
        object.__setattr__(value, name, part)
    return value


HOOKS = ("quote", "provision", "inventory", "run", "release")


# ---- finding them ------------------------------------------------------------------------------


@pytest.fixture
def add_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddModule]:
    """Writes a module that can be imported, and gives the entry point that names it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    numbers = itertools.count()
    written: list[str] = []

    def add(code: str, *, name: str = "acme", attribute: str = "create") -> EntryPoint:
        module = f"throwaway_{tmp_path.name.replace('-', '_')}_{next(numbers)}"
        (tmp_path / f"{module}.py").write_text(code)
        written.append(module)
        return EntryPoint(name, f"{module}:{attribute}", "gpubroker")

    yield add
    for module in written:
        sys.modules.pop(module, None)


GOOD = "def create(settings, emit): return object()"


class TestDiscover:
    def test_the_built_in_providers_are_ordinary_plugins(self) -> None:
        """It is found by its entry point, as everybody else's is."""
        plugins, broken = discover()

        found = [(p.name, p.origin.split()[0]) for p in plugins]
        assert found == [("local", "gpubroker"), ("runpod", "gpubroker"), ("vast", "gpubroker")]
        assert broken == []

    def test_a_plugin_is_named_with_where_it_comes_from(self, add_module: AddModule) -> None:
        """The factory is loaded, and nothing is called yet."""
        point = add_module(GOOD)

        (plugin,), broken = discover([point])

        assert (plugin.name, plugin.origin, plugin.given) == ("acme", point.value, False)
        assert plugin.factory.__name__ == "create"
        assert broken == []

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("import sys; sys.exit('no key')", "SystemExit: no key"),
            ("def create(:", "SyntaxError"),
            ("x = 1", "AttributeError"),
            ("class Odd(BaseException): pass\nraise Odd('hello')", "Odd: hello"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_one_that_fails_to_import_costs_only_itself(
        self, add_module: AddModule, code: str, said: str
    ) -> None:
        """In whatever way: it is skipped and named, and the others are there."""
        points = [add_module(code, name="bad"), add_module(GOOD, name="good")]

        plugins, (broken,) = discover(points)

        assert [p.name for p in plugins] == ["good"]
        assert (broken.name, broken.origin) == ("bad", points[0].value)
        assert broken.problem.startswith("failed to import: ")
        assert said in broken.problem

    def test_an_interrupt_while_importing_is_the_users(self, add_module: AddModule) -> None:
        """Ctrl-C is not a broken plugin."""
        with pytest.raises(KeyboardInterrupt):
            discover([add_module("raise KeyboardInterrupt")])

    def test_a_name_that_two_claim_belongs_to_neither(self, add_module: AddModule) -> None:
        """Neither is imported: which of them would get the key is not for chance to say."""
        first, second = add_module("raise SystemExit"), add_module(GOOD)

        plugins, (broken,) = discover([first, second, add_module(GOOD, name="other")])

        assert [p.name for p in plugins] == ["other"]
        assert broken.problem == "the name is registered more than once"
        assert first.value in broken.origin
        assert second.value in broken.origin

    def test_one_plugin_found_twice_is_one_plugin(self, add_module: AddModule) -> None:
        """The same distribution may stand on the path twice."""
        point = add_module(GOOD)

        plugins, broken = discover([point, replace_dist(point)])

        assert [p.name for p in plugins] == ["acme"]
        assert broken == []


def replace_dist(point: EntryPoint) -> EntryPoint:
    return EntryPoint(point.name, point.value, point.group)


# ---- the contract ------------------------------------------------------------------------------


class Misspelt(Sound):
    @hookimpl
    async def qoute(self, requirements: Requirements) -> list[Offer]:
        return []


class WithoutFacts(Sound):
    facts = None


class NoInventory(Sound):
    inventory: Any = None


class Free(NoInventory):
    facts = ProviderFacts(paid=False)


def with_hooks(**hooks: Any) -> Sound:
    """A sound plugin with some hooks, or what should be hooks, replaced."""
    kind = type("Acme", (Sound,), hooks)
    instance: Sound = kind()
    return instance


@hookimpl
async def strange_argument(self: object, requirements: Requirements, cheap: bool) -> Any:
    return []


@hookimpl
def synchronous(self: object, machine: Machine) -> None: ...


async def unmarked(self: object, requirements: Requirements) -> Any:
    return []


@hookimpl
async def generating(self: object, requirements: Requirements) -> Any:
    yield offer()


@hookimpl
async def few_quote(self: object) -> Any:
    return [offer(id="few")]


@hookimpl
async def few_provision(self: object, order: Order) -> Any:
    return replace(MACHINE, mark=order.mark)


def with_facts(**facts: Any) -> Sound:
    return with_hooks(facts=ProviderFacts(paid=True, **facts))


@pytest.mark.anyio
class TestContract:
    @pytest.mark.parametrize(
        ("instance", "said"),
        [
            (Misspelt(), "unknown hook 'qoute'"),
            (with_hooks(quote=strange_argument), "cheap"),
            (with_hooks(release=synchronous), "its hook release is not `async def`"),
            (with_hooks(quote=unmarked), "it lacks the hook quote"),
            (with_hooks(quote=generating), "its hook quote is not `async def`"),
            (WithoutFacts(), "it has no `facts` of type ProviderFacts"),
            (NoInventory(), "it lacks the hook inventory"),
            (object(), "it has no `facts`"),
            (None, "it has no `facts`"),
            (with_facts(billing_quantum=0.0), "billing_quantum"),
            (with_facts(billing_quantum=math.nan), "billing_quantum"),
            (with_facts(release_margin=-1.0), "release_margin"),
            (with_facts(visibility_horizon=math.inf), "visibility_horizon"),
            (with_facts(absence_readings=0), "absence_readings"),
            (with_facts(mark_limit=37), "mark_limit"),
            (with_facts(poll_interval="soon"), "poll_interval"),
        ],
    )
    async def test_what_breaks_it_is_not_opened(self, instance: object, said: str) -> None:
        """The fault is named before anything could be rented."""
        with pytest.raises(ProviderError, match=said) as broken:
            async with opened(instance):
                pass

        assert (broken.value.kind, broken.value.scope) == (ErrorKind.PLUGIN, Scope.PROVIDER)

    @pytest.mark.parametrize(
        ("version", "said"),
        [
            (2, "this gpubroker knows none after 1: update gpubroker"),
            (0, "this gpubroker knows none before 1: update the plugin"),
            ("1", "its `contract` is '1', not the number of a version"),
        ],
    )
    async def test_one_for_another_contract_is_refused(self, version: object, said: str) -> None:
        """Before its hooks are looked at, with a sentence that says what to update."""
        instance = Sound()
        instance.contract = version

        with pytest.raises(ProviderError, match=said):
            async with opened(instance):
                pass

    async def test_the_contract_it_was_written_for_is_known(self) -> None:
        """The first one, of a plugin that does not say."""
        declared, silent = Sound(), Sound()
        declared.contract = CONTRACT_VERSION

        async with opened(declared) as one, opened(silent) as other:
            assert (one.contract, other.contract) == (CONTRACT_VERSION, 1)

    async def test_a_free_provider_needs_no_inventory(self) -> None:
        """Nothing of it can leak."""
        async with opened(Free()) as provider:
            assert provider.hooks == {"quote", "provision", "run", "release"}

    async def test_hooks_leave_out_what_they_do_not_need(self) -> None:
        """The smallest plugin stays small."""
        few = with_hooks(quote=few_quote, provision=few_provision)
        async with opened(few) as provider:
            (one,) = await provider.quote(Requirements())
            machine = await provider.provision(one, ORDER)

        assert (one.id, machine.mark) == ("few", ORDER.mark)

    @pytest.mark.parametrize(
        "error",
        [ValueError("no"), SystemExit(2), InvalidValue("price", "x", "no"), KeyError("k")],
    )
    async def test_a_factory_may_fail_in_any_way(self, error: BaseException) -> None:
        """The others are opened all the same."""

        def create(settings: AccountSettings, emit: object) -> object:
            raise error

        plugin = Plugin("acme", create, "acme 1.0")
        watchdog = Watchdog(60.0, lambda label, seconds: None)
        with pytest.raises(ProviderError, match=type(error).__name__) as failed:
            async with open_provider(plugin, AccountSettings("acme"), ignore, SHORT, watchdog):
                pass

        assert failed.value.kind is ErrorKind.PLUGIN

    async def test_a_factorys_own_provider_error_is_kept(self) -> None:
        """It may know better what is wrong than we do."""

        def create(settings: AccountSettings, emit: object) -> object:
            raise ProviderError("key refused", kind=ErrorKind.AUTH, scope=Scope.ACCOUNT)

        watchdog = Watchdog(60.0, lambda label, seconds: None)
        with pytest.raises(ProviderError, match="key refused") as failed:
            async with open_provider(
                Plugin("acme", create, "x"), AccountSettings("acme"), ignore, SHORT, watchdog
            ):
                pass

        assert failed.value.kind is ErrorKind.AUTH

    async def test_what_is_no_factory_is_named(self) -> None:
        """An entry point may name anything."""
        plugin: Any = Plugin("acme", "create", "acme 1.0")  # type: ignore[arg-type]
        watchdog = Watchdog(60.0, lambda label, seconds: None)

        with pytest.raises(ProviderError, match="not callable"):
            async with open_provider(plugin, AccountSettings("acme"), ignore, SHORT, watchdog):
                pass


# ---- opening and closing -----------------------------------------------------------------------


class Entered(Sound):
    """Says what happens to it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def __aenter__(self) -> object:
        await anyio.sleep(0)
        self.log.append("in")
        return "not the plugin"

    async def __aexit__(self, *details: object) -> None:
        await anyio.sleep(0)
        self.log.append("out")

    @hookimpl
    async def release(self, machine: Machine) -> Any:
        self.log.append("used")


class OwnTasks(Entered):
    """Has background tasks, and so a cancel scope that stays open between enter and exit."""

    async def __aenter__(self) -> object:
        self.tasks = anyio.create_task_group()
        await self.tasks.__aenter__()
        self.tasks.start_soon(anyio.sleep, 1000)
        return await super().__aenter__()

    async def __aexit__(self, *details: object) -> None:
        self.tasks.cancel_scope.cancel()
        try:
            await self.tasks.__aexit__(None, None, None)
        finally:
            await super().__aexit__()


@pytest.mark.anyio
class TestOpening:
    @pytest.mark.parametrize("kind", [Entered, OwnTasks])
    async def test_a_context_manager_is_entered_before_and_left_after_all_hooks(
        self, kind: type[Entered]
    ) -> None:
        """The place for an HTTP client, and for tasks of the plugin's own."""
        plugin = kind()
        async with opened(plugin) as provider:
            await anyio.sleep(0.1)  # longer than it may take to open
            await provider.release(MACHINE)

        assert plugin.log == ["in", "used", "out"]

    @pytest.mark.parametrize("kind", [Entered, OwnTasks])
    async def test_it_is_left_whatever_happens_inside(self, kind: type[Entered]) -> None:
        """The error goes on, and is not the plugin's business."""
        plugin = kind()
        with pytest.raises(ZeroDivisionError):
            async with opened(plugin):
                raise ZeroDivisionError

        assert plugin.log == ["in", "out"]

    @pytest.mark.parametrize("kind", [Entered, OwnTasks])
    async def test_it_is_left_when_the_caller_is_cancelled(self, kind: type[Entered]) -> None:
        """Its awaits on the way out are shielded, for as long as it may take."""
        plugin = kind()
        with anyio.move_on_after(0.02) as scope:
            async with opened(plugin):
                await anyio.sleep(10)

        assert scope.cancelled_caught
        assert plugin.log == ["in", "out"]

    async def test_one_that_never_opens_is_cut_off(self) -> None:
        """At its deadline; the broker opens with the others."""

        class Hanging(Entered):
            async def __aenter__(self) -> object:
                await anyio.sleep_forever()
                return self

        plugin = Hanging()
        with anyio.fail_after(5), pytest.raises(ProviderError, match=r"longer than 0.05 s to open"):
            async with opened(plugin):
                pass

        assert plugin.log == []

    @pytest.mark.parametrize("error", [OSError("no network"), SystemExit(1)])
    async def test_one_that_fails_to_open_is_named(self, error: BaseException) -> None:
        """Any exception is its own fault and nobody else's end."""

        class Failing(Entered):
            async def __aenter__(self) -> object:
                raise error

        with pytest.raises(ProviderError, match=type(error).__name__) as failed:
            async with opened(Failing()):
                pass

        assert failed.value.kind is ErrorKind.PLUGIN

    async def test_one_that_cannot_close_does_not_spoil_the_result(self) -> None:
        """The job is done and the machine is gone by then; the fault is only reported."""

        class Failing(Entered):
            async def __aexit__(self, *details: object) -> None:
                raise OSError("connection reset")

        said: list[tuple[str, str]] = []

        def emit(kind: str, text: str) -> None:
            said.append((kind, text))

        async with opened(Failing(), emit=emit):
            pass

        assert said == [("closing failed", "OSError: connection reset")]

    async def test_one_that_never_closes_is_cut_off(self) -> None:
        """And an error from inside is not lost over it."""

        class Hanging(Entered):
            async def __aexit__(self, *details: object) -> None:
                await anyio.sleep_forever()

        with anyio.fail_after(5):
            async with opened(Hanging()):
                pass
            with pytest.raises(ZeroDivisionError):
                async with opened(Hanging()):
                    raise ZeroDivisionError


# ---- calling -----------------------------------------------------------------------------------


@pytest.mark.anyio
class TestCalls:
    async def test_what_comes_back_bears_the_providers_name(self, tmp_path: Path) -> None:
        """Whatever the plugin put there: a name cannot be borrowed."""
        plugin = returning("quote", [replace(offer(), provider="vast")])
        async with opened(plugin) as provider:
            (one,) = await provider.quote(Requirements())
            machine = await provider.provision(one, ORDER)
            (listed,) = await provider.inventory()
            outcome = await call(provider, "run", tmp_path)

        assert [one.provider, machine.provider, listed.provider] == ["acme"] * 3
        assert outcome.exit_code == 0

    @pytest.mark.parametrize("hook", ["quote", "inventory", "release"])
    async def test_a_hanging_hook_is_cut_at_its_deadline(self, hook: str) -> None:
        """It is a passing fault of the whole provider, with the hook's name and the time."""
        async with opened(doing(hook, anyio.sleep_forever)) as provider:
            with anyio.fail_after(5), pytest.raises(ProviderError) as cut:
                await call(provider, hook)

        assert str(cut.value) == f"acme.{hook} took longer than 0.05 s"
        assert (cut.value.kind, cut.value.scope) == (ErrorKind.TRANSIENT, Scope.PROVIDER)

    async def test_a_job_has_no_deadline_of_its_own(self) -> None:
        """The lease's lifetime is one."""

        async def long() -> Outcome:
            await anyio.sleep(0.1)
            return Outcome(state=JobState.EXITED, exit_code=7)

        async with opened(doing("run", long)) as provider:
            assert (await call(provider, "run")).exit_code == 7

    @pytest.mark.parametrize("hook", [h for h in HOOKS if h != "provision"])
    @pytest.mark.parametrize(
        "error",
        [ValueError("no"), SystemExit(2), ExceptionGroup("several", [OSError()]), StopIteration()],
    )
    async def test_whatever_a_hook_raises_is_a_provider_error(
        self, hook: str, error: BaseException
    ) -> None:
        """It condemns the provider, keeps the cause, and says which hook it was."""
        async with opened(raising(hook, error)) as provider:
            with pytest.raises(ProviderError, match=f"acme: {hook} raised ") as fault:
                await call(provider, hook)

        assert (fault.value.kind, fault.value.scope) == (ErrorKind.PLUGIN, Scope.PROVIDER)
        assert fault.value.__cause__ is not None

    async def test_an_odd_exception_is_one_too(self) -> None:
        """Not everything that is raised is an `Exception`."""

        class Odd(BaseException):
            pass

        async with opened(raising("release", Odd("hello"))) as provider:
            with pytest.raises(ProviderError, match="release raised Odd: hello"):
                await call(provider, "release")

    @pytest.mark.parametrize("hook", HOOKS)
    async def test_a_provider_error_is_passed_on_as_it_is(self, hook: str) -> None:
        """Kind, scope and all: the policy decides from them."""
        said = ProviderError(
            "slow down", kind=ErrorKind.RATE_LIMIT, scope=Scope.ACCOUNT, retry_after=7
        )
        async with opened(raising(hook, said)) as provider:
            with pytest.raises(ProviderError) as passed:
                await call(provider, hook)

        assert passed.value is said

    @pytest.mark.parametrize("hook", HOOKS)
    async def test_a_cancelled_caller_is_cancelled(self, hook: str) -> None:
        """A cancellation from outside is no fault of the plugin's."""
        async with opened(doing(hook, anyio.sleep_forever), Deadlines()) as provider:
            with anyio.move_on_after(0.02) as scope:
                await call(provider, hook)

        assert scope.cancelled_caught

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("hook", HOOKS)
    async def test_a_hook_cannot_cancel_its_caller(self, hook: str) -> None:
        """A plugin that awaits a task which was cancelled has failed, and that is all."""

        async def await_a_cancelled_task() -> None:
            task = asyncio.ensure_future(asyncio.sleep(10))
            task.cancel()
            await task

        async with opened(doing(hook, await_a_cancelled_task)) as provider:
            with pytest.raises(ProviderError, match=f"{hook} raised CancelledError"):
                await call(provider, hook)

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_the_event_loops_own_cancellation_is_passed_on(self) -> None:
        """As in `asyncio.wait_for`, which knows of no cancel scope."""
        async with opened(doing("release", anyio.sleep_forever), Deadlines()) as provider:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(provider.release(MACHINE), 0.02)

    @pytest.mark.parametrize("hook", ["quote", "release"])
    async def test_what_a_hook_makes_of_its_cancellation_is_no_answer(self, hook: str) -> None:
        """One that turns every exception into "no capacity" was cut off all the same."""

        async with opened(doing(hook, hide)) as provider:
            with pytest.raises(ProviderError, match=r"took longer than 0.05 s"):
                await call(provider, hook)

    @pytest.mark.parametrize(
        ("hook", "value"),
        [
            ("quote", None),
            ("quote", "offers"),
            ("quote", [offer(), "another"]),
            ("quote", iter([offer()])),
            ("quote", [offer(id="a"), offer(id="a", price="9")]),
            ("quote", [changed(offer(), id="")]),
            ("quote", [changed(offer(), id=7)]),
            ("quote", [changed(offer(), price=0.4)]),
            ("quote", [changed(offer(), price=changed(Price(machine=Money(1)), machine=0.4))]),
            ("quote", [changed(offer(), vram="24")]),
            ("quote", [changed(offer(), count=None)]),
            ("quote", [changed(offer(), gpu=4090)]),
            ("quote", [changed(offer(), trust="verified")]),
            ("quote", [changed(offer(), spot=None)]),
            ("inventory", None),
            ("inventory", {"m-1": MACHINE}),
            ("inventory", [MACHINE, None]),
            ("inventory", [changed(MACHINE, id=7)]),
            ("inventory", [changed(MACHINE, id="")]),
            ("inventory", [changed(MACHINE, mark=b"gb1")]),
            ("inventory", [changed(MACHINE, state="gone")]),
            ("inventory", [changed(MACHINE, hourly=0.4)]),
            ("run", None),
            ("run", 0),
        ],
    )
    async def test_what_is_no_answer_is_a_fault_of_the_plugin(
        self, hook: str, value: object
    ) -> None:
        """A wrong type is named here, and not where it would break something for the others."""
        async with opened(returning(hook, value)) as provider:
            with pytest.raises(ProviderError, match=f"acme: {hook} returned") as fault:
                await call(provider, hook)

        assert (fault.value.kind, fault.value.scope) == (ErrorKind.PLUGIN, Scope.PROVIDER)

    async def test_nothing_to_rent_is_an_answer(self) -> None:
        """And so is an account without machines."""
        async with opened(returning("quote", ())) as provider:
            assert await provider.quote(Requirements()) == []
        async with opened(returning("inventory", [])) as provider:
            assert await provider.inventory() == []


@pytest.mark.anyio
class TestProvision:
    """Whatever is not a clear answer may have left a machine behind."""

    async def sent(self, instance: object) -> ProviderError:
        async with opened(instance) as provider:
            with anyio.fail_after(5), pytest.raises(ProviderError) as failed:
                await provider.provision(offer(), ORDER)
        return failed.value

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("unexpected field"),
            SystemExit(1),
            ProviderError("502", kind=ErrorKind.TRANSIENT),
            ProviderError("odd", kind=ErrorKind.PLUGIN),
            ProviderError("lost", kind=ErrorKind.CREATE_UNKNOWN),
            CreateUnknown("lost"),
        ],
    )
    async def test_a_failure_that_is_no_refusal_is_unknown(self, error: BaseException) -> None:
        """A crash of the plugin says nothing about what the vendor did."""
        assert isinstance(await self.sent(raising("provision", error)), CreateUnknown)

    async def test_a_create_that_took_too_long_is_unknown(self) -> None:
        """It may have been carried out after all."""
        assert isinstance(await self.sent(doing("provision", anyio.sleep_forever)), CreateUnknown)

    async def test_a_refusal_that_was_made_of_a_cancellation_is_none(self) -> None:
        """The plugin was cut off while it waited for the vendor's word."""

        assert isinstance(await self.sent(doing("provision", hide)), CreateUnknown)

    @pytest.mark.parametrize(
        "kind",
        [
            ErrorKind.CAPACITY,
            ErrorKind.QUOTA,
            ErrorKind.CREDIT,
            ErrorKind.AUTH,
            ErrorKind.BAD_REQUEST,
            ErrorKind.RATE_LIMIT,
            ErrorKind.HOST_BROKEN,
        ],
    )
    async def test_a_refusal_is_believed(self, kind: ErrorKind) -> None:
        """The vendor's clear no: nothing is there, and nothing is held for it."""
        said = ProviderError("no", kind=kind)

        assert await self.sent(raising("provision", said)) is said

    async def test_a_refusal_that_names_a_machine_keeps_its_id(self) -> None:
        """It is recorded and released."""
        said = ProviderError("bid too low", kind=ErrorKind.TRANSIENT, machine_id="m-9")

        assert (await self.sent(raising("provision", said))).machine_id == "m-9"

    @pytest.mark.parametrize(
        ("value", "machine_id"),
        [
            (None, None),
            ("m-1", None),
            (changed(MACHINE, id=""), None),
            (changed(MACHINE, id=None), None),
            (changed(MACHINE, id=12345), "12345"),
            (changed(MACHINE, mark=7), "m-1"),
        ],
    )
    async def test_an_answer_that_makes_no_sense_is_unknown(
        self, value: object, machine_id: str | None
    ) -> None:
        """With the machine's id, where one can be made out, so that it can be released."""
        failure = await self.sent(returning("provision", value))

        assert isinstance(failure, CreateUnknown)
        assert failure.machine_id == machine_id
        assert "acme" in str(failure)
