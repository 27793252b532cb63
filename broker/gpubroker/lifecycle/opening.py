"""Open the parts of a broker: the ledger first, then every provider that can be opened."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from anyio.abc import TaskGroup

from gpubroker.errors import InvalidValue, ProviderError
from gpubroker.ledger.access import open_ledger
from gpubroker.ledger.mark_key import fingerprint, key_file, load_mark_key
from gpubroker.lifecycle.lease_files import LeaseFiles
from gpubroker.lifecycle.owner import Identity
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.readings import Readings
from gpubroker.lifecycle.reaping.reap import Reaper
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.events import EventKind
from gpubroker.model.places import Place, PostgresUrl
from gpubroker.plugins import BrokenPlugin, Deadlines, Plugin, discover, open_provider
from gpubroker.settings import Settings, state_home
from gpubroker.watchdog import Watchdog

#: Seconds to wait for other processes that hold the ledger.
_PATIENCE = 10.0

#: Seconds that a plugin may hold the event loop before it is named.
_BLOCKING = 1.0


async def open_parts(
    stack: AsyncExitStack,
    settings: Settings,
    plugins: Iterable[Plugin] | None,
    *,
    deadlines: Deadlines,
    now: Callable[[], float],
    seed: int | None,
) -> Parts:
    """Everything that an open broker needs; `stack` closes it again.

    A provider that cannot be opened is named in ``parts.broken`` and costs nothing else.

    Raises:
        LedgerError: the durable record cannot be used.
        InvalidValue: the ledger needs a shared mark key, and there is none.
    """
    # Made here and not with the broker: forked workers must not draw the same ids.
    source = random.Random(seed)  # noqa: S311 - ids and jitter; keys come from the system
    entropy = os.urandom if seed is None else source.randbytes
    place = None if str(settings.ledger) == ":memory:" else settings.ledger
    ledger = await stack.enter_async_context(
        open_ledger(place, entropy=entropy(5), patience=_PATIENCE, source=source)
    )
    concerns = await ledger(lambda ledger: ledger.concerns())
    new = await ledger(lambda ledger: ledger.new)
    if new and isinstance(place, Path) and key_file(place).exists():
        concerns.append(
            f"the ledger {place} is new, but its mark key is not; if the former one was lost,"
            " `gpubroker adopt` finds its machines"
        )
    ledger_id = await ledger(lambda ledger: ledger.id)
    in_use = await ledger(lambda ledger: ledger.anything_open())
    mark_key = load_mark_key(place, os.environ, entropy(32), needed=in_use)
    concerns += await ledger(lambda ledger: ledger.other_mark_key(fingerprint(mark_key)))
    parts = Parts(
        ledger=ledger,
        ledger_id=ledger_id,
        former_ids=await ledger(lambda ledger: ledger.former_ids()),
        mark_key=mark_key,
        mark_key_shared=bool(os.environ.get("GPUBROKER_MARK_KEY")),
        concerns=concerns,
        identity=Identity.own(f"broker-{source.getrandbits(48):012x}"),
        now=now,
        source=source,
        budget=settings.budget,
        files=_lease_files(place, ledger_id),
    )
    await _open_providers(stack, parts, settings, plugins, deadlines)
    return parts


def set_to_work(parts: Parts, tasks: TaskGroup, *, sweep: bool) -> tuple[Supervisor, Reaper]:
    """Say what is wrong with the ledger, and start what goes on for as long as a broker is open.

    Args:
        sweep: look for leaked machines at the start and from time to time.
    """
    for concern in parts.concerns:
        parts.emit(EventKind.ALARM, concern)
    supervisor = Supervisor(parts, tasks)
    reaper = Reaper(parts, supervisor)
    supervisor.start(supervisor.watch)
    supervisor.start(supervisor.keep_alive)
    supervisor.start(reaper.spending.loop)
    if sweep:
        supervisor.start(reaper.loop)
    else:
        reaper.done.set()
    return supervisor, reaper


def _lease_files(place: Place | None, ledger_id: str) -> LeaseFiles | None:
    """Beside the ledger's file; on this host only, where the ledger is shared by several."""
    if place is None:
        return None
    if isinstance(place, PostgresUrl):
        return LeaseFiles(state_home(os.environ) / f"{ledger_id}.leases")
    return LeaseFiles(place.absolute().with_name(f"{place.name}.leases"))


async def _open_providers(
    stack: AsyncExitStack,
    parts: Parts,
    settings: Settings,
    plugins: Iterable[Plugin] | None,
    deadlines: Deadlines,
) -> None:
    def blocking(label: str, seconds: float) -> None:
        # May be called from the watching thread, so it only leaves a note.
        name, _, hook = label.partition(".")
        parts.blocking[name] = f"its hook {hook} blocked the event loop for {seconds:.1f} s"

    watchdog = Watchdog(_BLOCKING, blocking)
    watchdog.start()
    stack.callback(watchdog.stop)
    found, broken = discover() if plugins is None else (list(plugins), list[BrokenPlugin]())
    parts.broken += broken
    for plugin in found:

        def emit(kind: str, text: str, name: str = plugin.name) -> None:
            parts.emit(EventKind.NOTE, f"{kind}: {text}", provider=name)

        account = settings.account(plugin.name)
        opening = open_provider(plugin, account, emit, deadlines, watchdog)
        try:
            provider = await stack.enter_async_context(opening)
        except (ProviderError, InvalidValue) as error:
            parts.broken.append(BrokenPlugin(plugin.name, plugin.origin, str(error)))
        else:
            account_known = account.key is not None or account.url is not None
            provider.has_account = plugin.given or not provider.facts.paid or account_known
            parts.providers[plugin.name] = provider
            parts.readings[plugin.name] = Readings(provider, parts.now)
