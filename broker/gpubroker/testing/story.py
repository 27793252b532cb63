"""The verbs that tell a scripted cloud what to do. They read like a story."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.model.machines import MachineState
from gpubroker.model.money import Money
from gpubroker.testing.script import (
    HOOKS,
    Boot,
    DoesNothing,
    Fails,
    Hangs,
    Hook,
    LosesReply,
    Script,
    Turn,
)


class Story:
    """What happens, told before it happens.

    Each verb adds one step. The steps of one hook are used up in the order in which they were
    told, one per call; `times` makes a step hold for several calls and `until` (Unix seconds;
    ``math.inf`` for ever) for every call before that time. Durations are seconds. A delay is
    told apart from what follows it, so ``create_takes(5)`` and ``next_create_loses_reply()``
    describe one create.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.script = Script()

    # ----------------------------------------------------------------------------------------
    # The market
    # ----------------------------------------------------------------------------------------

    def out_of_capacity(self, gpu: str | None = None, *, until: float = math.inf) -> None:
        """Nothing to rent, of model `gpu` or at all: no quotes, and creates are refused."""
        verb = f"out_of_capacity({gpu or ''})"
        self.script.shortages.add(verb, gpu, until=until)

    def quote_fails(
        self,
        kind: ErrorKind = ErrorKind.TRANSIENT,
        scope: Scope = Scope.PROVIDER,
        *,
        retry_after: float | None = None,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The provider cannot say what there is to rent."""
        turn = _failing("no quotes now", kind, scope, retry_after)
        self._turn("quote", f"quote_fails({kind})", turn, times, until)

    def quote_hangs(self, *, times: int | None = None, until: float | None = None) -> None:
        """The provider never answers what there is to rent."""
        self._turn("quote", "quote_hangs()", Hangs(), times, until)

    def quote_takes(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The provider takes its time to say what there is to rent."""
        self._delay("quote", f"quote_takes({seconds:g})", seconds, times, until)

    # ----------------------------------------------------------------------------------------
    # Creates
    # ----------------------------------------------------------------------------------------

    def next_create_fails(
        self,
        kind: ErrorKind = ErrorKind.CAPACITY,
        scope: Scope = Scope.OFFER,
        message: str = "",
        retry_after: float | None = None,
        *,
        leaves_machine: bool = False,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The create is refused.

        Args:
            leaves_machine: a machine comes to be all the same, and the refusal names it.
        """
        turn = _failing(message or f"refused: {kind}", kind, scope, retry_after, leaves_machine)
        self._turn("provision", f"next_create_fails({kind})", turn, times, until)

    def next_create_loses_reply(
        self,
        *,
        creates: bool = True,
        after: float = 0.0,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The machine is created and the answer is lost.

        Args:
            creates: ``False`` if no machine comes of it; nobody can tell the difference.
            after: seconds until the machine exists: a create that takes effect late.
        """
        turn = LosesReply(creates, after)
        self._turn("provision", "next_create_loses_reply()", turn, times, until)

    def next_create_hangs(self, *, times: int | None = None, until: float | None = None) -> None:
        """The machine is created and the answer never comes."""
        self._turn("provision", "next_create_hangs()", Hangs(), times, until)

    def create_takes(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The machine is created and bills at once; the answer comes later."""
        self._delay("provision", f"create_takes({seconds:g})", seconds, times, until)

    def price_rises_before_create(
        self, price: Money | str, *, times: int | None = None, until: float | None = None
    ) -> None:
        """As the create arrives, its offer costs this much per hour (USD), disk aside, and stays so.

        A create whose ceiling is lower is refused.
        """
        verb = f"price_rises_before_create({price})"
        self.script.rises.add(verb, Money(price), times=times, until=until)

    # ----------------------------------------------------------------------------------------
    # The next machine's life
    # ----------------------------------------------------------------------------------------

    def boot_takes(
        self,
        seconds: float,
        *,
        progress_every: float | None = None,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The next machine boots for so long.

        Args:
            progress_every: seconds between two changes of the progress that the provider shows.
        """
        boot = Boot(seconds, progress_every=progress_every)
        self.script.boots.add(f"boot_takes({seconds:g})", boot, times=times, until=until)

    def never_boots(self, *, times: int | None = None, until: float | None = None) -> None:
        """The next machine boots for ever, without any progress."""
        self.script.boots.add("never_boots()", Boot(math.inf), times=times, until=until)

    def boot_breaks(
        self, after: float = 0.0, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next machine boots for `after` seconds and is then broken."""
        boot = Boot(after, MachineState.BROKEN)
        self.script.boots.add("boot_breaks()", boot, times=times, until=until)

    def delivers(
        self,
        gpu: str | None,
        *,
        vram: float | None = None,
        count: int = 1,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The next machine's driver reports these cards, whatever was offered.

        Args:
            gpu: the model; ``None`` for a machine without a working driver.
            vram: GB on each card.
        """
        verb = f"delivers({gpu})"
        self.script.cards.add(verb, (gpu, vram, count), times=times, until=until)

    def preempt_after(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next machine is taken back so long after it is up: stopped, with its disk billed."""
        verb = f"preempt_after({seconds:g})"
        self.script.preemptions.add(verb, seconds, times=times, until=until)

    def machine_vanishes(
        self, after: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The machine of the next job is gone `after` seconds from the job's start."""
        verb = f"machine_vanishes({after:g})"
        self.script.vanishings.add(verb, after, times=times, until=until)

    def price_rises_under_job(
        self,
        price: Money | str,
        after: float = 0.0,
        *,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The machine of the next job costs this much per hour (USD), disk aside, from then on.

        Inventories show it, and its bill goes by that from its beginning.

        Args:
            after: seconds from the job's start.
        """
        verb = f"price_rises_under_job({price})"
        effect = (after, Money(price))
        self.script.job_rises.add(verb, effect, times=times, until=until)

    # ----------------------------------------------------------------------------------------
    # Releases and inventories
    # ----------------------------------------------------------------------------------------

    def release_fails(
        self,
        times: int | None = None,
        kind: ErrorKind = ErrorKind.TRANSIENT,
        *,
        retry_after: float | None = None,
        until: float | None = None,
    ) -> None:
        """The destroy is refused; the machine stays and bills."""
        turn = _failing("cannot destroy now", kind, Scope.PROVIDER, retry_after)
        self._turn("release", f"release_fails({kind})", turn, times, until)

    def release_does_nothing(self, times: int | None = None, *, until: float | None = None) -> None:
        """The destroy is accepted, but the machine stays and bills."""
        self._turn("release", "release_does_nothing()", DoesNothing(), times, until)

    def release_hangs(self, times: int | None = None, *, until: float | None = None) -> None:
        """The destroy is never answered; the machine stays and bills."""
        self._turn("release", "release_hangs()", Hangs(), times, until)

    def release_takes(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The destroy takes effect, and is answered, later."""
        self._delay("release", f"release_takes({seconds:g})", seconds, times, until)

    def inventory_fails(
        self,
        times: int | None = None,
        kind: ErrorKind = ErrorKind.TRANSIENT,
        *,
        until: float | None = None,
    ) -> None:
        """The list of machines cannot be had."""
        turn = _failing("no list of machines now", kind, Scope.PROVIDER)
        self._turn("inventory", f"inventory_fails({kind})", turn, times, until)

    def inventory_is_empty(self, times: int | None = None, *, until: float | None = None) -> None:
        """The list of machines comes back empty, whatever there is: a vendor's lie."""
        self._turn("inventory", "inventory_is_empty()", DoesNothing(), times, until)

    def inventory_hangs(self, times: int | None = None, *, until: float | None = None) -> None:
        """The list of machines never comes."""
        self._turn("inventory", "inventory_hangs()", Hangs(), times, until)

    def inventory_takes(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The list of machines comes late; it shows what there is when it comes."""
        self._delay("inventory", f"inventory_takes({seconds:g})", seconds, times, until)

    def revoke_key(self, at: float | None = None, *, until: float = math.inf) -> None:
        """From `at` to `until` (Unix seconds; from now on by default) every call is refused."""
        start = self.now() if at is None else at
        self.script.revocations.add("revoke_key()", start, until=until)

    def rate_limited(
        self,
        hook: Hook = "provision",
        *,
        retry_after: float | None = None,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The next call of `hook` came too soon, and does nothing: status 429.

        Args:
            retry_after: the seconds to wait that the answer names; ``None`` if it names none.
        """
        turn = _failing("too many requests", ErrorKind.RATE_LIMIT, Scope.PROVIDER, retry_after)
        self._turn(hook, f"rate_limited({hook})", turn, times, until)

    # ----------------------------------------------------------------------------------------
    # Jobs
    # ----------------------------------------------------------------------------------------

    def job(
        self,
        *,
        seconds: float = 0.0,
        exit_code: int = 0,
        stdout: bytes = b"",
        stderr: bytes = b"",
        writes: Mapping[str, bytes] | None = None,
    ) -> None:
        """All of the next job at once; the other verbs tell parts of it."""
        self.job_takes(seconds)
        self.job_exits(exit_code)
        self.job_prints(stdout, stderr)
        self.job_writes(writes or {})

    def job_takes(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next job runs for so long; for ever, if ``math.inf``."""
        verb = f"job_takes({seconds:g})"
        self.script.job_seconds.add(verb, seconds, times=times, until=until)

    def job_exits(self, code: int, *, times: int | None = None, until: float | None = None) -> None:
        """The next job ends with this exit code."""
        self.script.job_exits.add(f"job_exits({code})", code, times=times, until=until)

    def job_prints(
        self,
        stdout: bytes = b"",
        stderr: bytes = b"",
        *,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The next job prints this as soon as it starts."""
        printed = (stdout, stderr)
        self.script.job_prints.add("job_prints()", printed, times=times, until=until)

    def job_writes(
        self, files: Mapping[str, bytes], *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next job writes these files as soon as it starts; those wanted are brought back."""
        verb = f"job_writes({', '.join(files)})"
        self.script.job_writes.add(verb, dict(files), times=times, until=until)

    def machine_sends(
        self, files: Mapping[str, bytes], *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next job's machine sends these files unasked, whatever their names: it is hostile."""
        verb = f"machine_sends({', '.join(files)})"
        self.script.machine_sends.add(verb, dict(files), times=times, until=until)

    def job_fails_to_start(
        self, message: str, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next job's command cannot be started."""
        verb = f"job_fails_to_start({message})"
        self.script.job_start_failures.add(verb, message, times=times, until=until)

    def setup_takes(
        self, seconds: float, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next set-up runs for so long."""
        verb = f"setup_takes({seconds:g})"
        self.script.setup_seconds.add(verb, seconds, times=times, until=until)

    def setup_exits(
        self, code: int, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next set-up ends with this exit code."""
        self.script.setup_exits.add(f"setup_exits({code})", code, times=times, until=until)

    # ----------------------------------------------------------------------------------------
    # Anything else
    # ----------------------------------------------------------------------------------------

    def next_call_raises(
        self,
        hook: Hook,
        error: BaseException,
        *,
        times: int | None = None,
        until: float | None = None,
    ) -> None:
        """The next call of `hook` raises `error`, which need not be a `ProviderError`."""
        turn = Fails(lambda _: error)
        self._turn(hook, f"next_call_raises({hook}, {error!r})", turn, times, until)

    def next_call_hangs(
        self, hook: Hook, *, times: int | None = None, until: float | None = None
    ) -> None:
        """The next call of `hook` never returns."""
        self._turn(hook, f"next_call_hangs({hook})", Hangs(), times, until)

    def expects_no(self, *hooks: Hook) -> None:
        """From now on a call of these hooks, of any where none is named, breaks the story.

        It is answered as ever; `assert_contract_kept` names it.
        """
        self.script.unexpected.update(hooks or HOOKS)

    @property
    def told(self) -> list[str]:
        """What was told and has happened, at least in part."""
        return self.script.happened()

    def all_is_well(self) -> None:
        """From now on everything goes well and at once: nothing told so far holds any more."""
        self.script.end()

    def _turn(
        self, hook: Hook, verb: str, turn: Turn, times: int | None, until: float | None
    ) -> None:
        self.script.turns[hook].add(verb, turn, times=times, until=until)

    def _delay(
        self, hook: Hook, verb: str, seconds: float, times: int | None, until: float | None
    ) -> None:
        self.script.delays[hook].add(verb, seconds, times=times, until=until)


def _failing(
    message: str,
    kind: ErrorKind,
    scope: Scope,
    retry_after: float | None = None,
    leaves_machine: bool = False,
) -> Fails:
    def error(machine_id: str | None) -> ProviderError:
        if kind is ErrorKind.CREATE_UNKNOWN:
            return CreateUnknown(message, machine_id=machine_id)
        return ProviderError(
            message, kind=kind, scope=scope, retry_after=retry_after, machine_id=machine_id
        )

    return Fails(error, leaves_machine)
